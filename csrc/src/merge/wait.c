/* SPDX-License-Identifier: MIT */
/*
 * wait.c - waiting for any of many sources: each is armed, and then all bells are waited for at once. Why no wake-up is lost
 * stands in format/doorbell.c. Where there are more sources than one call can wait for, the others are looked at every now and then.
 */
#include "merge/merge.h"

#define LOOK_NS 2000000u    /* between two looks at sources whose bells cannot be waited for */
#define SLICE_NS 100000000u /* the longest sleep: a writer may have died before it rang */

typedef struct waiter {
    chron_bell *bells[CHRON_BELLS_MAX];
    uint32_t counts[CHRON_BELLS_MAX];
    size_t count;
    uint64_t slice_ns;
    int is_ready; /* one of them has something */
} waiter;

/* Arm one source that may come with something. What it says is met by the next read of it. */
static void arm_source(waiter *w, chron__source *s)
{
    int status;

    if (s->bell && w->count < CHRON_BELLS_MAX) {
        w->bells[w->count] = s->bell;
        w->counts[w->count++] = chron_bell_count(s->bell);
    } else {
        w->slice_ns = LOOK_NS;
    }
    status = chron_reader_arm(s->reader);
    if (status > 0)
        w->is_ready = 1;
    else if (status < 0)
        w->slice_ns = LOOK_NS;
}

/* Those that the merge waits for: the one that holds it up, and those that are idle, which may come back. */
static void arm_all(const chron_merge *m, waiter *w)
{
    if (m->heap_count)
        arm_source(w, m->sources[m->heap[0].index]);
    for (size_t i = 0; i < m->idle_count && !w->is_ready; i++)
        arm_source(w, m->sources[m->idle[i]]);
}

/* Everything has been asked, and nothing is there. 1: look again; 0: it was woken on purpose; or EINTR. */
static int doze(chron_merge *m, uint64_t left_ns)
{
    waiter w = {.bells = {m->bell}, .counts = {m->woken}, .count = 1, .slice_ns = SLICE_NS};
    uint64_t now = chron__monotonic_ns();
    int status;

    arm_all(m, &w);
    if (w.is_ready)
        return 1;
    if (m->wake_ns && m->wake_ns - now < w.slice_ns)
        w.slice_ns = m->wake_ns > now ? m->wake_ns - now : 0;
    if (left_ns < w.slice_ns)
        w.slice_ns = left_ns;
    status = chron_bells_wait(w.bells, w.counts, w.count, (int64_t)w.slice_ns);
    if (status < 0)
        return status;
    if (chron_bell_count(m->bell) == m->woken)
        return 1;
    m->woken = chron_bell_count(m->bell);
    return 0;
}

/* Is there something to be handed out, or told? */
static int is_ready(chron_merge *m)
{
    const uint64_t looked = m->looked_ns;
    int status;

    m->looked_ns = 0; /* idle ones are asked every time */
    status = chron__merge_ask_idle(m);
    if (m->looked_ns == 0)
        m->looked_ns = looked;
    return status < 0 || chron__merge_settle(m) != 0 || chron_merge_ended(m);
}

int chron_merge_wait(chron_merge *m, int64_t timeout_ns)
{
    int status = chron__merge_enter(m);
    uint64_t start = chron__monotonic_ns();

    if (status < 0)
        return status;
    for (;;) {
        uint64_t passed;

        if (is_ready(m))
            return 1;
        passed = chron__monotonic_ns() - start;
        if (timeout_ns >= 0 && passed >= (uint64_t)timeout_ns)
            return 0;
        status = doze(m, timeout_ns < 0 ? UINT64_MAX : (uint64_t)timeout_ns - passed);
        if (status <= 0)
            return status;
    }
}

void chron_merge_wake(chron_merge *m)
{
    if (m)
        (void)chron_bell_ring(m->bell);
}
