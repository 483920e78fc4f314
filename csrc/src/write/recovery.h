/* SPDX-License-Identifier: MIT */
/*
 * recovery.h - find the end of the log when a writer opens, and make everything behind it clean. Under
 * the writer's lock; may be killed at any point and run again.
 */
#ifndef CHRON_RECOVERY_H
#define CHRON_RECOVERY_H

#include "format/segment.h"

typedef struct chron__recovered {
    chron__seg *seg; /* to go on appending to, writable; one reference, the caller's. NULL: none yet */
    uint64_t tail;   /* offset of the next record in it */
    uint64_t next_seq;
    uint64_t prev_base;     /* seg is NULL: of the segment before the one to be made, or CHRON_SEQ_NONE */
    uint64_t unsynced_base; /* segments below this were below the durable mark */
    uint32_t epoch;         /* highest low word that was seen in a record */
    chron__tally tally;     /* of seg */
    chron_recovery report;
} chron__recovered;

/*
 * state: the newest slot of queue.meta. repair: cut off even what was durable. Fills *out.
 * ECORRUPT: a record below the durable mark, or a segment in the middle, is damaged or missing.
 */
int chron__recover(const chron__queue *q, const chron__slot_value *state, int repair, chron__recovered *out);

#endif
