/* SPDX-License-Identifier: MIT */
/* append.c - appending one record, from the caller's memory or in place (a claim). See append.h for the invariants. */
#include "write/append.h"

#include <inttypes.h>
#include <stdlib.h>

int chron__refuse_record(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    if (!data && length == CHRON__LENGTH_WRONG)
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

int chron__refuse_source(chron_writer *w, uint64_t bytes)
{
    memset(w->base + chron__get64(&w->tail), 0, (size_t)bytes);
    return chron__fail(CHRON_EIO,
                       "the data lies in a mapped segment whose file went away (it was truncated, or its disk "
                       "failed): what can be read there are zeros, and nothing was appended");
}

/* One record of one of several writers, by turns (turns.h). */
int64_t chron__append_shared(chron_writer *w, const void *data, size_t length, uint16_t type_id, uint16_t flags,
                             uint64_t timestamp_ns)
{
    const uint64_t bytes = chron__record_bytes(length);
    const int is_now = timestamp_ns == CHRON_NOW;
    uint64_t offset;
    uint64_t seq;
    uint8_t *at;
    int status;

    if (is_now)
        timestamp_ns = chron__writer_now(w);
    chron__touch_source(data, length);
    status = chron__turn_begin(w, bytes);
    if (status < 0)
        return status;
    offset = chron__get64(&w->tail);
    seq = chron__get64(&w->next_seq);
    at = w->base + offset;
    if (is_now)
        timestamp_ns = chron__turn_now(w, timestamp_ns);
    chron__head_intend(w->q.meta.base, (uint32_t)((offset + bytes) / CHRON__ALIGN));
    CHRON__STEP("turn: intent stored");
    chron__place_record(w, at, seq, data, (uint32_t)length, type_id, flags, timestamp_ns);
    if (chron__is_faulted(data, length)) { /* [FAULT] asked when it has been read */
        status = chron__refuse_source(w, bytes);
        chron__turn_abandon(w);
        return status;
    }
    chron__rec_publish(at, (uint32_t)length);
    CHRON__STEP("record: published");
    chron__tally_add(&w->tally, timestamp_ns);
    w->payload_bytes += length;
    if (__builtin_expect(offset >= w->next_block, 0))
        chron__writer_note_block(w, offset);
    return chron__turn_finish(w, offset + bytes, seq, 1);
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
    seq = chron__append(w, data, length, type_id, flags, timestamp_ns);
    chron__writer_leave(w);
    return seq;
}

int64_t chron_writer_snapshot(chron_writer *w, const void *data, size_t length, uint16_t type_id, uint8_t flags,
                              uint64_t timestamp_ns)
{
    int64_t seq = chron__writer_enter(w);

    if (seq < 0)
        return seq;
    seq = chron__append(w, data, length, type_id, flags | CHRON__RECORD_SNAPSHOT,
                        timestamp_ns == CHRON_NOW ? chron__writer_now(w) : timestamp_ns);
    chron__writer_leave(w);
    return seq;
}

/* Is all ready for it: nothing to refuse, room in prepared pages, no sync to do? */
static inline int is_ready(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    return chron__get32(&w->poisoned) == 0 && /* [STOP] set by whoever met the failure */
           w->claimed == 0 && w->sync_every == 0 && chron__is_record(w, data, length, type_id) &&
           chron__get64(&w->tail) + chron__record_bytes(length) <= w->edge;
}

int64_t chron_writer_try_append(chron_writer *w, const void *data, size_t length, uint16_t type_id, uint8_t flags,
                                uint64_t timestamp_ns)
{
    int64_t seq = chron__writer_enter(w);

    if (seq < 0)
        return seq;
    if (is_ready(w, data, length, type_id))
        seq = chron__append_checked(w, data, length, type_id, flags,
                                    timestamp_ns == CHRON_NOW ? chron__writer_now(w) : timestamp_ns);
    else
        seq = CHRON_NOT_READY;
    chron__writer_leave(w);
    return seq;
}

/* ------------------------------------------------------------------------------------------- claims */

/* Aligned as a payload in a segment is. */
static uint8_t *staged(const chron_writer *w)
{
    uint8_t *at = w->shared->stage;

    return at + (CHRON__ALIGN - (uintptr_t)at % CHRON__ALIGN) % CHRON__ALIGN;
}

/* One of several writers has no room that is its own: what is claimed is copied when it is published. */
static int claim_apart(chron_writer *w, uint64_t bytes, void **payload)
{
    struct chron__shared *s = w->shared;

    if (s->stage_bytes < bytes) {
        uint8_t *stage = realloc(s->stage, (size_t)bytes + CHRON__ALIGN);

        if (!stage)
            return chron__fail(CHRON_ENOMEM, "no memory for a claim of %" PRIu64 " bytes", bytes);
        s->stage = stage;
        s->stage_bytes = (size_t)bytes;
    }
    w->claimed = bytes;
    *payload = staged(w);
    return 0;
}

static int64_t publish_apart(chron_writer *w, size_t length, uint16_t type_id, uint8_t flags, uint64_t timestamp_ns)
{
    int64_t seq;
    int status = chron__check_record(w, staged(w), length, type_id);

    if (status < 0)
        return status;
    if (chron__record_bytes(length) > w->claimed)
        return chron__fail(CHRON_EINVAL, "%zu bytes are more than were claimed (%" PRIu64 ", rounded up to 32)", length,
                           w->claimed - CHRON__RECORD_HEADER);
    seq = chron__append_shared(w, staged(w), length, type_id, flags, timestamp_ns);
    if (seq >= 0 || seq == -CHRON_EUNSYNCED)
        w->claimed = 0;
    return seq;
}

static int claim(chron_writer *w, size_t length, void **payload)
{
    uint64_t bytes = chron__record_bytes(length);
    int status;

    if (!payload)
        return chron__fail(CHRON_EINVAL, "there is no place to store the claimed address");
    *payload = NULL;
    status = chron__writer_ready(w);
    if (status < 0)
        return status;
    status = chron__check_record(w, "", length, 0);
    if (status < 0)
        return status;
    if (w->shared)
        return claim_apart(w, bytes, payload);
    if (chron__get64(&w->tail) + bytes > w->edge) {
        status = chron__writer_edge(w, bytes);
        if (status < 0)
            return status;
    }
    CHRON__ASSERT(chron__get64(&w->tail) + bytes <= w->edge);
    CHRON__ASSERT(chron__load_relaxed_le32(w->base + chron__get64(&w->tail)) == 0); /* [PUBLISH] not before publish */
    chron__group_store(w->q.meta.base, chron__get64(&w->tail));
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
        return chron__writer_fail_poisoned(w);
    if (w->shared)
        return publish_apart(w, length, type_id, flags, timestamp_ns);
    status = chron__check_record(w, at, length, type_id);
    if (status < 0)
        return status;
    if (bytes > w->claimed)
        return chron__fail(CHRON_EINVAL, "%zu bytes are more than were claimed (%" PRIu64 ", rounded up to 32)", length,
                           w->claimed - CHRON__RECORD_HEADER);
    if (timestamp_ns == CHRON_NOW)
        timestamp_ns = chron__writer_now(w);
    /* What was claimed and is not used may have been written to: behind the tail all is zero. */
    memset(at + CHRON__RECORD_HEADER + length, 0, (size_t)(w->claimed - CHRON__RECORD_HEADER - length));
    chron__rec_write_header(at, seq, timestamp_ns, type_id, flags, w->epoch);
    chron__rec_write_crc(at, (uint32_t)length);
    CHRON__STEP("claim: placed");
    chron__rec_publish(at, (uint32_t)length);
    chron__group_store(w->q.meta.base, 0);
    w->claimed = 0;
    chron__tally_add(&w->tally, timestamp_ns);
    w->payload_bytes += length;
    return chron__finish(w, offset, offset + bytes, seq, 1);
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
        if (!w->shared) {
            memset(w->base + chron__get64(&w->tail), 0, (size_t)w->claimed);
            chron__group_store(w->q.meta.base, 0);
        }
        w->claimed = 0;
    }
    chron__writer_leave(w);
    return status;
}
