/* SPDX-License-Identifier: MIT */
/*
 * doorbell.h - how a reader that has nothing to read sleeps, and how the writer wakes it.
 *
 * Words in the file `doorbell`: `waiting` is set by a reader before it sleeps and cleared by the writer that wakes all;
 * `notify` counts the wakings and is what sleepers compare; `fence` is 1 where the writer does without its fence, because
 * readers do it for both (doorbell.c). Nothing in this file is data: any bytes in it can at worst make a reader poll, or
 * the writer wake nobody.
 */
#ifndef CHRON_DOORBELL_H
#define CHRON_DOORBELL_H

#include "base/assert.h"
#include "format/queue.h"

typedef struct chron__doorbell {
    chron__map map;     /* base is NULL: no doorbell, sleep in slices */
    uint32_t is_light;  /* writer: readers call chron__membarrier(), no fence is needed here */
    uint32_t is_missed; /* reader: the last announcement may go unnoticed, sleep in slices */
} chron__doorbell;

/* Writer: map it, make it anew if it is missing or damaged (*made). 0 or a failure. */
int chron__doorbell_create(const chron__queue *q, unsigned mode, chron__doorbell *bell, int *made);
/* Reader: map it if that is possible. Never fails: without it waiting means polling. */
void chron__doorbell_open(const chron__queue *q, chron__doorbell *bell);
/* Will the writer there is now ring for this process? */
int chron__doorbell_works(const chron__doorbell *bell);
void chron__doorbell_close(const chron__queue *q, chron__doorbell *bell);

/* Longest sleep between two looks, whatever happens to the doorbell. */
#define CHRON__SLEEP_SLICE_NS 100000000u /* 100 ms */
/* The same without a doorbell: polling begins at the first and doubles up to the second. */
#define CHRON__POLL_MIN_NS 50000u   /* 50 us */
#define CHRON__POLL_MAX_NS 1000000u /* 1 ms */

/* Before the last look: announces the sleeper. Returns what to pass to chron__doorbell_sleep. */
uint32_t chron__doorbell_announce(chron__doorbell *bell);
/* After that: will it be woken? Otherwise it has to poll. */
static inline int chron__doorbell_will_wake(const chron__doorbell *bell)
{
    return bell->map.base && !bell->is_missed;
}
/* Sleep at most ns. 0 (woken, or time is up), or -EINTR. */
int chron__doorbell_sleep(chron__doorbell *bell, uint32_t announced, uint64_t ns);

/* The system call behind chron__doorbell_ring. Returns 1 if it woke (or may have woken) somebody. */
int chron__doorbell_wake(chron__doorbell *bell);

/* The same behind chron__turn_give: of several writers not all may be able to do without a fence. */
static inline int chron__doorbell_ring_behind_turn(chron__doorbell *bell)
{
    chron__fence_behind_exchange(); /* [BELL] with chron__doorbell_announce */
    return __builtin_expect(chron__load_relaxed32(bell->map.base + CHRON__BELL_WAITING) != 0, 0) /* [BELL] */
               ? chron__doorbell_wake(bell)
               : 0;
}

/* After a publish: wake the sleepers, if any. A load, and a fence if readers cannot do it, when there are none. */
static inline int chron__doorbell_ring(chron__doorbell *bell)
{
    CHRON__ASSERT(bell->map.base); /* a writer has one */
    if (__builtin_expect(bell->is_light != 0, 1))
        chron__fence_light(); /* [BELL] with chron__doorbell_announce: publish, then look for sleepers */
    else
        chron__fence_seq_cst(); /* [BELL] the same, whoever announces */
    if (__builtin_expect(chron__load_relaxed32(bell->map.base + CHRON__BELL_WAITING) != 0, 0))
        return chron__doorbell_wake(bell);
    return 0;
}

#endif
