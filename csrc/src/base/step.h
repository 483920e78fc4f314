/* SPDX-License-Identifier: MIT */
/*
 * step.h - named places between two stores or system calls that matter to crash safety. In a build with
 * CHRON_TESTING a test can stop the process at any of them; otherwise they compile to nothing.
 */
#ifndef CHRON_STEP_H
#define CHRON_STEP_H

#ifdef CHRON_TESTING
extern void (*chron__on_step)(const char *name);
#define CHRON__STEP(name)         \
    do {                          \
        if (chron__on_step)       \
            chron__on_step(name); \
    } while (0)
#else
#define CHRON__STEP(name) ((void)0)
#endif

#endif
