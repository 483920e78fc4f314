/* SPDX-License-Identifier: MIT */
/* bell.h - what readers and writers need to give out bells (bell.c). Any thread. */
#ifndef CHRON_BELL_H
#define CHRON_BELL_H

#include "format/queue.h"

/* A bell with one reference that is no doorbell. NULL: no memory. */
chron_bell *chron__bell_new(void);
/* One that rings when the queue's doorbell does. 0, or EACCESS, ENOMEM, EINVAL. */
int chron__bell_of_queue(const chron__queue *q, chron_bell **out);
chron_bell *chron__bell_retain(chron_bell *b);
/* Ring a bell that is no doorbell. NULL is allowed. */
void chron__bell_signal(chron_bell *b);

#endif
