/* SPDX-License-Identifier: MIT */
/* retention.h - which segments may go, and why the others stay. */
#ifndef CHRON_RETENTION_H
#define CHRON_RETENTION_H

#include "base/struct.h"
#include "format/queue.h"

/* A reader's position that is on disk. */
typedef struct chron__safe {
    char name[CHRON_READER_NAME_MAX + 4];
    uint64_t generation;
    uint64_t next_seq;
} chron__safe;

/* What a writer remembers from one cleanup to the next. Zeros to begin with. */
typedef struct chron__retention_memory {
    uint64_t oldest_base; /* of the segments there are, if known */
    int known;
    uint64_t
        snapshot_base; /* of the segment of the newest snapshot in front of searched_base; CHRON_SEQ_NONE: there is none */
    uint64_t searched_base; /* 0: none was searched yet */
    chron__safe *safe;      /* by reader */
    size_t count;
} chron__retention_memory;

/* A writer's segments, as it knows them without a look at the directory. */
typedef struct chron__front {
    uint64_t active_base;
    uint64_t next_seq;
    size_t segments;
} chron__front;

typedef struct chron__cleaning {
    const chron_retention *limits;
    int delete_too;                  /* only for the holder of the writer's lock */
    int sync_positions;              /* first put those positions on disk that allow it, if they are not there */
    chron__retention_memory *memory; /* NULL: everything is looked up */
    const chron__front *front;       /* with memory and without fates: work for what goes only, however many stay */
    /* Asked before a segment is unlinked: 1, its name is gone and its file somebody's; 0, or NULL: no. */
    int (*take)(void *context, uint64_t base_seq, const char *name);
    void *context;
} chron__cleaning;

/*
 * Decide every segment's fate, oldest first, and carry it out if asked to. `fates` are the caller's chron_segment_fates, or
 * NULL. 0 or a failure; *out, which is ours, and `fates` are filled as far as it came.
 */
int chron__retention_apply(const chron__queue *q, const chron__cleaning *cleaning, chron_cleanup *out,
                           const chron__array *fates);
void chron__retention_forget(chron__retention_memory *memory);
/* May what a cleanup is to fill, each of which may be NULL, be filled? 0 with *array, or EINVAL. */
int chron__cleanup_check(const chron_cleanup *out, chron_segment_fate *fates, size_t capacity, chron__array *array);

#endif
