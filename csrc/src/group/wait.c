/* SPDX-License-Identifier: MIT */
/*
 * wait.c - waiting for a job: at the queue's doorbell, which writers ring for new records, and workers for jobs that they give back.
 * Deaths, leases and delays ring nothing, so every sleep is short. Nothing here takes the turn, or changes a cell.
 */
#include "group/group.h"

#include <errno.h>

#include "format/bell.h"
#include "read/around.h"

#define SLICE_NS 50000000u  /* 50 ms */
#define CROWDED_NS 2000000u /* the window is full: who acknowledges rings no bell */

/* Is a job of somebody who died, or whose time is over, among those that were handed out? */
static int is_any_free(chron_group *g, uint64_t floor, uint64_t next)
{
    chron__scan scan;

    chron__scan_begin(&scan);
    if (scan.mono_ns - g->looked_ns < CHRON__SCAN_EVERY_NS)
        return 0;
    g->looked_ns = scan.mono_ns;
    for (uint64_t seq = floor; seq < next && seq < floor + g->file.window; seq++) {
        uint64_t word = chron__cell_load(&g->file, seq);
        uint32_t state = chron__cell_state_of(&g->file, seq, word);

        if (state == CHRON__CELL_READY && g->keys.at)
            continue; /* it waits for another one of its key, or stands in the word READY */
        if (chron__group_can_take(g, &scan, seq, word) != 0)
            return 1;
    }
    return 0;
}

static int is_crowded(const chron_group *g, uint64_t next)
{
    return next >= g->floor.next_seq + g->file.window;
}

/* Would take() give something, or fail? */
static int is_ready(chron_group *g)
{
    uint64_t next = chron__group_word(&g->file, CHRON__GROUP_NEXT);
    uint64_t floor;

    chron__slots_refresh(g->file.map.base, &g->floor);
    floor = g->floor.next_seq;
    if (chron__group_word(&g->file, CHRON__GROUP_READY) < next || is_any_free(g, floor, next) ||
        chron__monotonic_ns() >= chron__group_word(&g->file, CHRON__GROUP_LEASE) ||
        chron__clock_ns(0) >= chron__group_word(&g->file, CHRON__GROUP_DUE))
        return 1;
    if (is_crowded(g, next))
        return chron__cell_state_of(&g->file, floor, chron__cell_load(&g->file, floor)) == CHRON__CELL_DONE;
    return chron__group_look_ahead(g, next, 1) < 0 || g->tail->next_seq > next;
}

/* The thread is cancelled while it waits. */
static void leave(void *group)
{
    chron__group_leave(group);
}

static int wait_for(chron_group *g, int64_t timeout_ns)
{
    uint64_t ns = timeout_ns < 0 ? UINT64_MAX : (uint64_t)timeout_ns;
    uint64_t start = chron__monotonic_ns();

    for (;;) {
        uint64_t slice = SLICE_NS;
        uint32_t announced;
        uint64_t passed;

        chron__reader_mind_doorbell(g->tail);
        announced = chron__doorbell_announce(&g->tail->bell);
        if (is_ready(g))
            return 1;
        passed = chron__monotonic_ns() - start;
        if (passed >= ns)
            return 0;
        if (is_crowded(g, chron__group_word(&g->file, CHRON__GROUP_NEXT)))
            slice = CROWDED_NS;
        if (slice > ns - passed)
            slice = ns - passed;
        chron__cancel_point(leave, g);
        if (chron__doorbell_sleep(&g->tail->bell, announced, slice) == -EINTR)
            return chron__fail(CHRON_EINTR, "interrupted by a signal while waiting for a job");
    }
}

int chron_group_wait(chron_group *g, int64_t timeout_ns)
{
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = is_ready(g) ? 1 : timeout_ns == 0 ? 0 : wait_for(g, timeout_ns);
    chron__group_leave(g);
    return status;
}

int chron_group_arm(chron_group *g)
{
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    chron__reader_mind_doorbell(g->tail);
    (void)chron__doorbell_announce(&g->tail->bell);
    status = is_ready(g);
    if (!status && g->tail->bell.is_missed)
        status = chron__fail(CHRON_EACCESS, "membarrier(2) is forbidden to this process, so the bell may fail to ring: "
                                            "allow it, or look for jobs now and then");
    chron__group_leave(g);
    return status;
}

int chron_group_bell(chron_group *g, chron_bell **out)
{
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status =
        out ? chron__bell_of_queue(chron__group_queue(g), out) : chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    chron__group_leave(g);
    return status;
}
