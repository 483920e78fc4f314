/* SPDX-License-Identifier: MIT */
/* keeper.h - the background thread (keeper.c). Owner's thread. */
#ifndef CHRON_KEEPER_H
#define CHRON_KEEPER_H

#include "write/writer.h"

int chron__keeper_start(chron_writer *w);
/* If one is wanted and does not run. A failure is counted. */
void chron__keeper_try(chron_writer *w);
/* Waits for its end. Nothing happens if it does not run. */
void chron__keeper_stop(chron_writer *w);

#endif
