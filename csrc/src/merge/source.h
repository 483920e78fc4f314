/* SPDX-License-Identifier: MIT */
/*
 * source.h - one queue of a merge: its reader, the records that were read of it and not handed out, and its promise.
 *
 * The promise is what makes the order depend on nothing but the records: the newest timestamp that the source had so far,
 * less the lateness. No later record of it has a place below that: one with an older timestamp gets the promise as its place.
 * Whatever has a place up to the promise may therefore be handed out, as far as this source is concerned.
 */
#ifndef CHRON_SOURCE_H
#define CHRON_SOURCE_H

#include <stddef.h>

#include "chronicle.h"

#define CHRON__CHUNK 256u /* records that are read of a source at once */

/* A mapped segment that records which were not handed out lie in. */
typedef struct chron__hold {
    chron_segment *segment;
    size_t entries;
    int is_current; /* the source reads from it */
    struct chron__hold *next_spent;
} chron__hold;

/* A record that was read. */
typedef struct chron__entry {
    uint64_t timestamp_ns;
    uint64_t promise; /* of its source, before it */
    uint64_t seq;
    const void *payload;
    chron__hold *hold;
    uint32_t length;
    uint16_t type_id;
    uint8_t flags;
} chron__entry;

/* Seqs [begin, end). */
typedef struct chron__range {
    uint64_t begin, end;
} chron__range;

/* How far a source has come. */
typedef struct chron__progress {
    uint64_t from;      /* all below was handed out; CHRON_SEQ_NONE: there is no position yet */
    uint64_t promise;   /* there */
    chron__range *done; /* handed out beyond `from`; ascending */
    size_t done_count;
} chron__progress;

typedef struct chron__chunk {
    uint64_t timestamp_ns[CHRON__CHUNK];
    uint64_t offset[CHRON__CHUNK];
    uint32_t length[CHRON__CHUNK];
    uint16_t type_id[CHRON__CHUNK];
    uint8_t flags[CHRON__CHUNK];
    uint64_t first_seq;
    size_t at, count; /* those from `at` on were not looked at */
} chron__chunk;

typedef struct chron__source {
    chron_reader *reader; /* NULL: it is missing, or was dropped */
    char *path;
    uint32_t index;
    uint8_t uuid[16];
    uint64_t lateness_ns;
    uint64_t stop;     /* seq; CHRON_SEQ_NONE: none */
    uint64_t promise;  /* only rises */
    uint64_t rejoined; /* the place that the merge had reached when this source came back; 0: it was never away */

    /* Read and not handed out. Those that came in order of their places: a ring; those that did not: a heap. */
    chron__entry *run;
    size_t run_room, run_at, run_count; /* run_room is a power of two */
    chron__entry *strays;
    size_t stray_room, stray_count;

    chron__chunk *chunk;
    chron__hold *hold;   /* of the chunk */
    chron__hold **spent; /* the merge's list of holds that nothing is left of but what it handed out last */
    chron__range *done;  /* handed out before, beyond the position that reading began at; ascending */
    size_t done_count, done_at;

    chron__progress stored; /* the stored position, as far as it is known */
    chron__progress next;   /* the one that a commit is about to store */
    uint64_t left_count;    /* what that commit leaves out of the last batch, */
    uint64_t left_seq;      /* and the lowest seq of it, */
    uint64_t left_promise;  /* and the promise before that */

    uint64_t dry_ns;              /* since when it holds up the others, and has nothing: monotonic; 0: it does not */
    int dropped;                  /* the caller has taken it out */
    int ended;                    /* all up to `stop` was read */
    int flush;                    /* it has been dry for so long that what it has is handed out, whatever may come */
    int idle;                     /* for so long that it holds up nobody */
    chron_bell *bell;             /* NULL: it has none, and is looked at now and then */
    chron_merge_source_info told; /* records, late */
} chron__source;

static inline uint64_t chron__place_of(const chron__entry *e)
{
    return e->timestamp_ns > e->promise ? e->timestamp_ns : e->promise;
}

/* The next one in order; NULL: none. It stays. */
const chron__entry *chron__source_front(const chron__source *s);
/* Take it out. */
chron__entry chron__source_take(chron__source *s);

/*
 * Read one record more. 1; 0: there is none now, or the source has ended (`ended`). An error leaves all as it was.
 */
int chron__source_read(chron__source *s);
/* Whether that takes no reading, only a look at what was read with others. */
static inline int chron__source_has_fetched(const chron__source *s)
{
    return s->chunk->at < s->chunk->count;
}
/* The seq of the record that it looks at next. */
uint64_t chron__source_next_seq(const chron__source *s);

/* A copy, by malloc(). NULL: no memory. */
char *chron__copy_text(const char *text, size_t length);

/* Forget what was read of it, and close its reader. What was handed out last stays until the spent holds go. */
void chron__source_close(chron__source *s);
void chron__holds_free(chron__hold **spent);
/* One entry less leads there. */
void chron__hold_drop(chron__source *s, chron__hold *hold);

#endif
