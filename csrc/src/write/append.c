/* SPDX-License-Identifier: MIT */
/* append.c - appending one record, from the caller's memory or in place (a claim). See append.h for the invariants. */
#include "write/append.h"

#include <inttypes.h>

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
    seq =
        chron__append(w, data, length, type_id, flags, timestamp_ns == CHRON_NOW ? chron__writer_now(w) : timestamp_ns);
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
        memset(w->base + chron__get64(&w->tail), 0, (size_t)w->claimed);
        chron__group_store(w->q.meta.base, 0);
        w->claimed = 0;
    }
    chron__writer_leave(w);
    return status;
}
