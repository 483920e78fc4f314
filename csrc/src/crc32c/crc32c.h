/* SPDX-License-Identifier: MIT */
/*
 * crc32c.h - CRC-32C (Castagnoli), in the style of zlib: update(0, data, n), continued by passing the
 * result in again. Pure; thread-safe; no memory outside [data, data + n) is touched.
 *
 *   crc32c.c           the choice between the others, made once when the library is loaded
 *   crc32c_portable.c  tables, any machine
 *   crc32c_x86.c       SSE4.2, with and without PCLMULQDQ
 *   crc32c_arm.c       ARMv8 CRC, with and without PMULL
 *   crc32c_hw.h        what the last two have in common: several streams at once
 *   crc32c_shift.h     the constants by which the streams are joined
 */
#ifndef CHRON_CRC32C_H
#define CHRON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*chron__crc32c_fn)(uint32_t crc, const void *data, size_t bytes);
typedef uint32_t (*chron__crc32c_record_fn)(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                            const void *payload, size_t bytes);

/*
 * Writes a record, all but its commit word: `seq`, `timestamp_ns` and `word` (type_id, flags, epoch) to bytes 8 to 31 at
 * `at`, `length` bytes of `data` behind them, and to bytes 4 to 7 the CRC. A short payload is copied and summed up in one
 * pass, word by word: a third of the instructions of an append. What is summed up is what was written, even if somebody
 * changes `data` meanwhile.
 */
typedef void (*chron__record_put_fn)(uint8_t *at, uint32_t length, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                     const void *data);

/* One way to compute it. All give the same answers. */
typedef struct chron__crc32c_impl {
    const char *name;
    chron__crc32c_fn update;
    chron__crc32c_record_fn record; /* see chron__crc32c_record */
    chron__record_put_fn put;
    int (*available)(void); /* on this processor */
} chron__crc32c_impl;

/* Best first; the last entry, "portable", is always available. NULL name ends the table. */
extern const chron__crc32c_impl chron__crc32c_impls[];

/* The one chosen for this processor. */
const chron__crc32c_impl *chron__crc32c_best(void);

/* Those of the chosen one. Set once, while the library is being loaded. */
extern chron__crc32c_record_fn chron__crc32c_chosen_record;
extern chron__record_put_fn chron__chosen_record_put;

/*
 * CRC of a record: the commit value as 4 little-endian bytes, then bytes 8 to 31 of its header, which are `seq`,
 * `timestamp_ns` and `word` (type_id, flags, epoch), then `bytes` of payload. payload may be NULL if bytes is 0. This is
 * the hot path of reading: one indirect call, all that it takes in registers, and a long payload does not wait for the
 * header.
 */
static inline uint32_t chron__crc32c_record(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                            const void *payload, size_t bytes)
{
    return chron__crc32c_chosen_record(commit, seq, timestamp_ns, word, payload, bytes);
}

#endif
