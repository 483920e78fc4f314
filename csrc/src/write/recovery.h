/* SPDX-License-Identifier: MIT */
/*
 * recovery.h - make the log go on where the survey (queue/survey.h) says that it ends: everything behind it clean. Under the
 * writer's lock; may be killed at any point and run again.
 */
#ifndef CHRON_RECOVERY_H
#define CHRON_RECOVERY_H

#include "queue/survey.h"

typedef struct chron__recovered {
    chron__seg *seg; /* to go on appending to, writable; one reference, the caller's. NULL: one is to be made */
    uint64_t tail;   /* offset of the next record in it */
    uint64_t next_seq;
    uint64_t prev_base;     /* seg is NULL: of the segment before the one to be made, or CHRON_SEQ_NONE */
    uint64_t segments;      /* files that there are, */
    uint64_t oldest_base;   /* and the first of them, if there is one */
    uint64_t unsynced_base; /* segments below this are on disk */
    uint64_t durable_next;  /* the mark that can be vouched for */
    uint32_t epoch;         /* highest low word that was seen in a record */
    chron__tally tally;     /* of seg */
    chron_recovery report;
} chron__recovered;

/* Carry out what the survey says. Fills *out. */
int chron__recover(chron__survey *s, unsigned mode, chron__recovered *out);

#endif
