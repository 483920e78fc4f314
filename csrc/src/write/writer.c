/* SPDX-License-Identifier: MIT */
/*
 * writer.c - appending: one record, a batch, a claim. The hot path of the library.
 *
 * Invariants:
 *  - The commit word at the tail is zero, and so is every word that may become one: what is behind the
 *    tail is zero but for an unpublished batch or claim.
 *  - Committed bytes never change.
 *  - A record becomes visible by one release store of its commit word, after everything else of it. A
 *    batch becomes visible by that of its first record.
 *  - Index entries are stored after what they point at is visible.
 */
#include "write/writer.h"

#include <inttypes.h>

#define LENGTH_WRONG SIZE_MAX /* of a record of a source, without a payload: its offsets make no sense */

#ifdef CHRON_TESTING
void (*chron__on_step)(const char *name); /* step.h */
#endif

static uint64_t now_ns(const chron_writer *w)
{
    return chron__clock_ns((int)w->coarse_clock);
}

static __attribute__((cold, noinline)) int poisoned(const chron_writer *w)
{
    (void)w;
    return chron__fail(CHRON_EPOISONED, "this writer can no longer vouch for its data, because a sync failed or the "
                                        "disk did: close it and open the queue again, which recovers what is on disk");
}

/* The pages under the current segment were replaced by zeros: what went there is gone. */
static __attribute__((cold, noinline)) int faulted(chron_writer *w)
{
    chron__set32(&w->poisoned, 1);
    return chron__seg_fail_fault(w->seg, CHRON__REOPEN);
}

static inline int check_ready(const chron_writer *w)
{
    if (__builtin_expect(chron__get32(&w->poisoned) != 0, 0)) /* [STOP] set by whoever met the failure */
        return poisoned(w);
    if (__builtin_expect(w->claimed != 0, 0))
        return chron__fail(CHRON_ECLAIM, "a claim is open: publish or abort it first");
    return 0;
}

static int refuse_record(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
    __attribute__((cold, noinline));

static int refuse_record(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    if (!data && length == LENGTH_WRONG)
        return chron__fail(CHRON_EINVAL, "the offsets were changed while they were read, and go back or beyond the "
                                         "buffer now");
    if (length > w->max_payload)
        return chron__fail(CHRON_ETOOBIG,
                           "a payload of %zu bytes is larger than one segment of this queue holds (%" PRIu64
                           " bytes): split it, or create the queue with larger segments",
                           length, w->max_payload);
    if (type_id > CHRON_TYPE_MAX)
        return chron__fail(CHRON_EINVAL, "type_id 0x%x is reserved: use 0 to 0x%x", (unsigned)type_id, CHRON_TYPE_MAX);
    return chron__fail(CHRON_EINVAL, "the data is NULL, but its length is %zu", length);
}

static inline int is_record(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    return length <= w->max_payload && type_id <= CHRON_TYPE_MAX && (data || length == 0);
}

static inline int check_record(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    return __builtin_expect(is_record(w, data, length, type_id), 1) ? 0 : refuse_record(w, data, length, type_id);
}

void chron__writer_note_block(chron_writer *w, uint64_t offset)
{
    uint64_t block = chron__seg_block_of(w->seg, offset);

    if (offset < w->next_block)
        return;
    chron__seg_index_set(w->seg, block, offset);
    w->next_block = w->seg->data_offset + (block + 1u) * CHRON__STRIDE;
}

/* Everything of a record but its commit word. */
static inline void place(chron_writer *w, uint8_t *at, uint64_t seq, const void *data, uint32_t length,
                         uint16_t type_id, uint8_t flags, uint64_t timestamp_ns)
{
    chron__rec_put(at, seq, timestamp_ns, type_id, flags, w->epoch, data, length);
    CHRON__STEP("record: placed");
}

/* After the commit word: `count` records that end at `tail` are visible now. */
static inline __attribute__((always_inline)) int64_t finish(chron_writer *w, uint64_t offset, uint64_t tail,
                                                            uint64_t seq, uint32_t count)
{
    chron__set64(&w->tail, tail);
    chron__set_release64(&w->next_seq, seq + count); /* [TAIL] with chron__writer_sync */
    CHRON__STEP("record: published");
    if (__builtin_expect(offset >= w->next_block, 0))
        chron__writer_note_block(w, offset);
    chron__fence_signal();
    if (__builtin_expect(chron__get32(w->fault) != 0, 0)) /* [FAULT] with guard.c */
        return faulted(w);
    if (__builtin_expect(chron__doorbell_ring(&w->bell), 0))
        w->wakes++;
    if (__builtin_expect(w->sync_every != 0, 0)) {
        w->unsynced += count;
        if (w->unsynced >= w->sync_every) {
            int status = chron__writer_sync(w);

            if (status < 0)
                return status;
            w->unsynced = 0;
        }
    }
    return (int64_t)seq;
}

/* A record that was checked, and that there is room for. */
static inline __attribute__((always_inline)) int64_t append_checked(chron_writer *w, const void *data, size_t length,
                                                                    uint16_t type_id, uint8_t flags,
                                                                    uint64_t timestamp_ns)
{
    uint64_t offset = chron__get64(&w->tail);
    uint64_t seq = chron__get64(&w->next_seq);
    uint8_t *at = w->base + offset;

    place(w, at, seq, data, (uint32_t)length, type_id, flags, timestamp_ns);
    chron__rec_publish(at, (uint32_t)length);
    chron__tally_add(&w->tally, timestamp_ns);
    w->payload_bytes += length;
    return finish(w, offset, offset + chron__record_bytes(length), seq, 1);
}

static inline __attribute__((always_inline)) int64_t append(chron_writer *w, const void *data, size_t length,
                                                            uint16_t type_id, uint8_t flags, uint64_t timestamp_ns)
{
    uint64_t bytes = chron__record_bytes(length);
    int status = check_ready(w);

    if (status < 0)
        return status;
    status = check_record(w, data, length, type_id);
    if (status < 0)
        return status;
    if (__builtin_expect(chron__get64(&w->tail) + bytes > w->edge, 0)) {
        status = chron__writer_edge(w, bytes);
        if (status < 0)
            return status;
    }
    return append_checked(w, data, length, type_id, flags, timestamp_ns);
}

int64_t chron_writer_append(chron_writer *w, const void *data, size_t length, uint16_t type_id, uint8_t flags)
{
    return chron_writer_append_at(w, data, length, type_id, flags, CHRON_NOW);
}

int64_t chron_writer_append_at(chron_writer *w, const void *data, size_t length, uint16_t type_id, uint8_t flags,
                               uint64_t timestamp_ns)
{
    int64_t seq = chron__writer_enter(w);

    if (seq < 0)
        return seq;
    seq = append(w, data, length, type_id, flags, timestamp_ns == CHRON_NOW ? now_ns(w) : timestamp_ns);
    chron__writer_leave(w);
    return seq;
}

/* Is all ready for it: nothing to refuse, room in prepared pages, no sync to do? */
static inline int is_ready(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    return chron__get32(&w->poisoned) == 0 && /* [STOP] set by whoever met the failure */
           w->claimed == 0 && w->sync_every == 0 && is_record(w, data, length, type_id) &&
           chron__get64(&w->tail) + chron__record_bytes(length) <= w->edge;
}

int64_t chron_writer_try_append(chron_writer *w, const void *data, size_t length, uint16_t type_id, uint8_t flags,
                                uint64_t timestamp_ns)
{
    int64_t seq = chron__writer_enter(w);

    if (seq < 0)
        return seq;
    if (is_ready(w, data, length, type_id))
        seq = append_checked(w, data, length, type_id, flags, timestamp_ns == CHRON_NOW ? now_ns(w) : timestamp_ns);
    else
        seq = CHRON_NOT_READY;
    chron__writer_leave(w);
    return seq;
}

/* ------------------------------------------------------------------------------------------ batches */

/* Where the records of a batch come from. */
typedef chron_record (*record_at)(const void *source, size_t i);

static inline chron_record record_of_array(const void *source, size_t i)
{
    return ((const chron_record *)source)[i];
}

/* Bytes that records [from, to) take in a segment, or why they cannot be one batch. */
static inline __attribute__((always_inline)) int64_t measure(const chron_writer *w, record_at get, const void *source,
                                                             size_t from, size_t to)
{
    uint64_t room = w->seg->size - w->seg->data_offset - CHRON__RECORD_HEADER; /* END needs the last 32 bytes */
    uint64_t bytes = 0;

    for (size_t i = from; i < to; i++) {
        chron_record r = get(source, i);
        int status = check_record(w, r.payload, r.length, r.type_id);

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

        if (!is_record(w, r.payload, r.length, r.type_id) || chron__record_bytes(r.length) > end - offset)
            return take_back(w, bytes);
        if (r.timestamp_ns == CHRON_NOW)
            r.timestamp_ns = now ? now : (now = now_ns(w));
        place(w, at, seq + (i - from), r.payload, (uint32_t)r.length, r.type_id, r.flags, r.timestamp_ns);
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

static inline __attribute__((always_inline)) int64_t append_whole(chron_writer *w, record_at get, const void *source,
                                                                  size_t from, size_t to)
{
    uint64_t offset;
    uint64_t seq = chron__get64(&w->next_seq);
    int64_t bytes;
    int64_t length;
    int64_t status = check_ready(w);

    if (status < 0 || from >= to)
        return status < 0 ? status : (int64_t)seq;
    bytes = measure(w, get, source, from, to);
    if (bytes < 0)
        return bytes;
    if (chron__get64(&w->tail) + (uint64_t)bytes > w->edge) {
        status = chron__writer_edge(w, (uint64_t)bytes);
        if (status < 0)
            return status;
    }
    offset = chron__get64(&w->tail);
    length = place_batch(w, (uint64_t)bytes, get, source, from, to);
    if (length < 0)
        return length;
    chron__rec_publish(w->base + offset, (uint32_t)length);
    status = finish(w, offset, offset + (uint64_t)bytes, seq, (uint32_t)(to - from));
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
        length = begin <= end && end <= s->bytes_size ? (size_t)(end - begin) : LENGTH_WRONG;
    }
    return (chron_record){
        .payload = length == LENGTH_WRONG ? NULL : (const void *)((uintptr_t)s->bytes + (uintptr_t)begin),
        .length = length,
        .timestamp_ns = s->timestamps ? LOAD_ONCE(uint64_t, s->timestamps, i) : s->timestamp_ns,
        .type_id = s->type_ids ? LOAD_ONCE(uint16_t, s->type_ids, i) : s->type_id,
        .flags = s->flags ? LOAD_ONCE(uint8_t, s->flags, i) : s->flag,
    };
}

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
    if (!s || (!s->bytes && s->bytes_size > 0) || from > to)
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

static int64_t append_each(chron_writer *w, const chron_source *source, size_t from, size_t to)
{
    uint64_t now = 0;

    for (size_t i = from; i < to; i++) {
        chron_record r = record_of_source(source, i);
        int64_t status;

        if (r.timestamp_ns == CHRON_NOW)
            r.timestamp_ns = now ? now : (now = now_ns(w));
        status = append(w, r.payload, r.length, r.type_id, r.flags, r.timestamp_ns);
        if (status < 0)
            return i > from ? (int64_t)(i - from) : status;
    }
    return (int64_t)(to - from);
}

int64_t chron_writer_append_source(chron_writer *w, const chron_source *source, size_t from, size_t to)
{
    int64_t status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = check_source(source, from, to);
    if (status == 0)
        status = append_each(w, source, from, to);
    chron__writer_leave(w);
    return status;
}

int64_t chron_writer_append_source_whole(chron_writer *w, const chron_source *source, size_t from, size_t to)
{
    int64_t status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = check_source(source, from, to);
    if (status == 0)
        status = append_whole(w, record_of_source, source, from, to);
    chron__writer_leave(w);
    return status;
}

/* ------------------------------------------------------------------------------------------- claims */

static int claim(chron_writer *w, size_t length, void **payload)
{
    uint64_t bytes = chron__record_bytes(length);
    int status;

    if (!payload)
        return chron__fail(CHRON_EINVAL, "there is no place to store the claimed address");
    *payload = NULL;
    status = check_ready(w);
    if (status < 0)
        return status;
    status = check_record(w, "", length, 0);
    if (status < 0)
        return status;
    if (chron__get64(&w->tail) + bytes > w->edge) {
        status = chron__writer_edge(w, bytes);
        if (status < 0)
            return status;
    }
    w->claimed = bytes;
    *payload = w->base + chron__get64(&w->tail) + CHRON__RECORD_HEADER;
    return 0;
}

int chron_writer_claim(chron_writer *w, size_t length, void **payload)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = claim(w, length, payload);
    chron__writer_leave(w);
    return status;
}

static int64_t publish(chron_writer *w, size_t length, uint16_t type_id, uint8_t flags, uint64_t timestamp_ns)
{
    uint64_t offset = chron__get64(&w->tail);
    uint64_t seq = chron__get64(&w->next_seq);
    uint8_t *at = w->base + offset;
    uint64_t bytes = chron__record_bytes(length);
    int status;

    if (w->claimed == 0)
        return chron__fail(CHRON_ECLAIM, "there is no claim to publish");
    if (chron__get32(&w->poisoned))
        return poisoned(w);
    status = check_record(w, at, length, type_id);
    if (status < 0)
        return status;
    if (bytes > w->claimed)
        return chron__fail(CHRON_EINVAL, "%zu bytes are more than were claimed (%" PRIu64 ", rounded up to 32)", length,
                           w->claimed - CHRON__RECORD_HEADER);
    if (timestamp_ns == CHRON_NOW)
        timestamp_ns = now_ns(w);
    /* What was claimed and is not used may have been written to: behind the tail all is zero. */
    memset(at + CHRON__RECORD_HEADER + length, 0, (size_t)(w->claimed - CHRON__RECORD_HEADER - length));
    chron__rec_write_header(at, seq, timestamp_ns, type_id, flags, w->epoch);
    chron__rec_write_crc(at, (uint32_t)length);
    CHRON__STEP("claim: placed");
    chron__rec_publish(at, (uint32_t)length);
    w->claimed = 0;
    chron__tally_add(&w->tally, timestamp_ns);
    w->payload_bytes += length;
    return finish(w, offset, offset + bytes, seq, 1);
}

int64_t chron_writer_publish(chron_writer *w, size_t length, uint16_t type_id, uint8_t flags, uint64_t timestamp_ns)
{
    int64_t seq = chron__writer_enter(w);

    if (seq < 0)
        return seq;
    seq = publish(w, length, type_id, flags, timestamp_ns);
    chron__writer_leave(w);
    return seq;
}

int chron_writer_abort(chron_writer *w)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    if (w->claimed == 0) {
        status = chron__fail(CHRON_ECLAIM, "there is no claim to abort");
    } else {
        memset(w->base + chron__get64(&w->tail), 0, (size_t)w->claimed);
        w->claimed = 0;
    }
    chron__writer_leave(w);
    return status;
}

/* -------------------------------------------------------------------------------------- small change */

uint64_t chron_writer_next_seq(const chron_writer *w)
{
    return w ? chron__get64(&w->next_seq) : 0;
}

uint64_t chron_writer_durable_seq(const chron_writer *w)
{
    return w ? chron__get64(&w->durable_next) - 1u : CHRON_SEQ_NONE; /* 0 - 1 is CHRON_SEQ_NONE */
}

uint64_t chron_writer_now(const chron_writer *w)
{
    return w ? now_ns(w) : 0;
}

int chron_writer_recovery_get(const chron_writer *w, chron_recovery *out)
{
    if (!w || !out)
        return chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    *out = w->recovery;
    return 0;
}

int chron_writer_stats_get(const chron_writer *w, chron_writer_stats *out)
{
    if (!w || !out)
        return chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    memset(out, 0, sizeof *out);
    out->records = chron__get64(&w->next_seq) - w->first_seq;
    out->payload_bytes = w->payload_bytes;
    out->rolls = w->rolls;
    out->rolls_unprepared = w->rolls_unprepared;
    out->full_waits = w->full_waits;
    out->syncs = chron__get64(&w->syncs);
    out->wakes = w->wakes;
    out->touched_bytes = chron__get64(&w->touched_bytes);
    out->deleted_segments = chron__get64(&w->deleted_segments);
    out->keeper_running = (uint64_t)w->keeper_running;
    out->keeper_errors = chron__get64(&w->keeper_errors);
    out->keeper_last_error = (int64_t)chron__get32(&w->keeper_last_error);
    return 0;
}
