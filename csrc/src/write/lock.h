/* SPDX-License-Identifier: MIT */
/* lock.h - one writer at a time (lock.c). */
#ifndef CHRON_WRITE_LOCK_H
#define CHRON_WRITE_LOCK_H

#include "write/writer.h"

/*
 * Take the lock of writer.lock, and write the line for people into it. Waits as long as the options say. EWRITER with the
 * holder's pid, EINTR. *made: the file was not there before.
 */
int chron__lock_take(chron_writer *w, const char *path, int *made);
/* Lock queue.meta as well, which has to be there. */
int chron__lock_meta(chron_writer *w, const char *path);
/* Open queue.meta, and load the state and where it lies. */
int chron__lock_open_meta(chron_writer *w);
/* Give that one up. */
void chron__lock_release_meta(chron_writer *w);
/* EWRITER: who has the queue open, as far as writer.lock tells. */
int chron__lock_fail_held(const chron__queue *q, const char *path);
/* The line in writer.lock, with the epoch. */
int chron__lock_write_line(const chron_writer *w);
/* The opening was refused: the line as it was before, for else it tells of somebody who never wrote. Under the lock. */
void chron__lock_undo(const chron_writer *w);
/* Give both up, in the order that lets nobody in too early. */
void chron__lock_release(chron_writer *w);

#endif
