/* SPDX-License-Identifier: MIT */
/* plan.h - what a repair does, told before it is done (plan.c). */
#ifndef CHRON_PLAN_H
#define CHRON_PLAN_H

#include "queue/findings.h"
#include "queue/rebuild.h"
#include "queue/tell.h"

/* All that a repair of these remains finds and does: surveyed, told, counted in *out. 0; EINTR: the caller does not want it. */
int chron__plan_make(const chron__queue *q, chron__remains *r, chron__tell *tell, chron_recovery *out);

/* Tell it, and ask whether it is to be done: 0, or EINTR. It is counted as it is done. */
int chron__plan_offer(const chron__survey *s, chron__tell *tell);

/* What the survey alone can tell, for the report. */
void chron__plan_report(const chron__survey *s, chron_recovery *report);

#endif
