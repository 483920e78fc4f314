/* SPDX-License-Identifier: MIT */
/*
 * truth.h - what was appended, and what the library promised of it: the oracle.
 *
 * A record's content follows from its seq and from the life (the opening for writing) that appended it, so a record of
 * another history can never pass for the right one. life_of[] is the log as it should be: record s is that of life
 * life_of[s]. A loss of power leaves a front of it, at least up to what was promised.
 */
#ifndef SIM_TRUTH_H
#define SIM_TRUTH_H

#include "sim.h"

#define SIM_SEQS 1024u /* of one seed */
#define SIM_PAYLOAD_MAX 4096u
#define SIM_COMMITS 64u
#define SIM_NO_POSITION UINT32_MAX

/* A position that the reader committed, and whose record was the last it had consumed. */
typedef struct sim_commit {
    uint32_t seq;     /* SIM_NO_POSITION: registered, nothing committed */
    uint16_t life;    /* of record seq - 1 */
    uint16_t missing; /* this entry stands for: not even registered */
} sim_commit;

typedef struct sim_truth {
    uint32_t started;  /* records below this may be there */
    uint32_t returned; /* append has returned for these: the death of a process does not take them */
    uint32_t durable;  /* these survive the loss of power */
    uint32_t acked;    /* a call has returned that said so of these */
    uint32_t on_disk;  /* these were found there at the last boot: nothing takes them away, though nobody promised it */
    uint32_t oldest;   /* retention may have deleted what is below */
    uint32_t lives;    /* handed out so far, from 1 */
    uint32_t opened;   /* the current process has the queue open: recovery is over */
    uint32_t commit_count;
    sim_commit commits[SIM_COMMITS]; /* any of them may be what is found */
    uint16_t life_of[SIM_SEQS];
} sim_truth;

/* How long records are: set once for each seed. */
typedef struct sim_sizes {
    uint64_t seed;
    uint32_t payload_max;
    uint32_t by_life; /* records of one seq differ in length from life to life */
} sim_sizes;

extern sim_sizes sim_record_sizes;

void sim_truth_clear(sim_truth *truth);
/* From `seq` on there is nothing any more. */
void sim_truth_cut(sim_truth *truth, uint32_t seq);

uint32_t sim_record_length(uint32_t seq, uint16_t life);
/* Fills `payload`, returns the length. */
uint32_t sim_record_fill(uint32_t seq, uint16_t life, uint8_t *payload);
uint64_t sim_record_time(uint32_t seq, uint16_t life);

static inline uint16_t sim_record_type(uint16_t life)
{
    return (uint16_t)(life % 1000u);
}

static inline uint8_t sim_record_flags(uint32_t seq)
{
    return (uint8_t)seq;
}

#endif
