/* SPDX-License-Identifier: MIT */
/* around.h - do the names still lead to what this reader maps? (around.c) */
#ifndef CHRON_AROUND_H
#define CHRON_AROUND_H

#include "read/reader.h"

/*
 * Asked where nothing is there to read; looks now and then only. 0: all is as it was; 1: the reader has gone over to other
 * files, in which its position is: look again; EREMOVED, or what chron__reader_reattach says.
 */
int chron__reader_look_around(chron_reader *r);

/* Before a sleep: is the doorbell still the one that writers ring? Looks now and then only. */
void chron__reader_mind_doorbell(chron_reader *r);

#endif
