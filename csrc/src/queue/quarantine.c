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
#include "base/error.h"
#include "base/step.h"

#define PATH_BYTES (sizeof CHRON__DIR_QUARANTINE + CHRON__NAME_BYTES)
#define TRIES 1000u

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
    return status < 0 ? chron__fail_sys(status, name, "cannot move %s to quarantine/", name) : 0;
}

static int is_zero(const uint8_t *bytes, size_t count)
{
    uint64_t any = 0;

    for (size_t i = 0; i + 8u <= count; i += 8u)
        any |= chron__read_le64(bytes + i);
    for (size_t i = count & ~(size_t)7; i < count; i++)
        any |= bytes[i];
    return any == 0;
}

/* The end of what is not zero behind `tail`; `tail` if all is. Holes of the file are not read. */
static uint64_t end_of_data(const chron__queue *q, const chron__seg *seg, uint64_t tail)
{
    uint64_t end = tail;

    for (uint64_t at = tail; at < seg->size;) {
        int64_t data = q->io->next_data(q->io, seg->fd, at);
        uint64_t stop;

        if (data > (int64_t)at)
            at = (uint64_t)data;
        if (at >= seg->size)
            break;
        stop = (at / CHRON__PAGE + 1u) * CHRON__PAGE;
        if (!is_zero(seg->map.base + at, (size_t)(stop - at)))
            end = stop;
        at = stop;
    }
    return end;
}

static int copy_out(const chron__queue *q, const chron__seg *seg, uint64_t tail, uint64_t end, uint64_t epoch)
{
    char stem[CHRON__NAME_BYTES];
    char path[PATH_BYTES];
    int64_t status;
    int dir;
    int fd;

    (void)snprintf(stem, sizeof stem, "%020" PRIu64 "-%" PRIu64 "-e%" PRIu64, seg->base_seq, tail, epoch);
    fd = make_file(q, stem, "cut", path);
    if (fd < 0)
        return fd;
    status = q->io->write_at(q->io, fd, seg->map.base + tail, (size_t)(end - tail), 0);
    if (status >= 0)
        status = q->io->sync_file(q->io, fd);
    q->io->close_file(q->io, fd);
    if (status < 0) {
        (void)q->io->unlink(q->io, q->dir, path);
        return (int)status;
    }
    dir = q->io->open_dir(q->io, q->dir, CHRON__DIR_QUARANTINE);
    if (dir < 0)
        return dir;
    status = q->io->sync_dir(q->io, dir);
    q->io->close_file(q->io, dir);
    return status < 0 ? (int)status : 0;
}

static uint64_t count_records(const chron__seg *seg, uint64_t tail, uint64_t end, uint64_t next_seq)
{
    chron__resync search = {.seg = seg, .limit = end, .offset = tail, .seq = next_seq};
    uint64_t count = 0;
    chron__rec rec;

    while (chron__seg_resync(&search, search.offset, search.seq))
        count += chron__rec_load(seg->map.base, seg->size, search.offset, &rec) == CHRON__REC_DATA;
    return count;
}

/* Zero from `tail` to `end`, and the index entries of records there. */
static int wipe(const chron__queue *q, chron__seg *seg, uint64_t tail, uint64_t end)
{
    int status = 0;

    for (uint64_t block = 0; block < chron__seg_blocks(seg); block++)
        if (chron__seg_index_get(seg, block) >= tail)
            chron__seg_index_set(seg, block, 0);
    memset(seg->map.base + tail, 0, (size_t)(end - tail));
    CHRON__STEP("recovery: tail zeroed");
    CHRON__ASSERT(is_zero(seg->map.base + tail, (size_t)(seg->size - tail)));
    if (end > tail)
        status = q->io->sync_map(q->io, seg->fd, &seg->map, tail, end - tail);
    if (status < 0)
        return chron__fail_sys(status, "", "cannot put the cleaned end of the log on disk");
    if (chron__map_faulted(&seg->map))
        return chron__seg_fail_fault(seg, "");
    return 0;
}

int chron__quarantine_tail(const chron__queue *q, chron__seg *seg, uint64_t tail, uint64_t next_seq, uint64_t epoch,
                           chron_recovery *report)
{
    uint64_t end = end_of_data(q, seg, tail);
    int status;

    if (end > tail) {
        report->cut_bytes += end - tail;
        report->cut_records += count_records(seg, tail, end, next_seq);
        status = copy_out(q, seg, tail, end, epoch);
        if (status >= 0)
            report->quarantined = 1;
        else if ((status != -ENOSPC && status != -EDQUOT) || report->cut_records > 0)
            return chron__fail_sys(status, CHRON__DIR_QUARANTINE,
                                   "cannot save the %" PRIu64 " bytes behind the end of "
                                   "the log (seq %" PRIu64 ") in quarantine/, so nothing was changed",
                                   end - tail, next_seq);
        CHRON__STEP("recovery: tail copied");
    }
    return wipe(q, seg, tail, end);
}
