/* SPDX-License-Identifier: MIT */
/*
 * atomics.h - every atomic operation of the library, spelled once. Nothing else includes <stdatomic.h>.
 *
 * Words in mapped files are 32 bits wide, so that they are lock-free on every machine, and little-endian:
 * the *_le functions convert. 64-bit atomics are for memory of one process only.
 *
 * Each use says which other place it pairs with, by a tag (grep for it; the lint wants one at every use, or, where a
 * word is loaded and stored relaxed, at its declaration):
 *
 *   tag        one side                               the other side
 *   [PUBLISH]  chron__rec_publish, release, after     chron__rec_load, acquire: header and payload are visible
 *              header and payload                     to whoever sees the commit word
 *   [SEAL]     chron__seg_seal_store, release, after  chron__seg_seal_load, acquire
 *              END and the seal's other fields
 *   [INDEX]    chron__seg_index_set, release, after   chron__seg_index_get, acquire
 *              the record it points at was published
 *   [SLOT]     chron__slots_store: a release fence,   chron__slots_load, _refresh: relaxed words, then an acquire
 *              then relaxed words; the CRC tells a    fence: who reads of a record in a slot sees the record
 *              torn slot from a whole one
 *   [INTENT]   the writer says how far it may go,      the next writer, when this one is dead: it sees all stores
 *              release, before it places anything     of a process that has ended (identity.c)
 *   [BELL]     the writer publishes, then looks for   a reader announces itself, then looks for a record: at least
 *              sleepers, with a seq_cst fence or a    one sees the other (doorbell.c)
 *              membarrier of the reader's between
 *   [TAIL]     the owner's thread stores next_seq,    the keeper's thread loads it, acquire: what a sync covers
 *              release, after the record              is there
 *   [TOUCH]    one thread claims a slice of pages to  the other one finds it claimed; relaxed, for nothing else
 *              prepare, by compare-and-swap           depends on it (prepare.c)
 *   [TURN]     an owner takes a turn word by compare-    who had it before exchanges 0, release; or is dead: the
 *              and-swap, acquire, and finds all that      kernel's exit path orders its stores before its locks go
 *              was done in the turns before               (turn.c)
 *   [HEAD]     who has the turn stores the other state,    who has it next, or looks without it, loads commit,
 *              then commit, release                       acquire, and then that state (shared.h)
 *   [CELL]     a cell of a group is changed by             whoever loads it, acquire: what was stored in its other fields
 *              compare-and-swap, release, after its        before, and what its owner before it did, is there; one of two
 *              other fields                                that swap wins (group.h)
 *   [HINT]     where to look is stored after what is       it is taken away, or read, before the look: what it does not
 *              to be found                                 lead to, the next full scan finds
 *   [FAULT]    the SIGBUS handler sets a mapping's    the interrupted thread, or another, looks at the flag after
 *              flag, then replaces the pages          it has read or written there, and before it believes it
 *   [GUARD]    a slot of the guard's table: its base  the handler loads the base, acquire
 *              is stored last, release
 *   [BUSY]     who enters a checked handle exchanges  who leaves stores 0, release: one thread at a time
 *              its word, acquire
 *   [STOP]     a flag that asks another thread to     that thread, soon: relaxed; a lock guards what comes with it
 *              look: stop, poisoned, asleep
 *   [REFS]     who takes a reference counts up        who gives it back counts down, acquire and release: the last
 *              (relaxed: it has one already)          one sees what all others did
 *   [FORK]     a forked child counts up before any    every call on a handle compares: relaxed, it is one thread
 *              other code runs in it
 *   [COUNT]    a number for people, counted by any    read by any thread, relaxed: nothing else depends on it
 *              thread
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

/* 64 bits, in one piece or in two: something else has to tell whether what was read is whole. Aligned to 8. */

static inline uint64_t chron__load_relaxed_le64(const void *words)
{
    uint32_t low = atomic_load_explicit((const chron__a32 *)words, memory_order_relaxed);
    uint32_t high = atomic_load_explicit((const chron__a32 *)words + 1, memory_order_relaxed);

    return (uint64_t)chron__le32(low) | (uint64_t)chron__le32(high) << 32;
}

static inline void chron__store_relaxed_le64(void *words, uint64_t value)
{
    atomic_store_explicit((chron__a32 *)words, chron__le32((uint32_t)value), memory_order_relaxed);
    atomic_store_explicit((chron__a32 *)words + 1, chron__le32((uint32_t)(value >> 32)), memory_order_relaxed);
}

/* 64 bits, in one piece or in two: something else has to tell whether what was read is whole. Aligned to 8. */

/* Cells of a group: 64 bits in one piece, between processes. Where that takes a lock (CHRON__HAS_A64), there are no groups. */

#define CHRON__HAS_A64 (ATOMIC_LLONG_LOCK_FREE == 2)

static inline uint64_t chron__load_acquire_le64(const void *word)
{
    return chron__le64(atomic_load_explicit((const chron__a64 *)word, memory_order_acquire));
}

static inline void chron__store_release_le64(void *word, uint64_t value)
{
    atomic_store_explicit((chron__a64 *)word, chron__le64(value), memory_order_release);
}

/* 1 if it was `expected`, and is `value` now. */
static inline int chron__cas_le64(void *word, uint64_t expected, uint64_t value)
{
    uint64_t before = chron__le64(expected);

    return atomic_compare_exchange_strong_explicit((chron__a64 *)word, &before, chron__le64(value),
                                                   memory_order_acq_rel, memory_order_acquire);
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

/* Turn words: the same, for the same reasons. */

static inline uint32_t chron__load_acquire32(const void *word)
{
    return atomic_load_explicit((const chron__a32 *)word, memory_order_acquire);
}

static inline int chron__cas_acquire32(void *word, uint32_t expected, uint32_t value)
{
    return atomic_compare_exchange_strong_explicit((chron__a32 *)word, &expected, value, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Sequentially consistent, so that what follows (a look at the doorbell) needs no fence of its own on most machines. */
static inline uint32_t chron__exchange_release32(void *word, uint32_t value)
{
    return atomic_exchange_explicit((chron__a32 *)word, value, memory_order_seq_cst);
}

static inline void chron__fence_seq_cst(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

/* Full, directly behind chron__exchange_release32: which is one itself on some machines. */
static inline void chron__fence_behind_exchange(void)
{
#if defined(__x86_64__) || defined(__i386__)
    atomic_signal_fence(memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
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

/* The half of a pair of fences that costs nothing, where another process does chron__membarrier() in between. */
static inline void chron__fence_light(void)
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
