/* SPDX-License-Identifier: MIT */
/*
 * columns.c - reading many records at once without moving, as columns over the mapped segment: peek, then advance. And
 * references to segments, with which views outlive their reader.
 *
 * Invariants:
 *  - What a peek returns has passed the checks of chron_reader_next(): seq, bounds, epoch, CRC.
 *  - A peek may enter the next segment, which is the same position by another name; it consumes nothing.
 *  - chron_segment is chron__seg seen from outside: its mapping lives until the last reference goes.
 */
#include "read/next.h"

#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/struct.h"

#define VIEW_BYTES 16u
#define VIEW_INLINE 12u
#define VIEW_BUFFER_SHIFT 30u /* offsets of views are signed 32 bits: one buffer a GiB */

static const chron__seg *inside(const chron_segment *s)
{
    return (const chron__seg *)s;
}

/* Store record n of the columns. */
static inline void put(chron_columns *c, size_t n, const chron__rec *rec, uint64_t payload_at)
{
    if (c->seq)
        c->seq[n] = chron__rec_seq(rec);
    if (c->timestamp_ns)
        c->timestamp_ns[n] = chron__rec_timestamp(rec);
    if (c->offset)
        c->offset[n] = payload_at;
    if (c->length)
        c->length[n] = rec->length;
    if (c->type_id)
        c->type_id[n] = chron__rec_type(rec);
    if (c->flags)
        c->flags[n] = (uint8_t)(chron__rec_flags(rec) & CHRON__USER_FLAGS);
    if (rec->length < c->length_min)
        c->length_min = rec->length;
    if (rec->length > c->length_max)
        c->length_max = rec->length;
}

/* Payload of the next record: where it is, or where its copy is. */
static inline const void *payload_of(const chron_columns *c, const chron__rec *rec)
{
    uint8_t *to = c->copy;

    if (!to)
        return rec->payload;
    to += c->payload_bytes;
    if (rec->length)
        memcpy(to, rec->payload, rec->length);
    return to;
}

/* From the first record on, which was checked, those that are plainly there. What is not is left to the next peek. */
static size_t collect(chron_reader *r, chron_columns *c, size_t count, chron__rec *rec)
{
    uint64_t offset = r->offset;
    uint64_t seq = r->next_seq;
    uint32_t epoch = chron__rec_epoch(rec);
    size_t n = 0;

    if (count > r->visible - seq)
        count = (size_t)(r->visible - seq);
    for (;;) {
        chron__reader_ask_ahead(r->base, offset, r->eager_from, chron__rec_bytes(rec));
        put(c, n, rec, c->copy ? c->payload_bytes : offset + CHRON__RECORD_HEADER);
        c->payload_bytes += rec->length;
        r->peeked.last_crc = rec->crc;
        r->peeked.last_offset = offset;
        offset += chron__rec_bytes(rec);
        if (++n == count || chron__rec_load(r->base, r->size, offset, rec) != CHRON__REC_DATA ||
            chron__rec_seq(rec) != seq + n || chron__rec_epoch(rec) != epoch ||
            rec->length > c->bytes_max - c->payload_bytes || !chron__rec_crc_ok(rec, payload_of(c, rec)))
            break;
    }
    CHRON__ASSERT(n >= 1 && n <= count && c->payload_bytes <= c->bytes_max && c->length_min <= c->length_max);
    CHRON__ASSERT(offset <= r->size - CHRON__RECORD_HEADER);
    r->peeked.end_offset = offset;
    r->peeked.epoch = epoch;
    return n;
}

static int64_t peek_columns(chron_reader *r, chron_columns *c, size_t count, chron_segment **segment)
{
    chron__rec rec;
    int status;
    size_t n;

    r->peeked.count = 0;
    c->payload_bytes = 0;
    c->length_min = UINT32_MAX;
    c->length_max = 0;
    if (count == 0)
        return 0;
    status = chron__reader_peek(r, &rec);
    if (status <= 0)
        return status;
    if (rec.length > c->bytes_max) {
        /* Before anybody allocates by this length, make sure that it is one. */
        status = chron__reader_check(r, &rec, rec.payload);
        c->length_max = rec.length;
        if (status == 0)
            return chron__fail(CHRON_EBUFFER, "the payload has %u bytes, the limit is %" PRIu64, (unsigned)rec.length,
                               c->bytes_max);
    } else {
        status = chron__reader_check(r, &rec, payload_of(c, &rec));
    }
    if (status < 0) {
        status = chron__reader_pass_damage(r, status);
        return status > 0 ? peek_columns(r, c, count, segment) : status;
    }
    n = collect(r, c, count, &rec);
    if (chron__map_faulted(&r->seg->map)) /* [FAULT] then the columns describe zeros */
        return chron__reader_damaged(r, "");
    r->peeked.from = r->next_seq;
    r->peeked.count = n;
    r->peeked.payload_bytes = c->payload_bytes;
    if (segment)
        *segment = (chron_segment *)chron__seg_retain(r->seg);
    return (int64_t)n;
}

/* With what the caller left at 0. */
static int64_t peek_defaults(chron_reader *r, chron_columns *c, size_t count, chron_segment **segment)
{
    const int unlimited = !c->bytes_max && !c->copy;
    int64_t n;

    if (__builtin_expect(c->reserved != 0, 0))
        return chron__fail(CHRON_EINVAL, "reserved is %u: it has to be 0", (unsigned)c->reserved);
    if (unlimited)
        c->bytes_max = UINT64_MAX;
    n = peek_columns(r, c, count, segment);
    if (unlimited)
        c->bytes_max = 0; /* it is the caller's */
    return n;
}

int64_t chron_reader_peek_columns(chron_reader *r, chron_columns *columns, size_t count, chron_segment **segment)
{
    chron_columns own;
    chron_columns *c;
    int64_t status = chron__reader_enter(r);

    if (segment)
        *segment = NULL;
    if (status < 0)
        return status;
    c = chron__struct_use("chron_columns", columns, &own, sizeof own);
    status = c ? peek_defaults(r, c, count, segment) : -CHRON_EINVAL;
    if (c && c != columns)
        chron__struct_give(c, sizeof *c, columns);
    chron__reader_leave(r);
    return status;
}

/* Over all that is left of the peek, in one step. */
static void advance_all(chron_reader *r)
{
    CHRON__ASSERT(r->peeked.end_offset > r->offset && r->peeked.epoch >= r->epoch);
    r->last_crc = r->peeked.last_crc;
    r->last_offset = r->peeked.last_offset;
    r->has_last = 1;
    r->epoch = r->peeked.epoch;
    r->offset = r->peeked.end_offset;
    r->next_seq += r->peeked.count;
    r->stats.records += r->peeked.count;
    r->stats.payload_bytes += r->peeked.payload_bytes;
}

static int advance(chron_reader *r, size_t count)
{
    chron__rec rec;

    if (count == 0)
        return 0;
    if (count > r->peeked.count || r->next_seq != r->peeked.from)
        return chron__fail(CHRON_EINVAL, "%zu records are more than are left of the last peek", count);
    if (count == r->peeked.count) {
        advance_all(r);
        r->peeked.count = 0;
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (chron__rec_load(r->base, r->size, r->offset, &rec) != CHRON__REC_DATA ||
            chron__rec_seq(&rec) != r->next_seq)
            return chron__reader_damaged(r, "it was there a moment ago");
        chron__reader_advance(r, &rec);
        r->peeked.from++;
        r->peeked.count--;
        r->peeked.payload_bytes -= rec.length;
    }
    return 0;
}

int chron_reader_advance(chron_reader *r, size_t count)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = advance(r, count);
    chron__reader_leave(r);
    return status;
}

/* --------------------------------------------------------------------------------------- segments */

const void *chron_segment_bytes(const chron_segment *s)
{
    return s ? inside(s)->map.base : NULL;
}

uint64_t chron_segment_size(const chron_segment *s)
{
    return s ? inside(s)->size : 0;
}

int chron_segment_faulted(const chron_segment *s)
{
    return s ? chron__map_faulted(&inside(s)->map) : 0;
}

void chron_segment_release(chron_segment *s)
{
    chron__seg_release((chron__seg *)s);
}

void chron_segment_binary_views(const chron_segment *s, uint64_t from, const uint64_t *offset, const uint32_t *length,
                                size_t count, void *views)
{
    const uint8_t *base = inside(s)->map.base;
    uint8_t *view = views;

    for (size_t i = 0; i < count; i++, view += VIEW_BYTES) {
        uint64_t at = offset[i] - from;
        uint32_t place[2] = {(uint32_t)(at >> VIEW_BUFFER_SHIFT),
                             (uint32_t)(at & ((UINT64_C(1) << VIEW_BUFFER_SHIFT) - 1u))};

        memset(view, 0, VIEW_BYTES);
        memcpy(view, &length[i], sizeof length[i]);
        if (length[i] <= VIEW_INLINE) {
            memcpy(view + 4, base + offset[i], length[i]);
        } else {
            memcpy(view + 4, base + offset[i], 4);
            memcpy(view + 8, place, sizeof place);
        }
    }
}
