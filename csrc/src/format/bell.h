/* SPDX-License-Identifier: MIT */
/* listen.h - what the writer needs of listen.c. */
#ifndef CHRON_LISTEN_H
#define CHRON_LISTEN_H

#include "chronicle.h"

/* Ring a bell that is no doorbell. NULL is allowed; any thread. */
void chron__bell_signal(chron_bell *b);

#endif
