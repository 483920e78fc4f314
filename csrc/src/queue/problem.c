/* SPDX-License-Identifier: MIT */
/* problem.c - what a verification finds: counted, and told. */
#include "queue/problem.h"

#include <stdarg.h>

#include "base/error.h"

void chron__verify_problem(chron__verify *v, uint32_t kind, const char *file, uint64_t offset, uint64_t seq,
                           uint64_t seq_end, const char *format, ...)
{
    chron_problem problem = {.kind = kind, .seq = seq, .seq_end = seq_end, .offset = offset};
    va_list arguments;

    if (seq != CHRON_SEQ_NONE && kind != CHRON_PROBLEM_POSITION && chron__gaps_find(&v->gaps, seq))
        return;
    v->summary->problems++;
    va_start(arguments, format);
    chron__tell_found(&v->to, &problem, file, format, arguments);
    va_end(arguments);
}

void chron__verify_note(chron__verify *v, uint32_t kind, const char *file, uint64_t seq, uint64_t seq_end,
                        const char *format, ...)
{
    chron_problem note = {.kind = kind, .seq = seq, .seq_end = seq_end};
    va_list arguments;

    v->summary->notes++;
    va_start(arguments, format);
    chron__tell_found(&v->to, &note, file, format, arguments);
    va_end(arguments);
}

void chron__verify_failure(chron__verify *v, uint32_t kind, const char *file, uint64_t seq, uint64_t seq_end)
{
    const chron_error *error = chron_last_error();

    chron__verify_problem(v, kind, file, error->offset, seq, seq_end, "%.250s", error->text);
}

void chron__verify_progress(chron__verify *v, const char *file, uint64_t bytes)
{
    chron__tell_progress(&v->to, file, v->next_seq, bytes);
}
