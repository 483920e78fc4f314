/* SPDX-License-Identifier: MIT */
/*
 * wait.c - waiting for something to read: spinning, sleeping at the doorbell, and arming it for somebody else who sleeps.
 * Why no wake-up is lost stands in format/doorbell.c.
 */
#include "read/around.h"
#include "read/sift.h"

#include <errno.h>

#include "base/error.h"
#include "format/bell.h"

#define SPIN_NS 20000u /* hybrid waiting: about what a sleep and a wake-up cost */
#define SPIN_LOOKS 64u /* looks between two readings of the clock */

/* Would next() return a record, or an error? Both end a wait. */
static int is_ready(chron_reader *r)
{
    chron__rec rec;

    return chron__reader_look(r, &rec) != 0;
}

/* The thread is cancelled while it waits. */
static void leave(void *reader)
{
    chron__reader_leave(reader);
}

/*
 * Whoever spins for longer than a wake-up would take lets others run between the looks: where there are more threads than
 * processors, the writer may be waiting for this one. Where there are not, giving way costs some 300 ns.
 */
static int spin(chron_reader *r, uint64_t start, uint64_t ns)
{
    uint64_t passed = 0;

    do {
        if (passed > SPIN_NS) {
            chron__cancel_point(leave, r);
            chron__yield();
        }
        for (unsigned i = 0; i < SPIN_LOOKS; i++) {
            if (is_ready(r))
                return 1;
            chron__pause();
        }
        passed = chron__monotonic_ns() - start;
    } while (passed < ns);
    return 0;
}

/* Sleep until woken or `ns` have passed; 1 ready, 0 time is up, or EINTR. */
static int doze(chron_reader *r, uint64_t start, uint64_t ns)
{
    uint64_t poll_ns = CHRON__POLL_MIN_NS;

    for (;;) {
        uint64_t slice = CHRON__SLEEP_SLICE_NS;
        uint32_t announced;
        uint64_t passed;

        chron__reader_mind_doorbell(r);
        announced = chron__doorbell_announce(&r->bell);
        if (is_ready(r))
            return 1;
        passed = chron__monotonic_ns() - start;
        if (passed >= ns)
            return 0;
        if (!chron__doorbell_will_wake(&r->bell)) {
            slice = poll_ns;
            poll_ns = poll_ns < CHRON__POLL_MAX_NS ? poll_ns * 2u : poll_ns;
        }
        if (slice > ns - passed)
            slice = ns - passed;
        r->stats.sleeps++;
        chron__cancel_point(leave, r);
        if (chron__doorbell_sleep(&r->bell, announced, slice) == -EINTR)
            return chron__fail(CHRON_EINTR, "interrupted by a signal while waiting for a record");
    }
}

static int wait_for(chron_reader *r, int64_t timeout_ns)
{
    uint64_t ns = timeout_ns < 0 ? UINT64_MAX : (uint64_t)timeout_ns;
    uint64_t start;

    if (is_ready(r))
        return 1;
    if (ns == 0)
        return 0;
    start = chron__monotonic_ns();
    if (r->options.wait == CHRON_WAIT_SPIN)
        return spin(r, start, ns);
    if (r->options.wait == CHRON_WAIT_HYBRID && spin(r, start, ns < SPIN_NS ? ns : SPIN_NS))
        return 1;
    return doze(r, start, ns);
}

int chron_reader_wait(chron_reader *r, int64_t timeout_ns)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = wait_for(r, timeout_ns);
    chron__reader_leave(r);
    return status;
}

/* [BELL] as doze(), but it is somebody else who sleeps. */
static int arm(chron_reader *r)
{
    chron__reader_mind_doorbell(r);
    (void)chron__doorbell_announce(&r->bell);
    if (is_ready(r))
        return 1;
    if (r->bell.is_missed)
        return chron__fail(CHRON_EACCESS,
                           "membarrier(2) is forbidden to this process, so the bell may fail to ring: allow "
                           "it, or look for records now and then");
    return 0;
}

int chron_reader_arm(chron_reader *r)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = arm(r);
    chron__reader_leave(r);
    return status;
}

int chron_reader_bell(chron_reader *r, chron_bell **out)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = chron__bell_of_queue(&r->q, out);
    chron__reader_leave(r);
    return status;
}
