/* SPDX-License-Identifier: MIT */
/* writer.c - what all of write/ shares: telling of failures, waking the keeper, index entries; and what a writer says of itself. */
#include "write/writer.h"

#include <inttypes.h>
#include <string.h>

#include "base/struct.h"

#include "base/assert.h"
#include "format/identity.h"

int chron__writer_fail_poisoned(chron_writer *w)
{
    chron_error why;

    w->was_told = 1;
    pthread_mutex_lock(&w->lock);
    why = w->failure;
    pthread_mutex_unlock(&w->lock);
    (void)chron__fail(CHRON_EPOISONED,
                      "this writer can no longer vouch for its data: %.300s. Close it and open the queue again, which "
                      "recovers what is on disk",
                      why.code ? why.text : "the disk failed under its mappings");
    chron__error()->sys_errno = why.sys_errno;
    memcpy(chron__error()->file, why.file, sizeof why.file);
    return -CHRON_EPOISONED;
}

/* The pages under the current segment were replaced by zeros: what went there is gone. */
int chron__writer_faulted(chron_writer *w)
{
    chron__set32(&w->poisoned, 1);
    w->was_told = 1;
    (void)chron__seg_fail_fault(w->seg, CHRON__REOPEN);
    chron__error()->code = CHRON_EPOISONED;
    return -CHRON_EPOISONED;
}

int chron__writer_fail_unsynced(chron_writer *w, uint64_t seq, uint64_t count)
{
    chron_error why = *chron_last_error();

    if (chron__get32(&w->poisoned)) /* [STOP] */
        w->was_told = 1;
    (void)chron__fail(CHRON_EUNSYNCED,
                      "records up to seq %" PRIu64 " are appended, but not known to be on disk: %.350s", seq, why.text);
    chron__error()->sys_errno = why.sys_errno;
    chron__error()->seq = seq;
    chron__error()->appended = count;
    memcpy(chron__error()->file, why.file, sizeof why.file);
    return -CHRON_EUNSYNCED;
}

void chron__writer_note_block(chron_writer *w, uint64_t offset)
{
    uint64_t block = chron__seg_block_of(w->seg, offset);

    if (offset < w->next_block)
        return;
    CHRON__ASSERT(chron__load_relaxed_le32(w->base + offset) != 0); /* [INDEX] what it points at is visible */
    chron__seg_index_set(w->seg, block, offset);
    w->next_block = w->seg->data_offset + (block + 1u) * CHRON__STRIDE;
}

void chron__writer_count_segments(chron_writer *w, int32_t change)
{
    pthread_mutex_lock(&w->lock);
    w->segments += (uint32_t)change;
    chron__word_store(w->q.meta.base, offsetof(chron__words, segments), w->segments);
    pthread_mutex_unlock(&w->lock);
}

void chron__writer_note_failure(chron_writer *w, int status)
{
    chron__add64(&w->keeper_errors, 1); /* [COUNT] */
    chron__set32(&w->keeper_last_error, (uint32_t)-status);
}

void chron__writer_kick(chron_writer *w)
{
    if (!chron__get32(&w->keeper_asleep)) /* [STOP] advice: a kick that is missed comes 64 KiB later */
        return;
    pthread_mutex_lock(&w->lock);
    pthread_cond_signal(&w->keeper_wake);
    pthread_mutex_unlock(&w->lock);
}

/* ----------------------------------------------------------------------------------- of itself */

uint64_t chron_writer_payload_max(const chron_writer *w)
{
    return w ? w->max_payload : 0;
}

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
    return w ? chron__clock_ns(w->clock == CHRON_CLOCK_COARSE) : 0;
}

int chron_writer_recovery_get(const chron_writer *w, chron_recovery *out)
{
    int status = w ? chron__struct_check("chron_recovery", out) : chron__fail(CHRON_EINVAL, "the writer is NULL");

    if (status == 0)
        chron__struct_give(&w->recovery, sizeof w->recovery, out);
    return status;
}

int chron_writer_stats_get(const chron_writer *w, chron_writer_stats *out)
{
    chron_writer_stats stats = {0};
    int status = w ? chron__struct_check("chron_writer_stats", out) : chron__fail(CHRON_EINVAL, "the writer is NULL");

    if (status < 0)
        return status;
    stats.keeper_running = (uint32_t)w->keeper_running;
    stats.records = chron__get64(&w->next_seq) - w->first_seq;
    stats.payload_bytes = w->payload_bytes;
    stats.rolls = w->rolls;
    stats.rolls_unprepared = w->rolls_unprepared;
    stats.full_waits = w->full_waits;
    stats.syncs = chron__get64(&w->syncs);
    stats.wakes = w->wakes;
    stats.touched_bytes = chron__get64(&w->touched_bytes);
    stats.deleted_segments = chron__get64(&w->deleted_segments);
    stats.keeper_errors = chron__get64(&w->keeper_errors);
    stats.keeper_last_error = (int64_t)chron__get32(&w->keeper_last_error);
    chron__struct_give(&stats, sizeof stats, out);
    return 0;
}
