/* SPDX-License-Identifier: MIT */
/*
 * assert.h - invariants that run. CHRON__ASSERT(condition) ends the process in a build with CHRON_TESTING, where every
 * test, fuzzer, mutant, crash and loss of power checks all of them; in others it compiles to nothing.
 *
 * It is for what our own code promises itself. Bytes of a file that others could have written are checked by code that fails
 * with an error, and so are arguments; but the writer, who holds the lock, may assert what it alone writes. Where two sides can check the same thing, both do.
 */
#ifndef CHRON_ASSERT_H
#define CHRON_ASSERT_H

#ifdef CHRON_TESTING
#include <pthread.h>

void chron__assert_failed(const char *what, const char *file, int line) __attribute__((noreturn, cold));
#define CHRON__ASSERT(condition) ((condition) ? (void)0 : chron__assert_failed(#condition, __FILE__, __LINE__))
/* Somebody holds it: we, if the caller keeps to the rules. */
#define CHRON__ASSERT_LOCKED(mutex) CHRON__ASSERT(pthread_mutex_trylock(mutex) != 0)
#else
#define CHRON__ASSERT(condition) ((void)sizeof((condition) ? 1 : 0)) /* compiled, never evaluated */
#define CHRON__ASSERT_LOCKED(mutex) ((void)0)
#endif

#endif
