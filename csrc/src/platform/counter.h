/* SPDX-License-Identifier: MIT */
/*
 * counter.h - the wall clock by the processor's own counter, for who stamps a record each ten nanoseconds.
 *
 * The counter is believed for CHRON__COUNTER_NS at a time, from an anchor: a value of it and what CLOCK_REALTIME said then.
 * Its rate is measured between anchors. So a reading differs from CLOCK_REALTIME by no more than the anchor's own doubt (2
 * us; looking at both clocks takes less, or is tried again) and what the rate is off within one anchor (2 us: more than 2000
 * ppm are taken for a clock that was set, and measured anew), and a clock that is set is noticed within CHRON__COUNTER_NS.
 *
 * Where the kernel does not take its own time from that counter, all is CLOCK_REALTIME. One thread at a time.
 */
#ifndef CHRON_COUNTER_H
#define CHRON_COUNTER_H

#include <stdint.h>

#define CHRON__COUNTER_NS 1000000u /* 1 ms */

typedef struct chron__counter {
    int trusted;
    uint64_t anchor;    /* of the counter, */
    uint64_t anchor_ns; /* and the time then */
    uint64_t limit;     /* so many ticks from there it is believed; 0: its rate is not known */
    uint64_t rate;      /* nanoseconds a tick, in units of 2^-32 */
    uint64_t from;      /* of the counter, and the time then: what the rate is measured from; 0: nothing */
    uint64_t from_ns;
    uint64_t last_ns; /* the last reading */
} chron__counter;

void chron__counter_start(chron__counter *c);

/* counter.c: look at both clocks. */
uint64_t chron__counter_anchor(chron__counter *c) __attribute__((noinline));

/* The counter itself. */
static inline uint64_t chron__counter_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return 0;
#endif
}

/* Nanoseconds since the epoch. */
static inline uint64_t chron__counter_ns(chron__counter *c)
{
    uint64_t ticks = chron__counter_ticks() - c->anchor;
    uint64_t now;

    if (__builtin_expect(ticks >= c->limit, 0))
        return chron__counter_anchor(c);
    now = c->anchor_ns + (ticks * c->rate >> 32);
    c->last_ns = now;
    return now;
}

#endif
