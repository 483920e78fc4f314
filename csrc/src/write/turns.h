/* SPDX-License-Identifier: MIT */
/* turns.h - a turn of one of several writers (turns.c). Owner's thread. */
#ifndef CHRON_TURNS_H
#define CHRON_TURNS_H

#include "write/shared.h"

/*
 * Take the turn, with room for `bytes` in prepared pages; roll if need be. Then tail, next_seq, tally, epoch and edge of the handle
 * are those of the log, and it may place records behind the tail, after chron__head_intend. Ends with chron__turn_finish or
 * chron__turn_abandon. ETURN, EPOISONED, EFULL, EINTR, those of a roll.
 */
int chron__turn_begin(chron_writer *w, uint64_t bytes);
/* What was placed behind the tail, up to `end`, is published: `count` records from `seq` on. Returns seq, or EUNSYNCED and the like. */
int64_t chron__turn_finish(chron_writer *w, uint64_t end, uint64_t seq, uint32_t count);
/* Nothing was published, and what was placed is zeroed again. */
void chron__turn_abandon(chron_writer *w);

/* Pages of the caller's that nobody has looked at for long are fetched before the turn, not in it. */
void chron__touch_source(const void *data, size_t length);
/* What CHRON_NOW stands for, in the turn: not before the last record, unless by a clock that was set. */
uint64_t chron__turn_now(chron_writer *w, uint64_t now);

#endif
