/* SPDX-License-Identifier: MIT */
/*
 * known.h - what the simulator has found and what is not mended yet: X(rule, part of the text, the least cruel disk that shows
 * it (image.h), what happens). These are counted and printed at the end, and are no failure; on a gentler disk they are one.
 * Whoever mends one takes its line away.
 */
#ifndef SIM_KNOWN_H
#define SIM_KNOWN_H

#include "image.h"

#define SIM_KNOWN(X)                                                                                                \
    X(OPENS, "tells of records up to seq", SIM_BY_TIME,                                                             \
      "recovery was cut off when it had moved the last segment away, and those before it were deleted")             \
    X(SAME, "next_seq is 0, not", SIM_BY_TIME, "the same with a mark of 0: the log begins at 0 again")              \
    X(SAME, "not 0 to 0", SIM_BY_TIME, "the same, the other way round")                                             \
    X(BACK, "next_seq is 0, but", SIM_BY_TIME, "the same, below seqs that had been durable")                        \
    X(POSITION, "resumes at", SIM_BY_TIME, "the same: a position without a fingerprint is believed in the new log") \
    X(POSITION, "both copies of the position", SIM_BY_SECTOR, "a new position file without its slot, or both torn") \
    X(POSITION, "had committed up to", SIM_BY_SECTOR,                                                               \
      "the slot on disk is overwritten by a torn one: the older is back")                                           \
    X(POSITION, "had read when it committed", SIM_BY_SECTOR, "the same")                                            \
    X(POSITION, "has been deleted by retention", SIM_BY_SECTOR, "the same, though those records may be deleted")    \
    X(POSITION, "does not begin with", SIM_BY_WORD, "the same")                                                     \
    X(POSITION, "the header of r.pos is damaged", SIM_BY_WORD, "the same")

#endif
