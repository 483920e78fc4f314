/* SPDX-License-Identifier: MIT */
/*
 * shared.h - a writer that takes turns with others (CHRON_SHARED): what it has besides. join.c comes and goes, turns.c takes a
 * turn and gives it back, mend.c repairs one whose owner died, next.c rolls and prepares, together.c appends.
 *
 * The handle of such a writer has its edge at 0: so no append ever finds room in front of it, and takes the way by turns where
 * one of an exclusive writer would prepare pages. That one pays nothing for it.
 *
 * Threads: as in writer.h. What is in `head`, and all that only counts in a turn, is the owner's thread's; prep_lock and
 * the writer's sync_lock see to it that a turn word is used by one thread of this handle at a time.
 */
#ifndef CHRON_WRITE_SHARED_H
#define CHRON_WRITE_SHARED_H

#include "format/shared.h"
#include "write/writer.h"

struct chron__shared {
    chron__members m;
    uint32_t ready; /* what CHRON__O_READY was when it joined */
    uint64_t timeout_ns;
    chron__head head; /* in the turn: of the log */
    chron__seg *next; /* next.<next_n>.tmp, mapped; or NULL */
    uint32_t next_n;
    chron__seg *left; /* by a roll in this turn */
    uint8_t *stage;   /* where a claim is filled in */
    size_t stage_bytes;
    uint32_t dir;              /* S: the count of names that the sync covers */
    uint64_t inherited;        /* turns taken from the dead */
    pthread_mutex_t prep_lock; /* this handle's use of CHRON__P_PREPARER */
};

static inline uint8_t *chron__word(const chron_writer *w, size_t offset)
{
    return w->q.meta.base + offset;
}

/* ETURN: somebody who lives keeps the turn. EINTR, and what asking for locks met. `status` is chron__turn_wait's. */
int chron__turn_fail(const chron_writer *w, int status, uint32_t owner, const char *what) __attribute__((cold));
/* The segment that they append to, for writing. EREMOVED if it is gone. */
int chron__shared_open_head(const chron_writer *w, uint64_t base, chron__seg **out);
/* EPOISONED for all of these writers, from now on. */
void chron__shared_poison(chron_writer *w);

#endif
