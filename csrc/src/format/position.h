/* SPDX-License-Identifier: MIT */
/*
 * position.h - readers/<name>.pos: where a registered reader will resume. Written by the one reader that
 * holds the lock on it; read by retention, info and verify.
 */
#ifndef CHRON_POSITION_H
#define CHRON_POSITION_H

#include "format/moment.h"
#include "format/queue.h"

/* Room for a name of CHRON_READER_NAME_MAX bytes and ".pos". */
#define CHRON__POSITION_NAME_BYTES 72

typedef struct chron__position {
    int dir; /* descriptor of readers/ */
    int fd;  /* of the file, for syncs; -1: no stored position */
    chron__map map;
    chron__lock lock;
    chron__slot_value value; /* the newest; next_seq CHRON_SEQ_NONE: none yet */
    chron__moment stamp;     /* of the last store */
    int is_new;              /* the file was empty: this opening registers the reader */
    int names_synced;        /* the names that lead to the file were put on disk through this handle */
} chron__position;

/* 0, or -CHRON_EINVAL with a text that says what names are allowed. */
int chron__reader_name_check(const char *name);
int chron__is_reader_name(const char *name);

/*
 * Open (create if missing) and lock. `overwrite`: a damaged file is made anew instead of refused.
 * EREADER if the name is in use. On failure nothing is left open.
 */
int chron__position_open(const chron__queue *q, const char *name, unsigned mode, int overwrite, chron__position *out);
/*
 * The same for a member of a group, who shares the lock with the other members. A damaged file is made anew. Who stores does so in
 * the group's turn, and has loaded the slots in it.
 */
int chron__position_share(const chron__queue *q, const char *name, unsigned mode, chron__position *out);
void chron__position_close(const chron__queue *q, chron__position *position);
/* Opening the reader failed: if this opening was what registered it, take that back. Before the close. */
void chron__position_withdraw(const chron__queue *q, chron__position *position, const char *name);
/* Stores position->value, stamped now, as the next generation. sync: also on disk. */
int chron__position_store(const chron__queue *q, chron__position *position, int sync);

/*
 * The log ends at `end`: a stored position beyond it is marked as undone, on disk, before other records take those seqs. Retention
 * would believe that their reader had passed them. Left alone are those that a reader has open, who looks for itself when it resumes,
 * those that cannot be read, and those that this process may not write to.
 */
int chron__positions_undo(const chron__queue *q, uint64_t end);

/* One registered reader, seen from outside. */
typedef struct chron__registered {
    char name[CHRON_READER_NAME_MAX + 4];
    int damaged;             /* value is not known, but for time_ns, which is when the file was changed */
    int headless;            /* value is known, though the header is damaged */
    int why;                 /* then: -EBADMSG its content is damaged, else what opening or reading it answered */
    int alive;               /* somebody holds its lock */
    chron__slot_value value; /* next_seq CHRON_SEQ_NONE: it never committed */
} chron__registered;

typedef struct chron__registered_list {
    chron__registered *at;
    size_t count;
    size_t capacity;
} chron__registered_list;

/* Everything below was dealt with by its reader; 0 if it never committed. */
uint64_t chron__registered_passed(const chron__registered *one);
/* All registered readers, by name. Free with chron__registered_free. */
int chron__registered_load(const chron__queue *q, chron__registered_list *out);
/* Why one is called damaged: an errno of the system, or 0 for its content; and in words. */
int chron__registered_errno(const chron__registered *one);
void chron__registered_reason(const chron__registered *one, char *text, size_t capacity);
void chron__registered_free(chron__registered_list *list);
/* Put one reader's file on disk: retention may delete only what a durable position has passed. */
int chron__registered_sync(const chron__queue *q, const char *name);

#endif
