/* SPDX-License-Identifier: MIT */
/*
 * survey.h - what is in the log, where it ends, and what to do about what is not as it should be: found out by reading
 * alone. Nothing is changed before the verdict; recovery (write/recovery.c) and repair carry it out.
 */
#ifndef CHRON_SURVEY_H
#define CHRON_SURVEY_H

#include "queue/findings.h"

/*
 * Reads what the evidence of `wish` makes necessary: the last segment, or all above the durable mark, or (repair) all.
 * ECORRUPT: something is damaged, or torn in a way that the caller has to decide about; EIO and the like. Afterwards
 * chron__survey_free in every case.
 */
int chron__survey_make(const chron__queue *q, const chron__wish *wish, chron__survey *out);
/* Is segment i of bases to be set aside? */
int chron__survey_sets_aside(const chron__survey *s, size_t i);
void chron__survey_free(chron__survey *s);

#endif
