/* SPDX-License-Identifier: MIT */
/*
 * crc32c_portable.c - CRC-32C by tables, eight bytes a step, for processors without an instruction for
 * it. Called through chron__crc32c_impls only.
 *
 * The arithmetic is that of polynomials over GF(2), modulo
 *   P = x^32 + x^28 + x^27 + x^26 + x^25 + x^23 + x^22 + x^20 + x^19 + x^18 + x^14 + x^13 + x^11 + x^10
 *       + x^9 + x^8 + x^6 + 1,
 * with bits reflected: the lowest bit of a word is its highest power. So 0x80000000 is 1, and times x is
 * a shift to the right, plus 0x82f63b78 (that is x^32 mod P) if a bit fell out.
 *
 * table[d][b] is what byte b does to the CRC when d more bytes come behind it: b * x^(32 + 8d) mod P.
 * It is linear in b, so the compiler can make all 2048 entries out of the 64 powers x^32 to x^95.
 */
#include "base/endian.h"
#include "base/format.h"
#include "crc32c/impl.h"

/* The eight arguments of ROW: x^(32 + 8d), ..., x^(39 + 8d) mod P. The highest bit of b is x^0. */
/* clang-format off */
#define ENTRY(b, x0, x1, x2, x3, x4, x5, x6, x7)                                                        \
    (((b) & 0x80 ? x0 : 0) ^ ((b) & 0x40 ? x1 : 0) ^ ((b) & 0x20 ? x2 : 0) ^ ((b) & 0x10 ? x3 : 0) ^    \
     ((b) & 0x08 ? x4 : 0) ^ ((b) & 0x04 ? x5 : 0) ^ ((b) & 0x02 ? x6 : 0) ^ ((b) & 0x01 ? x7 : 0))
#define ENTRIES_4(b, ...)                                                                               \
    ENTRY(b, __VA_ARGS__), ENTRY((b) + 1, __VA_ARGS__), ENTRY((b) + 2, __VA_ARGS__),                    \
        ENTRY((b) + 3, __VA_ARGS__)
#define ENTRIES_16(b, ...)                                                                              \
    ENTRIES_4(b, __VA_ARGS__), ENTRIES_4((b) + 4, __VA_ARGS__), ENTRIES_4((b) + 8, __VA_ARGS__),        \
        ENTRIES_4((b) + 12, __VA_ARGS__)
#define ENTRIES_64(b, ...)                                                                              \
    ENTRIES_16(b, __VA_ARGS__), ENTRIES_16((b) + 16, __VA_ARGS__), ENTRIES_16((b) + 32, __VA_ARGS__),   \
        ENTRIES_16((b) + 48, __VA_ARGS__)
#define ROW(...)                                                                                        \
    {ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__),             \
     ENTRIES_64(192, __VA_ARGS__)}

static const uint32_t table[8][256] = {
    ROW(0x82f63b78, 0x417b1dbc, 0x20bd8ede, 0x105ec76f, 0x8ad958cf, 0xc79a971f, 0xe13b70f7, 0xf26b8303),
    ROW(0xfbc3faf9, 0xff17c604, 0x7f8be302, 0x3fc5f181, 0x9d14c3b8, 0x4e8a61dc, 0x274530ee, 0x13a29877),
    ROW(0x8b277743, 0xc76580d9, 0xe144fb14, 0x70a27d8a, 0x38513ec5, 0x9edea41a, 0x4f6f520d, 0xa541927e),
    ROW(0x52a0c93f, 0xaba65fe7, 0xd725148b, 0xe964b13d, 0xf64463e6, 0x7b2231f3, 0xbf672381, 0xdd45aab8),
    ROW(0x6ea2d55c, 0x37516aae, 0x1ba8b557, 0x8f2261d3, 0xc5670b91, 0xe045beb0, 0x7022df58, 0x38116fac),
    ROW(0x1c08b7d6, 0x0e045beb, 0x85f4168d, 0xc00c303e, 0x6006181f, 0xb2f53777, 0xdb8ca0c3, 0xef306b19),
    ROW(0xf56e0ef4, 0x7ab7077a, 0x3d5b83bd, 0x9c5bfaa6, 0x4e2dfd53, 0xa5e0c5d1, 0xd0065990, 0x68032cc8),
    ROW(0x34019664, 0x1a00cb32, 0x0d006599, 0x847609b4, 0x423b04da, 0x211d826d, 0x9278fa4e, 0x493c7d27),
};
/* clang-format on */

/* What the four bytes of a word do when `behind` more bytes come behind the last of them. */
static inline uint32_t step4(uint32_t word, int behind)
{
    return table[behind + 3][word & 0xFF] ^ table[behind + 2][word >> 8 & 0xFF] ^ table[behind + 1][word >> 16 & 0xFF] ^
           table[behind][word >> 24];
}

/* Without the inversions at both ends. */
static uint32_t run(uint32_t crc, const uint8_t *p, size_t bytes)
{
    for (; bytes >= 8; p += 8, bytes -= 8)
        crc = step4(crc ^ chron__read_le32(p), 4) ^ step4(chron__read_le32(p + 4), 0);
    if (bytes >= 4) {
        crc = step4(crc ^ chron__read_le32(p), 0);
        p += 4;
        bytes -= 4;
    }
    for (; bytes > 0; p++, bytes--)
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xFF];
    return crc;
}

uint32_t chron__crc32c_portable_update(uint32_t crc, const void *data, size_t bytes)
{
    return ~run(~crc, data, bytes);
}

static inline uint32_t step8(uint32_t crc, uint64_t word)
{
    return step4(crc ^ (uint32_t)word, 4) ^ step4((uint32_t)(word >> 32), 0);
}

uint32_t chron__crc32c_portable_record(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                       const void *payload, size_t bytes)
{
    uint32_t crc = step4(~commit, 0); /* ~0 ^ commit */

    return ~run(step8(step8(step8(crc, seq), timestamp_ns), word), payload, bytes);
}

void chron__crc32c_portable_put(uint8_t *at, uint32_t length, uint64_t seq, uint64_t timestamp_ns, uint64_t word,
                                const void *data)
{
    chron__write_le64(at + CHRON__RECORD_SEQ, seq);
    chron__write_le64(at + CHRON__RECORD_TIME, timestamp_ns);
    chron__write_le64(at + CHRON__RECORD_WORD, word);
    if (length)
        memcpy(at + CHRON__RECORD_HEADER, data, length);
    chron__write_le32(at + CHRON__RECORD_CRC, chron__crc32c_portable_record(length + 1u, seq, timestamp_ns, word,
                                                                            at + CHRON__RECORD_HEADER, length));
}

int chron__crc32c_portable_available(void)
{
    return 1;
}
