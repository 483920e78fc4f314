/* SPDX-License-Identifier: MIT */
/*
 * append.h - putting one record at the tail: the hot path of the library, inline, for append.c (one record, claims) and
 * batch.c (many).
 *
 * Invariants:
 *  - The commit word at the tail is zero, and so is every word that may become one: what is behind the
 *    tail is zero but for an unpublished batch or claim.
 *  - Committed bytes never change.
 *  - A record becomes visible by one release store of its commit word, after everything else of it. A
 *    batch becomes visible by that of its first record.
 *  - Index entries are stored after what they point at is visible.
 *
 * The owner's thread only.
 */
#ifndef CHRON_APPEND_H
#define CHRON_APPEND_H

#include "base/assert.h"
#include "base/error.h"
#include "base/prefetch.h"
#include "base/step.h"
#include "format/identity.h"
#include "write/flush.h"
#include "write/roll.h"
#include "write/writer.h"

/* A record of a source whose offsets make no sense: it has no payload, and this length. */
#define CHRON__LENGTH_WRONG SIZE_MAX

/* What CHRON_NOW stands for. */
static inline uint64_t chron__writer_now(chron_writer *w)
{
    if (w->clock == CHRON_CLOCK_COUNTER)
        return chron__counter_ns(&w->counter);
    return chron__clock_ns(w->clock == CHRON_CLOCK_COARSE);
}

/* May the owner append now? 0, or EPOISONED, ECLAIM. */
static inline int chron__writer_ready(chron_writer *w)
{
    if (__builtin_expect(chron__get32(&w->poisoned) != 0, 0)) /* [STOP] set by whoever met the failure */
        return chron__writer_fail_poisoned(w);
    if (__builtin_expect(w->claimed != 0, 0))
        return chron__fail(CHRON_ECLAIM, "a claim is open: publish or abort it first");
    return 0;
}

/* append.c: why a record is none. */
int chron__refuse_record(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
    __attribute__((cold, noinline));

/* Is it one that this queue holds? */
static inline int chron__is_record(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    return length <= w->max_payload && type_id <= CHRON_TYPE_MAX && (data || length == 0);
}

/* 0, or why not: ETOOBIG, EINVAL. */
static inline int chron__check_record(const chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    return __builtin_expect(chron__is_record(w, data, length, type_id), 1)
               ? 0
               : chron__refuse_record(w, data, length, type_id);
}

/*
 * A record of `bytes` is put to `at`: ask for as much of what comes 2 KiB behind it (0.5 to 1 KiB are too near), which the
 * keeper has prepared on another processor. A third of the owner's time in a log that grows is waiting for that.
 */
CHRON__PREFETCH chron__writer_ask_ahead(const uint8_t *at, uint64_t bytes)
{
    chron__prefetch_own(at + CHRON__AHEAD, bytes < CHRON__AHEAD_MAX ? bytes : CHRON__AHEAD_MAX);
}

/* Everything of a record but its commit word. */
static inline void chron__place_record(chron_writer *w, uint8_t *at, uint64_t seq, const void *data, uint32_t length,
                                       uint16_t type_id, uint8_t flags, uint64_t timestamp_ns)
{
    CHRON__ASSERT((size_t)(at - w->base) % CHRON__ALIGN == 0);
    CHRON__ASSERT(chron__load_relaxed_le32(at) == 0); /* [PUBLISH] nobody may see it before it is whole */
    chron__writer_ask_ahead(at, chron__record_bytes(length));
    chron__rec_put(at, seq, timestamp_ns, type_id, flags, w->epoch, data, length);
    CHRON__STEP("record: placed");
}

/* append.c: what was just placed in the `bytes` behind the tail is not to be believed: takes it back. EIO. */
int chron__refuse_source(chron_writer *w, uint64_t bytes) __attribute__((cold, noinline));

/* After the commit word: `count` records that end at `tail` are visible now. */
static inline __attribute__((always_inline)) int64_t chron__finish(chron_writer *w, uint64_t offset, uint64_t tail,
                                                                   uint64_t seq, uint32_t count)
{
    CHRON__ASSERT(seq == chron__get64(&w->next_seq) && offset == chron__get64(&w->tail));
    CHRON__ASSERT(tail % CHRON__ALIGN == 0 && tail > offset && tail <= w->edge);
    CHRON__ASSERT(w->edge <= w->seg->size - CHRON__RECORD_HEADER); /* END fits behind every record */
    CHRON__ASSERT(w->tally.records == seq + count - w->seg->base_seq);
    chron__set64(&w->tail, tail);
    chron__set_release64(&w->next_seq, seq + count); /* [TAIL] with chron__writer_sync */
    CHRON__STEP("record: published");
    if (__builtin_expect(offset >= w->next_block, 0))
        chron__writer_note_block(w, offset);
    chron__fence_signal(); /* [FAULT] with on_fault in guard.c */
    if (__builtin_expect(chron__get32(w->fault) != 0, 0))
        return chron__writer_faulted(w);
    if (__builtin_expect(chron__doorbell_ring(&w->bell), 0))
        w->wakes++;
    if (__builtin_expect(w->sync_every != 0, 0)) {
        w->unsynced += count;
        if (w->unsynced >= w->sync_every) {
            if (chron__writer_flush(w) < 0)
                return chron__writer_fail_unsynced(w, seq + count - 1u, count);
            w->unsynced = 0;
        }
    }
    return (int64_t)seq;
}

/* A record that was checked, and that there is room for. */
static inline __attribute__((always_inline)) int64_t chron__append_checked(chron_writer *w, const void *data,
                                                                           size_t length, uint16_t type_id,
                                                                           uint8_t flags, uint64_t timestamp_ns)
{
    uint64_t offset = chron__get64(&w->tail);
    uint64_t seq = chron__get64(&w->next_seq);
    uint8_t *at = w->base + offset;

    chron__place_record(w, at, seq, data, (uint32_t)length, type_id, flags, timestamp_ns);
    if (chron__is_faulted(data, length)) /* [FAULT] asked when it has been read */
        return chron__refuse_source(w, chron__record_bytes(length));
    chron__rec_publish(at, (uint32_t)length);
    chron__tally_add(&w->tally, timestamp_ns);
    w->payload_bytes += length;
    return chron__finish(w, offset, offset + chron__record_bytes(length), seq, 1);
}

/* One record: checked, made room for, appended. Its seq, or a failure. */
static inline __attribute__((always_inline)) int64_t chron__append(chron_writer *w, const void *data, size_t length,
                                                                   uint16_t type_id, uint8_t flags,
                                                                   uint64_t timestamp_ns)
{
    uint64_t bytes = chron__record_bytes(length);
    int status = chron__writer_ready(w);

    if (status < 0)
        return status;
    status = chron__check_record(w, data, length, type_id);
    if (status < 0)
        return status;
    if (__builtin_expect(chron__get64(&w->tail) + bytes > w->edge, 0)) {
        status = chron__writer_edge(w, bytes);
        if (status < 0)
            return status;
    }
    return chron__append_checked(w, data, length, type_id, flags, timestamp_ns);
}

#endif
