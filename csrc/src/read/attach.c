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
        int status = chron__log_end(&r->q, r->seg, &target);

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

/* Enter the segment that next_seq must be in. `nearby` (may be NULL) saves mapping it anew. As attach. */
static int enter_at(chron_reader *r, uint64_t base_seq, int is_last, chron__seg *nearby)
{
    chron__seg *seg;
    uint64_t offset;
    uint64_t found;
    int status = 0;

    if (nearby && nearby->base_seq == base_seq)
        seg = chron__seg_retain(nearby);
    else
        status = chron__seg_open(&r->q, base_seq, CHRON__SEG_HEADLESS, &seg);
    if (status < 0)
        return status;
    status = chron__seg_find(seg, r->next_seq, &offset, &found);
    if (status == 0 && found != r->next_seq) {
        chron__seg_release(seg);
        if (is_last)
            return chron__fail_range(r->next_seq, found);
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "record %" PRIu64 " is missing: the segment that begins with %" PRIu64
                                     " ends before it",
                                     r->next_seq, base_seq),
                         "", 0, r->next_seq);
    }
    if (status < 0) {
        chron__seg_release(seg);
        return status;
    }
    chron__reader_enter_segment(r, seg, offset, r->next_seq);
    return 1;
}

static int attach_near(chron_reader *r, chron__seg *nearby)
{
    int status = 0;

    for (int tries = 0; tries < TRIES; tries++) {
        chron__bases bases;
        uint64_t oldest;
        uint64_t base_seq;
        int64_t i;
        int is_last;

        status = chron__queue_list(&r->q, &bases);
        if (status < 0 || bases.count == 0)
            return status;
        i = chron__bases_find(&bases, r->next_seq);
        oldest = bases.at[0];
        base_seq = i < 0 ? 0 : bases.at[i];
        is_last = i + 1 == (int64_t)bases.count;
        chron__bases_free(&bases);
        if (i < 0) {
            status = bridge_gap(r, oldest, 0);
            if (status < 0)
                return status;
            continue;
        }
        status = enter_at(r, base_seq, is_last, nearby);
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

int chron__reader_attach(chron_reader *r)
{
    int status = attach_near(r, NULL);

    /* The position was in the log when the reader came to it. */
    return status == -CHRON_ERANGE ? rewritten(r->next_seq - 1u, chron__error()->next_seq) : status;
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

int chron__reader_move_to(chron_reader *r, uint64_t seq, chron__seg *nearby)
{
    chron_reader before = *r;
    int status;

    r->seg = NULL;
    r->next_seq = seq;
    chron__reader_enter_segment(r, NULL, 0, seq);
    status = attach_near(r, nearby);
    if (status < 0) {
        *r = before;
        return status;
    }
    chron__seg_release(before.seg);
    return status;
}

/* ------------------------------------------------------------------- the record before the position */

int chron__reader_locate_previous(chron_reader *r, chron__seg **seg, uint64_t *offset)
{
    uint64_t wanted;
    uint64_t found;
    int status;

    *seg = NULL;
    if (!r->seg) {
        status = chron__reader_attach(r);
        if (status <= 0)
            return status;
    }
    if (r->next_seq == 0)
        return 0;
    wanted = r->next_seq - 1u;
    if (r->next_seq > r->seg->base_seq) {
        *seg = chron__seg_retain(r->seg);
    } else {
        if (r->seg->prev_base == CHRON_SEQ_NONE)
            return 0;
        status = chron__seg_open(&r->q, r->seg->prev_base, 0, seg);
        if (status < 0)
            return status == -CHRON_EGONE ? 0 : status;
    }
    status = chron__seg_find(*seg, wanted, offset, &found);
    if (status == 0 && found == wanted)
        return 1;
    chron__seg_release(*seg);
    *seg = NULL;
    return status < 0 ? status
                      : chron__at(chron__fail(CHRON_ECORRUPT, "record %" PRIu64 " is missing", wanted), "", 0, wanted);
}

int chron__reader_locate(chron_reader *r, uint64_t seq, chron__seg **seg, uint64_t *offset)
{
    chron__bases bases;
    uint64_t base_seq;
    uint64_t found;
    int64_t i;

    if (r->seg && seq >= r->seg->base_seq) {
        *seg = chron__seg_retain(r->seg);
    } else {
        if (chron__queue_list(&r->q, &bases) < 0)
            return 0;
        i = chron__bases_find(&bases, seq);
        base_seq = i < 0 ? 0 : bases.at[i];
        chron__bases_free(&bases);
        if (i < 0 || chron__seg_open(&r->q, base_seq, CHRON__SEG_HEADLESS, seg) < 0)
            return 0;
    }
    if (chron__seg_find(*seg, seq, offset, &found) == 0 && found == seq)
        return 1;
    chron__seg_release(*seg);
    return 0;
}

int chron__reader_fingerprint(chron_reader *r, uint32_t *crc)
{
    chron__seg *seg;
    chron__rec rec;
    uint64_t offset;
    int status;

    if (r->has_last) {
        *crc = r->last_crc;
        return 1;
    }
    status = chron__reader_locate_previous(r, &seg, &offset);
    if (status <= 0)
        return 0; /* deleted, or damaged: then there is nothing to compare with */
    status = chron__rec_load(seg->map.base, seg->size, offset, &rec) == CHRON__REC_DATA;
    if (status)
        *crc = rec.crc;
    chron__seg_release(seg);
    return status;
}

int chron__reader_reattach(chron_reader *r)
{
    chron_reader before = *r;
    uint32_t crc;
    int status;

    if (before.seg)
        (void)chron__seg_retain(before.seg); /* until it is clear whether we stay */
    status = chron__reader_move_to(r, before.next_seq, NULL);
    if (status == -CHRON_ERANGE) {
        status = rewritten(before.next_seq - 1u, chron__error()->next_seq);
    } else if (status >= 0 && before.has_last && r->next_seq == before.next_seq) {
        if (chron__reader_fingerprint(r, &crc) && crc != before.last_crc) {
            chron__seg_release(r->seg);
            *r = before;
            return rewritten(before.next_seq - 1u, CHRON_SEQ_NONE);
        }
        r->last_crc = before.last_crc; /* out of sight now, but it is what was read */
        r->has_last = 1;
        r->epoch = before.epoch;
    }
    chron__seg_release(before.seg);
    return status;
}
