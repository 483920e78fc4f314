/* SPDX-License-Identifier: MIT */
/* summary_file.h - summaries as files, types/<base_seq>.sum (summary_file.c). */
#ifndef CHRON_SUMMARY_FILE_H
#define CHRON_SUMMARY_FILE_H

#include "format/summary.h"

/* That of a sealed segment, as it was kept: NULL if there is none that can be believed. */
chron__summary *chron__summary_load(const chron__queue *q, const chron__seg *seg);
/* Keep a whole one, where this process may, and the queue is its user's. Best effort. */
void chron__summary_store(const chron__queue *q, const chron__seg *seg, const chron__summary *s);
/* These segments are gone. Best effort. */
void chron__summaries_remove(const chron__queue *q, const uint64_t *bases, size_t count);
/* The kept one, or else a new one, for which all of the segment is read, and which is kept. NULL: it cannot be had. */
chron__summary *chron__summary_get(const chron__queue *q, const chron__seg *seg);

#endif
