/* SPDX-License-Identifier: MIT */
/*
 * attach.c - finding the segment of the position, and entering it: at the beginning, at a move, when retention has gone
 * past, when a recovery has changed what was read. And the record before the position.
 *
 * Invariant: a move that fails leaves the reader where it was.
 */
#include "read/attach.h"

#include <inttypes.h>

#include "base/assert.h"
#include "base/error.h"
#include "queue/gaps.h"

#define TRIES 100 /* retention may delete what a listing has just shown, again and again, but not for ever */

void chron__reader_enter_segment(chron_reader *r, chron__seg *seg, uint64_t offset, uint64_t next_seq)
{
    CHRON__ASSERT(!seg || (offset % CHRON__ALIGN == 0 && offset >= seg->data_offset && offset <= seg->size));
    CHRON__ASSERT(!seg || next_seq >= seg->base_seq);
    chron__seg_release(r->seg);
    r->seg = seg;
    r->base = seg ? seg->map.base : NULL;
    r->size = seg ? seg->size : 0;
    r->offset = offset;
    r->next_seq = next_seq;
    r->epoch = 0;
    r->last_crc = 0;
    r->last_offset = 0;
    r->has_last = 0;
    r->empty_looks = 0;
    r->eager_from = offset + CHRON__FAR_BEHIND;
}

int chron__reader_end(chron_reader *r, uint64_t *end)
{
    int status = chron__log_end(&r->q, r->seg, end);

    if (status == 0 && r->options.flags & CHRON_DURABLE_ONLY) {
        chron__queue_refresh_state(&r->q, &r->mark);
        if (*end > r->mark.durable_next)
            *end = r->mark.durable_next;
    }
    return status;
}

static int gone(uint64_t wanted, uint64_t oldest, int is_lost)
{
    int status = chron__fail(
        CHRON_EGONE, "record %" PRIu64 " %s %" PRIu64 ": seek to it, or open with on_gap oldest or latest", wanted,
        is_lost ? "was lost to damage, which a repair has accepted; the next one there is, is"
                : "has been deleted by retention; the oldest there is, is",
        oldest);

    chron__error()->seq = wanted;
    chron__error()->oldest = oldest;
    return status;
}

/* The record wanted is gone, and the next one that is there is `oldest`: do what on_gap says. 0: moved, or EGONE. */
static int bridge_gap(chron_reader *r, uint64_t oldest, int is_lost)
{
    uint64_t target = oldest;

    if (r->options.on_gap == CHRON_GAP_ERROR)
        return gone(r->next_seq, oldest, is_lost);
    if (r->options.on_gap == CHRON_GAP_LATEST) {
        int status = chron__reader_end(r, &target);

        if (status < 0)
            return status;
    }
    CHRON__ASSERT(target > r->next_seq);
    r->stats.skipped += target - r->next_seq;
    r->stats.gaps++;
    chron__reader_enter_segment(r, NULL, 0, target);
    return 0;
}

int chron__reader_pass_gap(chron_reader *r)
{
    chron_error damage = *chron_last_error();
    chron__gaps gaps;
    chron__gap gap = {0};
    const chron__gap *found;
    chron__seg *seg = r->seg;
    int status = chron__gaps_load(&r->q, &gaps);

    found = status == 0 ? chron__gaps_find(&gaps, r->next_seq) : NULL;
    if (found)
        gap = *found;
    chron__gaps_free(&gaps);
    if (!found) {
        *chron__error() = damage; /* whatever became of the search */
        return 0;
    }
    if (seg && seg->base_seq == gap.base_seq && gap.offset > r->offset)
        (void)chron__seg_retain(seg);
    else
        seg = NULL;
    status = bridge_gap(r, gap.seq_end, 1);
    if (status == 0 && seg && r->next_seq == gap.seq_end)
        chron__reader_enter_segment(r, seg, gap.offset, gap.seq_end);
    else
        chron__seg_release(seg);
    return status < 0 ? status : 1;
}

static int missing(uint64_t seq, uint64_t base_seq)
{
    return chron__at(chron__fail(CHRON_ECORRUPT,
                                 "record %" PRIu64 " is missing: the segment that begins with %" PRIu64
                                 " ends before it",
                                 seq, base_seq),
                     "", 0, seq);
}

/* Does anything that can be read follow the damage at `offset`, where `seq` should stand? */
static int leads_nowhere(const chron__seg *seg, uint64_t offset, uint64_t seq)
{
    chron__resync search = {.seg = seg, .limit = seg->size};

    return !chron__seg_resync(&search, offset, seq);
}

/* Where r->next_seq stands in `seg`: 1 with *offset; 0: behind damage that nothing follows yet; or why it is not there. */
static int find_in(const chron_reader *r, const chron__seg *seg, int is_last, uint64_t known, uint64_t *offset)
{
    uint64_t found;
    int status = chron__seg_find(seg, r->next_seq, known, offset, &found);
    int is_behind = status == -CHRON_ECORRUPT && is_last && found < r->next_seq && r->next_seq >= known &&
                    leads_nowhere(seg, *offset, found);

    if (chron__map_faulted(&seg->map))
        return chron__seg_fail_fault(seg, "");
    if (is_behind)
        return 0;
    if (status < 0)
        return status;
    if (found == r->next_seq)
        return 1;
    if (!is_last || r->next_seq < known)
        return missing(r->next_seq, seg->base_seq);
    return r->next_seq == known ? 0 : chron__fail_range("", r->next_seq, found);
}

/*
 * Enter the segment that next_seq must be in. All seqs below `known` were in the log. `nearby` (may be NULL) saves mapping it
 * anew. As attach.
 */
static int enter_at(chron_reader *r, uint64_t base_seq, int is_last, uint64_t known, chron__seg *nearby)
{
    chron__seg *seg;
    uint64_t offset;
    int status = 0;

    if (nearby && nearby->base_seq == base_seq)
        seg = chron__seg_retain(nearby);
    else
        status = chron__seg_open(&r->q, base_seq, CHRON__SEG_HEADLESS, &seg);
    if (status == -CHRON_ECORRUPT && is_last && r->next_seq > base_seq && r->next_seq >= known)
        return 0; /* behind a segment that cannot be read */
    if (status < 0)
        return status;
    status = find_in(r, seg, is_last, known, &offset);
    if (status > 0)
        chron__reader_enter_segment(r, seg, offset, r->next_seq);
    else
        chron__seg_release(seg);
    return status;
}

static int attach_near(chron_reader *r, chron__seg *nearby)
{
    int status = 0;

    for (int tries = 0; tries < TRIES; tries++) {
        chron__bases bases;
        uint64_t oldest;
        uint64_t base_seq;
        uint64_t known;
        int64_t i;
        int is_last;

        status = chron__queue_list(&r->q, &bases);
        if (status < 0 || bases.count == 0)
            return status;
        i = chron__bases_find(&bases, r->next_seq);
        oldest = bases.at[0];
        base_seq = i < 0 ? 0 : bases.at[i];
        is_last = i + 1 == (int64_t)bases.count;
        known = chron__reader_known(r, &bases, i);
        chron__bases_free(&bases);
        if (i < 0) {
            status = bridge_gap(r, oldest, 0);
            if (status < 0)
                return status;
            continue;
        }
        status = enter_at(r, base_seq, is_last, known, nearby);
        if (status == -CHRON_ECORRUPT) {
            int passed = chron__reader_pass_gap(r);

            if (passed <= 0)
                return passed < 0 ? passed : status;
        } else if (status != -CHRON_EGONE) {
            return status;
        }
    }
    return status;
}

/* `end`: where the log ends, if that is before the record; else CHRON_SEQ_NONE. */
static int rewritten(uint64_t seq, uint64_t end)
{
    int status =
        chron__at(chron__fail(CHRON_EREWRITTEN,
                              "record %" PRIu64 ", which this reader has passed, is no longer in the log: a "
                              "writer recovered from damage by cutting it off. Seek to where you want to go on",
                              seq),
                  "", 0, seq);

    chron__error()->next_seq = end;
    return status;
}

int chron__reader_move_to(chron_reader *r, uint64_t seq, chron__seg *nearby)
{
    chron_reader before = *r;
    int status;

    r->seg = NULL;
    r->next_seq = seq;
    chron__reader_enter_segment(r, NULL, 0, seq);
    status = attach_near(r, nearby);
    if (status == -CHRON_ECORRUPT)
        status = 0; /* the position is where it should be: whoever reads there is told */
    if (status < 0) {
        *r = before;
        return status;
    }
    chron__seg_release(before.seg);
    return status;
}

/* ------------------------------------------------------------------- the record before the position */

/* In one segment; with a reference to it. */
static int find_before_in(chron_reader *r, uint64_t base_seq, uint64_t seq, chron__seg **seg, uint64_t *offset,
                          chron__rec *rec)
{
    int status = 0;

    if (r->seg && r->seg->base_seq == base_seq)
        *seg = chron__seg_retain(r->seg);
    else
        status = chron__seg_open(&r->q, base_seq, CHRON__SEG_HEADLESS, seg);
    if (status == -CHRON_EGONE || status == -CHRON_ECORRUPT)
        return 0; /* what cannot be read is passed over */
    if (status < 0)
        return status;
    status = chron__seg_find_before(*seg, seq, offset, rec);
    if (chron__map_faulted(&(*seg)->map))
        status = chron__seg_fail_fault(*seg, "");
    if (status <= 0)
        chron__seg_release(*seg);
    return status;
}

int chron__reader_find_before(chron_reader *r, uint64_t seq, chron__seg **seg, uint64_t *offset, chron__rec *rec)
{
    chron__bases bases;
    int status = 0;

    if (r->seg && seq > r->seg->base_seq && seq <= r->next_seq)
        status = find_before_in(r, r->seg->base_seq, seq, seg, offset, rec);
    if (status != 0 || seq == 0)
        return status;
    status = chron__queue_list(&r->q, &bases);
    for (int64_t i = status < 0 ? -1 : chron__bases_find(&bases, seq - 1u); status == 0 && i >= 0; i--)
        status = find_before_in(r, bases.at[i], seq, seg, offset, rec);
    chron__bases_free(&bases);
    return status;
}

int chron__reader_fingerprint(chron_reader *r, uint32_t *crc)
{
    chron__seg *seg;
    chron__rec rec;
    uint64_t offset;
    int found;

    if (r->has_last) {
        *crc = r->last_crc;
        return 1;
    }
    if (chron__reader_find_before(r, r->next_seq, &seg, &offset, &rec) <= 0)
        return 0; /* deleted, or damaged: then there is nothing to compare with */
    found = chron__rec_seq(&rec) + 1u == r->next_seq;
    if (found)
        *crc = rec.crc;
    chron__seg_release(seg);
    return found;
}

/* The reader has entered a segment anew: is the record before the position still the one that it was `before`? 1 or 0. */
static int keep_history(chron_reader *r, const chron_reader *before)
{
    uint32_t crc;

    if (!before->has_last || r->next_seq != before->next_seq)
        return 1;
    if (r->seg && chron__reader_fingerprint(r, &crc) && crc != before->last_crc)
        return 0;
    r->last_crc = before->last_crc; /* out of sight now, but it is what was read */
    r->has_last = 1;
    r->epoch = before->epoch;
    return 1;
}

int chron__reader_attach(chron_reader *r)
{
    const chron_reader before = *r;
    int status;

    CHRON__ASSERT(!r->seg);
    status = attach_near(r, NULL);
    if (status == -CHRON_ERANGE) /* the position was in the log when the reader came to it */
        return rewritten(r->next_seq - 1u, chron__error()->next_seq);
    if (status >= 0 && !keep_history(r, &before)) {
        chron__seg_release(r->seg);
        *r = before;
        return rewritten(r->next_seq - 1u, CHRON_SEQ_NONE);
    }
    return status;
}

int chron__reader_missing(chron_reader *r)
{
    chron__bases bases;
    uint64_t oldest;
    int status = chron__queue_list(&r->q, &bases);

    if (status < 0)
        return status;
    oldest = bases.count ? bases.at[0] : 0;
    if (bases.count == 0 || oldest <= r->next_seq)
        status = chron__reader_damaged(r, "the next segment, to which END leads, is missing");
    chron__bases_free(&bases);
    if (status < 0)
        return status;
    status = bridge_gap(r, oldest, 0);
    return status < 0 ? status : chron__reader_attach(r);
}

int chron__reader_reattach(chron_reader *r)
{
    const chron_reader before = *r;
    int status;

    if (before.seg)
        (void)chron__seg_retain(before.seg); /* until it is clear whether we stay */
    status = chron__reader_move_to(r, before.next_seq, NULL);
    if (status == -CHRON_ERANGE) {
        status = rewritten(before.next_seq - 1u, chron__error()->next_seq);
    } else if (status >= 0 && !keep_history(r, &before)) {
        chron__seg_release(r->seg);
        *r = before;
        return rewritten(before.next_seq - 1u, CHRON_SEQ_NONE);
    }
    chron__seg_release(before.seg);
    return status;
}
