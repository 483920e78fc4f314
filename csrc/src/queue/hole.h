/* SPDX-License-Identifier: MIT */
/*
 * hole.h - a place where the log cannot go on: is it damage, or what a loss of power leaves, and what lies behind it?
 */
#ifndef CHRON_HOLE_H
#define CHRON_HOLE_H

#include "format/identity.h"
#include "format/segment.h"

/* What to do about a hole that a loss of power may have left, with more good records behind it than before. */
enum chron__torn {
    CHRON__TORN_ASK,  /* refuse */
    CHRON__TORN_CUT,  /* the log ends before it */
    CHRON__TORN_SKIP, /* accept the gap, keep what is behind */
};

typedef struct chron__wish {
    chron__slot_value state; /* newest slot of queue.meta */
    enum chron__whence whence;
    chron__words words; /* of the writer before; zeros: not known */
    enum chron__torn torn;
    int repair;               /* accept damage: as gaps where good records follow, else as the end */
    struct chron__tell *tell; /* of a repair: hears of all that is found, before anything is changed; or NULL */
} chron__wish;

/* What is wrong. */
enum chron__hole_kind {
    CHRON__HOLE_RECORD,  /* what stands there is no record, or not the one that must follow */
    CHRON__HOLE_NOTHING, /* a zero commit word */
    CHRON__HOLE_MISSING, /* the segment that must follow is not there */
    CHRON__HOLE_HEADER,  /* the segment's header cannot be believed, and nothing else in it either */
    CHRON__HOLE_CHAIN,   /* the segment does not follow the one before it */
};

typedef struct chron__hole {
    enum chron__hole_kind kind;
    size_t i;        /* index in bases of the segment that it is in; MISSING: of the one behind it, if there is one */
    chron__seg *seg; /* that segment; NULL: HEADER, MISSING, CHAIN */
    uint64_t offset; /* in it */
    uint64_t seq;    /* that should stand there */
    uint32_t epoch;  /* records of earlier ones are remnants */
    const char *why; /* in words */
} chron__hole;

/* What the log is, as far as a hole has to know it. */
typedef struct chron__log {
    const chron__queue *q;
    const chron__wish *wish;
    const chron__bases *bases;
} chron__log;

/* How segments are opened by those who only look. */
int chron__hole_open_flags(const chron__wish *wish);

/* Can no loss of power have left this? 1 or 0; or a failure, such as EIO. */
int chron__hole_is_damage(const chron__log *log, const chron__hole *hole);

/* What whole records lie behind a hole. */
typedef struct chron__behind {
    uint64_t records;
    uint64_t seq;      /* of the first of them */
    uint64_t base_seq; /* its segment */
    uint64_t offset;   /* and where it is in it */
} chron__behind;

/* Counts them, in its segment and in all later ones. 0 or a failure. */
int chron__hole_look_behind(const chron__log *log, const chron__hole *hole, chron__behind *out);

/* Does a published record stand behind the zero commit word where the log seems to end? Same place only. 1 or 0. */
int chron__hole_is_proven(const chron__log *log, const chron__hole *hole, uint64_t intent);

#endif
