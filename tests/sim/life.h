/* SPDX-License-Identifier: MIT */
/*
 * life.h - what processes do with a queue from one boot of the machine to the next, and what has to hold meanwhile.
 *
 * A life is some processes one after the other: each opens the queue for writing, looks whether all is as it should be
 * (check.c), works, and closes it or dies. All follows from the seed.
 */
#ifndef SIM_LIFE_H
#define SIM_LIFE_H

#include "chronicle.h"
#include "log.h"
#include "rules.h"

/* What a user does, in all lives of one seed. */
typedef struct sim_profile {
    uint64_t seed;
    uint32_t segment_size; /* bytes */
    uint32_t durability;
    uint32_t durability_n;
    int keeper;
    int reader;    /* there is a named one */
    int retention; /* automatic */
    int reuse;     /* of what it deletes; 2: but not in the process that makes the queue */
    int syncs;     /* one operation in so many; 0: never */
    int rolls;     /* the same */
    uint32_t operations_max;
} sim_profile;

/* Which records of which life were found whole on a disk: bit `life` of [seq]. */
typedef struct sim_found {
    uint64_t lives[SIM_SEQS];
} sim_found;

#define SIM_LIVES_MAX 63u

typedef struct sim_life {
    const sim_profile *profile;
    sim_disk *disk;
    unsigned depth; /* how often the power was lost before */
    uint64_t seed;
    int works; /* a life of work; else it looks, and appends a little */
    sim_truth truth;

    /* What the first opening may find: [lower, upper]. */
    uint32_t lower;
    uint32_t upper;
    uint32_t cruelty;        /* of the disks before: the highest SIM_BY_... that was needed */
    int after_power;         /* the disk at the beginning is all there is: nothing of it is in memory only */
    int was_in_use;          /* when the power went: recovery was over */
    const sim_found *before; /* on disk at the boot before this one; NULL: nothing */
    uint32_t rotten;         /* this record was damaged on purpose; SIM_NO_POSITION: none */
    int rotten_is_marked;    /* and it lies below the mark on disk */
    uint32_t mark;           /* on disk, before the opening */
    uint64_t sum;            /* of segments and queue.meta, before the opening */

    /* What came out. */
    sim_found in_segments; /* on disk at this boot */
    sim_found found;       /* the same, and in quarantine/ */
    uint32_t claimed;      /* the highest position that was in the reader's file */
    int cuts;              /* the user has said so */
    int resumed;           /* the named reader has been opened in this life */
    int failed;
    enum sim_rule rule;
    char text[700];
    uint64_t later; /* bits of the rules that are not asked for yet, and did not hold */
    int known;      /* line of known.h, from 1; 0: it is new */
    int was_opened;
    int cut;               /* the first opening: 2 moved segments away, 1 cut off a tail, 0 neither */
    uint32_t recovered;    /* next_seq of the first opening */
    uint32_t opened_event; /* in the log, when that was over */
} sim_life;

void sim_profile_roll(sim_profile *profile, uint64_t seed);
void sim_profile_print(const sim_profile *profile);

/* Live it. With a log or without: see sim_log_start(). */
void sim_life_run(sim_life *life);

/* Is this broken rule no failure: not asked for yet, or known? */
int sim_is_excused(const sim_life *life);
/* A rule that is not asked for yet is broken: it is noted, and life goes on; but if it is asked for, it ends. */
void sim_expect(sim_life *life, enum sim_rule rule, int holds);
/* A rule is broken: the life ends here. */
void sim_fail(sim_life *life, enum sim_rule rule, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn, cold));

extern const char *const sim_rule_names[SIM_RULE_COUNT];
extern const char *const sim_rule_texts[SIM_RULE_COUNT];
extern const int sim_rule_now[SIM_RULE_COUNT];
extern const char *const sim_known_texts[]; /* ends with NULL */

/* --------------------------------------------------------------------------------------- check.c */

#define SIM_READER "r"

/* Before anything is opened: nothing that was on disk has gone. Fills life->found. */
void sim_check_disk(sim_life *life);
/* Right after an opening; `first`: of this life. The truth is brought in line with it. */
void sim_check_opened(sim_life *life, chron_writer *w, int first);
/* All records, by a reader without a name. Returns the oldest. */
uint32_t sim_check_records(sim_life *life);
/* The next records of a reader, at most `count`. */
void sim_check_some(sim_life *life, chron_reader *r, uint32_t count);
/* If segments were deleted since: the reader had committed past them. */
void sim_check_oldest(sim_life *life);
/* Open the named reader: where it was, or at the oldest if what it had is gone, as it may be. */
chron_reader *sim_check_resume(sim_life *life, uint32_t oldest);
/* The named reader has read up to its position. Commits; sync: on disk. */
void sim_check_commit(sim_life *life, chron_reader *r, int sync);
/* After a proper close. */
void sim_check_verify(sim_life *life);
/* The opening failed: was that allowed? Does not return if not. */
void sim_check_refused(sim_life *life, int status);
/* Whatever the user allows, it cannot be opened. */
void sim_check_shut(sim_life *life) __attribute__((noreturn));
#endif
