/* SPDX-License-Identifier: MIT */
/* problem.c - reporting what a verification finds, and how far it is. */
#include "queue/problem.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

#define PROGRESS_BYTES (64u << 20)

static void report(chron__verify *v, chron_problem *problem, const char *file, const char *format, va_list arguments)
{
    (void)snprintf(problem->file, sizeof problem->file, "%s", file);
    (void)vsnprintf(problem->text, sizeof problem->text, format, arguments);
    if (v->report && !v->stopped && v->report(v->context, problem) != 0)
        v->stopped = 1;
}

void chron__verify_problem(chron__verify *v, uint32_t kind, const char *file, uint64_t offset, uint64_t seq,
                           uint64_t seq_end, const char *format, ...)
{
    chron_problem problem = {.kind = kind, .seq = seq, .seq_end = seq_end, .offset = offset};
    va_list arguments;

    if (seq != CHRON_SEQ_NONE && kind != CHRON_PROBLEM_POSITION && chron__gaps_find(&v->gaps, seq))
        return;
    v->summary->problems++;
    va_start(arguments, format);
    report(v, &problem, file, format, arguments);
    va_end(arguments);
}

void chron__verify_note(chron__verify *v, uint32_t kind, const char *file, uint64_t seq, uint64_t seq_end,
                        const char *format, ...)
{
    chron_problem note = {.kind = kind, .seq = seq, .seq_end = seq_end};
    va_list arguments;

    v->summary->notes++;
    va_start(arguments, format);
    report(v, &note, file, format, arguments);
    va_end(arguments);
}

void chron__verify_failure(chron__verify *v, uint32_t kind, const char *file, uint64_t seq, uint64_t seq_end)
{
    const chron_error *error = chron_last_error();

    chron__verify_problem(v, kind, file, error->offset, seq, seq_end, "%.250s", error->text);
}

void chron__verify_progress(chron__verify *v, const char *file, uint64_t bytes)
{
    chron_problem progress = {.kind = 0, .seq = v->next_seq, .seq_end = CHRON_SEQ_NONE};

    v->reported_bytes = bytes > PROGRESS_BYTES - v->reported_bytes ? PROGRESS_BYTES : v->reported_bytes + bytes;
    if (v->reported_bytes < PROGRESS_BYTES || !v->report || v->stopped)
        return;
    v->reported_bytes = 0;
    (void)snprintf(progress.file, sizeof progress.file, "%s", file);
    if (v->report(v->context, &progress) != 0)
        v->stopped = 1;
}
