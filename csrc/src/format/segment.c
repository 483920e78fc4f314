/* SPDX-License-Identifier: MIT */
/*
 * segment.c - a segment file's life: created and given a header by the writer, opened and checked by
 * anybody, sealed by the writer. Walking and finding records is locate.c.
 *
 * Invariant: a chron__seg that was opened has a header that fits its name, its queue and its file's size,
 * so every offset below `size` can be read.
 */
#include "format/segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/header.h"

#define READ_BYTES 65536u

static chron__seg *seg_new(const chron__queue *q)
{
    chron__seg *seg = calloc(1, sizeof *seg);

    if (!seg)
        return NULL;
    seg->io = q->io;
    seg->fd = -1;
    seg->size = q->segment_size;
    seg->data_offset = chron__data_offset(q->segment_size);
    seg->was_used = q->reuses;
    chron__set32(&seg->references, 1);
    return seg;
}

chron__seg *chron__seg_retain(chron__seg *seg)
{
    CHRON__ASSERT(chron__get32(&seg->references) > 0);
    (void)chron__count_up32(&seg->references); /* [REFS] */
    return seg;
}

void chron__seg_release(chron__seg *seg)
{
    CHRON__ASSERT(!seg || chron__get32(&seg->references) > 0);
    if (!seg || chron__count_down32(&seg->references) > 0) /* [REFS] */
        return;
    if (seg->map.base)
        seg->io->unmap(seg->io, &seg->map);
    if (seg->fd >= 0)
        seg->io->close_file(seg->io, seg->fd);
    free(seg);
}

void chron__seg_forget(chron__seg *seg)
{
    if (!seg)
        return;
    if (seg->fd >= 0)
        seg->io->close_file(seg->io, seg->fd); /* the child's own copy */
    seg->fd = -1;
    if (chron__count_down32(&seg->references) > 0) /* [REFS] views in the child still need a reader's mapping */
        return;
    chron__map_forget(&seg->map);
    free(seg);
}

int chron__seg_fail_fault(const chron__seg *seg, const char *then)
{
    char name[CHRON__NAME_BYTES];
    char what[64];

    chron__segment_name(seg->base_seq, name);
    (void)snprintf(what, sizeof what, "the segment that begins with seq %" PRIu64, seg->base_seq);
    return chron__at(chron__fail_fault(what, then), name, 0, seg->base_seq);
}

/* *is_stale: it is the header of a segment that the file was before. */
static int check_header(const chron__queue *q, chron__seg *seg, uint64_t base_seq, const char *name, int *is_stale)
{
    uint8_t copy[sizeof(chron__file_header)];
    chron__file_header header;
    int status;

    memcpy(copy, seg->map.base, sizeof copy);
    status = chron__header_decode(copy, CHRON__MAGIC_SEGMENT, q->uuid, name, &header);
    if (status < 0)
        return status;
    *is_stale = seg->was_used && header.base_seq < base_seq;
    if (header.base_seq != base_seq)
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "%s says that it begins with seq %" PRIu64 ": it was renamed, or is damaged", name,
                                     header.base_seq),
                         name, 0, base_seq);
    if (header.segment_size != q->segment_size || header.data_offset != seg->data_offset ||
        header.stride != CHRON__STRIDE)
        return chron__at(chron__fail(CHRON_ECORRUPT, "%s has another geometry than queue.meta", name), name, 0,
                         base_seq);
    CHRON__ASSERT(seg->map.bytes == seg->size && seg->data_offset < seg->size);
    seg->base_seq = base_seq;
    seg->prev_base = header.prev_base;
    seg->created_ns = header.created_ns;
    seg->epoch = header.epoch;
    return 0;
}

/* Maps the file `fd`, which seg takes over. */
static int map_file(chron__seg *seg, int fd, int writable, const char *name)
{
    const chron__io *io = seg->io;
    int status = -ENOMEM;

    if (seg->size <= SIZE_MAX)
        status = io->map(io, fd, (size_t)seg->size, writable ? CHRON__MAP_WRITE | CHRON__MAP_DONTFORK : 0, &seg->map);
    seg->fd = fd;
    if (status == -ERANGE)
        return chron__at(chron__fail(CHRON_ECORRUPT, "%s is cut short: it is smaller than its queue's segments", name),
                         name, 0, CHRON_SEQ_NONE);
    return status < 0 ? chron__fail_sys(status, name, "cannot map %s", name) : 0;
}

/* The header, if it can be had: else what is known without it. */
static int take_header(const chron__queue *q, chron__seg *seg, uint64_t base_seq, int flags, const char *name)
{
    int is_stale = 0;
    int status;

    if (flags & CHRON__SEG_UNCHECKED) {
        seg->base_seq = base_seq;
        return 0;
    }
    status = check_header(q, seg, base_seq, name, &is_stale);
    if (status < 0 && chron__map_faulted(&seg->map)) { /* the zeros that were checked are the guard's */
        seg->base_seq = base_seq;
        return chron__seg_fail_fault(seg, "");
    }
    if (status != -CHRON_ECORRUPT || !(flags & CHRON__SEG_HEADLESS) ||
        (chron__header_is_whole(seg->map.base) && !is_stale))
        return status; /* a whole one is that of another segment, or queue */
    seg->headless = 1;
    seg->base_seq = base_seq;
    seg->prev_base = CHRON_SEQ_NONE;
    return 0;
}

/* It may be a copy with holes. */
static int fill(const chron__seg *seg, const char *name)
{
    int status = seg->io->fill(seg->io, seg->fd, seg->size);

    return status < 0 ? chron__fail_sys(status, name, "cannot allocate what %s lacks, which is a copy with holes", name)
                      : 0;
}

/* A page that the device does not give becomes one of zeros. Needs the descriptor. */
static int blank_unreadable(chron__seg *seg, const char *name)
{
    uint8_t buffer[READ_BYTES];

    for (uint64_t at = 0; at < seg->size; at += sizeof buffer) {
        size_t bytes = seg->size - at < sizeof buffer ? (size_t)(seg->size - at) : sizeof buffer;
        int64_t status = seg->io->read_at(seg->io, seg->fd, buffer, bytes, at);

        for (size_t page = 0; status == -EIO && page < bytes; page += CHRON__PAGE) {
            status = seg->io->read_at(seg->io, seg->fd, buffer, CHRON__PAGE, at + page);
            if (status != -EIO)
                continue;
            status = chron__map_blank(&seg->map, at + page, CHRON__PAGE);
            seg->is_remnant = 1;
        }
        if (status < 0)
            return chron__fail_sys((int)status, name, "cannot read %s", name);
    }
    return 0;
}

/* How much of a file of `bytes` bytes is mapped. 0 or a failure. */
static int take_size(const chron__queue *q, chron__seg *seg, uint64_t bytes, int flags, const char *name)
{
    if (bytes == q->segment_size)
        return 0;
    if (flags & CHRON__SEG_SALVAGE && bytes >= seg->data_offset + 2u * CHRON__RECORD_HEADER) {
        seg->size = bytes < q->segment_size ? bytes / CHRON__ALIGN * CHRON__ALIGN : q->segment_size;
        seg->is_remnant = 1;
        return 0;
    }
    return chron__at(chron__fail(CHRON_ECORRUPT, "%s has %" PRIu64 " bytes; this queue's segments have %" PRIu64, name,
                                 bytes, q->segment_size),
                     name, 0, CHRON_SEQ_NONE);
}

static int gone(uint64_t base_seq, const char *name)
{
    return chron__at(chron__fail(CHRON_EGONE, "there is no segment %s", name), name, 0, base_seq);
}

static int fail_open(int status, uint64_t base_seq, int flags, const char *name)
{
    if (status == -ENOENT)
        return gone(base_seq, name);
    if (status == -EINVAL || status == -ELOOP || (status == -EIO && flags & CHRON__SEG_SALVAGE))
        return chron__at(chron__fail(CHRON_ECORRUPT, "%s is no regular file, or cannot be read at all", name), name, 0,
                         base_seq);
    return chron__fail_sys(status, name, "cannot open %s", name);
}

/*
 * Who shares a file keeps the writer from using it for other records (write/reuse.c). In a queue that does not reuse this is
 * only in case it begins to, and may as well be forbidden.
 */
static int share(const chron__queue *q, const chron__seg *seg, uint64_t base_seq, const char *name)
{
    int status = q->fs & CHRON__FS_REUSE ? q->io->share(q->io, seg->fd) : 0;

    if (status == -EAGAIN) /* the writer has given it up since the name was looked up */
        return gone(base_seq, name);
    return status < 0 && (q->reuses || q->meta_lost) ? chron__fail_sys(status, name, "cannot lock %s", name) : 0;
}

/* Map the file `fd`, which seg takes over, and look at what is in it: not before it is shared. */
static int take_file(const chron__queue *q, chron__seg *seg, int fd, uint64_t base_seq, int flags, const char *name)
{
    uint64_t bytes = 0;
    int status = seg->io->file_size(seg->io, fd, &bytes);

    seg->fd = fd;
    if (status < 0)
        return chron__fail_sys(status, name, "cannot open %s", name);
    status = share(q, seg, base_seq, name);
    if (status == 0)
        status = take_size(q, seg, bytes, flags, name);
    if (status == 0)
        status = map_file(seg, fd, flags & CHRON__SEG_WRITE, name);
    if (status == 0 && flags & CHRON__SEG_SALVAGE)
        status = blank_unreadable(seg, name);
    if (status == 0)
        status = take_header(q, seg, base_seq, flags, name);
    /* A file that is about to become another segment has lost this name before. */
    if ((status == -CHRON_ECORRUPT || seg->headless) && q->io->same_file(q->io, fd, q->dir, name) == 0)
        return gone(base_seq, name);
    return status == 0 && flags & CHRON__SEG_WRITE ? fill(seg, name) : status;
}

int chron__seg_open(const chron__queue *q, uint64_t base_seq, int flags, chron__seg **out)
{
    const chron__io *io = q->io;
    char name[CHRON__NAME_BYTES];
    chron__seg *seg;
    int status;
    int fd;

    *out = NULL;
    CHRON__ASSERT(!(flags & CHRON__SEG_SALVAGE) || !(flags & CHRON__SEG_WRITE));
    chron__segment_name(base_seq, name);
    fd = io->open_file(io, q->dir, name, flags & CHRON__SEG_WRITE ? CHRON__OPEN_WRITE : CHRON__OPEN_READ, 0);
    if (fd < 0)
        return fail_open(fd, base_seq, flags, name);
    seg = seg_new(q);
    if (!seg) {
        io->close_file(io, fd);
        return chron__fail_sys(-ENOMEM, name, "cannot open %s", name);
    }
    status = take_file(q, seg, fd, base_seq, flags, name);
    if (status < 0) {
        chron__seg_release(seg);
        return status;
    }
    if (!(flags & (CHRON__SEG_WRITE | CHRON__SEG_KEEP))) {
        io->close_file(io, seg->fd);
        seg->fd = -1;
    }
    *out = seg;
    return 0;
}

int chron__seg_discard(const chron__queue *q, chron__seg *seg, const char *temporary, int status)
{
    chron__seg_release(seg);
    (void)q->io->unlink(q->io, q->dir, temporary);
    return status;
}

int chron__seg_create(const chron__queue *q, const char *temporary, unsigned mode, chron__seg **out)
{
    const chron__io *io = q->io;
    chron__seg *seg;
    int status;
    int fd;

    *out = NULL;
    (void)io->unlink(io, q->dir, temporary); /* left by a crash, or by a failure further down */
    fd = io->open_file(io, q->dir, temporary, CHRON__OPEN_CREATE | CHRON__OPEN_EXCLUSIVE, mode);
    if (fd < 0)
        return chron__fail_sys(fd, temporary, "cannot create a segment file");
    seg = seg_new(q);
    if (!seg) {
        io->close_file(io, fd);
        return chron__fail(CHRON_ENOMEM, "no memory for another segment");
    }
    seg->fd = fd;
    status = io->allocate(io, fd, seg->size);
    if (status < 0)
        return chron__seg_discard(
            q, seg, temporary,
            chron__fail_sys(status, temporary, "cannot allocate a segment of %" PRIu64 " bytes", seg->size));
    *out = seg;
    return 0;
}

int chron__seg_open_made(const chron__queue *q, const char *temporary, chron__seg **out)
{
    chron__seg *seg;
    int status;
    int fd = q->io->open_file(q->io, q->dir, temporary, CHRON__OPEN_WRITE, 0);

    *out = NULL;
    if (fd < 0)
        return fd == -ENOENT ? -CHRON_EGONE : chron__fail_sys(fd, temporary, "cannot open a prepared segment");
    seg = seg_new(q);
    if (!seg) {
        q->io->close_file(q->io, fd);
        return chron__fail(CHRON_ENOMEM, "no memory for another segment");
    }
    status = map_file(seg, fd, 1, temporary);
    if (status < 0)
        chron__seg_release(seg);
    else
        *out = seg;
    return status;
}

int chron__seg_zero(const chron__queue *q, chron__seg *seg, const char *temporary)
{
    static uint8_t zeros[CHRON__ZERO_PIECE]; /* not const: so that it takes no room in the library's file */
    uint64_t left = seg->size - seg->zeroed;
    uint64_t bytes = left < sizeof zeros ? left : sizeof zeros;
    int64_t status;

    CHRON__ASSERT(!seg->map.base); /* a mapped one may have records */
    status = q->io->write_at(q->io, seg->fd, zeros, (size_t)bytes, seg->zeroed);
    if (status < 0)
        return chron__seg_discard(q, seg, temporary,
                                  chron__fail_sys((int)status, temporary, "cannot prepare a segment"));
    seg->zeroed += bytes;
    return 0;
}

int chron__seg_map(const chron__queue *q, chron__seg *seg, const char *temporary)
{
    int status = map_file(seg, seg->fd, 1, temporary);

    if (status < 0)
        return chron__seg_discard(q, seg, temporary, status);
    chron__set64(&seg->touched, 0);
    return 0;
}

int chron__seg_adopt(const chron__queue *q, const char *temporary, chron__seg **out)
{
    chron__seg *seg = seg_new(q);

    *out = NULL;
    if (!seg)
        return -ENOMEM;
    seg->fd = q->io->open_file(q->io, q->dir, temporary, CHRON__OPEN_WRITE, 0);
    if (seg->fd < 0) {
        int status = seg->fd;

        free(seg);
        return status;
    }
    *out = seg;
    return 0;
}

int chron__seg_wipe(const chron__queue *q, chron__seg *seg, const char *temporary, uint64_t bytes)
{
    uint64_t from = seg->zeroed;
    int is_mapped = seg->map.base != NULL;
    int status = is_mapped ? 0 : map_file(seg, seg->fd, 1, temporary);

    if (status < 0)
        return chron__seg_discard(q, seg, temporary, status);
    CHRON__ASSERT(seg->is_old && from <= seg->size);
    if (bytes > seg->size - from)
        bytes = seg->size - from;
    if (chron__get64(&seg->touched) <= from) /* mapped anew: not one fault for each page */
        chron__populate(seg->map.base + from, (size_t)bytes);
    memset(seg->map.base + from, 0, (size_t)bytes);
    seg->zeroed = from + bytes;
    if (chron__get64(&seg->touched) < seg->zeroed)
        chron__set64(&seg->touched, seg->zeroed);
    if (chron__map_faulted(&seg->map))
        return chron__seg_discard(q, seg, temporary, chron__fail_fault(temporary, ""));
    return 0;
}

void chron__seg_write_header(const chron__queue *q, chron__seg *seg, uint64_t base_seq, uint64_t prev_base,
                             uint64_t epoch, uint64_t created_ns)
{
    chron__file_header header = {
        .stride = CHRON__STRIDE,
        .created_ns = created_ns,
        .segment_size = seg->size,
        .base_seq = base_seq,
        .prev_base = prev_base,
        .data_offset = seg->data_offset,
        .epoch = epoch,
    };

    header.incompat = q->reuses ? CHRON__INCOMPAT_REUSE : 0;
    memcpy(header.magic, CHRON__MAGIC_SEGMENT, sizeof header.magic);
    memcpy(header.uuid, q->uuid, sizeof header.uuid);
    CHRON__ASSERT(prev_base == CHRON_SEQ_NONE || prev_base < base_seq); /* no segment but the newest is empty */
    CHRON__ASSERT(epoch > 0);
    chron__header_encode(&header, seg->map.base);
    seg->base_seq = base_seq;
    seg->prev_base = prev_base;
    seg->epoch = epoch;
    seg->created_ns = created_ns;
}

int chron__seg_is_stale(const chron__seg *seg, const chron__rec *rec)
{
    if (!seg->was_used || (chron__rec_seq(rec) >= seg->base_seq && chron__rec_epoch(rec) >= (uint32_t)seg->epoch))
        return 0;
    return chron__rec_crc_ok(rec, rec->payload); /* else it may be one of ours, and damaged */
}

/* ------------------------------------------------------------------------------------------- seal */

_Static_assert(CHRON__SEAL_CLOCK_AT == CHRON__SEAL_AT + sizeof(chron__seal), "one follows the other");

#define SEAL_CRC_FROM (offsetof(chron__seal, flags))
#define SEAL_CRC_BYTES (offsetof(chron__seal, crc) - SEAL_CRC_FROM)

#define CLOCK_CRC_BYTES (offsetof(chron__seal_clock, crc))

/* Advice: without it the wall clock counts. */
static void decode_clock(const uint8_t *clock, chron__moment *sealed)
{
    sealed->boot_ns = 0;
    sealed->boot = 0;
    if (chron__read_le64(clock) != sealed->clock_ns ||
        chron__read_le32(clock + CLOCK_CRC_BYTES) != chron_crc32c(0, clock, CLOCK_CRC_BYTES))
        return;
    sealed->boot_ns = chron__read_le64(clock + offsetof(chron__seal_clock, boot_ns));
    sealed->boot = chron__read_le32(clock + offsetof(chron__seal_clock, boot));
}

/* `seal` and what follows it, up to the end of the clock. */
static int decode_seal(const uint8_t *seal, uint32_t state, uint64_t base_seq, chron__seal_value *out)
{
    if (state == CHRON__SEAL_OPEN)
        return 0;
    out->flags = chron__read_le32(seal + offsetof(chron__seal, flags));
    out->records = chron__read_le64(seal + offsetof(chron__seal, records));
    out->end_offset = chron__read_le64(seal + offsetof(chron__seal, end_offset));
    out->last_seq = chron__read_le64(seal + offsetof(chron__seal, last_seq));
    out->first_ts = chron__read_le64(seal + offsetof(chron__seal, first_ts));
    out->last_ts = chron__read_le64(seal + offsetof(chron__seal, last_ts));
    out->sealed.clock_ns = chron__read_le64(seal + offsetof(chron__seal, sealed_ns));
    decode_clock(seal + sizeof(chron__seal), &out->sealed);
    if (state != CHRON__SEAL_SEALED || out->last_seq != base_seq + out->records - 1u ||
        chron__read_le32(seal + offsetof(chron__seal, crc)) != chron_crc32c(0, seal + SEAL_CRC_FROM, SEAL_CRC_BYTES)) {
        char name[CHRON__NAME_BYTES];

        chron__segment_name(base_seq, name);
        return chron__at(chron__fail(CHRON_ECORRUPT, "the seal of %s is damaged", name), name, CHRON__SEAL_AT,
                         base_seq);
    }
    return 1;
}

int chron__seg_seal_load(const chron__seg *seg, chron__seal_value *out)
{
    uint8_t copy[sizeof(chron__seal) + sizeof(chron__seal_clock)];
    const uint8_t *seal = seg->map.base + CHRON__SEAL_AT;
    uint32_t state = chron__load_acquire_le32(seal); /* [SEAL] with chron__seg_seal_store */

    if (state == CHRON__SEAL_OPEN)
        return 0;
    memcpy(copy, seal, sizeof copy);
    return decode_seal(copy, state, seg->base_seq, out);
}

int chron__seal_decode(const uint8_t *page, uint64_t base_seq, chron__seal_value *out)
{
    return decode_seal(page + CHRON__SEAL_AT, chron__read_le32(page + CHRON__SEAL_AT), base_seq, out);
}

static void store_clock(uint8_t *clock, const chron__moment *sealed)
{
    chron__write_le64(clock, sealed->clock_ns);
    chron__write_le64(clock + offsetof(chron__seal_clock, boot_ns), sealed->boot_ns);
    chron__write_le32(clock + offsetof(chron__seal_clock, boot), sealed->boot);
    chron__write_le32(clock + CLOCK_CRC_BYTES, chron_crc32c(0, clock, CLOCK_CRC_BYTES));
}

void chron__seg_seal_store(chron__seg *seg, const chron__tally *tally, uint64_t end_offset)
{
    uint8_t *seal = seg->map.base + CHRON__SEAL_AT;
    chron__moment sealed;

    chron__moment_now(&sealed);
    store_clock(seal + sizeof(chron__seal), &sealed);
    chron__write_le32(seal + offsetof(chron__seal, flags), tally->goes_back ? 0 : CHRON__SEAL_MONOTONE);
    chron__write_le64(seal + offsetof(chron__seal, records), tally->records);
    chron__write_le64(seal + offsetof(chron__seal, end_offset), end_offset);
    chron__write_le64(seal + offsetof(chron__seal, last_seq), seg->base_seq + tally->records - 1u);
    chron__write_le64(seal + offsetof(chron__seal, first_ts), tally->first_ts);
    chron__write_le64(seal + offsetof(chron__seal, last_ts), tally->last_ts);
    chron__write_le64(seal + offsetof(chron__seal, sealed_ns), sealed.clock_ns);
    chron__write_le32(seal + offsetof(chron__seal, reserved), 0);
    chron__write_le32(seal + offsetof(chron__seal, crc), chron_crc32c(0, seal + SEAL_CRC_FROM, SEAL_CRC_BYTES));
    CHRON__ASSERT(end_offset % CHRON__ALIGN == 0 && end_offset <= seg->size - CHRON__RECORD_HEADER);
    CHRON__ASSERT(end_offset - seg->data_offset >= tally->records * CHRON__RECORD_HEADER);
    CHRON__STEP("seal: fields written");
    chron__store_release_le32(seal, CHRON__SEAL_SEALED); /* [SEAL] with chron__seg_seal_load */
}

void chron__seg_unseal(chron__seg *seg)
{
    uint8_t *seal = seg->map.base + CHRON__SEAL_AT;

    chron__store_release_le32(seal, CHRON__SEAL_OPEN); /* [SEAL] with chron__seg_seal_load */
    memset(seal + 4, 0, sizeof(chron__seal) - 4u + sizeof(chron__seal_clock));
}
