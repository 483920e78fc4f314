/* SPDX-License-Identifier: MIT */
/*
 * record.h - one record in a mapped segment: put it there, look at it. Used by every hot path, so it is
 * all inline. Nothing here trusts a byte: what is read is loaded once into a chron__rec, its bounds are
 * checked against the mapping, and nobody goes back to the mapping for a length.
 */
#ifndef CHRON_RECORD_H
#define CHRON_RECORD_H

#include "base/assert.h"
#include "base/atomics.h"
#include "base/endian.h"
#include "base/format.h"
#include "crc32c/crc32c.h"

#define CHRON__USER_FLAGS 0x00FFu

/* A private copy of a record's header, and where its payload lies. */
typedef struct chron__rec {
    uint64_t seq;
    uint64_t timestamp_ns;
    uint64_t word; /* type_id, flags, epoch */
    uint32_t commit;
    uint32_t crc;
    uint32_t length; /* of the payload, bytes */
    const uint8_t *payload;
} chron__rec;

/* What is at an offset? */
enum chron__rec_state {
    CHRON__REC_NONE,   /* commit word 0 */
    CHRON__REC_DATA,   /* within bounds; CRC not checked */
    CHRON__REC_END,    /* the same, and it is an END */
    CHRON__REC_BROKEN, /* cannot be a record: its length goes beyond the segment, ... */
};

static inline uint64_t chron__rec_seq(const chron__rec *rec)
{
    return rec->seq;
}

static inline uint64_t chron__rec_timestamp(const chron__rec *rec)
{
    return rec->timestamp_ns;
}

static inline uint16_t chron__rec_type(const chron__rec *rec)
{
    return (uint16_t)rec->word;
}

static inline uint16_t chron__rec_flags(const chron__rec *rec)
{
    return (uint16_t)(rec->word >> 16);
}

static inline uint32_t chron__rec_epoch(const chron__rec *rec)
{
    return (uint32_t)(rec->word >> 32);
}

/* Bytes it takes in the segment. */
static inline uint64_t chron__rec_bytes(const chron__rec *rec)
{
    return chron__record_bytes(rec->length);
}

/*
 * Look at `offset` of the segment of `size` bytes mapped at `base`. offset must be a multiple of 32 and
 * at most size - 32. Fills *rec unless the answer is NONE.
 */
static inline enum chron__rec_state chron__rec_load(const uint8_t *base, uint64_t size, uint64_t offset,
                                                    chron__rec *rec)
{
    const uint8_t *at = base + offset;
    uint32_t commit = chron__load_acquire_le32(at); /* [PUBLISH] with chron__rec_publish */

    CHRON__ASSERT(offset % CHRON__ALIGN == 0 && size >= CHRON__RECORD_HEADER && offset <= size - CHRON__RECORD_HEADER);
    if (commit == 0)
        return CHRON__REC_NONE;
    rec->seq = chron__read_once_le64(at + CHRON__RECORD_SEQ);
    rec->timestamp_ns = chron__read_once_le64(at + CHRON__RECORD_TIME);
    rec->word = chron__read_once_le64(at + CHRON__RECORD_WORD);
    rec->commit = commit;
    rec->crc = chron__read_le32(at + CHRON__RECORD_CRC);
    rec->length = commit - 1u;
    rec->payload = at + CHRON__RECORD_HEADER;
    if (chron__rec_type(rec) == CHRON__TYPE_OURS)
        return rec->length == 0 ? CHRON__REC_END : CHRON__REC_BROKEN;
    /* Room for an END must remain behind it. */
    if (rec->length > size || offset + chron__record_bytes(rec->length) + CHRON__RECORD_HEADER > size)
        return CHRON__REC_BROKEN;
    CHRON__ASSERT(rec->payload + rec->length <= base + size - CHRON__RECORD_HEADER);
    return CHRON__REC_DATA;
}

/* Does the CRC fit, with the payload taken from `payload` (the mapping, or a copy of it)? */
static inline int chron__rec_crc_ok(const chron__rec *rec, const void *payload)
{
    return chron__crc32c_record(rec->commit, rec->seq, rec->timestamp_ns, rec->word, payload, rec->length) == rec->crc;
}

/* Write header bytes 8 to 31. The commit word stays as it is. */
static inline void chron__rec_write_header(uint8_t *at, uint64_t seq, uint64_t timestamp_ns, uint16_t type_id,
                                           uint16_t flags, uint32_t epoch)
{
    chron__write_le64(at + CHRON__RECORD_SEQ, seq);
    chron__write_le64(at + CHRON__RECORD_TIME, timestamp_ns);
    chron__write_le64(at + CHRON__RECORD_WORD, (uint64_t)type_id | (uint64_t)flags << 16 | (uint64_t)epoch << 32);
}

/* The same, the payload and the CRC: everything but the commit word. */
static inline void chron__rec_put(uint8_t *at, uint64_t seq, uint64_t timestamp_ns, uint16_t type_id, uint16_t flags,
                                  uint32_t epoch, const void *data, uint32_t length)
{
    chron__chosen_record_put(at, length, seq, timestamp_ns,
                             (uint64_t)type_id | (uint64_t)flags << 16 | (uint64_t)epoch << 32, data);
}

/* Write the CRC of a record that is otherwise in place. */
static inline void chron__rec_write_crc(uint8_t *at, uint32_t length)
{
    chron__write_le32(at + CHRON__RECORD_CRC,
                      chron__crc32c_record(length + 1u, chron__read_le64(at + CHRON__RECORD_SEQ),
                                           chron__read_le64(at + CHRON__RECORD_TIME),
                                           chron__read_le64(at + CHRON__RECORD_WORD), at + CHRON__RECORD_HEADER,
                                           length));
}

/* Make it visible. Everything else must be in place. */
static inline void chron__rec_publish(uint8_t *at, uint32_t length)
{
    CHRON__ASSERT(chron__load_relaxed_le32(at) == 0); /* [PUBLISH] ours: committed bytes never change */
    chron__store_release_le32(at, length + 1u);       /* [PUBLISH] with chron__rec_load */
}

#endif
