/* SPDX-License-Identifier: MIT */
/* join.h - coming to, and leaving, those who take turns (join.c). */
#ifndef CHRON_JOIN_H
#define CHRON_JOIN_H

#include "write/birth.h"

/*
 * Both locks, queue.meta, and a slot; the first to come recovers the log, and makes the queue if there is none. Waits as the
 * options say for an exclusive writer. EWRITER, EINVAL (other limits than theirs), ENOTSUP, and what openings have.
 */
int chron__join(chron_writer *w, const char *path, chron__born *born);
/* Give the slot and the locks up; the last to go says that all was closed properly. */
int chron__leave(chron_writer *w);
/* What the handle has besides. */
void chron__shared_free(chron_writer *w);

#endif
