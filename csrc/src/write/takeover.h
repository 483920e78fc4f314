/* SPDX-License-Identifier: MIT */
/* takeover.h - recovery, the new epoch, and the segment to append to (takeover.c). */
#ifndef CHRON_TAKEOVER_H
#define CHRON_TAKEOVER_H

#include "write/birth.h"

/* Under the exclusive lock. `reserve`: so many epochs more than the new one are put on disk, for repairs while it is used. */
int chron__take_over(chron_writer *w, const char *path, chron__born *born, uint32_t reserve);

#endif
