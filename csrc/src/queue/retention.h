/* SPDX-License-Identifier: MIT */
/* retention.h - which segments may go, and why the others stay. Reads the directory afresh each time. */
#ifndef CHRON_RETENTION_H
#define CHRON_RETENTION_H

#include "base/struct.h"
#include "format/queue.h"

#define CHRON__RETAIN_DELETE 1         /* carry it out; only for the holder of the writer's lock */
#define CHRON__RETAIN_SYNC_POSITIONS 2 /* first put the positions that allow it on disk */

/*
 * Decide every segment's fate, oldest first, and carry it out if asked to. `fates` are the caller's chron_segment_fates, or
 * NULL. 0 or a failure; *out, which is ours, and `fates` are filled as far as it came.
 */
int chron__retention_apply(const chron__queue *q, const chron_retention *limits, int flags, chron_cleanup *out,
                           const chron__array *fates);
/* May what a cleanup is to fill, each of which may be NULL, be filled? 0 with *array, or EINVAL. */
int chron__cleanup_check(const chron_cleanup *out, chron_segment_fate *fates, size_t capacity, chron__array *array);

#endif
