/* SPDX-License-Identifier: MIT */
/* findings.h - what a survey of the log finds (survey.h makes it, verdict.h decides about holes). */
#ifndef CHRON_FINDINGS_H
#define CHRON_FINDINGS_H

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
    int anew; /* the file is too short or too long, or parts of it cannot be read: a new one takes its place */
} chron__stretch;

/* What was decided about a hole. */
typedef struct chron__found {
    uint32_t kind;   /* CHRON_PROBLEM_... */
    uint32_t action; /* CHRON_ACTION_GAP or CHRON_ACTION_CUT */
    uint64_t base_seq;
    uint64_t offset;
    uint64_t seq;
    uint64_t seq_end; /* CHRON_SEQ_NONE: not known */
    const char *why;
} chron__found;

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
    chron__found *found; /* in a repair */
    size_t found_count;
    size_t found_capacity;
    int gaps_damaged;     /* the list of accepted gaps was: what could be read of it is in `gaps` */
    size_t first;         /* index in bases from which on it was read; what is not in at[] there is to be set aside */
    size_t cut_from;      /* segments from this index on are to be set aside */
    uint64_t cut_records; /* whole ones, in all that is to be set aside */
    uint64_t next_seq;    /* for the next record; above that of the last stretch if durable ones were given up */
    uint64_t scanned_records;
    uint64_t scanned_bytes;
} chron__survey;

#endif
