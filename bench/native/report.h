/* SPDX-License-Identifier: MIT */
/*
 * report.h - rows of a table, printed as they come and kept for the JSON file. A goal is shown as reached
 * or not; it never fails the run.
 */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "measure.h"

typedef struct row {
    const char *name;
    const char *where;    /* "disk", "shm" */
    const char *distance; /* "near", "far": how far the two processors were from each other; or "" */
    const char *unit;
    unsigned bytes; /* of payload; 0: does not apply */
    spread value;
    spread ratio;      /* to the limit measured in the same round; count 0: none */
    double ratio_goal; /* the median ratio is to be at most this; 0: no goal */
    double value_goal; /* the median value is to be at least this; 0: no goal */
} row;

/* Percentiles of one latency, over the whole range. */
#define CURVE_POINTS 17
extern const double curve_percents[CURVE_POINTS];

typedef struct curve {
    const char *name;
    const char *where;
    unsigned rate;  /* records a second that were due */
    unsigned bytes; /* of payload */
    uint64_t count;
    double ns[CURVE_POINTS]; /* at curve_percents */
} curve;

/* A section holds rows, or curves. */
void report_section(const char *name, const char *how);
void report_section_of_curves(const char *name, const char *how);
void report_row(const row *r);
void report_curve(const char *name, const char *where, unsigned rate, unsigned bytes, const histogram *h);
/* What others took of a processor's time when it began, in percent. */
void report_quiet(double percent);
void report_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* All rows and notes so far, and what `machine` says, to a file. */
void report_json(const char *path);

#endif
