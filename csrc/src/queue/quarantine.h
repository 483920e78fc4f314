/* SPDX-License-Identifier: MIT */
/* quarantine.h - setting aside what recovery cuts off: nothing is thrown away silently. */
#ifndef CHRON_QUARANTINE_H
#define CHRON_QUARANTINE_H

#include "format/segment.h"

/* Move a whole segment file to quarantine/. */
int chron__quarantine_segment(const chron__queue *q, uint64_t base_seq, uint64_t epoch);

/*
 * Copy what is not zero behind `tail` to quarantine/, zero it, clear the index entries that led there, and
 * put both on disk. next_seq is the seq that the tail will get. Adds to report's cut_* fields.
 * Where the disk has no room for the copy: fails with ENOSPC if there are whole records in it, goes on
 * without it if not (report->quarantined is 0 then).
 */
int chron__quarantine_tail(const chron__queue *q, chron__seg *seg, uint64_t tail, uint64_t next_seq, uint64_t epoch,
                           chron_recovery *report);

#endif
