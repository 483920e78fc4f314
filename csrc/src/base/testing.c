/* SPDX-License-Identifier: MIT */
/* testing.c - what a build for tests has besides: see step.h and assert.h. Empty in others. */
#include "base/assert.h"
#include "base/step.h"

#ifdef CHRON_TESTING

#include <stdio.h>
#include <stdlib.h>

void (*chron__on_step)(const char *name);

void chron__assert_failed(const char *what, const char *file, int line)
{
    (void)fprintf(stderr, "%s:%d: this should hold: %s\n", file, line, what);
    abort();
}

#else
typedef int chron__testing_is_empty; /* ISO C wants something in every file */
#endif
