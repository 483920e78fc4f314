/* SPDX-License-Identifier: MIT */
/*
 * error.c - see error.h. One chron_error per thread, and the table of texts from chronicle.h.
 *
 * Invariants: a record always has a code, text that ends and is whole UTF-8 characters if its parts are, and
 * its defaults in all fields that nobody set. Nothing here allocates, locks or fails.
 */
#undef _GNU_SOURCE /* strerror_r as POSIX has it */
#define _POSIX_C_SOURCE 200809L

#include "base/error.h"

#include <inttypes.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SYS_TEXT_BYTES 160u  /* kept free for the system's reason, however long the sentence */
#define SYS_REASON_BYTES 94u /* the rest is for the hint */

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

static _Thread_local chron_error last = {.seq = CHRON_SEQ_NONE, .oldest = CHRON_SEQ_NONE, .next_seq = CHRON_SEQ_NONE};

/* Cut text that fills its buffer back to whole UTF-8 characters; `length` is what it would have needed. */
static void end_text(char *text, size_t capacity, int length)
{
    size_t end = capacity - 1u;

    if (length < 0)
        text[0] = '\0';
    if (length < (int)capacity)
        return;
    while (end > 0 && ((unsigned char)text[end - 1u] & 0xC0u) == 0x80u)
        end--;
    if (end > 0 && ((unsigned char)text[end - 1u] & 0xC0u) == 0xC0u)
        end--; /* the first byte of a character; what followed it is gone, or could be incomplete */
    else
        end = capacity - 1u;
    text[end] = '\0';
}

/* The arguments may point into the record itself, so the text is made before that is cleared. */
static void begin(int code, size_t capacity, const char *format, va_list arguments)
{
    char text[sizeof last.text];

    end_text(text, capacity, vsnprintf(text, capacity, format, arguments));
    memset(&last, 0, sizeof last);
    last.code = code;
    last.seq = CHRON_SEQ_NONE;
    last.oldest = CHRON_SEQ_NONE;
    last.next_seq = CHRON_SEQ_NONE;
    memcpy(last.text, text, strlen(text) + 1u);
}

static void set_file(const char *file)
{
    end_text(last.file, sizeof last.file, snprintf(last.file, sizeof last.file, "%s", file));
}

int chron__fail(int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    begin(code, sizeof last.text, format, arguments);
    va_end(arguments);
    return -code;
}

static int code_of(int sys_errno)
{
    switch (sys_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* beyond the limit of the process: ulimit -f */
        return CHRON_ENOSPC;
    case EACCES:
    case EPERM:
    case EROFS:
        return CHRON_EACCESS;
    case ENOMEM:
        return CHRON_ENOMEM;
    case EINTR:
        return CHRON_EINTR;
    case ENOSYS:
    case EOPNOTSUPP:
#if ENOTSUP != EOPNOTSUPP
    case ENOTSUP:
#endif
        return CHRON_ENOTSUP;
    default:
        return CHRON_EIO;
    }
}

/* What the reason may leave open: where to look. "" or words in brackets. */
static const char *hint(int sys_errno)
{
    switch (sys_errno) {
    case EFBIG:
        return " (the limit for the size of files: ulimit -f)";
    case EMFILE:
        return " (the limit of this process: ulimit -n)";
    case ENFILE:
        return " (in the whole system)";
    case EAGAIN: /* of a thread's start: locks that somebody has are told in other words */
        return " (the limit for threads: ulimit -u, or that of a container)";
    case ENOMEM:
        return " (the machine's, or the limit of this process: ulimit -v)";
    case EDQUOT:
        return " (the user's share of this disk)";
    default:
        return "";
    }
}

/* Of what is opened as a file of the queue; platform/posix.c has these for it. NULL: nothing more to say. */
static const char *file_hint(int sys_errno)
{
    switch (sys_errno) {
    case EINVAL:
        return "is no regular file, perhaps";
    case ELOOP:
        return "may not be a link";
    default:
        return NULL;
    }
}

void chron__sys_reason(int negative_errno, char *text, size_t capacity)
{
    if (strerror_r(-negative_errno, text, capacity) != 0)
        (void)snprintf(text, capacity, "error %d", -negative_errno);
}

int chron__fail_sys(int negative_errno, const char *file, const char *format, ...)
{
    int code = code_of(-negative_errno);
    const char *more = file[0] ? file_hint(-negative_errno) : NULL;
    char reason[SYS_REASON_BYTES];
    size_t length;
    va_list arguments;

    va_start(arguments, format);
    begin(code, sizeof last.text - CHRON__REASON_BYTES, format, arguments);
    va_end(arguments);
    last.sys_errno = -negative_errno;
    set_file(file);
    chron__sys_reason(negative_errno, reason, sizeof reason);
    length = strlen(last.text);
    (void)snprintf(last.text + length, sizeof last.text - length, ": %s%s", reason, hint(-negative_errno));
    length = strlen(last.text);
    if (more)
        (void)snprintf(last.text + length, sizeof last.text - length, " (%s %s)", file, more);
    return -code;
}

int chron__fail_fault(const char *what, const char *then)
{
    return chron__fail(CHRON_EIO, "%s went away under its mapping: it was truncated, or the disk failed%s", what, then);
}

int chron__fail_range(const char *which, uint64_t seq, uint64_t next_seq)
{
    (void)chron__fail(CHRON_ERANGE, "there is no %srecord %" PRIu64 " yet: the next one will be %" PRIu64, which, seq,
                      next_seq);
    last.seq = seq;
    last.next_seq = next_seq;
    return -CHRON_ERANGE;
}

int chron__fail_busy(const char *what, uint32_t closed, const char *advice)
{
    if (closed)
        return chron__fail(CHRON_ECLOSED, "this %s is closed", what);
    return chron__fail(CHRON_EBUSY, "the %s is in use by another thread: %s", what, advice);
}

chron_error *chron__error(void)
{
    return &last;
}

int chron__at(int status, const char *file, uint64_t offset, uint64_t seq)
{
    set_file(file);
    last.offset = offset;
    last.seq = seq;
    return status;
}

const chron_error *chron_last_error(void)
{
    return &last;
}

const char *chron_strerror(int code)
{
    switch (code < 0 ? -(int64_t)code : code) {
#define TEXT_ITEM(name, value, text) \
    case value:                      \
        return text;
        CHRON_ERRORS(TEXT_ITEM)
#undef TEXT_ITEM
    case CHRON_OK:
        return "success";
    default:
        return "unknown error";
    }
}

const char *chron_version(void)
{
    return STRING(CHRON_VERSION_MAJOR) "." STRING(CHRON_VERSION_MINOR) "." STRING(CHRON_VERSION_PATCH);
}
