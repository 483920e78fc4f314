/* SPDX-License-Identifier: MIT */
/* verify_segment.h - checking one segment (verify_segment.c). */
#ifndef CHRON_VERIFY_SEGMENT_H
#define CHRON_VERIFY_SEGMENT_H

#include "queue/problem.h"

/*
 * One segment. `follower`: base of the segment behind it, or CHRON_SEQ_NONE. in_middle: there
 * are at least two behind it, so no roll can be under way here.
 */
void chron__verify_segment(chron__verify *v, uint64_t base_seq, uint64_t follower, int in_middle);

#endif
