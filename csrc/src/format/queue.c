/* SPDX-License-Identifier: MIT */
/*
 * queue.c - the queue directory. Files are always opened relative to its descriptor, so a queue that is
 * renamed while it is in use stays whole. Only those functions write that make queue.meta.
 *
 * Invariants of an opened chron__queue:
 *  - queue.meta has this format's version and no feature that is not known here; segment_size is one that was allowed.
 *  - uuid is queue.meta's, and every other file of the queue has to carry it.
 *  - What chron__queue_list finds are bases in ascending order, each once; other names are nobody's business.
 */
#include "format/queue.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/step.h"
#include "format/header.h"

#define SEQ_DIGITS 20
#define SEGMENT_SUFFIX ".seg"

int chron__queue_open_dir(chron__queue *q, const chron__io *io, const char *path, uint32_t flags)
{
    memset(q, 0, sizeof *q);
    q->io = io;
    q->meta_fd = -1;
    q->dir = io->open_dir(io, -1, path);
    if (q->dir == -ENOENT)
        return chron__fail(CHRON_ENOQUEUE, "there is no queue at %s: no such directory", path);
    if (q->dir == -ENOTDIR)
        return chron__fail(CHRON_ENOQUEUE, "there is no queue at %s: a queue is a directory, this is not one", path);
    if (q->dir < 0)
        return chron__fail_sys(q->dir, "", "cannot open the directory %s", path);
    q->fs = io->fs_kind(io, q->dir);
    if (q->fs < 0)
        return chron__fail_sys(q->fs, "", "cannot tell the file system of %s", path);
    if ((q->fs & CHRON__FS_NETWORK) && !(flags & CHRON_ALLOW_NETFS))
        return chron__fail(CHRON_ENETFS,
                           "%s is on a network file system, where mapped memory and locks are not "
                           "coherent between hosts: use a local one",
                           path);
    return 0;
}

int chron__queue_take_geometry(chron__queue *q, const chron__file_header *header)
{
    uint64_t size = header->segment_size;

    if (size < CHRON_SEGMENT_SIZE_MIN || size > (uint64_t)CHRON_SEGMENT_SIZE_MAX || size % CHRON_SEGMENT_SIZE_MIN ||
        header->stride != CHRON__STRIDE)
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "queue.meta gives an impossible geometry: segments of %" PRIu64
                                     " bytes, an index entry per %u",
                                     size, (unsigned)header->stride),
                         CHRON__FILE_META, 0, CHRON_SEQ_NONE);
    memcpy(q->uuid, header->uuid, sizeof q->uuid);
    q->segment_size = size;
    q->created_ns = header->created_ns;
    q->reuses = (header->incompat & CHRON__INCOMPAT_REUSE) != 0;
    return 0;
}

int chron__queue_open_meta(chron__queue *q, const char *path, int writable)
{
    const chron__io *io = q->io;
    uint8_t copy[sizeof(chron__file_header)];
    chron__file_header header;
    int flags = writable ? CHRON__MAP_WRITE | CHRON__MAP_DONTFORK : 0;
    int status;
    int fd = io->open_file(io, q->dir, CHRON__FILE_META, writable ? CHRON__OPEN_WRITE : CHRON__OPEN_READ, 0);

    if (fd == -ENOENT)
        return chron__fail(CHRON_ENOQUEUE, "there is no queue at %s: the directory has no queue.meta", path);
    if (fd < 0)
        return chron__fail_sys(fd, CHRON__FILE_META, "cannot open queue.meta of %s", path);
    status = writable ? io->fill(io, fd, CHRON__PAGE) : 0;
    if (status >= 0)
        status = io->map(io, fd, CHRON__PAGE, flags, &q->meta);
    if (status == -ERANGE)
        status = chron__at(chron__fail(CHRON_ECORRUPT, "queue.meta of %s is cut short", path), CHRON__FILE_META, 0,
                           CHRON_SEQ_NONE);
    else if (status < 0)
        status = chron__fail_sys(status, CHRON__FILE_META, "cannot map queue.meta of %s", path);
    if (status < 0 || !writable)
        io->close_file(io, fd);
    else
        q->meta_fd = fd;
    if (status < 0)
        return status;
    memcpy(copy, q->meta.base, sizeof copy);
    status = chron__header_decode(copy, CHRON__MAGIC_META, NULL, CHRON__FILE_META, &header);
    return status < 0 ? status : chron__queue_take_geometry(q, &header);
}

int chron__queue_open(chron__queue *q, const chron__io *io, const char *path, uint32_t flags)
{
    int status = chron__queue_open_dir(q, io, path, flags);

    return status < 0 ? status : chron__queue_open_meta(q, path, 0);
}

void chron__queue_encode_geometry(const chron__queue *q, uint8_t *page)
{
    chron__file_header header = {.stride = CHRON__STRIDE, .segment_size = q->segment_size, .created_ns = q->created_ns};

    header.incompat = q->reuses ? CHRON__INCOMPAT_REUSE : 0;
    memcpy(header.magic, CHRON__MAGIC_META, sizeof header.magic);
    memcpy(header.uuid, q->uuid, sizeof header.uuid);
    chron__header_encode(&header, page);
}

static int write_page(const chron__queue *q, int fd, const uint8_t *page)
{
    int64_t status = q->io->allocate(q->io, fd, CHRON__PAGE);

    if (status >= 0)
        status = q->io->write_at(q->io, fd, page, CHRON__PAGE, 0);
    return status < 0 ? (int)status : q->io->sync_file(q->io, fd);
}

int chron__queue_write_meta(const chron__queue *q, const uint8_t *page, unsigned mode)
{
    const chron__io *io = q->io;
    int status;
    int fd;

    (void)io->unlink(io, q->dir, CHRON__FILE_META_NEW); /* of a creation that was cut off; usually there is none */
    fd = io->open_file(io, q->dir, CHRON__FILE_META_NEW, CHRON__OPEN_CREATE | CHRON__OPEN_EXCLUSIVE, mode);
    if (fd < 0)
        return chron__fail_sys(fd, CHRON__FILE_META_NEW, "cannot create queue.meta");
    status = write_page(q, fd, page);
    io->close_file(io, fd);
    if (status < 0) {
        (void)io->unlink(io, q->dir, CHRON__FILE_META_NEW);
        return chron__fail_sys(status, CHRON__FILE_META, "cannot write queue.meta");
    }
    return 0;
}

int chron__queue_prepare_meta(chron__queue *q, uint64_t segment_size, unsigned mode)
{
    uint8_t page[CHRON__PAGE] = {0};
    chron__slot_value state = {.time_ns = chron__clock_ns(0)};
    int status = chron__random(q->uuid, sizeof q->uuid);

    if (status < 0)
        return chron__fail_sys(status, CHRON__FILE_META, "cannot make up a name for the queue");
    q->uuid[6] = (uint8_t)((q->uuid[6] & 0x0F) | 0x40); /* RFC 9562: version 4 */
    q->uuid[8] = (uint8_t)((q->uuid[8] & 0x3F) | 0x80);
    q->segment_size = segment_size;
    q->created_ns = state.time_ns;
    chron__queue_encode_geometry(q, page);
    chron__slots_store(page, &state, CHRON__SLOTS_TURN);
    return chron__queue_write_meta(q, page, mode);
}

int chron__queue_name_meta(const chron__queue *q)
{
    int status = q->io->sync_dir(q->io, q->dir);

    if (status >= 0)
        status = q->io->rename_new(q->io, q->dir, CHRON__FILE_META_NEW, CHRON__FILE_META);
    if (status >= 0)
        status = q->io->sync_dir(q->io, q->dir);
    return status < 0 ? chron__fail_sys(status, CHRON__FILE_META, "cannot give queue.meta its name") : 0;
}

int chron__queue_swap_meta(const chron__queue *q)
{
    int status = q->io->rename(q->io, q->dir, CHRON__FILE_META_NEW, q->dir, CHRON__FILE_META);
    if (status >= 0)
        status = q->io->sync_dir(q->io, q->dir);
    return status < 0 ? chron__fail_sys(status, CHRON__FILE_META, "cannot give queue.meta its name") : 0;
}

int chron__queue_replace_meta(const chron__queue *q, const uint8_t *page, unsigned mode)
{
    int status = chron__queue_write_meta(q, page, mode);

    CHRON__STEP("rebuild: queue.meta prepared");
    return status < 0 ? status : chron__queue_swap_meta(q);
}

void chron__queue_close(chron__queue *q)
{
    if (q->meta.base)
        q->io->unmap(q->io, &q->meta);
    if (q->meta_fd >= 0)
        q->io->close_file(q->io, q->meta_fd);
    if (q->dir >= 0)
        q->io->close_file(q->io, q->dir);
    q->meta_fd = -1;
    q->dir = -1;
}

int chron__queue_state(const chron__queue *q, chron__slot_value *out)
{
    if (q->meta.base)
        return chron__slots_load(q->meta.base, out);
    memset(out, 0, sizeof *out);
    return 0;
}

void chron__segment_name(uint64_t base_seq, char *out)
{
    (void)snprintf(out, CHRON__NAME_BYTES, "%020" PRIu64 SEGMENT_SUFFIX, base_seq);
}

int chron__segment_name_parse(const char *name, uint64_t *base_seq)
{
    uint64_t value = 0;

    for (int i = 0; i < SEQ_DIGITS; i++) {
        uint64_t digit = (uint64_t)(name[i] - '0');

        if (name[i] < '0' || name[i] > '9' || value > (UINT64_MAX - digit) / 10u)
            return 0;
        value = value * 10u + digit;
    }
    *base_seq = value;
    return strcmp(name + SEQ_DIGITS, SEGMENT_SUFFIX) == 0;
}

int chron__bases_add(chron__bases *bases, uint64_t base_seq)
{
    if (bases->count == bases->capacity) {
        size_t capacity = bases->capacity ? bases->capacity * 2u : 64u;
        uint64_t *at = realloc(bases->at, capacity * sizeof *at);

        if (!at)
            return -ENOMEM;
        bases->at = at;
        bases->capacity = capacity;
    }
    bases->at[bases->count++] = base_seq;
    return 0;
}

static int add_base(void *context, const char *name)
{
    uint64_t base_seq;

    return chron__segment_name_parse(name, &base_seq) ? chron__bases_add(context, base_seq) : 0;
}

static int compare_bases(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

int chron__queue_list(const chron__queue *q, chron__bases *out)
{
    int status;

    memset(out, 0, sizeof *out);
    status = q->io->list(q->io, q->dir, add_base, out);
    if (status < 0) {
        chron__bases_free(out);
        return chron__fail_sys(status, "", "cannot list the queue's directory");
    }
    if (out->count)
        qsort(out->at, out->count, sizeof *out->at, compare_bases);
    for (size_t i = 1; i < out->count; i++)
        CHRON__ASSERT(out->at[i - 1u] < out->at[i]); /* a directory has each name once */
    return 0;
}

void chron__bases_free(chron__bases *bases)
{
    free(bases->at);
    memset(bases, 0, sizeof *bases);
}

int64_t chron__bases_find(const chron__bases *bases, uint64_t seq)
{
    size_t low = 0;
    size_t high = bases->count; /* all below `low` are <= seq, all from `high` on are above */

    while (low < high) {
        size_t middle = low + (high - low) / 2u;

        if (bases->at[middle] <= seq)
            low = middle + 1u;
        else
            high = middle;
    }
    CHRON__ASSERT(low == 0 || bases->at[low - 1u] <= seq);
    CHRON__ASSERT(low == bases->count || bases->at[low] > seq);
    return (int64_t)low - 1;
}

/* 1, 0, or -errno. */
static int is_held(const chron__queue *q, const char *name)
{
    int held;
    int fd = q->io->open_file(q->io, q->dir, name, CHRON__OPEN_READ, 0);

    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    held = q->io->lock_held(q->io, fd);
    q->io->close_file(q->io, fd);
    return held;
}

int chron__queue_writer_alive(const chron__queue *q)
{
    const char *file = CHRON__FILE_LOCK;
    int held = is_held(q, file);

    if (held == 0) { /* writer.lock may have been deleted */
        file = CHRON__FILE_META;
        held = is_held(q, file);
    }
    return held < 0 ? chron__fail_sys(held, file, "cannot look at the writer's lock in %s", file) : held;
}

int64_t chron__read_file(const chron__io *io, int dir, const char *name, void *buffer, size_t capacity)
{
    int64_t n;
    int fd = io->open_file(io, dir, name, CHRON__OPEN_READ, 0);

    if (fd < 0)
        return fd;
    n = io->read_at(io, fd, buffer, capacity, 0);
    io->close_file(io, fd);
    return n;
}

void chron__queue_writer_line(const chron__queue *q, chron__writer_line *out)
{
    char text[257];
    int64_t n = chron__read_file(q->io, q->dir, CHRON__FILE_LOCK, text, sizeof text - 1u);

    memset(out, 0, sizeof *out);
    if (n <= 0)
        return;
    text[n] = '\0';
    if (sscanf(text, "pid %" SCNd64 " host %63s start %" SCNu64, &out->pid, out->host, &out->start_ns) != 3)
        memset(out, 0, sizeof *out);
}
