/* SPDX-License-Identifier: MIT */
/*
 * crc32c_x86.c - CRC-32C by SSE4.2's instruction, and with three lanes where there is PCLMULQDQ too.
 * Called through chron__crc32c_impls only, after `available` said yes: the attributes let the compiler
 * use these instructions here without any flag, and nowhere else.
 */
#include "crc32c/impl.h"

#if CHRON__CRC32C_X86

#include <cpuid.h>
#include <nmmintrin.h>
#include <wmmintrin.h>

#if defined(__clang__) && __clang_major__ >= 15
#define CRC_FEATURES "sse4.2,crc32" /* where the instruction has a name of its own */
#else
#define CRC_FEATURES "sse4.2"
#endif
#define STEP __attribute__((target(CRC_FEATURES)))
#define LANES __attribute__((target(CRC_FEATURES ",pclmul")))

STEP static inline uint32_t step4(uint32_t crc, uint32_t word)
{
    return _mm_crc32_u32(crc, word);
}

STEP static inline uint32_t step8(uint32_t crc, uint64_t word)
{
    return (uint32_t)_mm_crc32_u64(crc, word);
}

LANES static inline uint64_t products(uint32_t a, uint32_t by_a, uint32_t b, uint32_t by_b)
{
    __m128i product_a = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)by_a), 0);
    __m128i product_b = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)b), _mm_cvtsi32_si128((int)by_b), 0);

    return (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(product_a, product_b));
}

#include "crc32c/hw.h"

LANES uint32_t chron__crc32c_x86_lanes_update(uint32_t crc, const void *data, size_t bytes)
{
    return ~parallel(~crc, data, bytes, BEHIND_NOTHING);
}

LANES uint32_t chron__crc32c_x86_lanes_record(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                              const void *payload, size_t bytes)
{
    if (bytes < 8u * LANE_MIN)
        return short_record(commit, seq, timestamp_ns, word, payload, bytes);
    return ~parallel(header_state(commit, seq, timestamp_ns, word), payload, bytes, BEHIND_HEADER);
}

STEP uint32_t chron__crc32c_x86_update(uint32_t crc, const void *data, size_t bytes)
{
    return ~serial(~crc, data, bytes);
}

STEP uint32_t chron__crc32c_x86_record(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                       const void *payload, size_t bytes)
{
    return ~serial(header_state(commit, seq, timestamp_ns, word), payload, bytes);
}

LANES void chron__crc32c_x86_lanes_put(uint8_t *at, uint32_t length, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                       const void *data)
{
    uint8_t *payload = at + CHRON__RECORD_HEADER;
    uint32_t crc = put_header(at, length, seq, timestamp_ns, word);

    if (length < 8u * LANE_MIN) {
        crc = copy_short(crc, payload, data, length);
    } else {
        memcpy(payload, data, length);
        crc = parallel(crc, payload, length, BEHIND_HEADER);
    }
    chron__write_le32(at + CHRON__RECORD_CRC, ~crc);
}

STEP void chron__crc32c_x86_put(uint8_t *at, uint32_t length, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                const void *data)
{
    chron__write_le32(at + CHRON__RECORD_CRC, ~copy_short(put_header(at, length, seq, timestamp_ns, word),
                                                          at + CHRON__RECORD_HEADER, data, length));
}

int chron__crc32c_x86_available(void)
{
    unsigned a, b, c = 0, d;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2);
}

int chron__crc32c_x86_lanes_available(void)
{
    unsigned a, b, c = 0, d;

    return chron__crc32c_x86_available() && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_PCLMUL);
}

#endif
