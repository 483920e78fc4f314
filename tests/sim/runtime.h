/* SPDX-License-Identifier: MIT */
/*
 * runtime.h - the runtime of -fsanitize=thread, ours instead of libtsan. The library's sources are compiled with that
 * option and linked with runtime.c: they call it at each load and store, and let it carry out each atomic operation.
 * memcpy, memmove and memset come here as well (-fno-builtin-..., -Wl,--wrap).
 *
 * gcc is enough, which the whole project needs anyway: it calls us before each plain store, so a store's value is known
 * at the next call. clang's calls are the same and work too (SIM_CC=clang).
 *
 * What wants to know of accesses puts functions into sim_hooks. Only memory in [begin, begin + bytes) is told of. A
 * function may be NULL. Loads and fences are for schedulers and checkers of memory orders; loss of power needs stores.
 */
#ifndef SIM_RUNTIME_H
#define SIM_RUNTIME_H

#include "sim.h"

typedef struct sim_hooks {
    uintptr_t begin;
    uintptr_t bytes;
    void (*before)(const void *address, size_t bytes); /* a store or an atomic operation comes: others may run first */
    void (*stored)(void *address, size_t bytes);       /* it is done: the memory holds the value */
    void (*loads)(const void *address, size_t bytes, int order); /* order: -1 plain, else memory_order_... */
    void (*fence)(int order);
} sim_hooks;

extern sim_hooks sim_watch;

/* The last plain store may still be unknown to sim_hooks.stored: tell it. Before anything that is not a store is noted. */
void sim_runtime_flush(void);

/* What a library's caller stores into a mapping (the payload of a claim): as if it were instrumented. */
void sim_runtime_store(void *to, const void *from, size_t bytes);

/* The same that nobody is told of: for the simulator's own hands. */
void sim_raw_copy(void *to, const void *from, size_t bytes);
void sim_raw_zero(void *to, size_t bytes);

/*
 * malloc and its relatives, of the library: memory of one process, which goes as a whole when that process dies.
 */
void sim_heap_reset(void);
/* Lives of several depths are nested: each has its own. */
void sim_heap_choose(unsigned depth);

#endif
