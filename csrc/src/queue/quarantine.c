/* SPDX-License-Identifier: MIT */
/*
 * quarantine.c - see quarantine.h. Names: `<base>-e<epoch>.<n>.seg` for a segment, and
 * `<base>-<offset>-e<epoch>.<n>.cut` for the bytes from <offset> on of a segment that goes on being used.
 * <n> counts from 0: a recovery that was cut off itself never overwrites what it had already saved.
 */
#include "queue/quarantine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/step.h"
#include "format/header.h"

#define PATH_BYTES (sizeof CHRON__DIR_QUARANTINE + CHRON__NAME_BYTES)
#define TRIES 100000u

/* Bytes of a segment that are to be kept. */
typedef struct piece {
    const chron__seg *seg;
    uint64_t offset;
    uint64_t bytes;
    uint64_t seq; /* that stands there, or should */
    uint64_t epoch;
} piece;

/* A name in quarantine/ that is not taken; the file is made, empty. Returns its descriptor. */
static int make_file(const chron__queue *q, const char *stem, const char *suffix, char *path)
{
    int fd = -EEXIST;

    for (unsigned n = 0; fd == -EEXIST && n < TRIES; n++) {
        (void)snprintf(path, PATH_BYTES, CHRON__DIR_QUARANTINE "/%s.%u.%s", stem, n, suffix);
        fd = q->io->open_file(q->io, q->dir, path, CHRON__OPEN_CREATE | CHRON__OPEN_EXCLUSIVE, 0600);
    }
    return fd;
}

int chron__quarantine_segment(const chron__queue *q, uint64_t base_seq, uint64_t epoch)
{
    char name[CHRON__NAME_BYTES];
    char stem[CHRON__NAME_BYTES];
    char path[PATH_BYTES];
    int status;
    int fd;

    chron__segment_name(base_seq, name);
    (void)snprintf(stem, sizeof stem, "%020" PRIu64 "-e%" PRIu64, base_seq, epoch);
    fd = make_file(q, stem, "seg", path); /* holds the name: the rename replaces it */
    status = fd;
    if (fd >= 0) {
        q->io->close_file(q->io, fd);
        status = q->io->rename(q->io, q->dir, name, q->dir, path);
    }
    if (status == -ENOTDIR) { /* a directory of that name */
        (void)q->io->unlink(q->io, q->dir, path);
        status = q->io->rename(q->io, q->dir, name, q->dir, path);
    }
    return status < 0 ? chron__fail_sys(status, name, "cannot move %s to quarantine/", name) : 0;
}

int chron__quarantine_keep(const chron__queue *q, uint64_t base_seq, uint64_t epoch)
{
    char name[CHRON__NAME_BYTES];
    char path[PATH_BYTES];
    int status = -EEXIST;

    chron__segment_name(base_seq, name);
    for (unsigned n = 0; status == -EEXIST && n < TRIES; n++) {
        (void)snprintf(path, sizeof path, CHRON__DIR_QUARANTINE "/%020" PRIu64 "-e%" PRIu64 ".%u.seg", base_seq, epoch,
                       n);
        status = q->io->link(q->io, q->dir, name, path);
    }
    if (status == -EPERM || status == -ENOTSUP || status == -EOPNOTSUPP)
        return 0; /* files have one name only here */
    if (status < 0)
        return chron__fail_sys(status, name, "cannot keep %s in quarantine/", name);
    status = chron__quarantine_sync(q);
    return status < 0 ? status : 1;
}

int chron__quarantine_sync(const chron__queue *q)
{
    int dir = q->io->open_dir(q->io, q->dir, CHRON__DIR_QUARANTINE);
    int status = dir;

    if (dir >= 0) {
        status = q->io->sync_dir(q->io, dir);
        q->io->close_file(q->io, dir);
    }
    if (status >= 0)
        status = q->io->sync_dir(q->io, q->dir);
    return status < 0 ? chron__fail_sys(status, CHRON__DIR_QUARANTINE, "cannot put quarantine/ on disk") : 0;
}

/* Whole records in [from, end), behind the place where `seq` should have stood. */
typedef struct found {
    uint64_t records;
    uint64_t first_seq;
    uint64_t end; /* of the last of them; `from` if there is none */
} found;

static found count_records(const chron__seg *seg, uint64_t from, uint64_t end, uint64_t seq)
{
    chron__resync search = {.seg = seg, .limit = end, .offset = from, .seq = seq};
    found out = {.first_seq = CHRON_SEQ_NONE, .end = from};
    chron__rec rec;

    while (chron__seg_resync(&search, search.offset, search.seq)) {
        if (chron__rec_load(seg->map.base, seg->size, search.offset, &rec) != CHRON__REC_DATA)
            continue;
        if (out.records++ == 0)
            out.first_seq = search.seq;
        out.end = search.offset + chron__rec_bytes(&rec);
    }
    return out;
}

/* The first page of a .cut file. */
static void describe(const chron__queue *q, const piece *p, uint8_t *page)
{
    chron__file_header header = {.created_ns = chron__clock_ns(0),
                                 .segment_size = p->bytes,
                                 .base_seq = p->seg->base_seq,
                                 .data_offset = p->offset,
                                 .epoch = p->epoch};
    found records = count_records(p->seg, p->offset, p->offset + p->bytes, p->seq);
    uint8_t *cut = page + CHRON__CUT_AT;

    memcpy(header.magic, CHRON__MAGIC_CUT, sizeof header.magic);
    memcpy(header.uuid, q->uuid, sizeof header.uuid);
    chron__header_encode(&header, page);
    chron__write_le64(cut + offsetof(chron__cut, seq), p->seq);
    chron__write_le64(cut + offsetof(chron__cut, first_seq), records.first_seq);
    chron__write_le64(cut + offsetof(chron__cut, records), records.records);
    chron__write_le32(cut + offsetof(chron__cut, crc), chron_crc32c(0, cut, offsetof(chron__cut, crc)));
}

/* 0, or -errno: then nothing is left of the copy. */
static int copy_out(const chron__queue *q, const piece *p)
{
    uint8_t page[CHRON__PAGE] = {0};
    char stem[CHRON__NAME_BYTES];
    char path[PATH_BYTES];
    int64_t status;
    int fd;

    (void)snprintf(stem, sizeof stem, "%020" PRIu64 "-%" PRIu64 "-e%" PRIu64, p->seg->base_seq, p->offset, p->epoch);
    fd = make_file(q, stem, "cut", path);
    if (fd < 0)
        return fd;
    describe(q, p, page);
    status = q->io->write_at(q->io, fd, page, sizeof page, 0);
    if (status >= 0)
        status = q->io->write_at(q->io, fd, p->seg->map.base + p->offset, (size_t)p->bytes, sizeof page);
    if (status >= 0)
        status = q->io->sync_file(q->io, fd);
    q->io->close_file(q->io, fd);
    if (status >= 0 && chron__quarantine_sync(q) < 0)
        status = -EIO;
    if (status < 0)
        (void)q->io->unlink(q->io, q->dir, path);
    return status < 0 ? (int)status : 0;
}

int chron__quarantine_bytes(const chron__queue *q, const chron__seg *seg, uint64_t offset, uint64_t bytes, uint64_t seq,
                            uint64_t epoch)
{
    const piece p = {.seg = seg, .offset = offset, .bytes = bytes, .seq = seq, .epoch = epoch};
    int status = copy_out(q, &p);

    return status < 0 ? chron__fail_sys(status, CHRON__DIR_QUARANTINE, "cannot save what is damaged in quarantine/")
                      : 0;
}

int chron__quarantine_page(const chron__queue *q, const char *name, const uint8_t *bytes, size_t count, uint64_t epoch)
{
    char stem[CHRON__NAME_BYTES];
    char path[PATH_BYTES];
    int64_t status;
    int fd;

    (void)snprintf(stem, sizeof stem, "%.40s-e%" PRIu64, name, epoch);
    fd = make_file(q, stem, "damaged", path);
    status = fd;
    if (fd >= 0) {
        status = q->io->write_at(q->io, fd, bytes, count, 0);
        if (status >= 0)
            status = q->io->sync_file(q->io, fd);
        q->io->close_file(q->io, fd);
    }
    if (status < 0)
        return chron__fail_sys((int)status, CHRON__DIR_QUARANTINE, "cannot keep the damaged %s in quarantine/", name);
    return chron__quarantine_sync(q);
}

/* Zero from `tail` to `end`, and the index entries of records there. */
static int wipe(const chron__queue *q, chron__seg *seg, uint64_t tail, uint64_t end)
{
    int status = 0;

    for (uint64_t block = 0; block < chron__seg_blocks(seg); block++)
        if (chron__seg_index_raw(seg, block) &&
            (chron__seg_index_get(seg, block) == 0 || chron__seg_index_get(seg, block) >= tail))
            chron__seg_index_set(seg, block, 0); /* also one that is impossible */
    memset(seg->map.base + tail, 0, (size_t)(end - tail));
    CHRON__STEP("recovery: tail zeroed");
    CHRON__ASSERT(chron__is_zero(seg->map.base + tail, (size_t)(seg->size - tail)));
    if (end > tail)
        status = q->io->sync_map(q->io, seg->fd, &seg->map, tail, end - tail);
    if (status < 0)
        return chron__fail_sys(status, "", "cannot put the cleaned end of the log on disk");
    if (chron__map_faulted(&seg->map))
        return chron__seg_fail_fault(seg, "");
    return 0;
}

int chron__quarantine_tail(const chron__queue *q, chron__seg *seg, const chron__tail *at, chron_recovery *report)
{
    uint64_t tail = at->offset;
    uint64_t end = chron__seg_end_of_data(seg, tail);
    found whole = count_records(seg, tail, end, at->next_seq);
    /* Behind the last record of this segment lies, perhaps, only what its file was before, as another one. */
    uint64_t kept_to = at->may_be_stale ? whole.end : end;
    const piece p = {.seg = seg, .offset = tail, .bytes = kept_to - tail, .seq = at->next_seq, .epoch = at->epoch};
    int status;

    if (at->unfinished_to > tail && (end <= at->unfinished_to || chron__is_zero(seg->map.base + at->unfinished_to,
                                                                                (size_t)(end - at->unfinished_to)))) {
        report->unfinished_bytes += end - tail;
    } else if (kept_to > tail) {
        status = copy_out(q, &p);
        if (status >= 0)
            report->quarantined = 1;
        else if ((status != -ENOSPC && status != -EDQUOT) || whole.records > 0)
            return chron__fail_sys(status, CHRON__DIR_QUARANTINE,
                                   "cannot save the %" PRIu64 " bytes behind the end of "
                                   "the log (seq %" PRIu64 ") in quarantine/, so they were left where they are",
                                   kept_to - tail, at->next_seq);
        report->cut_bytes += kept_to - tail;
        report->cut_records += whole.records;
        CHRON__STEP("recovery: tail copied");
    }
    return wipe(q, seg, tail, end);
}
