/* SPDX-License-Identifier: MIT */
/*
 * kept_read.c - the records in a file of quarantine/. It is mapped, and looked at as a segment: of a .cut, the first page says
 * with which seq it begins, and its records begin behind that page.
 */
#include "queue/kept.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/endian.h"
#include "base/error.h"
#include "format/header.h"
#include "format/segment.h"
#include "queue/rebuild.h"

/* What is left of a segment, and how far it has been read. */
typedef struct leftover {
    chron__seg seg; /* not counted: it lives here */
    chron_view_fn each;
    void *context;
    int64_t count;
} leftover;

static int is_name(const char *name)
{
    size_t length = strlen(name);

    return name[0] != '.' && !strchr(name, '/') && length < sizeof((chron_quarantine_file *)0)->name && length > 4u &&
           (strcmp(name + length - 4u, ".seg") == 0 || strcmp(name + length - 4u, ".cut") == 0);
}

static int map_leftover(const chron__queue *q, const char *path, leftover *l)
{
    const chron__io *io = q->io;
    uint64_t bytes = 0;
    int status;
    int fd = io->open_file(io, q->dir, path, CHRON__OPEN_READ, 0);

    if (fd == -ENOENT)
        return chron__fail(CHRON_ENOQUEUE, "there is no %s", path);
    if (fd < 0)
        return chron__fail_sys(fd, path, "cannot open %s", path);
    status = io->file_size(io, fd, &bytes);
    l->seg.size = bytes / CHRON__ALIGN * CHRON__ALIGN;
    if (status == 0 && l->seg.size >= CHRON__PAGE)
        status = io->map(io, fd, (size_t)l->seg.size, 0, &l->seg.map);
    io->close_file(io, fd);
    return status < 0 ? chron__fail_sys(status, path, "cannot map %s", path) : 0;
}

/* Where its records begin, and with which seq. */
static int find_leftover(const chron__queue *q, const char *name, const char *path, leftover *l)
{
    const uint8_t *page = l->seg.map.base;
    uint8_t copy[CHRON__CUT_AT + sizeof(chron__cut)];
    chron__file_header header;
    int status;

    if (sscanf(name, "%20" SCNu64, &l->seg.base_seq) != 1)
        return chron__fail(CHRON_EINVAL, "%s is no segment, nor cut from one: there are no records in it", path);
    l->seg.data_offset = chron__data_offset(q->segment_size);
    if (strcmp(name + strlen(name) - 4u, ".seg") == 0 || !page)
        return 0;
    memcpy(copy, page, sizeof copy);
    status = chron__header_decode(copy, CHRON__MAGIC_CUT, q->uuid, path, &header);
    if (status < 0)
        return status;
    l->seg.base_seq = chron__read_le64(copy + CHRON__CUT_AT + offsetof(chron__cut, seq));
    l->seg.data_offset = CHRON__PAGE;
    return 0;
}

static int hand_out(leftover *l, const chron__rec *rec)
{
    chron_view view = {.seq = chron__rec_seq(rec),
                       .timestamp_ns = chron__rec_timestamp(rec),
                       .payload = rec->payload,
                       .length = rec->length,
                       .type_id = chron__rec_type(rec),
                       .flags = (uint8_t)(chron__rec_flags(rec) & CHRON__USER_FLAGS)};

    l->count++;
    return l->each(l->context, &view) ? chron__fail(CHRON_EINTR, "reading was stopped by its caller") : 0;
}

static int read_leftover(leftover *l)
{
    const chron__seg *seg = &l->seg;
    chron__resync search = {.seg = seg, .limit = seg->size};
    uint64_t offset = seg->data_offset;
    uint64_t seq = seg->base_seq;
    chron__rec rec;
    int found = seg->map.base && offset + CHRON__RECORD_HEADER <= seg->size &&
                chron__rec_load(seg->map.base, seg->size, offset, &rec) == CHRON__REC_DATA &&
                chron__rec_seq(&rec) == seq && chron__rec_crc_ok(&rec, rec.payload);
    int status = 0;

    if (!seg->map.base)
        return 0;
    for (;;) {
        if (found)
            status = hand_out(l, &rec);
        if (status < 0)
            return status;
        if (found) /* what its payload holds is no record of this log */
            offset += chron__rec_bytes(&rec) - CHRON__ALIGN;
        if (!chron__seg_resync(&search, offset, seq))
            return chron__map_faulted(&seg->map) ? chron__fail_fault("the file in quarantine", "") : 0;
        offset = search.offset;
        seq = search.seq;
        found = chron__rec_load(seg->map.base, seg->size, offset, &rec) == CHRON__REC_DATA;
    }
}

int64_t chron_queue_quarantine_read(const char *path, const char *name, chron_view_fn each, void *context)
{
    char file[sizeof CHRON__DIR_QUARANTINE + sizeof((chron_quarantine_file *)0)->name];
    leftover l = {.each = each, .context = context};
    chron__queue q;
    int status = path && name && each ? 0 : chron__fail(CHRON_EINVAL, "NULL is not allowed here");

    if (status == 0 && !is_name(name))
        status = chron__fail(CHRON_EINVAL, "\"%.80s\" is no file in quarantine with records: those end in .seg or .cut",
                             name);
    if (status < 0)
        return status;
    (void)snprintf(file, sizeof file, CHRON__DIR_QUARANTINE "/%s", name);
    status = chron__remains_open(&q, &chron__io_posix, path, CHRON_ALLOW_NETFS);
    if (status == 0)
        status = map_leftover(&q, file, &l);
    if (status == 0)
        status = find_leftover(&q, name, file, &l);
    if (status == 0)
        status = read_leftover(&l);
    if (l.seg.map.base)
        q.io->unmap(q.io, &l.seg.map);
    chron__queue_close(&q);
    return status < 0 ? status : l.count;
}
