/* SPDX-License-Identifier: MIT */
/* birth.h - making a queue (birth.c). Under the writer's lock. */
#ifndef CHRON_BIRTH_H
#define CHRON_BIRTH_H

#include "write/writer.h"

/* What an opening has made, and takes back if it fails. */
typedef struct chron__born {
    int directory;
    int lock;
    int readers;
    int quarantine;
    int doorbell;
    int queue;   /* queue.meta: with it there is a queue */
    int segment; /* the first one, which is empty */
} chron__born;

/* Is there a queue.meta? 1 or 0. */
int chron__birth_was(const chron__queue *q);
/* The directory holds no queue: may it become one? EINVAL, ECORRUPT (a queue that has lost its queue.meta). */
int chron__birth_may(const chron__queue *q, const char *path);
/* Everything of a queue but segments; queue.meta last, so that nobody sees half of one. */
int chron__birth(chron_writer *w, const char *path, chron__born *born);
/* What a queue may have lost: directories, doorbell. */
int chron__birth_complete(chron_writer *w, chron__born *born);
/*
 * For a repair, before queue.meta is opened: make it anew if it is missing or damaged. All that the repair will do is told
 * first. Nothing if it is whole, or there is no queue. 0 or a failure.
 */
int chron__birth_again(chron_writer *w, const char *path);
/* The opening failed: take back what it made, if it made the queue. All but the directory. */
void chron__birth_undo(chron_writer *w, const chron__born *born);
/* Directories get x where files get r. */
unsigned chron__birth_directory_mode(unsigned mode);

#endif
