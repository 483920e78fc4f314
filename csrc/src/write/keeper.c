/* SPDX-License-Identifier: MIT */
/*
 * keeper.c - the optional background thread of a writer. It makes things ready, so that the owner's
 * thread finds them ready: pages ahead of the tail, the next segment, syncs by the clock, cleanups. It
 * takes no part in correctness: without it the same work is done inline, or later.
 *
 * It never fails an append. What goes wrong here is counted, tried again after a pause, and comes to
 * light in the owner's own call (a full disk at the roll); only a failed sync poisons the writer.
 */
#define _POSIX_C_SOURCE 200809L /* signals and threads */

#include "write/keeper.h"

#include <signal.h>

#include "base/assert.h"
#include "base/error.h"
#include "write/prepare.h"
#include "write/room.h"
#include "write/sync.h"

#define TOUCH_SLICE (256u * 1024)  /* bytes prepared between two looks at the clock and at `stop` */
#define TICK_NS 100000000u         /* longest sleep: 100 ms */
#define CLEAN_EVERY_NS 1000000000u /* a cleanup at least once a second, if it is automatic */
#define RETRY_NS 100000000u        /* pause after a failure */

/* What the keeper remembers between two rounds; its thread only. */
typedef struct round_state {
    uint64_t next_sync_ns;
    uint64_t next_clean_ns;
    uint64_t retry_ns;     /* no preparing before this time */
    uint64_t cleaned_base; /* current segment at the last cleanup */
} round_state;

static void note_failure(chron_writer *w, int status)
{
    chron__add64(&w->keeper_errors, 1); /* [COUNT] */
    chron__set32(&w->keeper_last_error, (uint32_t)-status);
}

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
    next = w->next ? chron__seg_retain(w->next) : NULL;
    pthread_mutex_unlock(&w->lock);
    goal = tail + chron__get64(&w->window);
    done = chron__writer_touch(w, seg, goal, TOUCH_SLICE);
    if (done == 0 && next && goal > seg->size)
        done = chron__writer_touch(w, next, next->data_offset + goal - seg->size, TOUCH_SLICE);
    chron__seg_release(next);
    return done > 0;
}

/* The next segment, once the current one is half full. 1 if it was made now. */
static int prepare_next(chron_writer *w, chron__seg *seg, round_state *state, uint64_t now)
{
    chron__seg *next = NULL;
    int status;

    if (now < state->retry_ns || chron__get64(&w->tail) < seg->size / 2u)
        return 0;
    pthread_mutex_lock(&w->lock);
    if (w->next || w->rolling || seg != w->seg) {
        pthread_mutex_unlock(&w->lock);
        return 0;
    }
    w->preparing = 1; /* from here on a roll waits for us */
    pthread_mutex_unlock(&w->lock);
    status = chron__writer_has_room(w);
    if (status == 1)
        status = chron__writer_make_next(w, &next);
    pthread_mutex_lock(&w->lock);
    CHRON__ASSERT(w->preparing && !w->rolling && !w->next);
    w->next = next;
    w->preparing = 0;
    pthread_cond_signal(&w->keeper_done);
    pthread_mutex_unlock(&w->lock);
    if (status < 0)
        note_failure(w, status);
    if (!next)
        state->retry_ns = now + RETRY_NS;
    return next != NULL;
}

/* By the clock, or because somebody asked for it (chron_writer_sync_request); if there is anything to put on disk. */
static void sync_if_due(chron_writer *w, round_state *state, uint64_t now)
{
    int due = w->options.durability == CHRON_DURABILITY_INTERVAL && now >= state->next_sync_ns;
    int status;

    if (due)
        state->next_sync_ns = now + (uint64_t)w->options.durability_n * 1000000u;
    pthread_mutex_lock(&w->lock);
    due |= w->sync_wanted;
    w->sync_wanted = 0; /* before the sync: who asks meanwhile may want more than it covers */
    pthread_mutex_unlock(&w->lock);
    if (!due || chron__get64(&w->next_seq) == chron__get64(&w->durable_next) || chron__get32(&w->poisoned))
        return;
    status = chron__writer_sync(w);
    if (status < 0)
        note_failure(w, status);
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
        note_failure(w, status);
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

/* With lock held: sleep until a kick, or until the clock asks for something. */
static void doze(chron_writer *w, const round_state *state)
{
    uint64_t now = chron__monotonic_ns();
    uint64_t ns = TICK_NS;

    CHRON__ASSERT_LOCKED(&w->lock);
    if (w->options.durability == CHRON_DURABILITY_INTERVAL && state->next_sync_ns < now + ns)
        ns = state->next_sync_ns > now ? state->next_sync_ns - now : 0;
    chron__set32(&w->keeper_asleep, 1); /* [STOP] read by chron__writer_kick */
    chron__cond_wait(&w->keeper_wake, &w->lock, ns);
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
        busy = prepare_next(w, seg, &state, now);
        busy |= touch_ahead(w, seg);
        unmap_retired(w);
        sync_if_due(w, &state, now);
        clean_if_due(w, seg, &state, now);
        chron__seg_release(seg);
        pthread_mutex_lock(&w->lock);
        if (!busy && !w->sync_wanted && !chron__get32(&w->keeper_stop))
            doze(w, &state);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int chron__keeper_start(chron_writer *w)
{
    sigset_t all;
    sigset_t before;
    int error;

    if (w->keeper_running)
        return 0;
    chron__set32(&w->keeper_stop, 0);
    /* Signals are the program's business: its own threads get them. SIGBUS stays, for the guard. */
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&w->keeper, NULL, keeper_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return chron__fail_sys(-error, "", "cannot start the keeper thread");
    w->keeper_running = 1;
    return 0;
}

void chron__keeper_stop(chron_writer *w)
{
    if (!w->keeper_running)
        return;
    pthread_mutex_lock(&w->lock);
    chron__set32(&w->keeper_stop, 1);
    pthread_cond_signal(&w->keeper_wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->keeper, NULL);
    w->keeper_running = 0;
    unmap_retired(w);
}

int chron_writer_keeper_start(chron_writer *w)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = chron__keeper_start(w);
    chron__writer_leave(w);
    return status;
}

int chron_writer_keeper_stop(chron_writer *w)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    if (w->options.durability == CHRON_DURABILITY_INTERVAL)
        status = chron__fail(CHRON_EINVAL, "durability interval needs the keeper: close the writer instead");
    else
        chron__keeper_stop(w);
    chron__writer_leave(w);
    return status;
}
