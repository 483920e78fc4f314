/* SPDX-License-Identifier: MIT */
/*
 * problem.h - a verification under way, and its findings (problem.c). One call of chron_queue_verify(),
 * one thread.
 */
#ifndef CHRON_PROBLEM_H
#define CHRON_PROBLEM_H

#include "format/position.h"
#include "format/segment.h"
#include "queue/gaps.h"
#include "queue/tell.h"

typedef struct chron__verify {
    chron__queue q;
    chron__tell to;
    chron_verify_summary *summary;
    chron__slot_value state;        /* of queue.meta, as at the beginning */
    chron__registered_list readers; /* as at the beginning */
    chron__gaps gaps;               /* that were accepted: nothing in them is a problem */
    int alive;                      /* a writer was active at the beginning */

    /* The log so far: where the next segment must go on. */
    int begun;
    uint64_t next_seq;
    int end_unknown; /* the newest segment could not be read: the log may go on behind next_seq */
    uint64_t last_base;
    uint32_t epoch;
} chron__verify;

/* Report a problem. seq, seq_end: CHRON_SEQ_NONE if they do not apply. */
void chron__verify_problem(chron__verify *v, uint32_t kind, const char *file, uint64_t offset, uint64_t seq,
                           uint64_t seq_end, const char *format, ...) __attribute__((format(printf, 7, 8)));
/* Something to be known that is no problem: a kind from CHRON_NOTES on. */
void chron__verify_note(chron__verify *v, uint32_t kind, const char *file, uint64_t seq, uint64_t seq_end,
                        const char *format, ...) __attribute__((format(printf, 6, 7)));
/* The same as a problem, for a failed call: its text, from the thread's chron_error. */
void chron__verify_failure(chron__verify *v, uint32_t kind, const char *file, uint64_t seq, uint64_t seq_end);
/* `bytes` more have been read. */
void chron__verify_progress(chron__verify *v, const char *file, uint64_t bytes);

#endif
