/* SPDX-License-Identifier: MIT */
/* prove.h - is it on the device, whatever the page cache says? (prove.c) */
#ifndef CHRON_PROVE_H
#define CHRON_PROVE_H

#include "format/segment.h"

/*
 * Does the device hold [from, to) of a segment that was synced just now? 1: yes; 0: no, or it cannot be asked; or -errno.
 * Any thread; what lies behind `to` may be appended to meanwhile.
 */
int chron__prove(const chron__queue *q, const chron__seg *seg, uint64_t from, uint64_t to);

#endif
