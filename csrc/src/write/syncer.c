/* SPDX-License-Identifier: MIT */
/*
 * syncer.c - the keeper's second thread: it waits for the disk, so that the first one, which prepares pages, does not.
 *
 * It syncs by the clock (durability interval), when somebody asked for it (chron_writer_sync_request), and, under every
 * durability, moves the mark over sealed segments: at once where the writer promises durability, and where it does not
 * once the kernel has written them by itself, which costs next to nothing then and keeps openings short.
 */
#include "write/syncer.h"

#include "base/assert.h"
#include "base/error.h"
#include "write/sync.h"

#define MARK_EVERY_NS UINT64_C(1000000000) /* the mark moves in the background at most once a second */
#define MARK_AFTER_NS \
    UINT64_C(35000000000) /* durability none: behind the kernel's own 30 s (vm.dirty_expire_centisecs) */
#define MS_NS UINT64_C(1000000)

/* What the thread remembers between two rounds. */
typedef struct clockwork {
    uint64_t next_sync_ns;
    uint64_t next_mark_ns;
} clockwork;

static void sync_all(chron_writer *w)
{
    int status;

    if (chron_writer_next_seq(w) == chron_writer_durable_seq(w) + 1u || chron__get32(&w->poisoned)) /* [STOP] */
        return;
    status = chron__writer_sync(w);
    if (status < 0)
        chron__writer_note_failure(w, status);
}

/* With lock held: when was the oldest of those sealed that wait, that are old enough? 0: there is none. */
static uint64_t old_enough(const chron_writer *w, uint64_t now)
{
    uint64_t age = w->options.durability == CHRON_DURABILITY_NONE ? MARK_AFTER_NS : 0;

    if (w->backlog.count == 0 || now < age || w->backlog.at[0].sealed_ns > now - age)
        return 0;
    return now - age;
}

static void mark_sealed(chron_writer *w, uint64_t before_ns)
{
    int status;

    if (chron__get32(&w->poisoned)) /* [STOP] */
        return;
    status = chron__writer_sync_sealed(w, before_ns + 1u);
    if (status < 0)
        chron__writer_note_failure(w, status);
}

/* With lock held, which is given up meanwhile: one round. */
static void work(chron_writer *w, clockwork *c)
{
    uint64_t now = chron__monotonic_ns();
    int due = w->sync_wanted;
    uint64_t before = 0;

    w->sync_wanted = 0; /* before the sync: who asks meanwhile may want more than it covers */
    if (w->options.durability == CHRON_DURABILITY_INTERVAL && now >= c->next_sync_ns) {
        c->next_sync_ns = now + w->options.durability_n * MS_NS;
        due = 1;
    }
    if (!due && now >= c->next_mark_ns)
        before = old_enough(w, now);
    pthread_mutex_unlock(&w->lock);
    if (due)
        sync_all(w);
    if (before) {
        mark_sealed(w, before);
        c->next_mark_ns = chron__monotonic_ns() + MARK_EVERY_NS;
    }
    pthread_mutex_lock(&w->lock);
}

/* With lock held: until somebody asks, or the clock does. */
static void doze(chron_writer *w, const clockwork *c)
{
    uint64_t now = chron__monotonic_ns();
    uint64_t until = now + MARK_EVERY_NS;

    CHRON__ASSERT_LOCKED(&w->lock);
    if (w->options.durability == CHRON_DURABILITY_INTERVAL && c->next_sync_ns < until)
        until = c->next_sync_ns;
    if (until > now)
        chron__cond_wait(&w->syncer_wake, &w->lock, until - now);
}

static void *syncer_main(void *argument)
{
    chron_writer *w = argument;
    clockwork c = {0};

    pthread_mutex_lock(&w->lock);
    while (!chron__get32(&w->keeper_stop)) { /* [STOP] with chron__keeper_stop */
        work(w, &c);
        if (!w->sync_wanted && !chron__get32(&w->keeper_stop))
            doze(w, &c);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int chron__syncer_start(chron_writer *w)
{
    int status;

    if (w->q.fs & CHRON__FS_VOLATILE)
        return 0; /* nothing can be synced here */
    status = chron__thread_start(&w->syncer, syncer_main, w);
    if (status < 0)
        return chron__fail_sys(status, "", "cannot start the thread that syncs");
    w->syncer_running = 1;
    return 0;
}

void chron__syncer_stop(chron_writer *w)
{
    if (!w->syncer_running)
        return;
    pthread_mutex_lock(&w->lock);
    CHRON__ASSERT(chron__get32(&w->keeper_stop));
    pthread_cond_signal(&w->syncer_wake);
    pthread_mutex_unlock(&w->lock);
    (void)chron__thread_join(w->syncer);
    w->syncer_running = 0;
}
