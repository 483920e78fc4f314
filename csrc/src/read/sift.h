/* SPDX-License-Identifier: MIT */
/*
 * sift.h - a reader that wants some types only (sift.c). r->sift is NULL for one that wants all.
 *
 * The position of such a reader moves over what it does not want when it looks for what it does.
 */
#ifndef CHRON_SIFT_H
#define CHRON_SIFT_H

#include "read/next.h"

#define CHRON__SIFT_BYTES (16u << 20) /* read at once, where somebody may want to be asked in between */

/* A place in the segment of the reader, which stays where it is. */
typedef struct chron__cursor {
    uint64_t offset, seq;
    uint64_t last_offset; /* of the record before, if has_last, */
    uint32_t last_crc;    /* and its CRC */
    int has_last;
    uint64_t unread; /* records that were passed over without a look */
} chron__cursor;

/* What opening asks for: 0, ENOMEM, EINVAL. */
int chron__sift_open(chron_reader *r);
void chron__sift_close(chron_reader *r);
void chron__sift_forget(chron_reader *r); /* in a forked child */

/*
 * chron__reader_peek for the next record that is wanted: the position moves up to it. CHRON_NOT_READY once more than
 * about `bytes` were read.
 */
int chron__reader_sift(chron_reader *r, chron__rec *rec, uint64_t bytes);
/* As that, or as chron__reader_peek. */
static inline int chron__reader_look(chron_reader *r, chron__rec *rec)
{
    return r->sift ? chron__reader_sift(r, rec, UINT64_MAX) : chron__reader_peek(r, rec);
}

chron__cursor chron__cursor_of(const chron_reader *r);
/* *rec, at the cursor, is passed. */
void chron__cursor_pass(chron__cursor *at, const chron__rec *rec);
/*
 * From the cursor on, in the segment, what is plainly there: 1, and *rec is wanted and at the cursor, its CRC not checked yet; 0:
 * something else comes first (END, damage, the durable mark, about `bytes` were read), and the cursor is there.
 */
int chron__sift_plain(const chron_reader *r, chron__cursor *at, uint32_t epoch, chron__rec *rec, uint64_t bytes);
/* The position is the cursor's: `taken` records in between were wanted, and had so many bytes of payload. */
void chron__sift_settle(chron_reader *r, const chron__cursor *at, size_t taken, uint64_t payload_bytes);

/*
 * The last record before the position that is wanted: 1 with *seg (a reference), *offset, *rec; 0; or a failure. Where there is none
 * in a segment, the position moves to its beginning. CHRON_NOT_READY as chron__reader_sift.
 */
int chron__reader_sift_back(chron_reader *r, chron__seg **seg, uint64_t *offset, chron__rec *rec, uint64_t bytes);

/* Begin at the newest snapshot before the position: 1; 0: there is none; or a failure. */
int chron__sift_to_snapshot(chron_reader *r);

#endif
