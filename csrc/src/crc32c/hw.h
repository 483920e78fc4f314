/* SPDX-License-Identifier: MIT */
/*
 * crc32c_hw.h - CRC-32C with an instruction for it: the part that does not depend on which. Included once
 * each by crc32c_x86.c and crc32c_arm.c, which define before:
 *
 *   STEP, LANES    attributes of functions that use the CRC instruction, and those that multiply as well
 *   step4, step8   the instruction: 4 or 8 bytes, lowest first, go into the CRC
 *   products       two carry-less products of 32-bit words, added up (exclusive or)
 *
 * Everything here works on the bare CRC: the inversions at both ends are for the caller to do.
 *
 * The instruction takes one word a cycle but answers only after three, so one stream of words leaves it
 * idle two thirds of the time. `lanes` therefore cuts the data into three that advance together,
 *
 *     A = crc, then a words | B = 0, then b words | C = 0, then b words
 *
 * and joins them: words behind a lane multiply it by x^64 each, so the answer is
 * A * x^(64 * 2b) + B * x^(64 * b) + C. The factors come from crc32c_shift.h, which says why they fit.
 */
#ifndef CHRON_CRC32C_HW_H
#define CHRON_CRC32C_HW_H

#include "base/endian.h"
#include "base/format.h"
#include "crc32c/shift.h"

#define LANE_MIN 16u /* words from which on three lanes are worth it (measured; correct from 6 on) */
#define LANE_BLOCK (CHRON__CRC32C_SHIFTS / 2u - 1u) /* words a lane takes; the last time perhaps one more */

/* Words that lane A is to get less than the others. Rounding up needs 2: A must not be the longest. */
#define BEHIND_NOTHING 2u
#define BEHIND_HEADER 4u /* it has the record's header to do first */

/*
 * A word with the last `bytes` (1 to 7) of the `total` at p as its highest bytes. What is below them is
 * zero. Never reads outside the data.
 */
static inline uint64_t last_bytes(const uint8_t *p, size_t total, unsigned bytes)
{
    const uint8_t *end = p + total;
    unsigned unused_bits = 64u - 8u * bytes;
    uint64_t word;

    if (total >= 8)
        return chron__read_le64(end - 8) >> unused_bits << unused_bits;
    if (bytes >= 4) /* two words that overlap */
        word = chron__read_le32(p) | (uint64_t)chron__read_le32(end - 4) << 8u * (bytes - 4u);
    else /* first, middle and last, which may be the same */
        word = p[0] | (uint64_t)p[bytes / 2u] << 8u * (bytes / 2u) | (uint64_t)end[-1] << 8u * (bytes - 1u);
    return word << unused_bits;
}

/*
 * Up to 7 bytes in one step. Zero bytes do not change a CRC of zero, so the bytes go to the end of a word
 * that begins with zeros; that part of the CRC which they meet is added to them, and the rest of it, if
 * they are fewer than 4, moves down behind them.
 */
STEP static inline uint32_t tail_word(uint32_t crc, uint64_t word, unsigned bytes)
{
    return step8(0, word ^ (uint64_t)crc << (64u - 8u * bytes)) ^ (uint32_t)((uint64_t)crc >> 8u * bytes);
}

STEP static inline uint32_t tail(uint32_t crc, const uint8_t *p, size_t total)
{
    unsigned bytes = (unsigned)total & 7u;

    return bytes ? tail_word(crc, last_bytes(p, total, bytes), bytes) : crc;
}

STEP static inline uint32_t serial_words(uint32_t crc, const uint8_t *p, size_t words)
{
    for (; words >= 4; words -= 4, p += 32) {
        crc = step8(crc, chron__read_le64(p));
        crc = step8(crc, chron__read_le64(p + 8));
        crc = step8(crc, chron__read_le64(p + 16));
        crc = step8(crc, chron__read_le64(p + 24));
    }
    for (; words > 0; words--, p += 8)
        crc = step8(crc, chron__read_le64(p));
    return crc;
}

STEP static inline uint32_t serial(uint32_t crc, const uint8_t *p, size_t bytes)
{
    return tail(serial_words(crc, p, bytes / 8u), p, bytes);
}

/* The commit word and the header, up to the payload. */
STEP static inline uint32_t header_state(uint32_t commit, uint64_t seq, uint64_t timestamp_ns, uint64_t word)
{
    return step8(step8(step8(step4(~0u, commit), seq), timestamp_ns), word);
}

/* a + 2b words in three lanes; 0 <= a <= b, 1 <= b <= LANE_BLOCK + 1. */
LANES static inline uint32_t lanes(uint32_t crc_a, const uint8_t *p, size_t a, size_t b)
{
    const uint8_t *pb = p + 8u * a;
    const uint8_t *pc = pb + 8u * b;
    uint32_t crc_b = 0, crc_c = 0;
    size_t i;

    for (i = b - a; i > 0; i--, pb += 8, pc += 8) {
        crc_b = step8(crc_b, chron__read_le64(pb));
        crc_c = step8(crc_c, chron__read_le64(pc));
    }
    for (i = a; i > 0; i--, p += 8, pb += 8, pc += 8) {
        crc_a = step8(crc_a, chron__read_le64(p));
        crc_b = step8(crc_b, chron__read_le64(pb));
        crc_c = step8(crc_c, chron__read_le64(pc));
    }
    return crc_c ^ step8(0, products(crc_a, chron__crc32c_shift[2u * b - 1u], crc_b, chron__crc32c_shift[b - 1u]));
}

/* All of it, if there are too few words for lanes. A loop without calls: most records are short. */
STEP static inline __attribute__((always_inline)) uint32_t short_record(uint32_t commit, uint64_t seq,
                                                                        uint64_t timestamp_ns, uint64_t word,
                                                                        const uint8_t *payload, size_t bytes)
{
    return ~serial(header_state(commit, seq, timestamp_ns, word), payload, bytes);
}

/* Copy one word and sum it up. */
STEP static inline uint32_t copy8(uint32_t crc, uint8_t *to, const uint8_t *from)
{
    uint64_t word = chron__read_le64(from);

    chron__write_le64(to, word);
    return step8(crc, word);
}

/* Store the lowest `bytes` (1 to 7) of a word, and nothing behind them. */
static inline void store_bytes(uint8_t *to, uint64_t word, unsigned bytes)
{
    if (bytes >= 4) { /* two words that overlap */
        chron__write_le32(to, (uint32_t)word);
        chron__write_le32(to + bytes - 4, (uint32_t)(word >> 8u * (bytes - 4u)));
    } else { /* first, middle and last, which may be the same */
        to[0] = (uint8_t)word;
        to[bytes / 2u] = (uint8_t)(word >> 8u * (bytes / 2u));
        to[bytes - 1u] = (uint8_t)(word >> 8u * (bytes - 1u));
    }
}

/* The last total & 7, behind words that have been copied. Those words are not written again: they are summed up. */
STEP static inline uint32_t copy_tail(uint32_t crc, uint8_t *to, const uint8_t *from, size_t total)
{
    unsigned bytes = (unsigned)total & 7u;
    uint64_t word;

    if (bytes == 0)
        return crc;
    word = last_bytes(from, total, bytes);
    store_bytes(to + total - bytes, word >> (64u - 8u * bytes), bytes);
    return tail_word(crc, word, bytes);
}

/* The header, and its sum. */
STEP static inline uint32_t put_header(uint8_t *at, uint32_t length, uint64_t seq, uint64_t timestamp_ns, uint64_t word)
{
    chron__write_le64(at + CHRON__RECORD_SEQ, seq);
    chron__write_le64(at + CHRON__RECORD_TIME, timestamp_ns);
    chron__write_le64(at + CHRON__RECORD_WORD, word);
    return header_state(length + 1u, seq, timestamp_ns, word);
}

STEP static inline uint32_t copy_short(uint32_t crc, uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t at = 0;

    for (; at + 32 <= bytes; at += 32) {
        crc = copy8(crc, to + at, from + at);
        crc = copy8(crc, to + at + 8, from + at + 8);
        crc = copy8(crc, to + at + 16, from + at + 16);
        crc = copy8(crc, to + at + 24, from + at + 24);
    }
    for (; at + 8 <= bytes; at += 8)
        crc = copy8(crc, to + at, from + at);
    return copy_tail(crc, to, from, bytes);
}

/* All of it. `behind` is one of BEHIND_... */
LANES static inline uint32_t parallel(uint32_t crc, const uint8_t *data, size_t bytes, size_t behind)
{
    const uint8_t *p = data;
    size_t words = bytes / 8u;

    for (; words >= 3u * LANE_BLOCK; words -= 3u * LANE_BLOCK, p += 24u * LANE_BLOCK)
        crc = lanes(crc, p, LANE_BLOCK, LANE_BLOCK);
    if (words >= LANE_MIN) {
        size_t b = (words + behind) / 3u; /* at most LANE_BLOCK + 1 */

        crc = lanes(crc, p, words - 2u * b, b);
    } else {
        crc = serial_words(crc, p, words);
    }
    return tail(crc, data, bytes);
}

_Static_assert(2u * (LANE_BLOCK + 1u) <= CHRON__CRC32C_SHIFTS, "lane A moves over 2b words");
_Static_assert((3u * LANE_BLOCK - 1u + BEHIND_HEADER) / 3u <= LANE_BLOCK + 1u, "the rest fits into lanes");

#endif
