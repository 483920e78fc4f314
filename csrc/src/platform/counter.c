/* SPDX-License-Identifier: MIT */
/* counter.c - see counter.h. */
#include "platform/counter.h"

#include <string.h>

#include "platform/platform.h"

#define DOUBT_NS 2000u               /* between the two looks at the counter */
#define TRIES 3                      /* in case the thread is interrupted between them */
#define MEASURE_NS 10000000u         /* 10 ms: from then on 2 us of doubt are 400 ppm, */
#define MEASURE_ANEW_NS 1000000000u  /* and after 1 s 4 ppm: then the kernel may have changed its rate */
#define STEP_PPM 2000u               /* no clock is corrected by that; it was set */
#define RATE_MAX (UINT64_C(4) << 32) /* 4 ns a tick: slower counters are no better than the clock */

void chron__counter_start(chron__counter *c)
{
    memset(c, 0, sizeof *c);
    c->trusted = chron__os_counter_trusted();
}

/* Both clocks at once: 1; 0: the thread was interrupted each time, and *ns alone is right. */
static int look(uint64_t *ticks, uint64_t *ns)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t before = chron__counter_ticks();
        uint64_t began = chron__monotonic_ns();
        uint64_t after;

        *ns = chron__clock_ns(0);
        after = chron__counter_ticks();
        *ticks = before + (after - before) / 2u;
        if (chron__monotonic_ns() - began < DOUBT_NS)
            return 1;
    }
    return 0;
}

/* What the rate was since the anchor that it is measured from; 0: too short a time, or the clock was set. */
static uint64_t measure(const chron__counter *c, uint64_t ticks, uint64_t ns)
{
    uint64_t passed_ns = ns - c->from_ns;

    if (c->from == 0 || ns <= c->from_ns || ticks <= c->from || passed_ns < MEASURE_NS || passed_ns > UINT32_MAX)
        return 0;
    return (passed_ns << 32) / (ticks - c->from);
}

static int is_step(uint64_t before, uint64_t rate)
{
    uint64_t off = rate > before ? rate - before : before - rate;

    return before != 0 && off > before / 1000000u * STEP_PPM;
}

static void begin_measuring(chron__counter *c, uint64_t ticks, uint64_t ns)
{
    c->from = ticks;
    c->from_ns = ns;
}

uint64_t chron__counter_anchor(chron__counter *c)
{
    uint64_t ticks = 0, ns, rate;
    const int both = c->trusted ? look(&ticks, &ns) : (ns = chron__clock_ns(0), 0);

    if (ns < c->last_ns && c->last_ns - ns < 2u * DOUBT_NS)
        ns = c->last_ns; /* an anchor's doubt, not a clock that was set */
    c->last_ns = ns;
    c->limit = 0;
    if (!both)
        return ns;
    rate = measure(c, ticks, ns);
    if (rate)
        c->rate = is_step(c->rate, rate) ? 0 : rate;
    if (c->from == 0 || ns < c->from_ns || ns - c->from_ns > MEASURE_ANEW_NS || (rate && c->rate == 0))
        begin_measuring(c, ticks, ns);
    c->anchor = ticks;
    c->anchor_ns = ns;
    if (c->rate && c->rate < RATE_MAX)
        c->limit = ((uint64_t)CHRON__COUNTER_NS << 32) / c->rate;
    return ns;
}
