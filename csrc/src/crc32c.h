/* SPDX-License-Identifier: MIT */
/*
 * crc32c.h - CRC-32C (Castagnoli), in the style of zlib: crc32c(0, data, n), continued by passing the
 * result in again. Pure; thread-safe.
 */
#ifndef CHRON_CRC32C_H
#define CHRON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*chron__crc32c_fn)(uint32_t crc, const void *data, size_t bytes);

/* One way to compute it. All give the same answers. */
typedef struct chron__crc32c_impl {
    const char *name;
    chron__crc32c_fn update;
    int (*available)(void); /* on this processor */
} chron__crc32c_impl;

/* Best first; the last entry, "portable", is always available. NULL name ends the table. */
extern const chron__crc32c_impl chron__crc32c_impls[];

/* The one chosen for this processor. */
const chron__crc32c_impl *chron__crc32c_best(void);

/*
 * CRC of a record: the commit value, then the 24 header bytes from byte 8, then the payload.
 * Implemented so that short payloads cost no call through a pointer where the compiler was told that
 * the instruction is there, and one call elsewhere.
 */
uint32_t chron__crc32c_record(uint32_t commit, const void *header, const void *payload, size_t bytes);

#endif
