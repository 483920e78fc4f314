/* SPDX-License-Identifier: MIT */
/*
 * error.h - how the library's functions fail: they fill the thread's chron_error and return -code.
 */
#ifndef CHRON_ERROR_H
#define CHRON_ERROR_H

#include "chronicle.h"

/*
 * Start a failure: clears the thread's record, stores code and a printf-formatted sentence, returns
 * -code. The fields below may be set afterwards through chron__error().
 */
int chron__fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/*
 * The same for a system call that answered -errno: picks ENOSPC, EACCESS, ENOMEM, ENOTSUP or EIO by it, adds
 * its text.
 */
int chron__fail_sys(int negative_errno, const char *file, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

/*
 * CHRON_EIO: the guard had to replace the pages of a mapping: that of `what`. `then` is what to do, a sentence that begins
 * with ". ", or "".
 */
int chron__fail_fault(const char *what, const char *then) __attribute__((cold));

/* CHRON_ERANGE: there is no record `seq` yet, the next one will be `next_seq`. `which`: "", or a word and a space. */
int chron__fail_range(const char *which, uint64_t seq, uint64_t next_seq) __attribute__((cold));

/* A checked handle is in use by another thread, or was shut: `what` is "writer" or "reader". */
int chron__fail_busy(const char *what, uint32_t closed, const char *advice) __attribute__((cold));

/* The thread's record, to add seq, oldest, next_seq, offset, file, pid. */
chron_error *chron__error(void);

/* Set where the trouble is; returns `status` for `return chron__at(...)`. */
int chron__at(int status, const char *file, uint64_t offset, uint64_t seq);

/* The system's words for a -errno. */
#define CHRON__REASON_BYTES 96u
void chron__sys_reason(int negative_errno, char *text, size_t capacity);

#endif
