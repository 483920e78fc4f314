/* SPDX-License-Identifier: MIT */
/*
 * survey.h - what is in the log, where it ends, and what to do about what is not as it should be: found out by reading
 * alone. Nothing is changed before the verdict; recovery (write/recovery.c) and repair carry it out.
 */
#ifndef CHRON_SURVEY_H
#define CHRON_SURVEY_H

#include "queue/gaps.h"
#include "queue/hole.h"

/* One segment that was read. */
typedef struct chron__stretch {
    uint64_t base_seq;
    uint64_t prev_base; /* that it should say */
    uint64_t offset;    /* behind its last record */
    uint64_t next_seq;
    uint32_t epoch;       /* of its last record, */
    uint32_t first_epoch; /* and of its first; 0: it has none */
    enum chron__walk_stop stop;
    chron__tally tally;
    /* What is to be put right: all of it is known from elsewhere. */
    int header;
    int index;
    int end;
    int seal;
} chron__stretch;

typedef struct chron__survey {
    const chron__queue *q;
    const chron__wish *wish;
    chron__bases bases;
    chron__gaps gaps;       /* all of them */
    uint64_t accepted;      /* how many were accepted now, */
    uint64_t accepted_seqs; /* and how many seqs they are */
    chron__stretch *at;     /* segments that were read, in order; the log ends in the last */
    size_t count;
    size_t capacity;
    size_t first;         /* index in bases from which on it was read; what is not in at[] there is to be set aside */
    size_t cut_from;      /* segments from this index on are to be set aside */
    uint64_t cut_records; /* whole ones, in all that is to be set aside */
    uint64_t next_seq;    /* for the next record; above that of the last stretch if durable ones were given up */
    uint64_t scanned_records;
    uint64_t scanned_bytes;
} chron__survey;

/*
 * Reads what the evidence of `wish` makes necessary: the last segment, or all above the durable mark, or (repair) all.
 * ECORRUPT: something is damaged, or torn in a way that the caller has to decide about; EIO and the like. Afterwards
 * chron__survey_free in every case.
 */
int chron__survey_make(const chron__queue *q, const chron__wish *wish, chron__survey *out);
void chron__survey_free(chron__survey *s);

#endif
