/* SPDX-License-Identifier: MIT */
/*
 * roll.c - the writer's slow path: what an append calls when it reaches its edge, about once per 64 KiB.
 * It has pages prepared ahead, and at the end of a segment it rolls to the next:
 *
 *   1. make `next.tmp`, allocated and mapped (ahead of time by the keeper, else now)
 *   2. write its header
 *   3. rename it to its final name
 *   4. publish END in the old segment
 *   5. seal the old segment
 *
 * After a crash between any two of them recovery finishes the roll, or undoes it (see recovery.c). A
 * reader that sees END finds the next segment, because 3 comes before 4.
 */
#include <inttypes.h>

#include "queue/retention.h"
#include "write/writer.h"

#define EDGE_STEP 65536u               /* bytes between two visits */
#define INLINE_SLICE 65536u            /* prepared in one go by the owner's thread: 16 pages */
#define WINDOW_MAX (16u * 1024 * 1024) /* prepared ahead at most; 6 ms at 2.5 GB/s */
#define WINDOW_GROWTH (4u * EDGE_STEP) /* so it is four times what was appended: a queue of a few records stays small */
#define ROOM_POLL_NS 1000000u          /* how often a blocked append looks whether readers went on: 1 ms */

/* --------------------------------------------------------------------------------- pages, ahead */

uint64_t chron__writer_touch(chron_writer *w, chron__seg *seg, uint64_t goal, uint64_t limit)
{
    uint64_t from = chron__get64(&seg->touched);
    uint64_t to;

    if (goal > seg->size)
        goal = seg->size;
    if (from >= goal)
        return 0;
    to = goal - from > limit ? from + limit : goal;
    to = (to + CHRON__PAGE - 1u) / CHRON__PAGE * CHRON__PAGE;
    /* [TOUCH] The owner and the keeper claim slices here; whoever loses leaves this one to the other. */
    if (!chron__cas64(&seg->touched, from, to))
        return 0;
    chron__populate(seg->map.base + from, (size_t)(to - from));
    chron__add64(&w->touched_bytes, to - from);
    return to - from;
}

/* Pages that the owner has written to need no preparing. */
static void skip_touched(chron__seg *seg, uint64_t end)
{
    uint64_t from = chron__get64(&seg->touched);

    if (from < end)
        (void)chron__cas64(&seg->touched, from, (end + CHRON__PAGE - 1u) / CHRON__PAGE * CHRON__PAGE); /* [TOUCH] */
}

static void prepare_ahead(chron_writer *w, uint64_t end)
{
    uint64_t tail = chron__get64(&w->tail);
    uint64_t window = chron__get64(&w->window);
    uint64_t slice = window < INLINE_SLICE ? window : INLINE_SLICE;

    skip_touched(w->seg, tail);
    if (chron__get64(&w->seg->touched) < end + slice)
        (void)chron__writer_touch(w, w->seg, end + slice, INLINE_SLICE);
    if (window < WINDOW_MAX)
        chron__set64(&w->window, window + WINDOW_GROWTH);
    if (w->keeper_running)
        chron__keeper_kick(w);
}

/* -------------------------------------------------------------------------------- back-pressure */

int chron__writer_has_room(chron_writer *w)
{
    chron__bases bases;
    int room;
    int status;

    if (w->limit_segments == 0)
        return 1;
    status = chron__queue_list(&w->q, &bases);
    if (status < 0)
        return status;
    room = bases.count < w->limit_segments;
    chron__bases_free(&bases);
    return room;
}

/* Room for one more segment: delete what readers are done with, then wait for them as long as allowed. */
static int make_room(chron_writer *w, int64_t timeout_ns)
{
    uint64_t start = chron__monotonic_ns();
    int waited = 0;

    for (;;) {
        uint64_t passed;
        int status = chron__writer_has_room(w);

        if (status != 0)
            return status;
        status = chron__writer_clean(w, NULL, NULL, 0);
        if (status >= 0)
            status = chron__writer_has_room(w);
        if (status != 0)
            return status;
        if (!waited++)
            w->full_waits++;
        passed = chron__monotonic_ns() - start;
        if (timeout_ns >= 0 && passed >= (uint64_t)timeout_ns)
            return 0;
        if (chron__sleep_ns(ROOM_POLL_NS) < 0)
            return chron__fail(CHRON_EINTR, "interrupted while waiting for readers to make room");
    }
}

int chron_writer_wait_room(chron_writer *w, int64_t timeout_ns)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    /* As long as the current segment has room for another record, or a next one is there, nothing waits. */
    pthread_mutex_lock(&w->lock);
    status = w->next != NULL;
    pthread_mutex_unlock(&w->lock);
    if (!status)
        status = make_room(w, timeout_ns);
    chron__writer_leave(w);
    return status;
}

/* --------------------------------------------------------------------------------- the roll itself */

int chron__writer_make_next(chron_writer *w, chron__seg **out)
{
    return chron__seg_create(&w->q, CHRON__FILE_NEXT, w->options.mode, out);
}

/* The prepared segment if there is one; waits for the keeper if it is making it. Ends with end_roll. */
static chron__seg *take_next(chron_writer *w)
{
    chron__seg *next;

    pthread_mutex_lock(&w->lock);
    while (w->preparing)
        pthread_cond_wait(&w->keeper_done, &w->lock);
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
    w->next = unused;
    w->rolling = 0;
    pthread_mutex_unlock(&w->lock);
}

static int get_next(chron_writer *w, chron__seg **out)
{
    int status;

    *out = take_next(w);
    if (*out)
        return 0;
    status = make_room(w, w->options.block_ns);
    if (status < 0)
        return status;
    if (status == 0)
        return chron__fail(CHRON_EFULL,
                           "the queue is full: %" PRIu64 " segments are allowed, and a reader, or the lack "
                           "of any, keeps all of them (cleanup tells which)",
                           w->limit_segments);
    w->rolls_unprepared++;
    return chron__writer_make_next(w, out);
}

void chron__writer_enter_segment(chron_writer *w, chron__seg *seg, uint64_t tail, const chron__tally *tally)
{
    pthread_mutex_lock(&w->lock);
    w->seg = seg;
    chron__set64(&w->tail, tail);
    pthread_mutex_unlock(&w->lock);
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

    chron__rec_write_header(at, seq, 0, CHRON__TYPE_OURS, 0, w->epoch);
    chron__rec_write_crc(at, 0);
    CHRON__STEP("roll: END written");
    chron__rec_publish(at, 0);
    chron__writer_note_block(w, offset);
}

static void retire(chron_writer *w, chron__seg *old)
{
    chron__seg *before = NULL;

    /* Unmapping 64 MiB takes a millisecond: leave it to the keeper where there is one. */
    if (w->keeper_running) {
        pthread_mutex_lock(&w->lock);
        before = w->retired;
        w->retired = old;
        pthread_mutex_unlock(&w->lock);
        old = NULL;
    }
    chron__seg_release(before);
    chron__seg_release(old);
}

/* The segment before is complete, unless it went away while it was being completed. */
static int leave(chron_writer *w, chron__seg *old)
{
    int status = 0;

    if (chron__map_faulted(&old->map)) {
        chron__set32(&w->poisoned, 1);
        status = chron__seg_fail_fault(old, CHRON__REOPEN);
    }
    retire(w, old);
    return status;
}

static int roll(chron_writer *w)
{
    static const chron__tally nothing = {0};
    char name[CHRON__NAME_BYTES];
    chron__seg *old = w->seg;
    chron__seg *next;
    uint64_t offset = chron__get64(&w->tail);
    uint64_t seq = chron__get64(&w->next_seq);
    int status = get_next(w, &next);

    if (status < 0) {
        end_roll(w, NULL);
        return status;
    }
    CHRON__STEP("roll: next segment made");
    chron__seg_write_header(&w->q, next, seq, old->base_seq, w->full_epoch, chron__clock_ns(0));
    CHRON__STEP("roll: header written");
    chron__segment_name(seq, name);
    status = w->q.io->rename(w->q.io, w->q.dir, CHRON__FILE_NEXT, w->q.dir, name);
    if (status < 0) {
        end_roll(w, next);
        return chron__fail_sys(status, name, "cannot give the next segment its name %s", name);
    }
    chron__set32(&w->dir_dirty, 1); /* before next_seq moves on: a sync that covers a record there sees it */
    CHRON__STEP("roll: renamed");
    publish_end(w, offset, seq);
    CHRON__STEP("roll: END published");
    chron__seg_seal_store(old, &w->tally, offset, chron__clock_ns(1));
    CHRON__STEP("roll: sealed");
    chron__writer_enter_segment(w, next, next->data_offset, &nothing);
    end_roll(w, NULL);
    w->rolls++;
    w->wakes += (uint64_t)chron__doorbell_ring(&w->bell);
    status = leave(w, old);
    if (status == 0 && !w->keeper_running && w->options.retention.automatic)
        (void)chron__writer_clean(w, NULL, NULL, 0); /* tried again at the next roll */
    return status;
}

int chron__writer_edge(chron_writer *w, uint64_t bytes)
{
    uint64_t last = w->seg->size - CHRON__RECORD_HEADER; /* END has to fit behind every record */
    uint64_t end;

    if (chron__get64(&w->tail) + bytes > last) {
        int status = roll(w);

        if (status < 0)
            return status;
        last = w->seg->size - CHRON__RECORD_HEADER;
    }
    end = chron__get64(&w->tail) + bytes;
    prepare_ahead(w, end);
    w->edge = (end / EDGE_STEP + 1u) * EDGE_STEP;
    if (w->edge > last)
        w->edge = last;
    return 0;
}
