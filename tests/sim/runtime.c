/* SPDX-License-Identifier: MIT */
/* runtime.c - see runtime.h. The names are gcc's and clang's, and so are the types. */
#define _DEFAULT_SOURCE /* anonymous mappings */
#include "runtime.h"

#include <string.h>
#include <sys/mman.h>

/* This file is what the calls below end in: none of them may be made out of it. */
void *__real_memcpy(void *to, const void *from, size_t bytes);
void *__real_memmove(void *to, const void *from, size_t bytes);
void *__real_memset(void *to, int value, size_t bytes);

#define PLAIN (-1)

sim_hooks sim_watch;

static void *unknown; /* a plain store that was announced, and is known to be done at the next call only */
static size_t unknown_bytes;

static inline int is_watched(const void *address)
{
    return (uintptr_t)address - sim_watch.begin < sim_watch.bytes;
}

void sim_runtime_flush(void)
{
    void *address = unknown;

    unknown = NULL;
    if (address && sim_watch.stored)
        sim_watch.stored(address, unknown_bytes);
}

static inline void plain_store(void *address, size_t bytes)
{
    if (unknown)
        sim_runtime_flush();
    if (!is_watched(address))
        return;
    if (sim_watch.before)
        sim_watch.before(address, bytes);
    unknown = address;
    unknown_bytes = bytes;
}

static inline void load(const void *address, size_t bytes, int order)
{
    if (sim_watch.loads && is_watched(address)) {
        sim_runtime_flush();
        sim_watch.loads(address, bytes, order);
    }
}

static inline int begin_store(void *address, size_t bytes)
{
    int watched = is_watched(address);

    if (unknown)
        sim_runtime_flush();
    if (watched && sim_watch.before)
        sim_watch.before(address, bytes);
    return watched;
}

static inline void end_store(int watched, void *address, size_t bytes)
{
    if (watched && sim_watch.stored)
        sim_watch.stored(address, bytes);
}

/* --------------------------------------------------------------------------------- plain accesses */

#define PLAIN_ACCESSES(bytes)                               \
    void __tsan_read##bytes(void *address);                 \
    void __tsan_read##bytes(void *address)                  \
    {                                                       \
        load(address, bytes, PLAIN);                        \
    }                                                       \
    void __tsan_unaligned_read##bytes(void *address);       \
    void __tsan_unaligned_read##bytes(void *address)        \
    {                                                       \
        load(address, bytes, PLAIN);                        \
    }                                                       \
    void __tsan_write##bytes(void *address);                \
    void __tsan_write##bytes(void *address)                 \
    {                                                       \
        plain_store(address, bytes);                        \
    }                                                       \
    void __tsan_unaligned_write##bytes(void *address);      \
    void __tsan_unaligned_write##bytes(void *address)       \
    {                                                       \
        plain_store(address, bytes);                        \
    }                                                       \
    void __tsan_read_write##bytes(void *address);           \
    void __tsan_read_write##bytes(void *address)            \
    {                                                       \
        load(address, bytes, PLAIN);                        \
        plain_store(address, bytes);                        \
    }                                                       \
    void __tsan_unaligned_read_write##bytes(void *address); \
    void __tsan_unaligned_read_write##bytes(void *address)  \
    {                                                       \
        load(address, bytes, PLAIN);                        \
        plain_store(address, bytes);                        \
    }

PLAIN_ACCESSES(1)
PLAIN_ACCESSES(2)
PLAIN_ACCESSES(4)
PLAIN_ACCESSES(8)
PLAIN_ACCESSES(16)

void __tsan_read_range(void *address, size_t bytes);
void __tsan_read_range(void *address, size_t bytes)
{
    load(address, bytes, PLAIN);
}

void __tsan_write_range(void *address, size_t bytes);
void __tsan_write_range(void *address, size_t bytes)
{
    plain_store(address, bytes);
}

void __tsan_init(void);
void __tsan_init(void)
{
}

void __tsan_func_entry(void *caller);
void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}

/* -------------------------------------------------------------------------------------- atomics */

/* One thread runs at a time, so each is carried out in the strongest order; what was asked for goes to the hooks. */
#define READ_MODIFY_WRITE(bits, type, name)                                           \
    type __tsan_atomic##bits##_##name(volatile type *address, type value, int order); \
    type __tsan_atomic##bits##_##name(volatile type *address, type value, int order)  \
    {                                                                                 \
        int watched = begin_store((void *)(uintptr_t)address, sizeof value);          \
        type before;                                                                  \
                                                                                      \
        load((const void *)(uintptr_t)address, sizeof value, order);                  \
        before = __atomic_##name(address, value, __ATOMIC_SEQ_CST);                   \
        end_store(watched, (void *)(uintptr_t)address, sizeof value);                 \
        return before;                                                                \
    }

#define __atomic_exchange __atomic_exchange_n

#define COMPARE_EXCHANGE(bits, type, name)                                                                       \
    int __tsan_atomic##bits##_##name(volatile type *address, type *expected, type value, int order, int failed); \
    int __tsan_atomic##bits##_##name(volatile type *address, type *expected, type value, int order, int failed)  \
    {                                                                                                            \
        int watched = begin_store((void *)(uintptr_t)address, sizeof value);                                     \
        int done;                                                                                                \
                                                                                                                 \
        (void)failed;                                                                                            \
        load((const void *)(uintptr_t)address, sizeof value, order);                                             \
        done = __atomic_compare_exchange_n(address, expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);     \
        end_store(watched &&done, (void *)(uintptr_t)address, sizeof value);                                     \
        return done;                                                                                             \
    }

#define ATOMICS(bits, type)                                                                                       \
    type __tsan_atomic##bits##_load(const volatile type *address, int order);                                     \
    type __tsan_atomic##bits##_load(const volatile type *address, int order)                                      \
    {                                                                                                             \
        load((const void *)(uintptr_t)address, sizeof(type), order);                                              \
        return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                        \
    }                                                                                                             \
    void __tsan_atomic##bits##_store(volatile type *address, type value, int order);                              \
    void __tsan_atomic##bits##_store(volatile type *address, type value, int order)                               \
    {                                                                                                             \
        int watched = begin_store((void *)(uintptr_t)address, sizeof value);                                      \
                                                                                                                  \
        (void)order;                                                                                              \
        __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                       \
        end_store(watched, (void *)(uintptr_t)address, sizeof value);                                             \
    }                                                                                                             \
    READ_MODIFY_WRITE(bits, type, exchange)                                                                       \
    READ_MODIFY_WRITE(bits, type, fetch_add)                                                                      \
    READ_MODIFY_WRITE(bits, type, fetch_sub)                                                                      \
    READ_MODIFY_WRITE(bits, type, fetch_and)                                                                      \
    READ_MODIFY_WRITE(bits, type, fetch_or)                                                                       \
    READ_MODIFY_WRITE(bits, type, fetch_xor)                                                                      \
    COMPARE_EXCHANGE(bits, type, compare_exchange_strong)                                                         \
    COMPARE_EXCHANGE(bits, type, compare_exchange_weak)                                                           \
    type __tsan_atomic##bits##_compare_exchange_val(volatile type *address, type expected, type value, int order, \
                                                    int failed);                                                  \
    type __tsan_atomic##bits##_compare_exchange_val(volatile type *address, type expected, type value, int order, \
                                                    int failed)                                                   \
    {                                                                                                             \
        (void)__tsan_atomic##bits##_compare_exchange_strong(address, &expected, value, order, failed);            \
        return expected;                                                                                          \
    }

ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)

void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_thread_fence(int order)
{
    sim_runtime_flush();
    if (sim_watch.fence)
        sim_watch.fence(order);
}

void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order)
{
    (void)order;
    sim_runtime_flush();
}

/* ----------------------------------------------------------------------------- blocks of memory */

void *__wrap_memcpy(void *to, const void *from, size_t bytes);
void *__wrap_memcpy(void *to, const void *from, size_t bytes)
{
    int watched = begin_store(to, bytes);

    load(from, bytes, PLAIN);
    (void)__real_memcpy(to, from, bytes);
    end_store(watched && bytes, to, bytes);
    return to;
}

void *__wrap_memmove(void *to, const void *from, size_t bytes);
void *__wrap_memmove(void *to, const void *from, size_t bytes)
{
    int watched = begin_store(to, bytes);

    load(from, bytes, PLAIN);
    (void)__real_memmove(to, from, bytes);
    end_store(watched && bytes, to, bytes);
    return to;
}

void *__wrap_memset(void *to, int value, size_t bytes);
void *__wrap_memset(void *to, int value, size_t bytes)
{
    int watched = begin_store(to, bytes);

    (void)__real_memset(to, value, bytes);
    end_store(watched && bytes, to, bytes);
    return to;
}

void sim_runtime_store(void *to, const void *from, size_t bytes)
{
    (void)__wrap_memcpy(to, from, bytes);
}

void sim_raw_copy(void *to, const void *from, size_t bytes)
{
    (void)__real_memcpy(to, from, bytes);
}

void sim_raw_zero(void *to, size_t bytes)
{
    (void)__real_memset(to, 0, bytes);
}

/* ----------------------------------------------------------------------------------------- heap */

#define HEAPS 8u
#define HEAP_BYTES (256u << 20)
#define HEAP_ALIGN 16u

static struct {
    uint8_t *base;
    size_t used;
} heaps[HEAPS];
static unsigned chosen;

void sim_heap_choose(unsigned depth)
{
    if (depth >= HEAPS)
        sim_broken("there is no heap %u", depth);
    chosen = depth;
}

void sim_heap_reset(void)
{
    heaps[chosen].used = 0;
}

/* Room for `bytes` behind a word that says how many they are. */
static uint8_t *take(size_t bytes, size_t align)
{
    uint8_t **base = &heaps[chosen].base;
    size_t at = (heaps[chosen].used + HEAP_ALIGN + align - 1u) / align * align;

    if (!*base) {
        *base = mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (*base == MAP_FAILED)
            sim_broken("no memory for a heap");
    }
    if (at + bytes > HEAP_BYTES)
        sim_broken("one process allocates more than %u bytes", HEAP_BYTES);
    heaps[chosen].used = at + bytes;
    *(size_t *)(void *)(*base + at - HEAP_ALIGN) = bytes;
    return *base + at;
}

static size_t size_of(const void *memory)
{
    return *(const size_t *)(const void *)((const uint8_t *)memory - HEAP_ALIGN);
}

void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    return take(bytes, HEAP_ALIGN);
}

int __wrap_posix_memalign(void **out, size_t align, size_t bytes);
int __wrap_posix_memalign(void **out, size_t align, size_t bytes)
{
    *out = take(bytes, align);
    return 0;
}

void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes)
{
    return __real_memset(take(count * bytes, HEAP_ALIGN), 0, count * bytes);
}

void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes)
{
    uint8_t *now = take(bytes, HEAP_ALIGN);
    size_t had = old ? size_of(old) : 0;

    return __real_memcpy(now, old ? old : now, had < bytes ? had : bytes);
}

/* Only the newest is had again: a process is short, and the next one begins anew. */
void __wrap_free(void *memory);
void __wrap_free(void *memory)
{
    size_t at = memory ? (size_t)((uint8_t *)memory - heaps[chosen].base) : 0;

    if (memory && at + size_of(memory) == heaps[chosen].used)
        heaps[chosen].used = at - HEAP_ALIGN;
}
