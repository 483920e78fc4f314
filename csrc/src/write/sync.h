/* SPDX-License-Identifier: MIT */
/* sync.h - durability (sync.c). Any thread. */
#ifndef CHRON_SYNC_H
#define CHRON_SYNC_H

#include "write/writer.h"

/* Put all that is appended on disk, and move the durable mark. */
int chron__writer_sync(chron_writer *w);
/* queue.meta gets a new slot. With sync_lock held, or before the handle is shared. */
int chron__writer_store_state(chron_writer *w, int on_disk);

#endif
