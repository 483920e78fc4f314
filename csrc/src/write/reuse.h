/* SPDX-License-Identifier: MIT */
/* reuse.h - files of segments that retention gives up become next segments (reuse.c). */
#ifndef CHRON_REUSE_H
#define CHRON_REUSE_H

#include "write/writer.h"

/* May a queue of this kind do that at all? */
int chron__reuse_can(const chron__queue *q, uint64_t segment_size);
/* From the options of an opening. */
void chron__reuse_set_up(chron_writer *w);
/* A queue that was not born for it becomes one, if nobody has it open; else it stays as it is. Before the new epoch is stored. */
int chron__reuse_adopt(chron_writer *w, const char *path);

/* The writer has left this segment: keep it mapped. Returns what is to be unmapped instead, or NULL. Owner's thread. */
chron__seg *chron__reuse_keep(chron_writer *w, chron__seg *seg);

/* Around a cleanup, with clean_lock: may it take a file? Then chron__reuse_take is its `take`. */
int chron__reuse_begin(chron_writer *w);
int chron__reuse_take(void *writer, uint64_t base_seq, const char *name);
/* `status` of the cleanup: 0, and what it did is on disk. Segments below `oldest_base` are gone. */
void chron__reuse_end(chron_writer *w, int status, uint64_t oldest_base);

/* The spare, as CHRON__FILE_NEXT; NULL: there is none. The thread that `next` belongs to. */
chron__seg *chron__reuse_next(chron_writer *w);
/* A slice of it, by the owner where no keeper does that. */
void chron__reuse_slice(chron_writer *w, uint64_t bytes);

/* Nothing is left of it. */
void chron__reuse_release(chron_writer *w);
void chron__reuse_forget(chron_writer *w); /* in a forked child */

#endif
