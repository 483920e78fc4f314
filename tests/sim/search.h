/* SPDX-License-Identifier: MIT */
/*
 * search.h - from one seed: a life, losses of power in it, lives behind them, losses of power in those, to a depth of three.
 */
#ifndef SIM_SEARCH_H
#define SIM_SEARCH_H

#include "life.h"

#define SIM_KNOWN_MAX 32
#define SIM_DEPTH_MAX 3u /* losses of power, one after the other */

/* One loss of power: before which event of a life's log, and which choice: 's' systematic, 'c' combination, 'r' random. */
typedef struct sim_crash {
    uint32_t at;
    char kind;
    uint64_t number;
} sim_crash;

typedef struct sim_search {
    uint32_t models;         /* SIM_BY_... */
    uint64_t images_of_seed; /* about how many */
    int exhaustive;  /* in the first life: all combinations of what is undecided, wherever it is twelve units or less */
    int goes_on;     /* behind a failure, too */
    int shows_known; /* report these as well */
    uint32_t path_count; /* replay: only these losses of power */
    sim_crash path[SIM_DEPTH_MAX];

    uint64_t images; /* lived through */
    uint64_t twins;  /* left out: the same as one before */
    uint64_t by_depth[SIM_DEPTH_MAX + 1u];
    uint64_t events;
    uint64_t failures;                                    /* of rules that hold now */
    uint64_t broken[SIM_RULE_COUNT + SIM_KNOWN_MAX + 1u]; /* by rule, and behind that by line of known.h */
} sim_search;

/* All of one seed. Returns how many failures it found. */
uint64_t sim_search_seed(sim_search *search, uint64_t seed);

#endif
