/* SPDX-License-Identifier: MIT */
/* endian.h - little-endian words in files, on any machine. Pure functions; compile to plain moves. */
#ifndef CHRON_ENDIAN_H
#define CHRON_ENDIAN_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define chron__le16(x) __builtin_bswap16(x)
#define chron__le32(x) __builtin_bswap32(x)
#define chron__le64(x) __builtin_bswap64(x)
#else
#define chron__le16(x) (x)
#define chron__le32(x) (x)
#define chron__le64(x) (x)
#endif

static inline uint16_t chron__read_le16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return chron__le16(v);
}

static inline uint32_t chron__read_le32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return chron__le32(v);
}

static inline uint64_t chron__read_le64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return chron__le64(v);
}

/* The same of a word that somebody may be changing: loaded once, and not again. `p` is aligned. */
static inline uint64_t chron__read_once_le64(const void *p)
{
    typedef uint64_t __attribute__((may_alias)) word;

    return chron__le64(*(const volatile word *)p);
}

static inline void chron__write_le32(void *p, uint32_t v)
{
    v = chron__le32(v);
    memcpy(p, &v, sizeof v);
}

static inline void chron__write_le64(void *p, uint64_t v)
{
    v = chron__le64(v);
    memcpy(p, &v, sizeof v);
}

#endif
