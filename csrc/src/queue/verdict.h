/* SPDX-License-Identifier: MIT */
/* verdict.h - deciding about holes in the log, as the wish says (verdict.c). */
#ifndef CHRON_VERDICT_H
#define CHRON_VERDICT_H

#include "queue/findings.h"

static inline chron__log chron__log_of(const chron__survey *s)
{
    return (chron__log){.q = s->q, .wish = s->wish, .bases = &s->bases};
}

/*
 * The accepted gap that leads on from the hole, to a segment that is there: one that was accepted before, or is now. NULL
 * with *status 0: the log ends before the hole. NULL with a failure: it is damage, or the caller has to decide.
 */
const chron__gap *chron__verdict_pass(chron__survey *s, const chron__hole *h, int *status);
/* What is missing up to where `behind` goes on is accepted as missing. */
int chron__verdict_accept(chron__survey *s, const chron__hole *h, const chron__behind *behind);
/* For the report of a repair. `seq_end` CHRON_SEQ_NONE: the log ends there. */
int chron__verdict_note(chron__survey *s, const chron__hole *h, uint64_t seq_end);
/* ECORRUPT. */
int chron__verdict_refuse(const chron__survey *s, const chron__hole *h) __attribute__((cold));

#endif
