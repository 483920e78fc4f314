/* SPDX-License-Identifier: MIT */
/* newest.h - where the newest snapshot lies (newest.c). */
#ifndef CHRON_NEWEST_H
#define CHRON_NEWEST_H

#include "format/queue.h"

/*
 * Look for the newest snapshot in those segments of `bases` that begin at `from` or behind. 1 with *base_seq, that of its segment,
 * or of one that cannot be read, for it may be in there; 0: there is none; or a failure.
 */
int chron__newest_snapshot(const chron__queue *q, const chron__bases *bases, uint64_t from, uint64_t *base_seq);

#endif
