/* SPDX-License-Identifier: MIT */
/*
 * crc32c_arm.c - CRC-32C by the instruction of ARMv8's CRC extension, and with three lanes where there is
 * PMULL too. Called through chron__crc32c_impls only, after `available` said yes.
 *
 * The instructions are written as assembly: compilers disagree on how to ask for them in one function
 * only (names of the target attribute, intrinsics hidden unless a flag is given), assemblers do not.
 */
#include "crc32c/impl.h"

#if CHRON__CRC32C_ARM

#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#define STEP
#define LANES

static inline uint32_t step4(uint32_t crc, uint32_t word)
{
    __asm__(".arch_extension crc\n\tcrc32cw %w0, %w0, %w1" : "+r"(crc) : "r"(word));
    return crc;
}

static inline uint32_t step8(uint32_t crc, uint64_t word)
{
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
}

static inline uint64x2_t product(uint32_t a, uint32_t b)
{
    uint64x2_t result;

    __asm__(".arch_extension crypto\n\tpmull %0.1q, %1.1d, %2.1d"
            : "=w"(result)
            : "w"(vdup_n_u64(a)), "w"(vdup_n_u64(b)));
    return result;
}

static inline uint64_t products(uint32_t a, uint32_t by_a, uint32_t b, uint32_t by_b)
{
    return vgetq_lane_u64(veorq_u64(product(a, by_a), product(b, by_b)), 0);
}

#include "crc32c/hw.h"

uint32_t chron__crc32c_arm_lanes_update(uint32_t crc, const void *data, size_t bytes)
{
    return ~parallel(~crc, data, bytes, BEHIND_NOTHING);
}

uint32_t chron__crc32c_arm_lanes_record(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                        const void *payload, size_t bytes)
{
    if (bytes < 8u * LANE_MIN)
        return short_record(commit, seq, timestamp_ns, word, payload, bytes);
    return ~parallel(header_state(commit, seq, timestamp_ns, word), payload, bytes, BEHIND_HEADER);
}

uint32_t chron__crc32c_arm_update(uint32_t crc, const void *data, size_t bytes)
{
    return ~serial(~crc, data, bytes);
}

uint32_t chron__crc32c_arm_record(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                  const void *payload, size_t bytes)
{
    return ~serial(header_state(commit, seq, timestamp_ns, word), payload, bytes);
}

void chron__crc32c_arm_lanes_put(uint8_t *at, uint32_t length, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
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

void chron__crc32c_arm_put(uint8_t *at, uint32_t length, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                           const void *data)
{
    chron__write_le32(at + CHRON__RECORD_CRC, ~copy_short(put_header(at, length, seq, timestamp_ns, word),
                                                          at + CHRON__RECORD_HEADER, data, length));
}

/* Every arm64 Mac has both. On a system that is not known here, what the compiler was told decides. */
#if defined(__linux__)

#define HWCAP_BIT_PMULL (1ul << 4) /* the kernel's promise, the same for every libc */
#define HWCAP_BIT_CRC32 (1ul << 7)

int chron__crc32c_arm_available(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_BIT_CRC32) != 0;
}

int chron__crc32c_arm_lanes_available(void)
{
    return chron__crc32c_arm_available() && (getauxval(AT_HWCAP) & HWCAP_BIT_PMULL) != 0;
}

#else

int chron__crc32c_arm_available(void)
{
#if defined(__APPLE__) || defined(__ARM_FEATURE_CRC32)
    return 1;
#else
    return 0;
#endif
}

int chron__crc32c_arm_lanes_available(void)
{
#if defined(__APPLE__) || (defined(__ARM_FEATURE_CRC32) && defined(__ARM_FEATURE_AES))
    return 1;
#else
    return 0;
#endif
}

#endif

#endif
