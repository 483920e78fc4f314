/* SPDX-License-Identifier: MIT */
/* next.h - looking at the record at the position (next.c). */
#ifndef CHRON_NEXT_H
#define CHRON_NEXT_H

#include "read/reader.h"

/*
 * Is there a record at the position? 1: *rec is loaded, in bounds, with the right seq; its CRC is not checked yet. 0: not
 * yet. Goes on to the next segment when need be.
 */
int chron__reader_peek(chron_reader *r, chron__rec *rec);
/* Is the record that was consumed last still what it was? Asked when the epoch changes. 0, or EREWRITTEN. */
int chron__reader_check_history(const chron_reader *r);
/* The record that peek found: is it whole, with the payload at `payload`, and does it follow? 0, or why not. */
static inline int chron__reader_check(const chron_reader *r, const chron__rec *rec, const void *payload)
{
    if (__builtin_expect(!chron__rec_crc_ok(rec, payload), 0))
        return chron__reader_damaged(r, "its CRC does not match");
    if (__builtin_expect(chron__rec_epoch(rec) != r->epoch, 0)) {
        if (chron__rec_epoch(rec) < r->epoch)
            return chron__reader_damaged(r, "it is a remnant of an earlier epoch");
        return chron__reader_check_history(r);
    }
    return 0;
}
/* check has failed with `status`. 1: it is a gap that was accepted, and the position is behind it: look again; or a failure. */
int chron__reader_pass_damage(chron_reader *r, int status);

#endif
