/* SPDX-License-Identifier: MIT */
/*
 * turns.c - taking a turn and giving it back. The order of stores in a turn, which dying between any two of them may end:
 *
 *   intent, all bytes, commit words from the second record on, that of the first, index entries, the other state, commit,
 *   intent 0, the word given back, the doorbell
 *
 * In a turn nobody waits for anything: not for room, for a sync, for the file of the next segment, for pages. What
 * is missing is done without the turn, and then all is looked at again.
 */
#include "write/turns.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "write/flush.h"
#include "write/mend.h"
#include "write/next.h"
#include "write/prepare.h"
#include "write/sync.h"

#define PAGES_TRIES 3 /* to have pages ready before the turn: others append meanwhile */
#define PAGES_AHEAD (256u * 1024)
#define CLOCK_SLACK_NS 100000000u /* two processors' clocks, or a coarse one beside a fine one: 100 ms */

void chron__touch_source(const void *data, size_t length)
{
    const volatile uint8_t *at = data;

    for (size_t i = 0; i < length; i += CHRON__PAGE)
        (void)at[i];
    if (length > 0)
        (void)at[length - 1u];
}

uint64_t chron__turn_now(chron_writer *w, uint64_t now)
{
    const uint64_t last = w->tally.last_ts;

    if (now >= last)
        return now;
    now = chron__writer_now(w);
    return now < last && last - now < CLOCK_SLACK_NS ? last : now;
}

/* ------------------------------------------------------------------------------------------ the turn */

static void give(chron_writer *w)
{
    chron__seg *left = w->shared->left;

    w->shared->left = NULL;
    w->edge = 0;
    chron__turn_give(chron__word(w, CHRON__O_OWNER));
    CHRON__STEP("turn: given back");
    if (__builtin_expect(left != NULL, 0))
        chron__next_leave(w, left);
}

static __attribute__((cold, noinline)) int refuse(chron_writer *w)
{
    give(w);
    chron__set32(&w->poisoned, 1); /* [STOP] */
    w->was_told = 1;
    return chron__fail(
        CHRON_EPOISONED,
        "one of the writers of this queue has met a failed sync, or lost its pages: none of them can vouch "
        "for its data. Close all of them and open the queue again, which recovers what is on disk");
}

/* Somebody died in a turn: nobody goes on before that is put right. */
static __attribute__((cold, noinline)) int mend(chron_writer *w)
{
    int status = chron__mend(w);

    if (status < 0)
        give(w);
    else
        w->wakes += (uint64_t)chron__doorbell_ring(&w->bell); /* of what the dead one published */
    return status;
}

/* The turn, and the head as it is. */
static inline int take(chron_writer *w)
{
    struct chron__shared *s = w->shared;
    uint8_t *meta = w->q.meta.base;
    uint32_t owner = 0;
    int status = chron__turn_take(&s->m, meta + CHRON__O_OWNER, s->timeout_ns, &owner);

    if (__builtin_expect(status < 0, 0))
        return chron__turn_fail(w, status, owner, "the turn");
    CHRON__STEP("turn: begun");
    chron__head_load(meta, &s->head);
    /* [HEAD] of the turns before, the same line as the owner word */
    if (__builtin_expect(chron__load_relaxed_le32(meta + CHRON__O_READY) != s->ready ||
                             chron__load_relaxed_le32(meta + CHRON__O_POISON) == s->ready, /* [HEAD] */
                         0))
        return refuse(w);
    if (__builtin_expect(s->head.intent != 0, 0)) {
        status = mend(w);
        if (status < 0)
            return status;
    }
    w->epoch = chron__load_relaxed_le32(meta + CHRON__O_EPOCH); /* [HEAD] */
    w->full_epoch = w->epoch;
    return 0;
}

/* Others have rolled: the segment that they append to, opened without the turn. */
static __attribute__((cold, noinline)) int follow(chron_writer *w, uint64_t base)
{
    chron__seg *seg;
    chron__seg *old;
    int status = chron__seg_open(&w->q, base, CHRON__SEG_WRITE, &seg);

    if (status == -CHRON_EGONE)
        return chron__writer_check_place(w, NULL); /* they have gone on again, or the queue was removed */
    if (status < 0)
        return status;
    old = chron__next_adopt(w, seg);
    chron__next_leave(w, old);
    return 0;
}

/* Blocks that have an entry already, by others. */
static __attribute__((cold, noinline)) void pass_blocks(chron_writer *w, uint64_t tail)
{
    const uint64_t block = chron__seg_block_of(w->seg, tail);

    w->next_block = w->seg->data_offset + (block + (chron__seg_index_raw(w->seg, block) != 0)) * CHRON__STRIDE;
}

static inline void enter(chron_writer *w)
{
    const chron__head *h = &w->shared->head;

    chron__set64(&w->tail, h->tail);
    chron__set_release64(&w->next_seq, h->next_seq); /* [TAIL] with chron__writer_sync */
    w->tally.records = h->next_seq - h->base;
    w->tally.last_ts = w->tally.records ? h->last_ts : 0;
    w->tally.goes_back = !h->ordered;
    w->edge = w->seg->size - CHRON__RECORD_HEADER;
    if (__builtin_expect(h->tail >= w->next_block, 0))
        pass_blocks(w, h->tail);
}

static __attribute__((cold, noinline)) int fail_words(chron_writer *w)
{
    const uint64_t seq = w->shared->head.next_seq;

    give(w);
    return chron__at(chron__fail(CHRON_ECORRUPT, "the words of several writers in queue.meta are damaged: close all of "
                                                 "them and open the queue again"),
                     CHRON__FILE_META, CHRON__H_COMMIT, seq);
}

/* Has a sync found out that the device has lost a part of this segment? It is written anew once it is left. */
static int is_lost(chron_writer *w)
{
    int lost;

    pthread_mutex_lock(&w->lock);
    lost = w->roll_wanted && w->seg->base_seq == w->inherited_base;
    pthread_mutex_unlock(&w->lock);
    return lost;
}

/* Not in this turn: 1, try again without it; or a failure. 0: it can be. */
static __attribute__((cold, noinline)) int make_ready(chron_writer *w, uint64_t bytes, int tries)
{
    const chron__head h = w->shared->head;
    int status;

    if (h.base != w->seg->base_seq) {
        give(w);
        status = follow(w, h.base);
        return status < 0 ? status : 1;
    }
    if (h.tail < w->seg->data_offset || h.tail > w->seg->size - CHRON__RECORD_HEADER)
        return fail_words(w);
    if ((h.tail + bytes > w->seg->size - CHRON__RECORD_HEADER || is_lost(w)) && h.next_seq > h.base) {
        status = chron__next_enter(w);
        if (status == 1)
            return make_ready(w, bytes, tries);
        give(w);
        if (status == 0)
            status = chron__next_have(w);
        return status < 0 ? status : 1;
    }
    if (chron__get64(&w->seg->touched) < h.tail + bytes && tries < PAGES_TRIES) {
        give(w);
        chron__writer_pages_ahead(w, h.tail, h.tail + bytes + PAGES_AHEAD);
        return 1;
    }
    return 0;
}

int chron__turn_begin(chron_writer *w, uint64_t bytes)
{
    for (int tries = 0;; tries++) {
        const chron__head *h = &w->shared->head;
        int status = take(w);

        if (status < 0)
            return status;
        if (__builtin_expect(h->base != w->seg->base_seq || h->tail < w->seg->data_offset ||
                                 h->tail + bytes > w->seg->size - CHRON__RECORD_HEADER ||
                                 chron__get64(&w->seg->touched) < h->tail + bytes,
                             0)) {
            status = make_ready(w, bytes, tries);
            if (status < 0)
                return status;
            if (status > 0)
                continue;
        }
        /* [PUBLISH] the words of several writers may be damaged, as any byte of any file: committed bytes never change */
        if (__builtin_expect(chron__load_relaxed_le32(w->base + h->tail) != 0, 0)) {
            chron__shared_poison(w);
            return fail_words(w);
        }
        enter(w);
        return 0;
    }
}

void chron__turn_abandon(chron_writer *w)
{
    chron__head_intend(w->q.meta.base, 0);
    give(w);
}

static __attribute__((cold, noinline)) int64_t make_durable(chron_writer *w, uint64_t seq, uint32_t count)
{
    uint64_t durable = chron__load_relaxed_le64(chron__word(w, CHRON__S_DURABLE)); /* [COUNT] */

    if (seq + count <= durable || seq + count - durable < w->sync_every)
        return (int64_t)seq;
    if (chron__writer_flush(w) < 0)
        return chron__writer_fail_unsynced(w, seq + count - 1u, count);
    return (int64_t)seq;
}

int64_t chron__turn_finish(chron_writer *w, uint64_t end, uint64_t seq, uint32_t count)
{
    chron__head *h = &w->shared->head;

    CHRON__ASSERT(seq == h->next_seq && end > h->tail && end <= w->seg->size - CHRON__RECORD_HEADER);
    CHRON__ASSERT(w->tally.records == seq + count - w->seg->base_seq);
    CHRON__STEP("turn: published");
    h->tail = end;
    h->next_seq = seq + count;
    h->last_ts = w->tally.last_ts;
    h->ordered = !w->tally.goes_back;
    chron__head_store(w->q.meta.base, h);
    chron__head_intend(w->q.meta.base, 0);
    CHRON__STEP("turn: done");
    chron__set64(&w->tail, end);
    chron__set_release64(&w->next_seq, seq + count); /* [TAIL] with chron__writer_sync */
    w->own_records += count;
    give(w);
    chron__fence_signal(); /* [FAULT] with on_fault in guard.c */
    if (__builtin_expect(chron__any_faulted() && (chron__get32(w->fault) != 0 || chron__map_faulted(&w->q.meta)), 0)) {
        chron__shared_poison(w);
        return chron__writer_faulted(w);
    }
    if (__builtin_expect(chron__doorbell_ring_behind_turn(&w->bell), 0))
        w->wakes++;
    return __builtin_expect(w->sync_every != 0, 0) ? make_durable(w, seq, count) : (int64_t)seq;
}
