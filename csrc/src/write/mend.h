/* SPDX-License-Identifier: MIT */
/* mend.h - to the end with what somebody began who died in his turn (mend.c). With the turn, or alone. */
#ifndef CHRON_MEND_H
#define CHRON_MEND_H

#include "write/shared.h"

/* w->shared->head is loaded, and there is an intent. 0 or a failure, after which it is still to be done. */
int chron__mend(chron_writer *w);
/* The next segment has its name: END, index, seal, and the head goes on there. `old` is the one that is left. */
void chron__complete_roll(chron_writer *w, chron__seg *old);

#endif
