/* SPDX-License-Identifier: MIT */
/*
 * known.h - what the simulator has found and what stays: a position that nobody synced has no promise on a disk that tears
 * sectors. X(rule, part of the text, the least cruel disk that shows it (image.h), what happens). These are counted and
 * printed at the end, and are no failure; on a gentler disk they are one. Whoever mends one takes its line away.
 */
#ifndef SIM_KNOWN_H
#define SIM_KNOWN_H

#include "image.h"

#define SIM_KNOWN(X)                                                                                                \
    X(POSITION, "both copies of the position", SIM_BY_SECTOR, "a new position file without its slot, or both torn") \
    X(POSITION, "resumes at", SIM_BY_SECTOR, "the slot of the first commit is torn: there is none again")           \
    X(POSITION, "had committed up to", SIM_BY_SECTOR,                                                               \
      "the slot on disk is overwritten by a torn one: the older is back")                                           \
    X(POSITION, "had read when it committed", SIM_BY_SECTOR, "the same")                                            \
    X(POSITION, "has been deleted by retention", SIM_BY_SECTOR, "the same, though those records may be deleted")    \
    X(POSITION, "does not begin with", SIM_BY_WORD, "a new position file with half a header")                       \
    X(POSITION, "the header of r.pos is damaged", SIM_BY_WORD, "the same")

#endif
