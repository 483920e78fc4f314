/* SPDX-License-Identifier: MIT */
/*
 * newest.c - which segment holds the newest snapshot, for retention. Newest first, by summaries, and it ends at the first that has one:
 * only the segment that is appended to is read, and those that have no summary yet.
 *
 * Invariant: what cannot be read may hold one.
 */
#include "queue/newest.h"

#include "base/error.h"
#include "format/summary_file.h"

/* 1: this segment has one, or may; 0; or a failure. */
static int has_snapshot(const chron__queue *q, uint64_t base_seq)
{
    chron__filter filter = {.snapshots_only = 1};
    chron__summary *s;
    chron__seg *seg;
    uint64_t offset;
    chron__rec rec;
    int found = 1;
    int status = chron__seg_open(q, base_seq, 0, &seg);

    if (status == -CHRON_EGONE)
        return 0;
    if (status == -CHRON_ECORRUPT)
        return 1;
    if (status < 0)
        return status;
    memset(&filter.types, 0xFF, sizeof filter.types);
    s = chron__summary_get(q, seg);
    if (s)
        found = s->is_damaged || chron__summary_find_last(seg, s, &filter, CHRON_SEQ_NONE, &offset, &rec);
    chron__summary_free(s);
    chron__seg_release(seg);
    return found;
}

int chron__newest_snapshot(const chron__queue *q, const chron__bases *bases, uint64_t from, uint64_t *base_seq)
{
    for (size_t i = bases->count; i > 0 && bases->at[i - 1u] >= from; i--) {
        int status = has_snapshot(q, bases->at[i - 1u]);

        if (status == 0)
            continue;
        *base_seq = bases->at[i - 1u];
        return status;
    }
    return 0;
}
