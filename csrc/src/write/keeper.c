/* SPDX-License-Identifier: MIT */
/*
 * keeper.c - the optional background thread of a writer. It makes things ready, so that the owner's thread finds
 * them ready: pages ahead of the tail, the next segment, cleanups. Waiting for the disk is left to a second one
 * (syncer.c). Neither takes part in correctness: without them the same work is done inline, or later.
 *
 * One that cannot be started (no more threads are allowed) is done without, and tried again at the next roll.
 *
 * It never fails an append. What goes wrong here is counted, tried again after a pause, and comes to
 * light in the owner's own call (a full disk at the roll); only a failed sync poisons the writer.
 */
#include "write/keeper.h"

#include "base/assert.h"
#include "base/error.h"
#include "write/next.h"
#include "write/prepare.h"
#include "write/room.h"
#include "write/syncer.h"

#define TOUCH_SLICE (256u * 1024)  /* bytes prepared between two looks at the clock and at `stop` */
#define TICK_NS 100000000u         /* longest sleep: 100 ms */
#define CLEAN_EVERY_NS 1000000000u /* a cleanup at least once a second, if it is automatic */
#define RETRY_NS 100000000u        /* pause after a failure */

/* What the keeper remembers between two rounds; its thread only. */
typedef struct round_state {
    uint64_t next_clean_ns;
    uint64_t retry_ns;     /* no preparing before this time */
    uint64_t cleaned_base; /* current segment at the last cleanup */
} round_state;

/* Pages ahead of the tail, in the current segment and across into the next. 1 if there is more to do. */
static int touch_ahead(chron_writer *w, chron__seg *seg)
{
    uint64_t tail;
    uint64_t goal;
    uint64_t done;
    chron__seg *next;

    pthread_mutex_lock(&w->lock);
    if (seg != w->seg) {
        pthread_mutex_unlock(&w->lock);
        return 1; /* rolled meanwhile */
    }
    tail = chron__get64(&w->tail);
    next = w->next && chron__seg_is_ready(w->next) ? chron__seg_retain(w->next) : NULL;
    pthread_mutex_unlock(&w->lock);
    goal = tail + chron__get64(&w->window);
    done = chron__writer_touch(w, seg, goal, TOUCH_SLICE);
    if (done == 0 && next && goal > seg->size)
        done = chron__writer_touch(w, next, next->data_offset + goal - seg->size, TOUCH_SLICE);
    chron__seg_release(next);
    return done > 0;
}

/* Bytes of the next segment that may be zeroed when there are `left` to fill in this one. */
static uint64_t lead_of(const chron_writer *w, uint64_t left)
{
    return w->lead_max > left ? w->lead_max - left : 0;
}

/* The same of one of several writers: whoever is first makes it for all. */
static int prepare_shared(chron_writer *w, uint64_t tail, const chron__seg *seg, round_state *state, uint64_t now)
{
    int status;

    if (now < state->retry_ns || tail < seg->size / 2u)
        return 0;
    status = chron__writer_has_room(w);
    if (status == 1)
        status = chron__next_make(w);
    if (status < 0) {
        chron__writer_note_failure(w, status);
        state->retry_ns = now + RETRY_NS;
    }
    return 0;
}

/* A step towards the next segment, once the current one is half full, or fills fast. 1 if something was done. */
static int prepare_next(chron_writer *w, chron__seg *seg, round_state *state, uint64_t now)
{
    uint64_t tail = chron__get64(&w->tail);
    int is_time = tail >= seg->size / 2u || chron__writer_prewrites(w);
    chron__seg *next;
    int status = 1;

    if (w->shared)
        return prepare_shared(w, tail, seg, state, now);
    if (now < state->retry_ns)
        return 0;
    pthread_mutex_lock(&w->lock);
    is_time |= w->spare || (w->next && w->next->is_old); /* it is there already, and takes its time */
    if (!is_time || w->rolling || seg != w->seg || (w->next && chron__seg_is_ready(w->next))) {
        pthread_mutex_unlock(&w->lock);
        return 0;
    }
    next = w->next;
    w->next = NULL;
    w->preparing = next ? 2 : 1; /* from here on a roll waits for us, for one step */
    pthread_mutex_unlock(&w->lock);
    if (!next)
        status = chron__writer_has_room(w);
    if (status == 1)
        status = chron__writer_step_next(w, lead_of(w, seg->size - tail), &next);
    pthread_mutex_lock(&w->lock);
    CHRON__ASSERT(w->preparing && !w->rolling && !w->next);
    w->next = next;
    w->preparing = 0;
    pthread_cond_signal(&w->keeper_done);
    pthread_mutex_unlock(&w->lock);
    if (status < 0)
        chron__writer_note_failure(w, status);
    if (!next)
        state->retry_ns = now + RETRY_NS;
    return next && status > 0;
}

static void clean_if_due(chron_writer *w, chron__seg *seg, round_state *state, uint64_t now)
{
    chron_cleanup done;
    int status;

    if (!w->retention.automatic || (seg->base_seq == state->cleaned_base && now < state->next_clean_ns))
        return;
    state->cleaned_base = seg->base_seq;
    state->next_clean_ns = now + CLEAN_EVERY_NS;
    status = chron__writer_clean(w, &done, NULL);
    if (status < 0)
        chron__writer_note_failure(w, status);
}

static void unmap_retired(chron_writer *w)
{
    chron__seg *old;

    pthread_mutex_lock(&w->lock);
    old = w->retired;
    w->retired = NULL;
    pthread_mutex_unlock(&w->lock);
    chron__seg_release(old);
}

/* With lock held: sleep until a kick, or for a while. */
static void doze(chron_writer *w)
{
    CHRON__ASSERT_LOCKED(&w->lock);
    chron__set32(&w->keeper_asleep, 1); /* [STOP] read by chron__writer_kick */
    chron__cond_wait(&w->keeper_wake, &w->lock, TICK_NS);
    chron__set32(&w->keeper_asleep, 0);
}

static void *keeper_main(void *argument)
{
    chron_writer *w = argument;
    round_state state = {.cleaned_base = CHRON_SEQ_NONE};

    pthread_mutex_lock(&w->lock);
    while (!chron__get32(&w->keeper_stop)) {
        chron__seg *seg = chron__seg_retain(w->seg);
        uint64_t now = chron__monotonic_ns();
        int busy;

        pthread_mutex_unlock(&w->lock);
        if (w->reuses) /* first: what retention gives up is the next segment */
            clean_if_due(w, seg, &state, now);
        busy = prepare_next(w, seg, &state, now);
        busy |= touch_ahead(w, seg);
        unmap_retired(w);
        clean_if_due(w, seg, &state, now);
        chron__seg_release(seg);
        pthread_mutex_lock(&w->lock);
        if (!busy && !chron__get32(&w->keeper_stop))
            doze(w);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int chron__keeper_start(chron_writer *w)
{
    int status;

    if (w->keeper_running)
        return 0;
    chron__set32(&w->keeper_stop, 0);
    status = chron__thread_start(&w->keeper, keeper_main, w);
    if (status < 0)
        return chron__fail_sys(status, "", "cannot start the keeper thread");
    w->keeper_running = 1;
    status = chron__syncer_start(w);
    if (status < 0)
        chron__keeper_stop(w);
    return status;
}

void chron__keeper_try(chron_writer *w)
{
    int status;

    if (!w->keeper_wanted || w->keeper_running)
        return;
    status = chron__keeper_start(w);
    if (status < 0)
        chron__writer_note_failure(w, status);
}

void chron__keeper_stop(chron_writer *w)
{
    if (!w->keeper_running)
        return;
    pthread_mutex_lock(&w->lock);
    chron__set32(&w->keeper_stop, 1);
    pthread_cond_signal(&w->keeper_wake);
    pthread_mutex_unlock(&w->lock);
    chron__syncer_stop(w);
    (void)chron__thread_join(w->keeper);
    w->keeper_running = 0;
    unmap_retired(w);
}

int chron_writer_keeper_start(chron_writer *w)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = chron__keeper_start(w);
    if (status == 0)
        w->keeper_wanted = 1;
    chron__writer_leave(w);
    return status;
}

int chron_writer_keeper_stop(chron_writer *w)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    if (w->options.durability == CHRON_DURABILITY_INTERVAL) {
        status = chron__fail(CHRON_EINVAL, "durability interval needs the keeper: close the writer instead");
    } else {
        w->keeper_wanted = 0;
        chron__keeper_stop(w);
    }
    chron__writer_leave(w);
    return status;
}
