/* SPDX-License-Identifier: MIT */
/*
 * memory.c - pages of mappings, and what this process may have of anything. Nothing is kept between calls, but for the
 * mapping that a call is about. Everything is thread-safe.
 */
#if defined(__linux__)
#define _GNU_SOURCE
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif

#include "platform/platform.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t chron__memory_bytes(void)
{
    CHRON__UNCANCELLED;
    uint64_t limit = chron__os_memory_limit();
    long pages = sysconf(_SC_PHYS_PAGES);
    uint64_t physical = pages > 0 ? (uint64_t)pages * page_bytes() : 0;

    return limit < physical ? limit : physical;
}

int chron__map_blank(chron__map *map, uint64_t offset, uint64_t bytes)
{
    size_t before = (size_t)(offset % page_bytes());
    void *at = map->base + offset - before;
    int flags = MAP_PRIVATE | MAP_ANON | MAP_FIXED;

    return mmap(at, (size_t)bytes + before, PROT_READ, flags, -1, 0) == MAP_FAILED ? -errno : 0;
}

void chron__populate(void *address, size_t bytes)
{
    size_t page = page_bytes();
    size_t before = (uintptr_t)address % page;
    uint8_t *from = (uint8_t *)address - before;

    bytes += before;
    if (chron__os_populate(from, bytes) != -ENOSYS)
        return;
    for (size_t at = 0; at < bytes; at += page)
        chron__touch32(from + at); /* [TOUCH] a write that changes nothing, beside the owner's and readers' */
}

uint64_t chron__descriptor_limit(void)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX
                                                                                   : (uint64_t)limit.rlim_cur;
}
