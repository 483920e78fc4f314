/* SPDX-License-Identifier: MIT */
/* quarantine.h - setting aside what recovery cuts off: nothing is thrown away silently. */
#ifndef CHRON_QUARANTINE_H
#define CHRON_QUARANTINE_H

#include "format/segment.h"

/* Move a whole segment file to quarantine/. Then chron__quarantine_sync. */
int chron__quarantine_segment(const chron__queue *q, uint64_t base_seq, uint64_t epoch);
/* Give a segment file a second name there, so that it stays when a new one takes its place. On disk. 1, or 0: it cannot have one. */
int chron__quarantine_keep(const chron__queue *q, uint64_t base_seq, uint64_t epoch);
/* Put the names in quarantine/, and those that have left the queue's directory, on disk. */
int chron__quarantine_sync(const chron__queue *q);

/* Copy [offset, offset + bytes) of a segment to quarantine/, on disk, before it is overwritten. `seq` stands there, or should. */
int chron__quarantine_bytes(const chron__queue *q, const chron__seg *seg, uint64_t offset, uint64_t bytes, uint64_t seq,
                            uint64_t epoch);

/* Keep a small file of the queue's as it is, on disk. */
int chron__quarantine_page(const chron__queue *q, const char *name, const uint8_t *bytes, size_t count, uint64_t epoch);

/* Where the log ends, in the segment that it ends in. */
typedef struct chron__tail {
    uint64_t offset;
    uint64_t next_seq;      /* that the next record there will get */
    uint64_t epoch;         /* of this opening */
    uint64_t unfinished_to; /* what lies in front of it is what a dying process had not published; 0: not known */
    int may_be_stale;       /* what stands behind may be of the segment that the file was before */
} chron__tail;

/*
 * Copy what is not zero behind the tail to quarantine/, zero it, clear the index entries that led there, and put both on disk.
 * What is unfinished needs no copy, for nobody has seen it; nor what may be stale, behind the last whole record. Adds to the
 * report. Where the disk has no room for the copy: fails with ENOSPC if there are whole records in it, goes on without it if
 * not (report->quarantined is 0 then).
 */
int chron__quarantine_tail(const chron__queue *q, chron__seg *seg, const chron__tail *at, chron_recovery *report);

#endif
