/* SPDX-License-Identifier: MIT */
/*
 * prefetch.h - asking for memory before it is needed. Only advice: an address that is not mapped does no harm, and what
 * is loaded by it is not believed by anybody.
 */
#ifndef CHRON_PREFETCH_H
#define CHRON_PREFETCH_H

#include <stdint.h>

#define CHRON__CACHE_LINE 64u
#define CHRON__AHEAD 2048u     /* bytes in front of a reader or writer: measured, flat from there to 8 KiB */
#define CHRON__AHEAD_MAX 4096u /* bytes asked for at once */

/* Into its caller at once: GCC takes a function that only prefetches for one without effect, and drops calls of it. */
#define CHRON__PREFETCH static inline __attribute__((always_inline)) void

/* The lines of `bytes` bytes, which will be read. */
CHRON__PREFETCH chron__prefetch(const uint8_t *at, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += CHRON__CACHE_LINE)
        __builtin_prefetch(at + i, 0, 3);
}

/* The same, which will be written: so that no other processor has them. */
CHRON__PREFETCH chron__prefetch_own(const uint8_t *at, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += CHRON__CACHE_LINE)
#if defined(__x86_64__)
        __asm__ volatile("prefetchw %0" : : "m"(at[i])); /* does nothing on processors that do not know it */
#else
        __builtin_prefetch(at + i, 1, 3);
#endif
}

#endif
