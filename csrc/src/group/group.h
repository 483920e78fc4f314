/* SPDX-License-Identifier: MIT */
/*
 * group.h - the inside of a chron_group. open.c opens and closes it, recover.c puts a group in order, ahead.c looks how far the
 * log goes, take.c hands jobs out, settle.c takes them back, dead.c hands them over to the dead queue, wait.c waits.
 *
 * A group stands on readers, which read the log for it, and on the public interface of writers, for the dead queue. One
 * thread at a time.
 */
#ifndef CHRON_GROUP_H
#define CHRON_GROUP_H

#include "base/error.h"
#include "format/group.h"
#include "read/reader.h"

#define CHRON__LOOK_AHEAD_MAX 512u /* records that a keyed group looks ahead, at least 2 * CHRON_GROUP_TAKE_MAX */

/* Some segments that views lie in. */
typedef struct chron__lent {
    chron__seg **at;
    size_t count;
    size_t capacity;
} chron__lent;

/* Keys of undone jobs, while cells are looked at: an entry counts if its round is that of now. */
typedef struct chron__keys {
    uint64_t *at;  /* round << 32 | key */
    uint32_t mask; /* entries - 1; NULL: the group has no keys */
    uint32_t round;
} chron__keys;

struct chron_group {
    chron_reader *jobs; /* reads what is handed out */
    chron_reader *tail; /* stands behind the last record that is known to be there */
    chron__group_file file;
    chron__position mirror;
    chron__slot_value floor; /* as it was last seen */
    chron_group_options options;
    uint64_t hole_from; /* seqs that are gone, in front of the tail; equal: there is none */
    uint64_t hole_to;
    uint32_t epoch; /* the highest of the records in front of the tail */
    uint32_t ahead_key[CHRON__LOOK_AHEAD_MAX];
    uint64_t retry_ns;  /* CLOCK_MONOTONIC: when a hand-over that has failed is tried again, */
    uint64_t looked_ns; /* and when a waiting look went over all cells last */
    chron__lent lent;
    chron__keys keys;
    uint32_t fork_count;
    uint32_t checked;
    chron__a32 closed; /* [BUSY] */
    chron__a32 busy;   /* [BUSY] */
    chron_group_stats stats;
    const chron__io *io;
    char *path;
    char name[CHRON_READER_NAME_MAX + 4];
};

/* What every public function begins and ends with. 0, or EINVAL, EFORKED, EBUSY, ECLOSED. */
static inline int chron__group_enter(chron_group *g)
{
    if (!g)
        return chron__fail(CHRON_EINVAL, "the group is NULL");
    if (g->fork_count != chron__get32(&chron__fork_count))
        return chron__fail(CHRON_EFORKED, "this group was opened before a fork, in the parent process: open a new one "
                                          "here (the parent's goes on working there)");
    if (g->checked && chron__take32(&g->busy) != 0) /* [BUSY] with chron__group_leave */
        return chron__fail_busy("group", chron__get_acquire32(&g->closed),
                                "give each thread its own handle, or take a lock around it");
    return 0;
}

static inline void chron__group_leave(chron_group *g)
{
    if (g->checked)
        chron__set_release32(&g->busy, 0); /* [BUSY] with chron__group_enter */
}

static inline const chron__queue *chron__group_queue(const chron_group *g)
{
    return &g->tail->q;
}

/* open.c: chron_group_open() on another table of system calls, for tests. */
int chron__group_open_with(const chron__io *io, const char *path, const char *name, const chron_group_options *options,
                           chron_group **out);

/* turn.c */
int chron__group_turn(chron_group *g); /* 0 with the turn, and g->floor as it is now; EHELD, EINTR, or of the system */
void chron__group_give(chron_group *g);
int chron__group_store_floor(chron_group *g, uint64_t floor); /* in the turn, or alone; the mirror behind it */
int chron__group_store_epoch(chron_group *g, uint32_t epoch); /* the same */
void chron__group_ready(chron_group *g, uint64_t seq);        /* a job can be had again: say so, and wake who sleeps */

/* recover.c: nobody else is a member. */
int chron__group_recover(chron_group *g);

/*
 * ahead.c: have the tail stand at `from` or behind, and behind `want` records more, if they are there. What is gone in
 * between is the hole then. 0, or what reading the log met.
 */
int chron__group_look_ahead(chron_group *g, uint64_t from, uint64_t want);
int chron__group_read(chron_group *g, uint64_t seq, chron_view *out); /* a job's record; its segment is lent */
void chron__group_take_back_lent(chron_group *g);

/* take.c */
typedef struct chron__scan {
    uint32_t asked[16]; /* owners that the kernel was asked about */
    uint8_t dead[16];
    uint32_t count;
    uint64_t mono_ns;
    uint64_t clock_ns;
    uint64_t lease_ns; /* when the first lease that was seen ends, and the first job is due */
    uint64_t due_ns;
} chron__scan;

void chron__scan_begin(chron__scan *scan);
/* May this member take the job from what the word says? 1, 0, or a failure of asking. */
int chron__group_can_take(const chron_group *g, chron__scan *scan, uint64_t seq, uint64_t word);
/* In the turn: move the floor over all that is done. */
int chron__group_raise(chron_group *g);
/* Is it time to look at all cells? */
int chron__group_scan_is_due(const chron_group *g, uint64_t mono_ns);

/* dead.c. The cell is RESERVED, or DEADING, by us; `reason` may be NULL. Not in the turn. */
int chron__group_hand_over(chron_group *g, uint64_t seq, uint64_t word, const char *reason);

#define CHRON__DEAD_DELIVERIES 1u /* chron__cell.aux in DEADING: handed out too often, */
#define CHRON__DEAD_REJECTED 2u   /* or rejected */

#ifdef CHRON_TESTING
#define CHRON__SCAN_EVERY_NS 2000000u /* tests kill thousands */
#else
#define CHRON__SCAN_EVERY_NS 50000000u /* 50 ms: deaths are seen twice as fast as promised */
#endif
#define CHRON__TURN_WAIT_NS 5000000000u /* a holder that lives and does not move */
#define CHRON__HAND_OVER_AGAIN_NS 1000000000u

#endif
