/* SPDX-License-Identifier: MIT */
/* anew.h - a segment written to a new file, which takes its name (anew.c). */
#ifndef CHRON_ANEW_H
#define CHRON_ANEW_H

#include "format/segment.h"

/*
 * Write a segment that nobody appends to any more to a new file, put that on disk, and give it the old one's name. What a
 * remnant lacks is zeros in it. 0, and the caller syncs the directory; or -errno: then the old file is as it was.
 */
int chron__write_anew(const chron__queue *q, const chron__seg *seg, unsigned mode);

#endif
