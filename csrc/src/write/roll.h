/* SPDX-License-Identifier: MIT */
/* roll.h - from one segment to the next (roll.c). Owner's thread. */
#ifndef CHRON_ROLL_H
#define CHRON_ROLL_H

#include "write/writer.h"

/* Make `bytes` at the tail appendable: roll if need be, have pages prepared, move the edge. */
int chron__writer_edge(chron_writer *w, uint64_t bytes);
/* Go on to the next segment, though this one may have room. */
int chron__writer_roll(chron_writer *w);
/* The same, if a sync has found out that the device has lost a part of this one: 1; 0, there is no need; or a failure. */
int chron__writer_leave_lost(chron_writer *w);
/* Adopt a segment with its tail as the current one: at the opening, and at each roll. */
void chron__writer_enter_segment(chron_writer *w, chron__seg *seg, uint64_t tail, const chron__tally *tally);

#endif
