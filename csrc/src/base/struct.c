/* SPDX-License-Identifier: MIT */
/*
 * struct.c - see struct.h.
 *
 * Invariant: nothing is read or written behind the size that the caller's struct says it has, and nothing at all of one
 * whose size cannot be true.
 */
#include "base/struct.h"

#define NONSENSE_BYTES 1024u /* a struct_size above this was never set: it is what happened to lie there */

/* Structs of the caller have their sizes for ever: none may end with padding, where a field could begin one day. */
#define ENDS_WITH(type, last) \
    _Static_assert(sizeof(type) == offsetof(type, last) + sizeof(((type *)0)->last), #type " ends with padding")

ENDS_WITH(chron_writer_options, turn_timeout_ns);
ENDS_WITH(chron_reader_options, type_count);
ENDS_WITH(chron_retention, keep_snapshot);
ENDS_WITH(chron_source, timestamp_ns);
ENDS_WITH(chron_columns, payload_bytes);
ENDS_WITH(chron_recovery, repaired_files);
ENDS_WITH(chron_writer_stats, reused_segments);
ENDS_WITH(chron_reader_stats, unread);
ENDS_WITH(chron_queue_info, quarantine_bytes);
ENDS_WITH(chron_segment_info, epoch);
ENDS_WITH(chron_reader_info, reserved);
ENDS_WITH(chron_verify_summary, notes);
ENDS_WITH(chron_quarantine_file, name);
ENDS_WITH(chron_merge_options, idle_ns);
ENDS_WITH(chron_merge_source, reserved);
ENDS_WITH(chron_merge_source_info, skipped);
ENDS_WITH(chron_cleanup, quarantine_deleted_bytes);
ENDS_WITH(chron_segment_fate, reserved);
ENDS_WITH(chron_group_options, key_context);
ENDS_WITH(chron_job, reserved2);
ENDS_WITH(chron_group_stats, inherited);
ENDS_WITH(chron_group_info, name);
ENDS_WITH(chron_group_held, due_ns);
/* The library's own, which programs read: the same, for programs of an older header. */
ENDS_WITH(chron_error, appended);
ENDS_WITH(chron_problem, reserved2);

int chron__struct_check(const char *type, const void *to)
{
    uint32_t size;

    if (!to)
        return chron__fail(CHRON_EINVAL, "the %s is NULL", type);
    size = *(const uint32_t *)to;
    if (size < 2u * sizeof size || size > NONSENSE_BYTES || size % _Alignof(chron_retention) != 0)
        return chron__fail(CHRON_EINVAL, "struct_size of the %s is %u: set it to sizeof(%s) before the call", type,
                           (unsigned)size, type);
    return 0;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

int chron__struct_take(const char *type, const void *from, void *to, size_t known)
{
    int status = chron__struct_check(type, from);
    size_t size;

    if (status < 0)
        return status;
    size = *(const uint32_t *)from;
    for (size_t i = known; i < size; i++)
        if (((const uint8_t *)from)[i])
            return chron__fail(CHRON_EINVAL,
                               "byte %zu of the %s is set, but this library (%s) knows only the first %zu: the program "
                               "was compiled with a newer header; install the library that belongs to it",
                               i, type, chron_version(), known);
    memcpy(to, from, smaller(size, known));
    memset((uint8_t *)to + smaller(size, known), 0, known - smaller(size, known));
    *(uint32_t *)to = (uint32_t)known;
    return 0;
}

void chron__struct_give(const void *from, size_t known, void *to)
{
    const uint32_t size = *(const uint32_t *)to;

    memcpy(to, from, smaller(size, known));
    memset((uint8_t *)to + smaller(size, known), 0, size - smaller(size, known));
    *(uint32_t *)to = size;
}

int chron__array_take(const char *type, void *first, size_t capacity, chron__array *out)
{
    int status = capacity ? chron__struct_check(type, first) : 0;

    *out = (chron__array){.at = first, .capacity = status < 0 ? 0 : capacity};
    if (out->capacity)
        out->stride = *(const uint32_t *)first;
    return status;
}

void chron__array_put(const chron__array *array, size_t i, const void *from, size_t known)
{
    if (i >= array->capacity)
        return;
    *(uint32_t *)(void *)(array->at + i * array->stride) = array->stride;
    chron__struct_give(from, known, array->at + i * array->stride);
}
