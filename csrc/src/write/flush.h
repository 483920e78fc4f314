/* SPDX-License-Identifier: MIT */
/* flush.h - syncing by the owner's thread (flush.c). */
#ifndef CHRON_FLUSH_H
#define CHRON_FLUSH_H

#include "write/writer.h"

/* As chron__writer_sync(), and rolls if the device has lost a part of the current segment. */
int chron__writer_flush(chron_writer *w);

#endif
