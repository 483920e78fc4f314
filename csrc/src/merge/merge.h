/* SPDX-License-Identifier: MIT */
/*
 * merge.h - the inside of a chron_merge. open.c makes it, add.c adds sources, merge.c puts records in order, commit.c stores the
 * position, for which store.c has the file, wait.c waits. Queues are read by the public functions of readers, and by nothing else.
 */
#ifndef CHRON_MERGE_H
#define CHRON_MERGE_H

#include "base/error.h"
#include "base/format.h"
#include "merge/source.h"
#include "merge/store.h"
#include "platform/platform.h"

#define CHRON__SOURCES_MAX (1u << 20)

/* A source in the heap, by what it may come with next. */
typedef struct chron__contender {
    uint64_t
        place; /* of its next record; or its promise: it has to be asked before anything with a later place goes out */
    uint32_t index;
    uint32_t is_ready; /* `place` is that of its next record */
} chron__contender;

/* What was handed out last, for a commit that leaves some of it out. */
typedef struct chron__handed {
    uint64_t seq;
    uint64_t promise;
    uint64_t place;
    uint32_t source;
} chron__handed;

struct chron_merge {
    chron_merge_options options; /* name and home are not kept there */
    char *name;                  /* NULL: no stored position */
    char *home;                  /* NULL: readers/ of the first source */
    uint32_t fork_count;
    chron__source **sources; /* by index */
    uint32_t source_count, source_room;
    uint32_t missing; /* sources that the stored position knows, and that were not added */
    int begun;        /* records were asked for */
    int unfinished;   /* the stored position lies in front of a stop */

    chron__contender *heap; /* of sources that are neither idle nor at their end */
    size_t heap_count;
    uint32_t *idle; /* indices of sources that hold up nobody */
    size_t idle_count;
    uint64_t looked_ns; /* at the idle ones, last */
    uint64_t wake_ns;   /* monotonic: when the source that holds up the others will not do so any more; 0: none does */
    uint64_t reached;   /* the place of what was handed out last: nothing comes with an earlier one */
    int64_t failed;

    chron__hold *spent; /* what was handed out last may lie there */
    chron__handed *handed;
    size_t handed_count, handed_room;
    uint64_t reached_before; /* the last batch */

    chron__store store;
    chron_bell *bell; /* of chron_merge_wake() */
    uint32_t woken;   /* its count when that was last dealt with */
};

/* What every public function begins with. 0, or EINVAL, EFORKED. */
static inline int chron__merge_enter(chron_merge *m)
{
    if (__builtin_expect(!m, 0))
        return chron__fail(CHRON_EINVAL, "the merge is NULL");
    if (__builtin_expect(m->fork_count != chron__get32(&chron__fork_count), 0))
        return chron__fail(CHRON_EFORKED,
                           "this merge was opened before a fork, in the parent process: open a new one here");
    return 0;
}

static inline int chron__merge_is_live(const chron_merge *m)
{
    return (m->options.flags & CHRON_MERGE_LIVE) != 0;
}

/* Source `index`, which is there and was not dropped; or NULL, and ERANGE is told. */
chron__source *chron__merge_present(const chron_merge *m, uint32_t index);
/* A status of source s: that of the merge, and its text names the queue. */
int chron__merge_blame(chron_merge *m, const chron__source *s, int status);

/* Let source s take part. There is room for it. */
void chron__merge_join(chron_merge *m, chron__source *s);
/* It does not any more. */
void chron__merge_leave(chron_merge *m, uint32_t index);
/* Bring a record to the top of the heap: 1. 0: there is none now, or at all. Else a source's error. */
int chron__merge_settle(chron_merge *m);
/* Sources that were silent may have something again. 0, or a source's error. */
int chron__merge_ask_idle(chron_merge *m);

/* A source without a reader, at the end of the list. ENOMEM, EFULL. */
int chron__merge_new_source(chron_merge *m, const char *path, chron__source **out);
/* Sources as the stored position has them; after an error there are none, and it was not opened. */
int chron__merge_restore(chron_merge *m, const char *first_path);
void chron__merge_forget_sources(chron_merge *m);

#endif
