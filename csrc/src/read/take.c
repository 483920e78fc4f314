/* SPDX-License-Identifier: MIT */
/*
 * take.c - reading forward, one by one and many at a time. The hot path of readers.
 *
 * Invariants:
 *  - A record is returned only if its seq is the one expected, it lies within the mapping, its epoch is
 *    not below that of the record before, and its CRC matches.
 *  - An error leaves the position where it was.
 */
#include "read/sift.h"

#include "base/assert.h"
#include "base/error.h"

/* What chron__reader_look says when nothing is the matter, without a call. */
static inline int peek(chron_reader *r, chron__rec *rec)
{
    if (__builtin_expect(r->seg && r->next_seq < r->visible && !r->sift, 1) &&
        __builtin_expect(chron__rec_load(r->base, r->size, r->offset, rec) == CHRON__REC_DATA, 1) &&
        __builtin_expect(chron__rec_seq(rec) == r->next_seq, 1)) {
        return 1;
    }
    return chron__reader_look(r, rec);
}

static inline int next(chron_reader *r, chron_view *out)
{
    chron__rec rec;
    int status;

    do {
        status = peek(r, &rec);
        if (__builtin_expect(status <= 0, 0))
            return status;
        chron__reader_ask_ahead(r->base, r->offset, r->eager_from, chron__rec_bytes(&rec));
        status = chron__reader_check(r, &rec, rec.payload);
        if (__builtin_expect(status == 0, 1))
            break;
        status = chron__reader_pass_damage(r, status);
    } while (status > 0);
    if (__builtin_expect(status < 0, 0))
        return status;
    chron__reader_view(&rec, rec.payload, out);
    chron__reader_advance(r, &rec);
    return 1;
}

int chron_reader_next(chron_reader *r, chron_view *out)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = out ? next(r, out) : chron__fail(CHRON_EINVAL, "there is no view to fill");
    chron__reader_leave(r);
    return status;
}

static int next_copy(chron_reader *r, void *buffer, size_t capacity, chron_view *out)
{
    chron__rec rec;
    int status = peek(r, &rec);

    if (status <= 0)
        return status;
    if (rec.length > capacity) {
        /* Before anybody allocates by this length, make sure that it is one. */
        status = chron__reader_check(r, &rec, rec.payload);
        if (status < 0) {
            status = chron__reader_pass_damage(r, status);
            return status > 0 ? next_copy(r, buffer, capacity, out) : status;
        }
        chron__reader_view(&rec, NULL, out);
        return chron__fail(CHRON_EBUFFER, "the payload has %u bytes, the buffer %zu", (unsigned)rec.length, capacity);
    }
    chron__reader_ask_ahead(r->base, r->offset, r->eager_from, chron__rec_bytes(&rec));
    if (rec.length)
        memcpy(buffer, rec.payload, rec.length);
    status = chron__reader_check(r, &rec, buffer);
    if (status < 0) {
        status = chron__reader_pass_damage(r, status);
        return status > 0 ? next_copy(r, buffer, capacity, out) : status;
    }
    chron__reader_view(&rec, buffer, out);
    chron__reader_advance(r, &rec);
    return 1;
}

int chron_reader_next_copy(chron_reader *r, void *buffer, size_t capacity, chron_view *out)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    if (!out || (!buffer && capacity > 0))
        status = chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    else
        status = next_copy(r, buffer, capacity, out);
    chron__reader_leave(r);
    return status;
}

/*
 * Up to `count` records that are plainly there: END, damage and the durable mark are left to the next call. The
 * position is kept in registers meanwhile.
 */
static size_t take_plain(chron_reader *r, chron_view *out, size_t count)
{
    const uint8_t *base = r->base;
    uint64_t size = r->size;
    uint64_t offset = r->offset;
    uint64_t seq = r->next_seq;
    uint64_t payload_bytes = 0;
    uint32_t crc = r->last_crc;
    uint64_t last_offset = r->last_offset;
    uint64_t eager_from = r->eager_from;
    size_t n;

    if (count > r->visible - seq)
        count = (size_t)(r->visible - seq);
    for (n = 0; n < count; n++, seq++) {
        chron__rec rec;

        if (chron__rec_load(base, size, offset, &rec) != CHRON__REC_DATA || chron__rec_seq(&rec) != seq ||
            chron__rec_epoch(&rec) != r->epoch || !chron__rec_crc_ok(&rec, rec.payload))
            break;
        chron__reader_ask_ahead(base, offset, eager_from, chron__rec_bytes(&rec));
        chron__reader_view(&rec, rec.payload, &out[n]);
        crc = rec.crc;
        last_offset = offset;
        offset += chron__rec_bytes(&rec);
        payload_bytes += rec.length;
    }
    CHRON__ASSERT(n <= count && seq == r->next_seq + n && offset <= size - CHRON__RECORD_HEADER);
    r->last_crc = crc;
    r->last_offset = last_offset;
    r->offset = offset;
    r->next_seq = seq;
    r->stats.records += n;
    r->stats.payload_bytes += payload_bytes;
    return n;
}

/* As take_plain(), of those that are wanted. */
static size_t take_wanted(chron_reader *r, chron_view *out, size_t count)
{
    chron__cursor at = chron__cursor_of(r);
    uint64_t payload_bytes = 0;
    chron__rec rec;
    size_t n = 0;

    while (n < count && chron__sift_plain(r, &at, r->epoch, &rec, CHRON__SIFT_BYTES) &&
           chron__rec_crc_ok(&rec, rec.payload)) {
        chron__reader_view(&rec, rec.payload, &out[n++]);
        payload_bytes += rec.length;
        chron__cursor_pass(&at, &rec);
    }
    chron__sift_settle(r, &at, n, payload_bytes);
    return n;
}

static int64_t next_batch(chron_reader *r, chron_view *out, size_t count)
{
    const chron__seg *seg;
    size_t n = 1;
    int status;

    if (count == 0)
        return 0;
    status = next(r, &out[0]); /* what is not plain */
    if (status <= 0)
        return status;
    seg = r->seg;
    if (r->next_seq < r->visible)
        n += r->sift ? take_wanted(r, out + 1, count - 1u) : take_plain(r, out + 1, count - 1u);
    if (chron__map_faulted(&seg->map)) /* [FAULT] then the views lead to zeros */
        return chron__reader_damaged(r, "");
    return (int64_t)n;
}

int64_t chron_reader_next_batch(chron_reader *r, chron_view *out, size_t count)
{
    int64_t status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = out ? next_batch(r, out, count) : chron__fail(CHRON_EINVAL, "there are no views to fill");
    chron__reader_leave(r);
    return status;
}
