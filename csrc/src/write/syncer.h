/* SPDX-License-Identifier: MIT */
/* syncer.h - the background thread that syncs (syncer.c). Owner's thread. */
#ifndef CHRON_SYNCER_H
#define CHRON_SYNCER_H

#include "write/writer.h"

int chron__syncer_start(chron_writer *w);
/* Waits for its end, and so for a sync that is under way. Nothing happens if it does not run. */
void chron__syncer_stop(chron_writer *w);

#endif
