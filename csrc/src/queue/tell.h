/* SPDX-License-Identifier: MIT */
/*
 * tell.h - telling the caller of a verification or a repair what is found, and how far it is (tell.c). Of one call, one
 * thread.
 */
#ifndef CHRON_TELL_H
#define CHRON_TELL_H

#include <stdarg.h>
#include <stdint.h>

#include "chronicle.h"

typedef struct chron__tell {
    chron_problem_fn report; /* NULL: nobody listens */
    void *context;
    int stopped;             /* the callback asked for it */
    uint64_t progress_bytes; /* since the last progress report */
} chron__tell;

/* *found is filled but for file and text. */
void chron__tell_found(chron__tell *t, chron_problem *found, const char *file, const char *format, va_list arguments);
void chron__tell_say(chron__tell *t, chron_problem *found, const char *file, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* `bytes` more have been read, of `file`, and `seq` comes next. UINT64_MAX: tell it now. */
void chron__tell_progress(chron__tell *t, const char *file, uint64_t seq, uint64_t bytes);

#endif
