/* SPDX-License-Identifier: MIT */
/*
 * atomics.h - every atomic operation of the library, spelled once. Nothing else includes <stdatomic.h>.
 *
 * Words in mapped files are 32 bits wide, so that they are lock-free on every machine, and little-endian:
 * the *_le functions convert. 64-bit atomics are for memory of one process only.
 *
 * Each use says which other place it pairs with, by one of these tags (grep for them):
 *
 *   [PUBLISH]  writer stores a record's commit word (release); a reader loads it (acquire). Everything
 *              that the writer wrote before, payload and header, is then visible to the reader.
 *   [SEAL]     writer stores the seal's state (release) after END and the other seal fields; whoever
 *              loads the state (acquire) as sealed sees them.
 *   [INDEX]    writer stores a block index entry (release) after the record it points at was published.
 *   [SLOT]     words of a two-slot record: relaxed; the slot's CRC tells a torn one from a whole one. A release fence
 *              before the stores and an acquire fence behind the loads: who reads of a record in queue.meta sees it.
 *   [BELL]     sleeping and waking: seq_cst fences on both sides, see doorbell.c.
 *   [TAIL]     the writer thread stores next_seq (release) after the record; the keeper loads it
 *              (acquire) to know what a sync covers.
 *   [TOUCH]    claiming slices of pages to prepare: one compare-and-swap per slice, see roll.c.
 *   [FAULT]    the SIGBUS guard's flag of a mapping: set in the handler before the pages are replaced.
 *   [GUARD]    the SIGBUS guard's table: a slot's base is stored (release) after its other fields.
 *   [BUSY]     the one-thread-at-a-time check of CHRON_CHECKED handles.
 *   [STOP]     flags by which one thread asks another to look: keeper's stop, poisoning.
 */
#ifndef CHRON_ATOMICS_H
#define CHRON_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/endian.h"

typedef _Atomic uint32_t chron__a32;
typedef _Atomic uint64_t chron__a64;
typedef _Atomic uintptr_t chron__aptr; /* a pointer, as a number */

_Static_assert(sizeof(chron__a32) == 4, "32-bit atomics must be plain words to live in a file");

/* Words in mapped files. */

static inline uint32_t chron__load_acquire_le32(const void *word)
{
    return chron__le32(atomic_load_explicit((const chron__a32 *)word, memory_order_acquire));
}

static inline uint32_t chron__load_relaxed_le32(const void *word)
{
    return chron__le32(atomic_load_explicit((const chron__a32 *)word, memory_order_relaxed));
}

static inline void chron__store_release_le32(void *word, uint32_t value)
{
    atomic_store_explicit((chron__a32 *)word, chron__le32(value), memory_order_release);
}

static inline void chron__store_relaxed_le32(void *word, uint32_t value)
{
    atomic_store_explicit((chron__a32 *)word, chron__le32(value), memory_order_relaxed);
}

/* Doorbell words: native byte order, because the kernel compares them; they never outlive a boot. */

static inline uint32_t chron__exchange32(void *word, uint32_t value)
{
    return atomic_exchange_explicit((chron__a32 *)word, value, memory_order_relaxed);
}

static inline uint32_t chron__add32(void *word, uint32_t value)
{
    return atomic_fetch_add_explicit((chron__a32 *)word, value, memory_order_relaxed);
}

static inline uint32_t chron__load_relaxed32(const void *word)
{
    return atomic_load_explicit((const chron__a32 *)word, memory_order_relaxed);
}

static inline void chron__store_relaxed32(void *word, uint32_t value)
{
    atomic_store_explicit((chron__a32 *)word, value, memory_order_relaxed);
}

/* A write that changes nothing: makes the kernel give us the page, whatever others write to it. */
static inline void chron__touch32(void *word)
{
    atomic_fetch_or_explicit((chron__a32 *)word, 0u, memory_order_relaxed);
}

static inline void chron__fence_seq_cst(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

static inline void chron__fence_release(void)
{
    atomic_thread_fence(memory_order_release);
}

static inline void chron__fence_acquire(void)
{
    atomic_thread_fence(memory_order_acquire);
}

/* Orders this thread with a signal handler that runs on it. No instruction. */
static inline void chron__fence_signal(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

/* Memory of one process. */

static inline uint32_t chron__get32(const chron__a32 *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline uint32_t chron__get_acquire32(const chron__a32 *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static inline void chron__set32(chron__a32 *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline void chron__set_release32(chron__a32 *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/* Take a lock word: returns what it was. Pairs with chron__set_release32(word, 0). */
static inline uint32_t chron__take32(chron__a32 *word)
{
    return atomic_exchange_explicit(word, 1u, memory_order_acquire);
}

static inline uint32_t chron__count_up32(chron__a32 *word)
{
    return atomic_fetch_add_explicit(word, 1u, memory_order_relaxed) + 1u;
}

/* Drop a reference: acquire-release, so that the last one to go sees what all others did. */
static inline uint32_t chron__count_down32(chron__a32 *word)
{
    return atomic_fetch_sub_explicit(word, 1u, memory_order_acq_rel) - 1u;
}

static inline uint64_t chron__get64(const chron__a64 *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline uint64_t chron__get_acquire64(const chron__a64 *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static inline void chron__set64(chron__a64 *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline void chron__set_release64(chron__a64 *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

static inline void chron__add64(chron__a64 *word, uint64_t value)
{
    atomic_fetch_add_explicit(word, value, memory_order_relaxed);
}

static inline int chron__cas64(chron__a64 *word, uint64_t expected, uint64_t value)
{
    return atomic_compare_exchange_strong_explicit(word, &expected, value, memory_order_relaxed, memory_order_relaxed);
}

static inline uintptr_t chron__get_acquire_ptr(const chron__aptr *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static inline void chron__set_release_ptr(chron__aptr *word, uintptr_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/* Publishes what was stored before: pairs with chron__get_acquire_ptr. */
static inline int chron__cas_ptr(chron__aptr *word, uintptr_t expected, uintptr_t value)
{
    return atomic_compare_exchange_strong_explicit(word, &expected, value, memory_order_acq_rel, memory_order_relaxed);
}

#endif
