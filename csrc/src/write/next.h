/* SPDX-License-Identifier: MIT */
/* next.h - the next segment of a queue with several writers (next.c). Owner's thread, unless said otherwise. */
#ifndef CHRON_NEXT_H
#define CHRON_NEXT_H

#include "write/shared.h"

/* After it the prepared segment is mapped as w->shared->next, if nobody was faster. Never with the turn. */
int chron__next_have(chron_writer *w);
/* Make it ahead of time. Any thread. 1: something was done; 0; or a failure. */
int chron__next_make(chron_writer *w);
/* With the turn: go on in it. 1: done; 0: it is not the one, try again; or a failure, and the turn goes on. */
int chron__next_enter(chron_writer *w);
/* The current segment is `seg` now; the one before is the caller's. */
chron__seg *chron__next_adopt(chron_writer *w, chron__seg *seg);
/* What a roll has left. After the turn. */
void chron__next_leave(chron_writer *w, chron__seg *old);

#endif
