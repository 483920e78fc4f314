/* SPDX-License-Identifier: MIT */
/* report.h - a failure for people: what is wrong, the command that repeats it, and as little of it as will do. */
#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include "image.h"
#include "search.h"

typedef struct sim_failure {
    const sim_search *search;
    const sim_profile *profile;
    uint64_t seed;
    unsigned depth; /* of the life in which the power was lost last */
    sim_crash crashes[SIM_DEPTH_MAX];
    const sim_life *life; /* that came to grief; if no power was lost, the first */
    const sim_log *log;   /* of the life before, or of that */
    const sim_cursor *cursor;
    sim_choice *choice;
} sim_failure;

/* Failures of the same rule and text (but for numbers) are one. */
int sim_report_is_new(const sim_failure *failure);
/* `again` runs the life behind the choice once more; NULL: no power was lost. */
void sim_report(sim_failure *failure, void (*again)(unsigned depth, int with_log));

#endif
