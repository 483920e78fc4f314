/* SPDX-License-Identifier: MIT */
/*
 * retention.c - deleting segments. Only sealed ones, oldest first, and the first one that is kept keeps all
 * behind it: a log never gets a hole.
 *
 * Two reasons to delete: every registered reader that counts has committed past the segment, or a limit asks
 * for it. Two passes: all fates are decided first, from one look at the directory and the position files, and
 * carried out then. A reader that registers in between has, at worst, no record before the oldest that is
 * left: it is told so by CHRON_EGONE.
 *
 * Nothing is mapped: a header and a seal are in the first page of each file.
 */
#include "queue/retention.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/header.h"
#include "format/position.h"
#include "format/segment.h"
#include "queue/kept.h"
#include "queue/rebuild.h"

#define NS_PER_MS 1000000u

typedef struct look {
    const chron__queue *q;
    const chron_retention *limits;
    chron__bases bases;
    chron__registered_list readers;
    const chron__registered *slowest; /* of those that count; NULL: none */
    const chron__registered *damaged; /* one of those that count and whose position cannot be read; NULL: none */
    uint64_t end_seq;                 /* seq behind the last record */
    uint64_t now_ns;
    size_t left; /* segments, of which those that were decided to go are taken off */
    int delete_too;
} look;

/* What the first page of a segment says, or else what follows from the one behind it. */
typedef struct summary {
    int sealed;
    uint64_t sealed_ns;
} summary;

static int read_page(const look *l, uint64_t base_seq, char *name, uint8_t *page)
{
    chron__segment_name(base_seq, name);
    return chron__read_file(l->q->io, l->q->dir, name, page, CHRON__PAGE) == CHRON__PAGE;
}

/* When segment i was made, which was when the one before it was left; now, if it does not tell. */
static uint64_t made_ns(const look *l, size_t i)
{
    uint8_t page[CHRON__PAGE];
    char name[CHRON__NAME_BYTES];
    chron__file_header header;

    if (!read_page(l, l->bases.at[i], name, page) ||
        chron__header_decode(page, CHRON__MAGIC_SEGMENT, l->q->uuid, name, &header) < 0)
        return l->now_ns;
    return header.created_ns;
}

/*
 * Segment i, which is not the last. A seal is advice: where it cannot be believed, the segment was left all the same, for the
 * next one is there. Only the one before the last may be about to get its seal.
 */
static void summarize(const look *l, size_t i, summary *out)
{
    uint8_t page[CHRON__PAGE];
    char name[CHRON__NAME_BYTES];
    chron__seal_value seal;
    int sealed = read_page(l, l->bases.at[i], name, page) ? chron__seal_decode(page, l->bases.at[i], &seal) : -1;

    out->sealed = sealed != 0 || i + 2u < l->bases.count;
    out->sealed_ns = sealed == 1 ? seal.sealed_ns : out->sealed ? made_ns(l, i + 1u) : 0;
}

static int is_ignored(const look *l, const chron__registered *one)
{
    const chron_retention *limits = l->limits;
    uint64_t from = chron__registered_passed(one);

    if (limits->reader_ttl_ms && !one->alive && one->value.time_ns != 0 &&
        (l->now_ns > one->value.time_ns && (l->now_ns - one->value.time_ns) / NS_PER_MS >= limits->reader_ttl_ms))
        return 1;
    return limits->max_reader_lag && l->end_seq > from && l->end_seq - from > limits->max_reader_lag;
}

/* Who counts, and who of them holds the most. */
static void weigh_readers(look *l, chron_cleanup *out)
{
    for (size_t i = 0; i < l->readers.count; i++) {
        const chron__registered *one = &l->readers.at[i];

        out->readers++;
        if (is_ignored(l, one)) {
            out->readers_ignored++;
        } else if (one->damaged) {
            l->damaged = one; /* holds everything: nobody knows how far it came */
        } else if (!l->slowest || chron__registered_passed(one) < chron__registered_passed(l->slowest)) {
            l->slowest = one;
        }
    }
}

/* Does a limit ask for the deletion of the oldest segment that is left? A CHRON_GONE_... reason, or -1. */
static int over_limit(const look *l, const summary *sum)
{
    const chron_retention *limits = l->limits;

    if (limits->max_segments && l->left > limits->max_segments)
        return CHRON_GONE_SEGMENTS;
    if (limits->max_bytes && l->left > limits->max_bytes / l->q->segment_size)
        return CHRON_GONE_BYTES;
    if (limits->max_age_ms && l->now_ns > sum->sealed_ns &&
        (l->now_ns - sum->sealed_ns) / NS_PER_MS >= limits->max_age_ms)
        return CHRON_GONE_AGE;
    return -1;
}

static void decide(const look *l, size_t i, chron_segment_fate *fate)
{
    summary sum;
    int reason;

    memset(fate, 0, sizeof *fate);
    fate->base_seq = l->bases.at[i];
    fate->next_seq = i + 1u < l->bases.count ? l->bases.at[i + 1u] : l->end_seq;
    fate->bytes = l->q->segment_size;
    fate->reason = CHRON_KEPT_ACTIVE;
    if (i + 1u == l->bases.count)
        return;
    summarize(l, i, &sum);
    if (!sum.sealed)
        return;
    reason = over_limit(l, &sum);
    if (reason >= 0) {
        fate->reason = (uint32_t)reason;
    } else if (l->damaged) {
        fate->reason = CHRON_KEPT_DAMAGED;
        fate->sys_errno = chron__registered_errno(l->damaged);
        (void)snprintf(fate->reader, sizeof fate->reader, "%s", l->damaged->name);
    } else if (l->readers.count == 0) {
        fate->reason = CHRON_KEPT_NO_READERS;
    } else if (l->slowest && chron__registered_passed(l->slowest) < fate->next_seq) {
        fate->reason = CHRON_KEPT_READER;
        (void)snprintf(fate->reader, sizeof fate->reader, "%s", l->slowest->name);
    } else {
        CHRON__ASSERT(!l->slowest || chron__registered_passed(l->slowest) >= fate->next_seq);
        fate->reason = CHRON_GONE_CONSUMED; /* by all that count: the others are ignored by a limit */
    }
}

static int goes(const chron_segment_fate *fate)
{
    return fate->reason >= CHRON_GONE_CONSUMED;
}

static int delete_segment(const look *l, uint64_t base_seq)
{
    char name[CHRON__NAME_BYTES];
    int status;

    CHRON__ASSERT(base_seq == l->bases.at[l->bases.count - l->left]); /* oldest first */
    CHRON__ASSERT(l->left > 1);                                       /* never the one that is appended to */
    chron__segment_name(base_seq, name);
    CHRON__STEP("retention: before unlink");
    status = l->q->io->unlink(l->q->io, l->q->dir, name);
    if (status == -ENOENT)
        return 0;
    return status < 0 ? chron__fail_sys(status, name, "cannot delete %s", name) : 0;
}

/* Readers whose committed position lies before what is left, with records in between. */
static uint64_t count_behind(const look *l, uint64_t first_deleted, uint64_t oldest)
{
    uint64_t behind = 0;

    for (size_t i = 0; i < l->readers.count; i++) {
        const chron__registered *one = &l->readers.at[i];

        if (!one->damaged && chron__registered_passed(one) < oldest && oldest > first_deleted)
            behind++;
    }
    return behind;
}

static int walk(look *l, chron_cleanup *out, const chron__array *fates)
{
    int stopped = 0;
    int status = 0;

    l->left = l->bases.count;
    for (size_t i = 0; i < l->bases.count; i++) {
        chron_segment_fate fate;

        decide(l, i, &fate);
        if (stopped && goes(&fate))
            fate.reason = CHRON_KEPT_EARLIER;
        if (goes(&fate)) {
            status = l->delete_too ? delete_segment(l, fate.base_seq) : 0;
            if (status < 0)
                break;
            l->left--;
            out->deleted_segments++;
            out->deleted_bytes += fate.bytes;
            out->oldest_seq = fate.next_seq;
        } else {
            stopped = 1;
        }
        if (fates)
            chron__array_put(fates, i, &fate, sizeof fate);
        out->segments++;
    }
    out->readers_behind = count_behind(l, l->bases.count ? l->bases.at[0] : 0, out->oldest_seq);
    if (out->deleted_segments && l->delete_too && !(l->q->fs & CHRON__FS_VOLATILE)) {
        int synced = l->q->io->sync_dir(l->q->io, l->q->dir);

        if (synced < 0 && status == 0)
            status = chron__fail_sys(synced, "", "cannot put the deletion of segments on disk");
    }
    return status;
}

/* Before anything is deleted that a position in memory allows: that position has to survive as well. */
static int sync_positions(const look *l)
{
    int status = 0;

    for (size_t i = 0; status == 0 && i < l->readers.count; i++)
        if (!l->readers.at[i].damaged)
            status = chron__registered_sync(l->q, l->readers.at[i].name);
    return status;
}

int chron__retention_apply(const chron__queue *q, const chron_retention *limits, int flags, chron_cleanup *out,
                           const chron__array *fates)
{
    look l = {.q = q, .limits = limits, .delete_too = (flags & CHRON__RETAIN_DELETE) != 0};
    int status;

    memset(out, 0, sizeof *out);
    l.now_ns = chron__clock_ns(0);
    /* Positions first: what they allowed a moment ago they still allow when the segments are looked at. */
    status = chron__registered_load(q, &l.readers);
    if (status == 0)
        status = chron__queue_list(q, &l.bases);
    if (status == 0 && l.bases.count) {
        out->oldest_seq = l.bases.at[0];
        status = chron__log_end(q, NULL, &l.end_seq);
        weigh_readers(&l, out);
        if (status == 0 && (flags & CHRON__RETAIN_SYNC_POSITIONS))
            status = sync_positions(&l);
        if (status == 0)
            status = walk(&l, out, fates);
    }
    chron__bases_free(&l.bases);
    chron__registered_free(&l.readers);
    return status;
}

int chron__cleanup_check(const chron_cleanup *out, chron_segment_fate *fates, size_t capacity, chron__array *array)
{
    int status = out ? chron__struct_check("chron_cleanup", out) : 0;

    return status < 0 ? status : chron__array_take("chron_segment_fate", fates, fates ? capacity : 0, array);
}

static int plan_all(const chron__queue *q, const chron_retention *retention, chron_cleanup *out,
                    const chron__array *fates)
{
    const chron__kept_limits kept = chron__kept_limits_of(q, retention, 0);
    chron_retention limits = *retention;
    chron_cleanup quarantine = {0};
    int status = chron__kept_trim(q, &kept, 0, &quarantine);

    if (status < 0)
        return status;
    chron__kept_count(&limits, quarantine.quarantine_bytes);
    status = chron__retention_apply(q, &limits, 0, out, fates);
    chron__kept_report(&quarantine, out);
    return status;
}

int chron_queue_cleanup_plan(const char *path, const chron_retention *retention, chron_cleanup *out,
                             chron_segment_fate *fates, size_t capacity)
{
    chron_retention limits = {0};
    chron_cleanup plan = {0};
    chron__array array;
    chron__queue q;
    int status = path ? 0 : chron__fail(CHRON_EINVAL, "the path is NULL");

    if (status == 0 && retention)
        status = chron__struct_take("chron_retention", retention, &limits, sizeof limits);
    if (status == 0)
        status = chron__cleanup_check(out, fates, capacity, &array);
    if (status < 0)
        return status;
    status = chron__remains_open(&q, &chron__io_posix, path, CHRON_ALLOW_NETFS);
    if (status == 0)
        status = plan_all(&q, &limits, &plan, &array);
    if (out)
        chron__struct_give(&plan, sizeof plan, out);
    chron__queue_close(&q);
    return status;
}
