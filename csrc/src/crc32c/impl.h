/* SPDX-License-Identifier: MIT */
/*
 * crc32c_impl.h - what crc32c.c needs to know of the files that do the work. For crc32c*.c only; tests
 * and everybody else reach the implementations through chron__crc32c_impls.
 */
#ifndef CHRON_CRC32C_IMPL_H
#define CHRON_CRC32C_IMPL_H

#include "crc32c/crc32c.h"

/* x32 and i386 stay portable: the 8-byte instruction needs 64-bit registers, and nobody asks for it. */
#if defined(__x86_64__) && defined(__LP64__)
#define CHRON__CRC32C_X86 1
#elif defined(__aarch64__)
#define CHRON__CRC32C_ARM 1
#endif

#define CHRON__CRC32C_DECLARE(impl)                                                                                   \
    uint32_t chron__crc32c_##impl##_update(uint32_t crc, const void *data, size_t bytes);                             \
    uint32_t chron__crc32c_##impl##_record(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word,       \
                                           const void *payload, size_t bytes);                                        \
    void chron__crc32c_##impl##_put(uint8_t *at, uint32_t length, uint64_t seq, uint64_t timestamp_ns, uint64_t word, \
                                    const void *data);                                                                \
    int chron__crc32c_##impl##_available(void)

CHRON__CRC32C_DECLARE(portable);
#if CHRON__CRC32C_X86
CHRON__CRC32C_DECLARE(x86_lanes);
CHRON__CRC32C_DECLARE(x86);
#elif CHRON__CRC32C_ARM
CHRON__CRC32C_DECLARE(arm_lanes);
CHRON__CRC32C_DECLARE(arm);
#endif

#endif
