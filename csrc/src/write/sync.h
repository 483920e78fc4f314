/* SPDX-License-Identifier: MIT */
/* sync.h - durability (sync.c). Any thread. */
#ifndef CHRON_SYNC_H
#define CHRON_SYNC_H

#include "write/writer.h"

/*
 * Put all that is appended on disk, and move the durable mark. The owner's thread calls chron__writer_flush() instead. EIO: a sync failed, and the writer is poisoned; others (EREMOVED,
 * ENOTSUP, EACCESS ...) pass when their cause does.
 */
int chron__writer_sync(chron_writer *w);
/* The same, for the segments that were sealed before that (monotonic) time. */
int chron__writer_sync_sealed(chron_writer *w, uint64_t before_ns);
/* One of several writers: a syncer died, and with it perhaps the only report of a failure. With its word. */
void chron__sync_doubt(chron_writer *w);
/* May this writer still sync, and would it help? 0, EPOISONED, ENOTDURABLE. */
int chron__writer_check_sync(chron_writer *w);
/* `seg` is sealed, and owed to the disk: keep its open file until it is synced. Owner's thread. */
void chron__writer_owe(chron_writer *w, const chron__seg *seg);
/* Segments in front of `oldest_base` are deleted. */
void chron__writer_forgive(chron_writer *w, uint64_t oldest_base);
/* EREMOVED if the queue's files have no names any more. `seg` may be NULL. */
int chron__writer_check_place(chron_writer *w, const chron__seg *seg);
/* queue.meta gets a new slot. With sync_lock held, or before the handle is shared. */
int chron__writer_store_state(chron_writer *w, int on_disk);
/* Put it on disk as it is. The same. */
int chron__writer_sync_state(chron_writer *w);

#endif
