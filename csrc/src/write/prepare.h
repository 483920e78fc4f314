/* SPDX-License-Identifier: MIT */
/* prepare.h - pages and next segments, ahead of time (prepare.c). */
#ifndef CHRON_PREPARE_H
#define CHRON_PREPARE_H

#include "write/writer.h"

#define CHRON__EDGE_STEP 65536u /* bytes between two visits of an append to its edge */

/* Claim and prepare pages of seg from its `touched` mark up to `goal`, at most `limit` bytes; returns how many. Any thread. */
uint64_t chron__writer_touch(chron_writer *w, chron__seg *seg, uint64_t goal, uint64_t limit);
/* The owner is about to write up to `end`: have pages prepared. */
void chron__writer_prepare_ahead(chron_writer *w, uint64_t end);
/* The same of one of several writers, without the turn: pages from `tail` up to `goal` are there then. */
void chron__writer_pages_ahead(chron_writer *w, uint64_t tail, uint64_t goal);
/* Make the next segment's file, ready to be one. The thread that `next` belongs to; but for the spare, stores nothing in w. */
int chron__writer_make_next(chron_writer *w, chron__seg **out);
/* What chron__writer_step_next has begun. On failure *next is NULL. */
int chron__writer_finish_next(chron_writer *w, chron__seg **next);
/* Does it pay to write zeros to the next segment's file? Any thread. */
int chron__writer_prewrites(const chron_writer *w);
/*
 * One step of the same: the file, then zeros in it, piece by piece where that pays or has to be, then the mapping. `lead`: bytes
 * that may be zeroed now. 1: there may be more to do; 0: not now; or a failure, and *next is NULL again.
 */
int chron__writer_step_next(chron_writer *w, uint64_t lead, chron__seg **next);

#endif
