/* SPDX-License-Identifier: MIT */
/* raw.c - see raw.h. */
#define _GNU_SOURCE

#include "raw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

raw_log raw_open(const char *directory, const char *name, size_t bytes)
{
    raw_log log = {.bytes = bytes};
    char path[512];
    int fd, error;

    snprintf(path, sizeof path, "%s/%s", directory, name);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        die("cannot create %s: %s", path, strerror(errno));
    unlink(path);
    error = posix_fallocate(fd, 0, (off_t)bytes);
    if (error)
        die("cannot allocate %zu bytes for %s: %s", bytes, path, strerror(error));
    log.base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (log.base == MAP_FAILED)
        die("cannot map %s: %s", path, strerror(errno));
    close(fd);
    return log;
}

raw_log raw_map_file(const char *path)
{
    raw_log log = {0};
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &info) < 0)
        die("cannot open %s: %s", path, strerror(errno));
    log.bytes = (size_t)info.st_size;
    log.base = mmap(NULL, log.bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (log.base == MAP_FAILED)
        die("cannot map %s: %s", path, strerror(errno));
    close(fd);
    return log;
}

void raw_close(raw_log *log)
{
    munmap(log->base, log->bytes);
    log->base = NULL;
}

void raw_touch(void *from, size_t bytes)
{
    uintptr_t start = (uintptr_t)from & ~(uintptr_t)4095u;
    uintptr_t end = ((uintptr_t)from + bytes + 4095u) & ~(uintptr_t)4095u;

    if (madvise((void *)start, end - start, MADV_POPULATE_WRITE) == 0)
        return;
    for (; start < end; start += 4096u)
        atomic_fetch_or_explicit((_Atomic uint32_t *)start, 0u, memory_order_relaxed);
}

RAW_CODE uint8_t *raw_append(uint8_t *at, uint64_t seq, uint64_t count, size_t length)
{
    size_t step = record_bytes(length);

    for (uint64_t end = seq + count; seq < end; seq++, at += step)
        raw_put(at, seq, seq, pool_at(seq), length);
    return at;
}

RAW_CODE uint64_t raw_read(const uint8_t *at, uint64_t seq, uint64_t count)
{
    uint64_t sum = 0;

    for (uint64_t end = seq + count; seq < end; seq++) {
        const uint8_t *payload;
        size_t length = 0;

        while (!(payload = raw_get(at, seq, &length)))
            continue; /* what is damaged for good would wait for ever: the caller's check of the sum is the test */
        RAW_ASK_AHEAD(at, record_bytes(length), read);
        sum += payload_word(payload);
        at += record_bytes(length);
    }
    return sum;
}
