/* SPDX-License-Identifier: MIT */
/*
 * look.h - looking at a queue's files on a disk without the library, by docs/FORMAT.md: so that what the library says of them
 * can be compared.
 */
#ifndef SIM_LOOK_H
#define SIM_LOOK_H

#include "life.h"

/* What queue.meta says: the newest valid slot. 0: there is none. */
typedef struct sim_mark {
    uint32_t durable_next;
    uint32_t epoch;
} sim_mark;
int sim_look_mark(const sim_disk *disk, sim_mark *out);

/* The lowest base_seq of a segment's name; SIM_SEQS if there is none. */
uint32_t sim_look_oldest(const sim_disk *disk);
/* The base_seq of the segment that record `seq` would be in; 0 if there is none. */
uint32_t sim_look_segment(const sim_life *life, uint32_t seq);
/* The lowest base_seq in quarantine/ that is not below `seq`. */
uint32_t sim_look_moved(const sim_life *life, uint32_t seq);

/* The whole records of our lives in the segments; those of quarantine/ are added. */
void sim_look_segments(const sim_life *life, sim_found *out);
void sim_look_quarantine(const sim_life *life, sim_found *out);

/* A record that is no part of the log, in a segment that the newest life has appended to: 1 with its seq and life. */
int sim_look_remnant(const sim_life *life, uint32_t *seq, uint16_t *of);

/* Epochs of the records on disk go up from life to life? If not: 1, and two lives whose do not. */
int sim_look_epochs(const sim_life *life, uint16_t *older, uint16_t *newer);

/* Of segments and queue.meta: has an opening changed them? */
uint64_t sim_look_sum(const sim_life *life);

/* Flips a bit of some whole record that is durable. Returns its seq, or SIM_NO_POSITION if there is none. */
uint32_t sim_look_spoil(sim_life *life, uint64_t *dice);

/* For people: the files, and the whole records in them. */
void sim_look_print(const sim_life *life);

#endif
