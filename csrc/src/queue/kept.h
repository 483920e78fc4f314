/* SPDX-License-Identifier: MIT */
/* kept.h - what is in quarantine/ (quarantine.h puts it there): listed, bounded (kept.c), and read (kept_read.c). */
#ifndef CHRON_KEPT_H
#define CHRON_KEPT_H

#include "base/struct.h"
#include "format/queue.h"

typedef struct chron__kept_list {
    chron_quarantine_file *at; /* oldest first */
    size_t count;
    size_t capacity;
    uint64_t bytes; /* of all of them, on the disk */
} chron__kept_list;

/* Those that recovery and repairs have put there; others are nobody's business. Free with chron__kept_free. */
int chron__kept_load(const chron__queue *q, chron__kept_list *out);
void chron__kept_free(chron__kept_list *list);
/* In words. */
void chron__kept_describe(const chron_quarantine_file *one, char *text, size_t capacity);

/* How much of it may stay; 0: no limit. */
typedef struct chron__kept_limits {
    uint64_t max_bytes;
    uint64_t max_age_ms;
} chron__kept_limits;

/* As the options say: limits of its own, or a share of those that the queue has. `segments`: back-pressure's, 0: none. */
chron__kept_limits chron__kept_limits_of(const chron__queue *q, const chron_retention *retention, uint64_t segments);
/*
 * Delete what is beyond the limits, oldest first, or only count it. What the newest opening has put there is never too much,
 * for nobody may have seen it yet. Fills out->quarantine_....
 */
int chron__kept_trim(const chron__queue *q, const chron__kept_limits *limits, int delete_too, chron_cleanup *out);
/* Only those fields. */
void chron__kept_report(const chron_cleanup *kept, chron_cleanup *out);
/* Limits on the disk that the whole queue takes: what is left of them for segments. */
void chron__kept_count(chron_retention *limits, uint64_t kept_bytes);

#endif
