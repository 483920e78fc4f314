/* SPDX-License-Identifier: MIT */
/* prove.h - is it on the device, whatever the page cache says? (prove.c) */
#ifndef CHRON_PROVE_H
#define CHRON_PROVE_H

#include "format/segment.h"

/*
 * [from, to) of a segment that is mapped for writing and was synced just now through a descriptor of which nobody knows
 * whether it heard of every failure: see that the device holds what the mapping does; write again what it does not. 0; or
 * -errno of a sync that failed, -EIO if the device does not keep it. Any thread; `to` bytes may be appended to meanwhile.
 */
int chron__prove(const chron__queue *q, chron__seg *seg, uint64_t from, uint64_t to);

#endif
