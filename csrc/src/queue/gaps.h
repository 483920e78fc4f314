/* SPDX-License-Identifier: MIT */
/*
 * gaps.h - seqs that are gone for good, and accepted as such: what repair decided, or an opening that was told to skip. The
 * file `gaps` in the queue's directory (docs/FORMAT.md) is written before anything acts on it, so a decision lasts.
 */
#ifndef CHRON_GAPS_H
#define CHRON_GAPS_H

#include "format/queue.h"

typedef struct chron__gap {
    uint64_t seq;         /* first one that is missing */
    uint64_t seq_end;     /* first one that is there again */
    uint64_t base_seq;    /* segment that the log goes on in */
    uint64_t offset;      /* of that record in it; 0: where its records begin */
    uint64_t accepted_ns; /* wall clock */
} chron__gap;

/* Ascending by seq, and apart. */
typedef struct chron__gaps {
    chron__gap *at;
    size_t count;
    size_t capacity;
} chron__gaps;

#define CHRON__GAPS_MAX 65536u

/* No file: no gaps. EIO and the like; ECORRUPT if its header is damaged. A damaged entry is none. Free in every case. */
int chron__gaps_load(const chron__queue *q, chron__gaps *out);
/* The same of a damaged file, for a repair: each entry has a CRC of its own. */
int chron__gaps_salvage(const chron__queue *q, chron__gaps *out);
void chron__gaps_free(chron__gaps *gaps);
/* The gap that `seq` lies in, or NULL. */
const chron__gap *chron__gaps_find(const chron__gaps *gaps, uint64_t seq);
/*
 * Where the log goes on that has ended before `seq`: there, or behind a gap that leads to a segment which is still to be
 * made, behind all that there are.
 */
uint64_t chron__gaps_over(const chron__gaps *gaps, const chron__bases *bases, uint64_t seq);
/* 0, ENOMEM, or EINVAL if there are too many. One that touches another is joined with it. */
int chron__gaps_add(chron__gaps *gaps, const chron__gap *gap);
/* Those that end before `seq`, which retention has passed. */
void chron__gaps_forget(chron__gaps *gaps, uint64_t seq);
/* Write the file anew, and put it and its name on disk. Only for the holder of the writer's lock. */
int chron__gaps_save(const chron__queue *q, const chron__gaps *gaps, unsigned mode);

#endif
