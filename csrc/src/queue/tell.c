/* SPDX-License-Identifier: MIT */
/* tell.c - see tell.h. */
#include "queue/tell.h"

#include <stdio.h>

#define PROGRESS_BYTES (64u << 20)

static void call(chron__tell *t, const chron_problem *found)
{
    if (t->report && !t->stopped && t->report(t->context, found) != 0)
        t->stopped = 1;
}

void chron__tell_found(chron__tell *t, chron_problem *found, const char *file, const char *format, va_list arguments)
{
    (void)snprintf(found->file, sizeof found->file, "%s", file);
    (void)vsnprintf(found->text, sizeof found->text, format, arguments);
    call(t, found);
}

void chron__tell_say(chron__tell *t, chron_problem *found, const char *file, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    chron__tell_found(t, found, file, format, arguments);
    va_end(arguments);
}

void chron__tell_progress(chron__tell *t, const char *file, uint64_t seq, uint64_t bytes)
{
    chron_problem progress = {.kind = 0, .seq = seq, .seq_end = CHRON_SEQ_NONE};

    t->progress_bytes = bytes > PROGRESS_BYTES - t->progress_bytes ? PROGRESS_BYTES : t->progress_bytes + bytes;
    if (t->progress_bytes < PROGRESS_BYTES)
        return;
    t->progress_bytes = 0;
    (void)snprintf(progress.file, sizeof progress.file, "%s", file);
    call(t, &progress);
}
