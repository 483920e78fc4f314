/* SPDX-License-Identifier: MIT */
/*
 * attach.h - finding and entering the segment of a position (attach.c).
 *
 * What "attach" answers: 1, the segment of r->next_seq is entered; 0, there is none yet; EGONE, or what on_gap says
 * instead, if it was deleted; EREWRITTEN if the log ends before it, though it did not when the reader came there.
 */
#ifndef CHRON_ATTACH_H
#define CHRON_ATTACH_H

#include "read/reader.h"

/* Enter `seg` (takes over the reference) at a record; nothing is known of the one before. */
void chron__reader_enter_segment(chron_reader *r, chron__seg *seg, uint64_t offset, uint64_t next_seq);
/* Find the segment of r->next_seq and enter it. */
int chron__reader_attach(chron_reader *r);
/*
 * After ECORRUPT: does the position lie in a gap that a repair has accepted? 1: on_gap has led on behind it; 0: no, and the
 * thread's error is what it was; or EGONE.
 */
int chron__reader_pass_gap(chron_reader *r);
/* Find the position anew, by the names that are there now. As attach; EREWRITTEN if it is not in the log. */
int chron__reader_reattach(chron_reader *r);
/* The segment that END leads to is not there. As attach. */
int chron__reader_missing(chron_reader *r);
/*
 * Be at `seq`, or stay and say why. As attach, but ERANGE if the log ends before it, and 0 also if the record is damaged:
 * whoever reads it is told. `nearby` (may be NULL) saves mapping that segment anew.
 */
int chron__reader_move_to(chron_reader *r, uint64_t seq, chron__seg *nearby);
/* As chron__log_end, for what this reader may see. */
int chron__reader_end(chron_reader *r, uint64_t *end);

/* The last whole record before `seq`: 1 with *seg (a reference), *offset, *rec; 0 if there is none. Damage is passed over. */
int chron__reader_find_before(chron_reader *r, uint64_t seq, chron__seg **seg, uint64_t *offset, chron__rec *rec);
/* The CRC of the record before the position. 1; 0 if it is not there any more. */
int chron__reader_fingerprint(chron_reader *r, uint32_t *crc);

#endif
