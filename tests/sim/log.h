/* SPDX-License-Identifier: MIT */
/*
 * log.h - what happened to a disk, in one order: stores into mappings, writes, sizes, names, syncs; and in between what
 * was promised to the library's user (truth.h) and the library's named steps.
 *
 * The log alone must suffice to make each file again: sim_log_check() compares. If it does not, an instruction stored
 * something that we did not see, and every image made from the log would be wrong.
 */
#ifndef SIM_LOG_H
#define SIM_LOG_H

#include "disk.h"
#include "truth.h"

enum sim_event_kind {
    SIM_STORE,      /* node, offset, bytes; data: where the value lies */
    SIM_WRITE,      /* the same, by a system call */
    SIM_SIZE,       /* node; bytes: its size now */
    SIM_NAMES,      /* data: which change */
    SIM_SYNC_BEGIN, /* node, offset, bytes (SIM_WHOLE: a file or a directory as a whole) */
    SIM_SYNC_END,   /* data: the event that began it */
    SIM_TRUTH,      /* data: which truth holds from here on */
    SIM_STEP,       /* data: which step */
};

#define SIM_WHOLE UINT32_MAX

typedef struct sim_event {
    uint8_t kind;
    int16_t node;
    uint32_t offset;
    uint32_t bytes;
    uint32_t data;
} sim_event;

#define SIM_EVENTS (1u << 18)
#define SIM_DATA_BYTES (8u << 20)
#define SIM_CHANGES 512u
#define SIM_TRUTHS 1024u

struct sim_log {
    sim_event *events;
    uint32_t count;
    uint8_t *data;
    uint32_t data_used;
    sim_change changes[SIM_CHANGES];
    uint32_t change_count;
    sim_truth *truths;
    uint32_t truth_count;
    /* As it was when the log began, and what the log makes of it up to now. */
    sim_disk boot;
    sim_disk now;
    int checks; /* compare at each system call */
};

/* Begin a log of what happens to `disk` from now on. */
void sim_log_start(sim_log *log, sim_disk *disk, const sim_truth *truth, int checks);
/* No more. */
void sim_log_stop(sim_disk *disk);

/* These take the disk in use, and do nothing if it has no log. */
void sim_log_store(enum sim_event_kind kind, int node, uint32_t offset, uint32_t bytes);
void sim_log_size(int node, uint32_t bytes);
void sim_log_names(const sim_change *change);
uint32_t sim_log_sync(enum sim_event_kind kind, int node, uint32_t offset, uint32_t bytes, uint32_t began);
void sim_log_truth(const sim_truth *truth);
void sim_log_step(const char *name);

/* For sim_hooks.stored: a store of the library into a mapping. */
void sim_log_stored(void *address, size_t bytes);

/* Does the log tell all? If not: sim_broken. */
void sim_log_check(void);

/* For people: what event i is. */
void sim_log_print(const sim_log *log, uint32_t i);

#endif
