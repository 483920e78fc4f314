/* SPDX-License-Identifier: MIT */
/*
 * summary.h - which types of records begin in each block of a segment: types/<base_seq>.sum, so that who wants some types
 * only need not read the other blocks (summary.c; summary_file.c keeps them).
 *
 * A summary is advice. It belongs to one state of one sealed segment, whose header's CRC and whose seal it repeats; what does not
 * check out counts as not there, and is made anew from the records. So it may be deleted at any time.
 */
#ifndef CHRON_SUMMARY_H
#define CHRON_SUMMARY_H

#include "format/filter.h"
#include "format/segment.h"

/* One block; one more behind the last says where its types end. */
typedef struct chron__block {
    uint64_t seq;    /* of the first record that begins in it; CHRON_SEQ_NONE: none does */
    uint64_t offset; /* of that; 0: none does */
    uint32_t types;  /* index of its first type */
} chron__block;

typedef struct chron__summary {
    uint64_t block_count;
    chron__block *blocks;
    uint16_t *types;     /* CHRON__TYPE_OURS among them: a snapshot begins in the block */
    uint64_t end_offset; /* behind the last record that it knows, */
    uint64_t end_seq;    /* and the seq that follows */
    int is_damaged;      /* some record could not be read: it may be of any type */
    int is_whole;        /* of a sealed segment, all of it, and no damage was met: it may be kept, and believed */
} chron__summary;

/* A summary that is being made. Zeros to begin with; chron__builder_end in every case. */
typedef struct chron__builder {
    const chron__seg *seg;
    chron__summary *summary;
    chron__walk walk;
    chron__resync beyond;
    uint64_t block; /* that records are noted for */
    size_t count, capacity;
    int damaged;
    chron__type_set seen; /* in that block */
} chron__builder;

/* Begin: 0, or ENOMEM. */
int chron__builder_begin(chron__builder *b, const chron__seg *seg);
/* Read about `bytes` more of the segment, and check each CRC. 1: done; 0: there is more; ENOMEM; EIO. */
int chron__builder_step(chron__builder *b, uint64_t bytes);
/* What was made, which is the caller's from then on; and the builder can go. */
chron__summary *chron__builder_take(chron__builder *b);
void chron__builder_end(chron__builder *b);

void chron__summary_free(chron__summary *s);

/* Does it know that this record begins in the block? */
int chron__summary_has(const chron__summary *s, uint64_t block, const chron__rec *rec);
/* Does anything begin in the block that the filter may take? */
int chron__summary_takes(const chron__summary *s, uint64_t block, const chron__filter *filter);

/*
 * The last whole record before `seq` that the filter takes: 1, or 0 if there is none. `s` is of this segment; what lies behind
 * its end is not looked at.
 */
int chron__summary_find_last(const chron__seg *seg, const chron__summary *s, const chron__filter *filter, uint64_t seq,
                             uint64_t *offset, chron__rec *rec);

#endif
