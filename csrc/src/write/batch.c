/* SPDX-License-Identifier: MIT */
/*
 * batch.c - appending many records with one call: batches, which become visible all at once, and sources, which are
 * many payloads in one buffer. See append.h for the invariants.
 */
#include "write/append.h"

#include <inttypes.h>

#include "base/struct.h"

#define TURN_RECORDS 64u /* appended by one of several writers in a turn, where it need not be one batch */
#define TURN_BYTES 16384u

/* Where the records of a batch come from. */
typedef chron_record (*record_at)(const void *source, size_t i);

static inline chron_record record_of_array(const void *source, size_t i)
{
    return ((const chron_record *)source)[i];
}

/*
 * The caller's memory may change while it is read: in Python any thread may write to an array. So each value is
 * loaded once, by a volatile access, and checked after that, also if check_source() has seen it before.
 */
#define LOAD_ONCE(type, base, i) (((const volatile type *)(base))[i])

static inline uint64_t offset_at(const chron_source *s, size_t i)
{
    return s->offset_size == 4u ? LOAD_ONCE(uint32_t, s->offsets, i) : LOAD_ONCE(uint64_t, s->offsets, i);
}

static inline chron_record record_of_source(const void *source, size_t i)
{
    const chron_source *s = source;
    uint64_t begin = (uint64_t)i * s->row_bytes;
    size_t length = s->row_bytes;

    if (s->offsets) {
        uint64_t end = offset_at(s, i + 1u);

        begin = offset_at(s, i);
        length = begin <= end && end <= s->bytes_size ? (size_t)(end - begin) : CHRON__LENGTH_WRONG;
    }
    return (chron_record){
        .payload = length == CHRON__LENGTH_WRONG ? NULL : (const void *)((uintptr_t)s->bytes + (uintptr_t)begin),
        .length = length,
        .timestamp_ns = s->timestamps ? LOAD_ONCE(uint64_t, s->timestamps, i) : s->timestamp_ns,
        .type_id = s->type_ids ? LOAD_ONCE(uint16_t, s->type_ids, i) : s->type_id,
        .flags = s->flags ? LOAD_ONCE(uint8_t, s->flags, i) : s->flag,
    };
}

/* Bytes that records [from, to) take in a segment, or why they cannot be one batch. */
static inline __attribute__((always_inline)) int64_t measure(const chron_writer *w, record_at get, const void *source,
                                                             size_t from, size_t to)
{
    uint64_t room = w->seg->size - w->seg->data_offset - CHRON__RECORD_HEADER; /* END needs the last 32 bytes */
    uint64_t bytes = 0;

    for (size_t i = from; i < to; i++) {
        chron_record r = get(source, i);
        int status = chron__check_record(w, r.payload, r.length, r.type_id);

        if (status < 0)
            return status;
        bytes += chron__record_bytes(r.length);
        if (bytes > room)
            return chron__fail(CHRON_ETOOBIG,
                               "a batch of %zu records does not fit one segment of this queue (%" PRIu64
                               " bytes): append it in smaller ones",
                               to - from, room);
    }
    return (int64_t)bytes;
}

/* Take back the `bytes` behind the tail. */
static __attribute__((cold, noinline)) int take_back(chron_writer *w, uint64_t bytes)
{
    memset(w->base + chron__get64(&w->tail), 0, (size_t)bytes);
    return chron__fail(CHRON_EINVAL, "the batch was changed while it was read: nothing was appended");
}

/* Have values of records [from, to) gone away, with the mapping that they lay in? */
static int have_columns_faulted(const chron_source *s, size_t from, size_t to)
{
    const size_t count = to - from;
    const uint8_t *offsets = s->offsets;

    return (offsets && chron__is_faulted(offsets + from * s->offset_size, (count + 1u) * s->offset_size)) ||
           (s->timestamps && chron__is_faulted(s->timestamps + from, count * sizeof *s->timestamps)) ||
           (s->type_ids && chron__is_faulted(s->type_ids + from, count * sizeof *s->type_ids)) ||
           (s->flags && chron__is_faulted(s->flags + from, count));
}

/* The same of a batch, and its payloads. Asked when all has been read. */
static int has_faulted(record_at get, const void *source, size_t from, size_t to)
{
    if (!chron__any_faulted())
        return 0;
    for (size_t i = from; i < to; i++) {
        chron_record r = get(source, i);

        if (chron__is_faulted(r.payload, r.length))
            return 1;
    }
    return get == record_of_source && have_columns_faulted(source, from, to);
}

static uint64_t batch_now(chron_writer *w)
{
    uint64_t now = chron__writer_now(w);

    return w->shared ? chron__turn_now(w, now) : now;
}

/*
 * Place records [from, to) in the `bytes` behind the tail, all but the first with their commit words. Returns the
 * length of the first; or, if they are not what was measured (somebody changed them meanwhile), undoes it all.
 */
static inline __attribute__((always_inline)) int64_t place_batch(chron_writer *w, uint64_t bytes, record_at get,
                                                                 const void *source, size_t from, size_t to)
{
    chron__tally tally = w->tally;
    uint64_t payload_bytes = w->payload_bytes;
    uint64_t offset = chron__get64(&w->tail);
    const uint64_t end = offset + bytes;
    uint64_t seq = chron__get64(&w->next_seq);
    uint64_t now = 0;
    int64_t first_length = 0;

    for (size_t i = from; i < to; i++) {
        chron_record r = get(source, i);
        uint8_t *at = w->base + offset;

        if (!chron__is_record(w, r.payload, r.length, r.type_id) || chron__record_bytes(r.length) > end - offset)
            return take_back(w, bytes);
        if (r.timestamp_ns == CHRON_NOW)
            r.timestamp_ns = now ? now : (now = batch_now(w));
        chron__place_record(w, at, seq + (i - from), r.payload, (uint32_t)r.length, r.type_id, r.flags, r.timestamp_ns);
        if (i > from)
            chron__rec_publish(at, (uint32_t)r.length); /* hidden behind the first one's zero commit word */
        else
            first_length = (int64_t)r.length;
        CHRON__STEP("batch: record placed");
        chron__tally_add(&tally, r.timestamp_ns);
        payload_bytes += r.length;
        offset += chron__record_bytes(r.length);
    }
    if (offset != end)
        return take_back(w, bytes);
    if (has_faulted(get, source, from, to))
        return chron__refuse_source(w, bytes);
    CHRON__ASSERT(end <= w->edge);
    CHRON__ASSERT(chron__load_relaxed_le32(w->base + end - bytes) == 0); /* [PUBLISH] the first one hides the others */
    w->tally = tally;
    w->payload_bytes = payload_bytes;
    return first_length;
}

/* Index entries for records (from, to), which begin at `offset`; not for what they are not, if they were changed. */
static inline __attribute__((always_inline)) void note_blocks(chron_writer *w, uint64_t offset, uint64_t seq,
                                                              record_at get, const void *source, size_t from, size_t to)
{
    uint64_t end = chron__get64(&w->tail);

    for (size_t i = from + 1u; i < to && offset < end; i++) {
        if (offset >= w->next_block) {
            if (chron__read_le64(w->base + offset + offsetof(chron__record_header, seq)) != seq + (i - from))
                return;
            chron__writer_note_block(w, offset);
        }
        offset += chron__record_bytes(get(source, i).length);
    }
}

/* In a turn of one of several writers. */
static int64_t append_whole_shared(chron_writer *w, record_at get, const void *source, size_t from, size_t to,
                                   uint64_t bytes)
{
    uint64_t offset;
    uint64_t seq;
    int64_t length;
    int status;

    for (size_t i = from; i < to; i++) {
        chron_record r = get(source, i);

        if (r.payload)
            chron__touch_source(r.payload, r.length);
    }
    status = chron__turn_begin(w, bytes);
    if (status < 0)
        return status;
    offset = chron__get64(&w->tail);
    seq = chron__get64(&w->next_seq);
    chron__head_intend(w->q.meta.base, (uint32_t)((offset + bytes) / CHRON__ALIGN));
    length = place_batch(w, bytes, get, source, from, to);
    if (length < 0) {
        chron__turn_abandon(w);
        return length;
    }
    CHRON__STEP("batch: hidden");
    chron__rec_publish(w->base + offset, (uint32_t)length);
    if (offset >= w->next_block)
        chron__writer_note_block(w, offset);
    chron__set64(&w->tail, offset + bytes);
    if (offset + bytes > w->next_block)
        note_blocks(w, offset + chron__record_bytes((uint64_t)length), seq, get, source, from, to);
    return chron__turn_finish(w, offset + bytes, seq, (uint32_t)(to - from));
}

static inline __attribute__((always_inline)) int64_t append_whole(chron_writer *w, record_at get, const void *source,
                                                                  size_t from, size_t to)
{
    uint64_t offset;
    uint64_t seq = chron__get64(&w->next_seq);
    int64_t bytes;
    int64_t length;
    int64_t status = chron__writer_ready(w);

    if (status < 0 || from >= to)
        return status < 0 ? status : (int64_t)seq;
    bytes = measure(w, get, source, from, to);
    if (bytes < 0)
        return bytes;
    if (chron__get64(&w->tail) + (uint64_t)bytes > w->edge) {
        if (w->shared)
            return append_whole_shared(w, get, source, from, to, (uint64_t)bytes);
        status = chron__writer_edge(w, (uint64_t)bytes);
        if (status < 0)
            return status;
    }
    offset = chron__get64(&w->tail);
    chron__group_store(w->q.meta.base, offset);
    length = place_batch(w, (uint64_t)bytes, get, source, from, to);
    if (length >= 0)
        chron__rec_publish(w->base + offset, (uint32_t)length);
    chron__group_store(w->q.meta.base, 0);
    if (length < 0)
        return length;
    status = chron__finish(w, offset, offset + (uint64_t)bytes, seq, (uint32_t)(to - from));
    if (chron__get64(&w->tail) > w->next_block)
        note_blocks(w, offset + chron__record_bytes((uint64_t)length), seq, get, source, from, to);
    return status;
}

int64_t chron_writer_append_batch(chron_writer *w, const chron_record *records, size_t count)
{
    int64_t seq = chron__writer_enter(w);

    if (seq < 0)
        return seq;
    if (!records && count > 0)
        seq = chron__fail(CHRON_EINVAL, "the batch is NULL, but its count is %zu", count);
    else
        seq = append_whole(w, record_of_array, records, 0, count);
    chron__writer_leave(w);
    return seq;
}

/* ------------------------------------------------------------------------------------------ sources */

static int check_stamps(const chron_source *s, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        int64_t stamp = (int64_t)LOAD_ONCE(uint64_t, s->timestamps, i);

        if (stamp < 0)
            return chron__fail(CHRON_EINVAL, "timestamp %zu is %" PRId64 ": before 1970, or no time at all", i, stamp);
    }
    return 0;
}

/* Before anything is appended: do all payloads of [from, to) lie within the buffer? */
static int check_source(const chron_source *s, size_t from, size_t to)
{
    if ((!s->bytes && s->bytes_size > 0) || from > to)
        return chron__fail(CHRON_EINVAL, "a source needs bytes, and a range that does not go back");
    if (s->timestamps && s->timestamps_signed) {
        int status = check_stamps(s, from, to);

        if (status < 0)
            return status;
    }
    if (!s->offsets) {
        if (s->row_bytes && to > s->bytes_size / s->row_bytes)
            return chron__fail(CHRON_EINVAL, "row %zu of %u bytes lies beyond the buffer's %" PRIu64 " bytes", to - 1u,
                               (unsigned)s->row_bytes, s->bytes_size);
        return 0;
    }
    if (s->offset_size != 4u && s->offset_size != 8u)
        return chron__fail(CHRON_EINVAL, "offsets of %u bytes: 4 or 8 are possible", (unsigned)s->offset_size);
    for (size_t i = from; i < to; i++)
        if (offset_at(s, i) > offset_at(s, i + 1u))
            return chron__fail(CHRON_EINVAL, "offset %zu lies before the one in front of it", i + 1u);
    if (from < to && offset_at(s, to) > s->bytes_size)
        return chron__fail(CHRON_EINVAL, "offset %zu, %" PRIu64 ", lies beyond the buffer's %" PRIu64 " bytes", to,
                           offset_at(s, to), s->bytes_size);
    return 0;
}

/* The caller's, or a copy in `own`; NULL: EINVAL. */
static const chron_source *use_source(const chron_source *source, size_t from, size_t to, chron_source *own)
{
    const chron_source *s = chron__struct_use("chron_source", source, own, sizeof *own);

    return s && check_source(s, from, to) == 0 ? s : NULL;
}

/* How many records from `i` on one turn takes: the others wait meanwhile. */
static size_t turn_of(const chron_source *source, size_t i, size_t to)
{
    uint64_t bytes = 0;
    size_t n = 0;

    while (i + n < to && n < TURN_RECORDS && bytes < TURN_BYTES)
        bytes += chron__record_bytes(record_of_source(source, i + n++).length);
    return n > 1 && bytes >= TURN_BYTES ? n - 1u : n;
}

/* One of several writers takes a turn for some records, not for each. */
static int64_t append_by_turns(chron_writer *w, const chron_source *source, size_t from, size_t to)
{
    for (size_t i = from; i < to;) {
        size_t n = turn_of(source, i, to);
        int64_t seq = append_whole(w, record_of_source, source, i, i + n);

        if (seq < 0 && seq != -CHRON_EUNSYNCED && n > 1) { /* one of them is refused: those in front of it are not */
            n = 1;
            seq = append_whole(w, record_of_source, source, i, i + n);
        }
        if (seq == -CHRON_EUNSYNCED)
            chron__error()->appended = i + n - from;
        else if (seq < 0 && i > from)
            return (int64_t)(i - from);
        if (seq < 0)
            return seq;
        i += n;
    }
    return (int64_t)(to - from);
}

static int64_t append_each(chron_writer *w, const chron_source *source, size_t from, size_t to)
{
    uint64_t now = 0;

    if (w->shared)
        return append_by_turns(w, source, from, to);
    for (size_t i = from; i < to; i++) {
        chron_record r = record_of_source(source, i);
        int64_t status;

        if (r.timestamp_ns == CHRON_NOW)
            r.timestamp_ns = now ? now : (now = chron__writer_now(w));
        if (chron__any_faulted() && have_columns_faulted(source, i, i + 1u)) /* [FAULT] */
            status = chron__refuse_source(w, 0);
        else
            status = chron__append(w, r.payload, r.length, r.type_id, r.flags, r.timestamp_ns);
        if (status == -CHRON_EUNSYNCED)
            chron__error()->appended = i + 1u - from; /* this one, too */
        else if (status < 0 && i > from)
            return (int64_t)(i - from);
        if (status < 0)
            return status;
    }
    return (int64_t)(to - from);
}

int64_t chron_writer_append_source(chron_writer *w, const chron_source *source, size_t from, size_t to)
{
    const chron_source *s;
    chron_source own;
    int64_t status = chron__writer_enter(w);

    if (status < 0)
        return status;
    s = use_source(source, from, to, &own);
    status = s ? append_each(w, s, from, to) : -CHRON_EINVAL;
    chron__writer_leave(w);
    return status;
}

int64_t chron_writer_append_source_whole(chron_writer *w, const chron_source *source, size_t from, size_t to)
{
    const chron_source *s;
    chron_source own;
    int64_t status = chron__writer_enter(w);

    if (status < 0)
        return status;
    s = use_source(source, from, to, &own);
    status = s ? append_whole(w, record_of_source, s, from, to) : -CHRON_EINVAL;
    chron__writer_leave(w);
    return status;
}
