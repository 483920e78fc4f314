/* SPDX-License-Identifier: MIT */
/*
 * roll.c - the writer's slow path: what an append calls when it reaches its edge, about once per 64 KiB.
 * It has pages prepared ahead (prepare.c), and at the end of a segment it rolls to the next:
 *
 *   1. make `next.tmp`, allocated and mapped (ahead of time by the keeper, else now)
 *   2. write its header
 *   3. rename it to its final name
 *   4. publish END in the old segment
 *   5. seal the old segment
 *
 * After a crash between any two of them recovery finishes the roll, or undoes it (see recovery.c).
 *
 * Invariants:
 *  - A reader that sees END finds the next segment, because 3 comes before 4.
 *  - A segment that was left has at least one record.
 *  - next.tmp belongs to one thread at a time: to the keeper while `preparing`, to the owner while `rolling`.
 *  - tail <= edge <= size - 32, and the word at the tail is 0: END fits behind every record.
 *  - The announced intent (format/identity.h) lies at or behind all that was ever placed.
 */
#include "write/roll.h"

#include <inttypes.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/identity.h"
#include "write/keeper.h"
#include "write/prepare.h"
#include "write/reuse.h"
#include "write/room.h"
#include "write/sync.h"

/* The prepared segment if there is one; waits for the keeper if it is making it. Ends with end_roll. */
static chron__seg *take_next(chron_writer *w)
{
    chron__seg *next;

    pthread_mutex_lock(&w->lock);
    while (w->preparing)
        chron__cond_wait_long(&w->keeper_done, &w->lock);
    CHRON__ASSERT(!w->rolling && w->claimed == 0);
    next = w->next;
    w->next = NULL;
    w->rolling = 1;
    pthread_mutex_unlock(&w->lock);
    return next;
}

/* `unused`: a segment that was made but not entered, for the next try. */
static void end_roll(chron_writer *w, chron__seg *unused)
{
    pthread_mutex_lock(&w->lock);
    CHRON__ASSERT(w->rolling && !w->preparing && !w->next);
    w->next = unused;
    w->rolling = 0;
    pthread_mutex_unlock(&w->lock);
}

/* The thread is cancelled while it waits for room: the handle is as before the append, and free. */
static void give_up(void *writer)
{
    end_roll(writer, NULL);
    chron__writer_leave(writer);
}

static int get_next(chron_writer *w, chron__seg **out)
{
    int status;

    *out = take_next(w);
    if (!*out)
        *out = chron__reuse_next(w);
    if (*out && chron__seg_is_ready(*out))
        return 0;
    if (*out) { /* half prepared: the rest is done as it is filled, but what has to be wiped is wiped */
        w->rolls_unprepared++;
        return chron__writer_finish_next(w, out);
    }
    status = chron__writer_make_room(w, w->options.block_ns, give_up);
    if (status < 0)
        return status;
    if (status == 0)
        return chron__writer_fail_full(w);
    w->rolls_unprepared++;
    return chron__writer_make_next(w, out);
}

void chron__writer_enter_segment(chron_writer *w, chron__seg *seg, uint64_t tail, const chron__tally *tally)
{
    uint64_t now = chron__monotonic_ns();

    CHRON__ASSERT(tail % CHRON__ALIGN == 0 && tail >= seg->data_offset && tail <= seg->size - CHRON__RECORD_HEADER);
    CHRON__ASSERT(seg->fd >= 0 && seg->io == w->q.io);
    CHRON__ASSERT(chron__load_relaxed_le32(seg->map.base + tail) == 0); /* [PUBLISH] the word at the tail */
    if (w->seg && w->seg != seg)
        chron__set64(&w->fill_ns, now - w->entered_ns); /* [COUNT] advice for the keeper */
    w->entered_ns = now;
    pthread_mutex_lock(&w->lock);
    w->seg = seg;
    chron__set64(&w->tail, tail);
    pthread_mutex_unlock(&w->lock);
    /* The word for the segment first: what the other one says of the old segment is nothing to worry about in an empty one. */
    chron__word_store(w->q.meta.base, offsetof(chron__words, base), (uint32_t)seg->base_seq);
    chron__intent_store(w->q.meta.base, tail);
    w->base = seg->map.base;
    w->fault = seg->map.fault;
    w->tally = *tally;
    w->edge = tail;
    /* A block whose first record is known already gets no other entry. */
    w->next_block = seg->data_offset;
    if (tail > seg->data_offset)
        w->next_block += (chron__seg_block_of(seg, tail - 1u) + 1u) * CHRON__STRIDE;
}

static void publish_end(chron_writer *w, uint64_t offset, uint64_t seq)
{
    uint8_t *at = w->base + offset;

    CHRON__ASSERT(offset + CHRON__RECORD_HEADER <= w->seg->size);
    CHRON__ASSERT(offset + CHRON__RECORD_HEADER <= chron__intent_of(w->q.meta.base)); /* announced */
    CHRON__ASSERT(chron__load_relaxed_le32(at) == 0); /* [PUBLISH] the word at the tail */
    chron__rec_write_header(at, seq, 0, CHRON__TYPE_OURS, 0, w->epoch);
    chron__rec_write_crc(at, 0);
    CHRON__STEP("roll: END written");
    chron__rec_publish(at, 0);
    chron__writer_note_block(w, offset);
}

/* The segment before is complete, unless it went away while it was being completed. */
static int leave(chron_writer *w, chron__seg *old)
{
    int status = 0;

    if (chron__map_faulted(&old->map)) {
        chron__set32(&w->poisoned, 1);
        w->was_told = 1;
        (void)chron__seg_fail_fault(old, CHRON__REOPEN);
        chron__error()->code = CHRON_EPOISONED;
        status = -CHRON_EPOISONED;
    }
    chron__writer_owe(w, old);
    old = chron__reuse_keep(w, old);
    if (old)
        chron__writer_retire(w, old);
    return status;
}

int chron__writer_roll(chron_writer *w)
{
    static const chron__tally nothing = {0};
    char name[CHRON__NAME_BYTES];
    chron__seg *old = w->seg;
    chron__seg *next;
    chron_cleanup done;
    uint64_t offset = chron__get64(&w->tail);
    uint64_t seq = chron__get64(&w->next_seq);
    int status = chron__writer_check_place(w, old);

    if (status < 0)
        return status;
    status = get_next(w, &next);
    if (status < 0) {
        end_roll(w, NULL);
        return status;
    }
    CHRON__STEP("roll: next segment made");
    chron__intent_store(w->q.meta.base, old->size); /* END is about to be placed */
    chron__seg_write_header(&w->q, next, seq, old->base_seq, w->full_epoch, chron__clock_ns(0));
    CHRON__STEP("roll: header written");
    if (next->is_old) /* whoever opened it before it lost its old name sees that it is another */
        w->q.io->disown(w->q.io, next->fd);
    chron__segment_name(seq, name);
    status = w->q.io->rename(w->q.io, w->q.dir, CHRON__FILE_NEXT, w->q.dir, name);
    if (status < 0) {
        end_roll(w, next);
        return chron__fail_sys(status, name, "cannot give the next segment its name %s", name);
    }
    chron__set32(&w->dir_dirty, 1); /* before next_seq moves on: a sync that covers a record there sees it */
    chron__add64(&w->reused_segments, (uint64_t)next->is_old); /* [COUNT] */
    chron__writer_count_segments(w, 1);
    CHRON__STEP("roll: renamed");
    CHRON__ASSERT(next->base_seq == seq && next->prev_base == old->base_seq); /* END leads to it */
    publish_end(w, offset, seq);
    CHRON__STEP("roll: END published");
    chron__seg_seal_store(old, &w->tally, offset);
    CHRON__STEP("roll: sealed");
    chron__writer_enter_segment(w, next, next->data_offset, &nothing);
    end_roll(w, NULL);
    w->rolls++;
    w->wakes += (uint64_t)chron__doorbell_ring(&w->bell);
    status = leave(w, old);
    if (status == 0)
        chron__keeper_try(w);
    if (status == 0 && !w->keeper_running && w->retention.automatic)
        (void)chron__writer_clean(w, &done, NULL); /* tried again at the next roll */
    return status;
}

int chron__writer_leave_lost(chron_writer *w)
{
    int status;
    int wanted;

    if (w->shared)
        return 0; /* the next append leaves it, in its turn */
    pthread_mutex_lock(&w->lock);
    wanted = w->roll_wanted && w->seg->base_seq == w->inherited_base; /* else it was left already */
    w->roll_wanted = 0;
    pthread_mutex_unlock(&w->lock);
    status = wanted ? chron__writer_roll(w) : 0;
    return status < 0 ? status : wanted;
}

int chron__writer_edge(chron_writer *w, uint64_t bytes)
{
    uint64_t last;
    uint64_t end;
    int status = chron__writer_leave_lost(w);

    if (status < 0 && chron__get32(&w->poisoned)) /* [STOP] any other failure: the next sync asks for it again */
        return status;
    if (chron__get64(&w->tail) + bytes > w->seg->size - CHRON__RECORD_HEADER) {
        status = chron__writer_roll(w);
        if (status < 0)
            return status;
    }
    last = w->seg->size - CHRON__RECORD_HEADER; /* END has to fit behind every record */
    end = chron__get64(&w->tail) + bytes;
    chron__writer_prepare_ahead(w, end);
    w->edge = (end / CHRON__EDGE_STEP + 1u) * CHRON__EDGE_STEP;
    if (w->edge > last)
        w->edge = last;
    chron__intent_store(w->q.meta.base, w->edge);
    CHRON__ASSERT(end <= w->edge);
    return 0;
}
