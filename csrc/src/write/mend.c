/* SPDX-License-Identifier: MIT */
/*
 * mend.c - see mend.h. Who dies in a turn leaves an intent. What it placed is either published, by the first commit word, or
 * nobody has seen it: the one is kept, the other zeroed. Modelled in tests/models/turn.pml.
 *
 * Invariants:
 *  - Each store here may be the last: whoever comes next begins with the same intent, and comes to the same end.
 *  - If anything has to be zeroed, the epoch is raised first: of a batch that was not published the rear may have reached the
 *    disk, and would come back to life behind what is appended instead, after a loss of power. Zombies of an older
 *    epoch are none.
 */
#include "write/mend.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"

/* The segment that the head says, for writing: ours, or opened now. */
static int open_head(const chron_writer *w, chron__seg **out)
{
    const uint64_t base = w->shared->head.base;

    if (w->seg && w->seg->base_seq == base) {
        *out = chron__seg_retain(w->seg);
        return 0;
    }
    return chron__shared_open_head(w, base, out);
}

static void note(chron__seg *seg, uint64_t offset)
{
    const uint64_t block = chron__seg_block_of(seg, offset);

    if (chron__seg_index_raw(seg, block) == 0)
        chron__seg_index_set(seg, block, offset);
}

/* ------------------------------------------------------------------------------------------- an append */

static int raise_epoch(chron_writer *w)
{
    uint32_t epoch = chron__load_acquire_le32(chron__word(w, CHRON__O_EPOCH)); /* [HEAD] in the turn */

    if (epoch >= chron__load_acquire_le32(chron__word(w, CHRON__O_END))) { /* [HEAD] the same */
        chron__shared_poison(w);
        return chron__fail(CHRON_EPOISONED, "too many writers of this queue have died: close all of them, and open it "
                                            "again");
    }
    chron__store_release_le32(chron__word(w, CHRON__O_EPOCH), epoch + 1u); /* [HEAD] */
    CHRON__STEP("mend: epoch raised");
    return 0;
}

static int mend_append(chron_writer *w, chron__seg *seg)
{
    chron__head *h = &w->shared->head;
    const uint64_t end = (uint64_t)h->intent * CHRON__ALIGN;
    chron__walk walk = {.offset = h->tail, .next_seq = h->next_seq};
    enum chron__walk_stop stop;
    chron__rec rec;
    int status = 0;

    if (end > seg->size - CHRON__RECORD_HEADER)
        return chron__at(chron__fail(CHRON_ECORRUPT, "the words of several writers in queue.meta are damaged"),
                         CHRON__FILE_META, CHRON__H_INTENT, h->next_seq);
    while (walk.offset < end) {
        const uint64_t offset = walk.offset;

        if (!chron__seg_step(seg, &walk, 0, &rec, &stop))
            break;
        note(seg, offset);
        h->ordered &= h->next_seq == h->base || chron__rec_timestamp(&rec) >= h->last_ts;
        h->last_ts = chron__rec_timestamp(&rec);
        h->next_seq = walk.next_seq;
        h->tail = walk.offset;
    }
    if (h->tail < end && !chron__is_zero(seg->map.base + h->tail, (size_t)(end - h->tail))) {
        status = raise_epoch(w);
        if (status < 0)
            return status;
        memset(seg->map.base + h->tail, 0, (size_t)(end - h->tail));
        CHRON__STEP("mend: zeroed");
    }
    chron__head_store(w->q.meta.base, h);
    chron__head_intend(w->q.meta.base, 0);
    return 0;
}

/* --------------------------------------------------------------------------------------------- a roll */

static void put_end(chron__seg *seg, const chron__head *h, uint32_t epoch)
{
    uint8_t *at = seg->map.base + h->tail;

    if (chron__load_relaxed_le32(at) == 0) { /* [PUBLISH] by somebody who died */
        chron__rec_write_header(at, h->next_seq, 0, CHRON__TYPE_OURS, 0, epoch);
        chron__rec_write_crc(at, 0);
        CHRON__STEP("roll: END written");
        chron__rec_publish(at, 0);
    }
    note(seg, h->tail);
}

void chron__complete_roll(chron_writer *w, chron__seg *old)
{
    chron__head *h = &w->shared->head;
    chron__tally tally = {.records = h->next_seq - h->base, .last_ts = h->last_ts, .goes_back = !h->ordered};
    chron__seal_value seal;

    put_end(old, h, chron__load_acquire_le32(chron__word(w, CHRON__O_EPOCH))); /* [HEAD] in the turn */
    CHRON__STEP("roll: END published");
    chron__store_release_le32(chron__word(w, CHRON__P_READY),
                              0); /* [TURN] behind the rename: else its name could be made again */
    tally.first_ts = chron__read_le64(old->map.base + old->data_offset + offsetof(chron__record_header, timestamp_ns));
    if (chron__seg_seal_load(old, &seal) != 1)
        chron__seg_seal_store(old, &tally, h->tail);
    CHRON__STEP("roll: sealed");
    h->base = h->next_seq;
    h->tail = old->data_offset;
    h->ordered = 1;
    chron__head_store(w->q.meta.base, h);
    chron__head_intend(w->q.meta.base, 0);
}

/* Is the prepared file gone, under its name? Then nobody has to look for it. */
static void forget_prepared(chron_writer *w)
{
    uint32_t n = chron__load_acquire_le32(chron__word(w, CHRON__P_READY)); /* [TURN] in the turn */
    char name[CHRON__NAME_BYTES];
    chron__stat st;

    chron__shared_name(n, name);
    if (n != 0 && w->q.io->stat_name(w->q.io, w->q.dir, name, &st) == -ENOENT)
        chron__store_release_le32(chron__word(w, CHRON__P_READY), 0); /* [TURN] in the turn */
}

static int mend_roll(chron_writer *w, chron__seg *seg)
{
    chron__head *h = &w->shared->head;
    chron__seg *next = NULL;
    int status = h->next_seq == h->base ? -CHRON_EGONE : chron__seg_open(&w->q, h->next_seq, 0, &next);
    const int follows = status == 0 && next->prev_base == h->base;

    chron__seg_release(next);
    if (status < 0 && status != -CHRON_EGONE)
        return status;
    forget_prepared(w);
    if (follows) {
        (void)chron__add32(chron__word(w, CHRON__S_DIR), 1); /* [HEAD] seen by a sync that sees the commit */
        chron__complete_roll(w, seg);
    } else {
        chron__head_intend(w->q.meta.base, 0);
    }
    return 0;
}

int chron__mend(chron_writer *w)
{
    chron__seg *seg;
    int status = open_head(w, &seg);

    if (status < 0)
        return status;
    w->shared->inherited++;
    if (w->shared->head.tail < seg->data_offset || w->shared->head.tail > seg->size - CHRON__RECORD_HEADER)
        status = chron__fail(CHRON_ECORRUPT, "the words of several writers in queue.meta are damaged");
    else if (w->shared->head.intent == CHRON__INTENT_ROLL)
        status = mend_roll(w, seg);
    else
        status = mend_append(w, seg);
    if (status == 0 && chron__map_faulted(&seg->map)) {
        chron__shared_poison(w);
        status = chron__seg_fail_fault(seg, CHRON__REOPEN);
    }
    chron__seg_release(seg);
    w->shared->head.intent = 0;
    CHRON__STEP("mend: done");
    return status;
}
