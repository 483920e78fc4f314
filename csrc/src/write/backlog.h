/* SPDX-License-Identifier: MIT */
/*
 * backlog.h - sealed segments that no sync has covered yet. Each keeps the open file that the writer wrote through: Linux
 * tells an open file of a page that could not be written once, and a file that is opened later may never hear of it.
 *
 * There is room for CHRON__BACKLOG_MAX descriptors, or for a share of what the process may have. Where more segments wait (a
 * writer that never syncs), the oldest give theirs up; what they hold has to be proven later, by reading the device (prove.h).
 */
#ifndef CHRON_BACKLOG_H
#define CHRON_BACKLOG_H

#include <stddef.h>
#include <stdint.h>

#define CHRON__BACKLOG_MAX 64u  /* as chronicle.h says */
#define CHRON__BACKLOG_SHARE 4u /* a quarter of the process's descriptors at most */

typedef struct chron__owed {
    uint64_t base_seq;
    uint64_t sealed_ns; /* monotonic */
    int fd;
} chron__owed;

typedef struct chron__backlog {
    chron__owed at[CHRON__BACKLOG_MAX]; /* oldest first */
    size_t count;
    size_t limit; /* at least 1 */
} chron__backlog;

#endif
