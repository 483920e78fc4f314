/* SPDX-License-Identifier: MIT */
/* rebuild.h - queue.meta, when it is missing or damaged: what is left of it, and making it anew (rebuild.c). */
#ifndef CHRON_REBUILD_H
#define CHRON_REBUILD_H

#include "format/identity.h"
#include "queue/hole.h"
#include "queue/tell.h"

typedef struct chron__remains {
    uint8_t page[CHRON__PAGE]; /* queue.meta as it is; zeros where it has nothing */
    size_t bytes;
    int exists;
    int header_lost;
    int state_lost;                 /* both slots */
    const char *why;                /* in words, what is the matter; NULL: nothing */
    char source[CHRON__NAME_BYTES]; /* segment that the geometry was taken from; "" it was not */
    chron__slot_value state;
    chron__place place; /* of the file */
    uint64_t epoch;     /* state_lost: the highest that was seen, once chron__rebuild_survey has looked */
} chron__remains;

/*
 * Look at queue.meta, and take the queue's geometry from it or else from any segment. ENOQUEUE: there is nothing of a queue;
 * ECORRUPT: nothing to take it from, or the segments are of different queues (the text says which).
 */
int chron__remains_look(chron__queue *q, const char *path, chron__remains *out);
/*
 * For everybody who only looks: open the queue, with queue.meta or without. What it says of the queue is taken from any
 * segment then; q->meta.base is NULL if there is no state of the writer either. As chron__queue_open otherwise.
 */
int chron__remains_open(chron__queue *q, const chron__io *io, const char *path, uint32_t flags);
/* What an opening would judge by, but for what the caller wishes. */
void chron__remains_wish(const chron__remains *r, chron__wish *wish);
/* Tell it as a finding. */
void chron__remains_tell(const chron__remains *r, chron__tell *tell);
/*
 * Read every segment for the highest epoch, remnants behind the end of the log included; only if the state was lost. Fails if
 * one cannot be read.
 */
int chron__remains_date(const chron__queue *q, chron__remains *r);
/* Make it anew, on disk; what was there is kept in quarantine/. Under the writer's lock. */
int chron__rebuild(const chron__queue *q, const chron__remains *r, unsigned mode);

#endif
