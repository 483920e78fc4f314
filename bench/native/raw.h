/* SPDX-License-Identifier: MIT */
/*
 * raw.h - the limit: a log with nothing around it. Records as in the queue's format (32-byte header, CRC32C
 * over commit value, header and payload, commit word stored last with release, loaded first with acquire),
 * written to and read from one mapping by the shortest loop there is: no segments, no checks of arguments,
 * no wake-ups, no statistics. Lengths are variables here too, as in any log of records of many lengths.
 *
 * Nothing of the library is used but, for payloads from 256 bytes, its CRC (several streams at once), so
 * that the limit is not made slower than it need be. Little-endian machines only.
 */
#ifndef BENCH_RAW_H
#define BENCH_RAW_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "chronicle.h"
#include "measure.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the raw loop writes its words as they are");

#define RAW_HEADER 32u
#define RAW_STREAMS_MIN 256u /* payloads from here on: CRC in several streams */

typedef struct raw_header {
    _Atomic uint32_t commit;
    uint32_t crc;
    uint64_t seq;
    uint64_t timestamp_ns;
    uint64_t type_flags_epoch;
} raw_header;

_Static_assert(sizeof(raw_header) == RAW_HEADER, "as in the format");

#if defined(__x86_64__)
#include <nmmintrin.h>
#define RAW_CODE __attribute__((target("sse4.2")))

RAW_CODE static inline uint32_t raw_crc(uint32_t commit, const raw_header *header, const uint8_t *payload,
                                        size_t length)
{
    uint64_t crc = _mm_crc32_u32(~0u, commit);
    uint64_t word;
    size_t i;

    crc = _mm_crc32_u64(crc, header->seq);
    crc = _mm_crc32_u64(crc, header->timestamp_ns);
    crc = _mm_crc32_u64(crc, header->type_flags_epoch);
    if (length >= RAW_STREAMS_MIN)
        return chron_crc32c(~(uint32_t)crc, payload, length);
    for (i = 0; i + 8 <= length; i += 8) {
        memcpy(&word, payload + i, 8);
        crc = _mm_crc32_u64(crc, word);
    }
    for (; i < length; i++)
        crc = _mm_crc32_u8((uint32_t)crc, payload[i]);
    return ~(uint32_t)crc;
}
#else
#define RAW_CODE

static inline uint32_t raw_crc(uint32_t commit, const raw_header *header, const uint8_t *payload, size_t length)
{
    uint8_t front[28];

    memcpy(front, &commit, 4);
    memcpy(front + 4, &header->seq, 24);
    return chron_crc32c(chron_crc32c(0, front, sizeof front), payload, length);
}
#endif

static inline size_t record_bytes(size_t length)
{
    return (RAW_HEADER + length + 31u) & ~(size_t)31u;
}

#define RAW_AHEAD 2048u /* bytes: memory is asked for as the library does it, or the library would beat its limit */

/* `bytes` of memory in front, to be read, or `own`: to be written. */
#define RAW_ASK_AHEAD(at, bytes, own)                                          \
    for (size_t ahead_ = 0; ahead_ < (bytes) && ahead_ < 4096u; ahead_ += 64u) \
    raw_prefetch_##own((at) + RAW_AHEAD + ahead_)
#define raw_prefetch_read(at) __builtin_prefetch(at)
#if defined(__x86_64__)
#define raw_prefetch_own(at) __asm__ volatile("prefetchw %0" : : "m"(*(const char *)(at)))
#else
#define raw_prefetch_own(at) __builtin_prefetch(at, 1)
#endif

RAW_CODE static inline void raw_put(uint8_t *at, uint64_t seq, uint64_t timestamp_ns, const void *data, size_t length)
{
    raw_header *header = (raw_header *)(void *)at;
    uint32_t commit = (uint32_t)length + 1u;

    RAW_ASK_AHEAD(at, record_bytes(length), own);
    header->seq = seq;
    header->timestamp_ns = timestamp_ns;
    header->type_flags_epoch = (uint64_t)1 << 32;
    memcpy(at + RAW_HEADER, data, length);
    header->crc = raw_crc(commit, header, at + RAW_HEADER, length);
    atomic_store_explicit(&header->commit, commit, memory_order_release);
}

/* The payload of the record at `at`; NULL if there is none yet, or not this one, or it is damaged. */
RAW_CODE static inline const uint8_t *raw_get(const uint8_t *at, uint64_t seq, size_t *length)
{
    const raw_header *header = (const raw_header *)(const void *)at;
    uint32_t commit = atomic_load_explicit(&header->commit, memory_order_acquire);

    if (commit == 0)
        return NULL;
    *length = commit - 1u;
    if (header->seq != seq || raw_crc(commit, header, at + RAW_HEADER, *length) != header->crc)
        return NULL;
    return at + RAW_HEADER;
}

/* A log: a file of its own, mapped. */
typedef struct raw_log {
    uint8_t *base;
    size_t bytes;
} raw_log;

raw_log raw_open(const char *directory, const char *name, size_t bytes); /* the name is removed at once */
raw_log raw_map_file(const char *path);                                  /* to read an existing file */
void raw_close(raw_log *log);
void raw_touch(void *from, size_t bytes); /* have the pages present and writable */

/* `count` records of `length` from `at` on; returns the place behind them. */
uint8_t *raw_append(uint8_t *at, uint64_t seq, uint64_t count, size_t length);
/* Reads what that wrote; returns the sum of the payloads' first words. Waits for what is not there yet. */
uint64_t raw_read(const uint8_t *at, uint64_t seq, uint64_t count);

#endif
