/* SPDX-License-Identifier: MIT */
/* temporary.h - a directory for one test: its name is free when handed out, and all in it goes at the end. */
#ifndef TEMPORARY_H
#define TEMPORARY_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

#define TEMPORARY_BYTES 256

/*
 * A path in $TMPDIR or /var/tmp that does not exist yet, in a directory of its own. Not /tmp: where that lies in memory,
 * queues in it cannot be durable.
 */
static inline void temporary_directory(char *path)
{
    const char *parent = getenv("TMPDIR");
    char made[TEMPORARY_BYTES - 8];

    (void)snprintf(made, sizeof made, "%s/chron-test-XXXXXX", parent && *parent ? parent : "/var/tmp");
    CHECK(mkdtemp(made) != NULL);
    (void)snprintf(path, TEMPORARY_BYTES, "%s/queue", made);
}

static inline int temporary_visit(const char *path, const struct stat *info, int kind, struct FTW *level)
{
    (void)info;
    (void)kind;
    (void)level;
    return remove(path);
}

static inline void temporary_remove(char *path)
{
    char *end = strrchr(path, '/');

    *end = '\0';
    CHECK(nftw(path, temporary_visit, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

#endif
