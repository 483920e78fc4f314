/* SPDX-License-Identifier: MIT */
/*
 * takeover.c - what an opening does that nobody else has the queue open with: the log is recovered, and goes on with a new
 * epoch, which is on disk before its first record is written. So a record of an epoch that a power cut undid can never
 * pass for one of the next. Under the exclusive lock.
 */
#include "write/takeover.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/identity.h"
#include "format/shared.h"
#include "queue/plan.h"
#include "write/prepare.h"
#include "write/recovery.h"
#include "write/reuse.h"
#include "write/roll.h"
#include "write/sync.h"

static int first_segment(chron_writer *w, uint64_t prev_base)
{
    static const chron__tally nothing = {0};
    char name[CHRON__NAME_BYTES];
    uint64_t base_seq = chron__get64(&w->next_seq);
    chron__seg *seg;
    int status = chron__writer_make_next(w, &seg);

    if (status < 0)
        return status;
    chron__seg_write_header(&w->q, seg, base_seq, prev_base, w->full_epoch, chron__clock_ns(0));
    chron__segment_name(base_seq, name);
    status = w->q.io->rename(w->q.io, w->q.dir, CHRON__FILE_NEXT, w->q.dir, name);
    if (status < 0) {
        chron__seg_release(seg);
        (void)w->q.io->unlink(w->q.io, w->q.dir, CHRON__FILE_NEXT);
        return chron__fail_sys(status, name, "cannot give the first segment its name %s", name);
    }
    chron__writer_count_segments(w, 1);
    if (w->segments == 1)
        chron__oldest_store(w->q.meta.base, base_seq);
    chron__writer_enter_segment(w, seg, seg->data_offset, &nothing);
    return 0;
}

/* The epoch of this writer: above all that were ever seen. A damaged slot may have hidden the newest; the records tell. */
static int set_epoch(chron_writer *w, const chron__recovered *found, uint32_t reserve)
{
    w->full_epoch = w->state.epoch + 1u;
    if (found->epoch >= (uint32_t)w->full_epoch)
        w->full_epoch += (uint64_t)(found->epoch - (uint32_t)w->full_epoch) + 1u;
    if (w->full_epoch + reserve > UINT32_MAX || found->next_seq > INT64_MAX)
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "epoch %" PRIu64 " or seq %" PRIu64 " is beyond what this format can count: no "
                                     "queue gets there by itself, so queue.meta or the name of a segment is damaged",
                                     w->full_epoch, found->next_seq),
                         CHRON__FILE_META, CHRON__SLOT_A, found->next_seq);
    CHRON__ASSERT(w->full_epoch > w->state.epoch && (uint32_t)w->full_epoch > found->epoch);
    w->epoch = (uint32_t)w->full_epoch;
    return 0;
}

/*
 * The state that ends the recovery: the new epoch, and where the queue lies now. Only with it does the next opening judge by
 * what this writer does; and it is on disk before the first record of the new epoch.
 */
static int begin_epoch(chron_writer *w, uint32_t reserve)
{
    chron__words words = {.epoch = w->epoch, .segments = w->segments};
    int status = chron__writer_sync_state(w); /* before the slot is touched that may be the one on disk */

    if (status < 0)
        return status;
    w->state.durable_next = chron__get64(&w->durable_next);
    w->state.epoch = w->full_epoch + reserve;
    w->state.flags = 0;
    w->state.next_seq = 0;
    status = chron__writer_store_state(w, 1);
    CHRON__STEP("open: epoch stored");
    if (w->memory.known)
        chron__oldest_store(w->q.meta.base, w->memory.oldest_base);
    chron__words_store(w->q.meta.base, &words);
    CHRON__STEP("open: words stored");
    return status;
}

/*
 * Several writers died, the last of them without a word: what one of them was about to do stands in their words. What lies
 * between the tail and the intent nobody has seen, of a roll nothing but END.
 */
static void take_shared_words(const chron_writer *w, chron__wish *wish)
{
    chron__head head;

    if (!chron__shared_valid(w->q.meta.base, &w->state) || wish->whence != CHRON__FROM_HERE)
        return;
    chron__head_load(w->q.meta.base, &head);
    wish->words =
        (chron__words){.epoch = (uint32_t)w->state.epoch, .base = (uint32_t)head.base, .segments = UINT32_MAX};
    wish->words.intent = (uint32_t)(head.tail / CHRON__ALIGN);
    if (head.intent == 0)
        return;
    wish->words.group = wish->words.intent;
    wish->words.intent = head.intent == CHRON__INTENT_ROLL ? (uint32_t)(w->q.segment_size / CHRON__ALIGN) : head.intent;
}

static void take_wish(const chron_writer *w, chron__wish *wish)
{
    const uint32_t flags = w->options.flags;

    wish->state = w->state;
    wish->whence = chron__state_whence(w->q.meta.base, &w->state, &w->place);
    (void)chron__words_load(w->q.meta.base, w->state.epoch, &wish->words);
    take_shared_words(w, wish);
    wish->repair = (flags & CHRON_REPAIR) != 0;
    wish->tell = w->tell;
    wish->torn = flags & CHRON_TORN_CUT    ? CHRON__TORN_CUT
                 : flags & CHRON_TORN_SKIP ? CHRON__TORN_SKIP
                                           : CHRON__TORN_ASK;
}

static int find_prepared(void *context, const char *name)
{
    if (!chron__shared_is_name(name))
        return 0;
    (void)snprintf(context, CHRON__NAME_BYTES, "%s", name);
    return 1;
}

/* Next segments that several writers had prepared, and died. Best effort: they are in nobody's way. */
static void remove_prepared(const chron_writer *w)
{
    char name[CHRON__NAME_BYTES];

    while (w->q.io->list(w->q.io, w->q.dir, find_prepared, name) == 1)
        if (w->q.io->unlink(w->q.io, w->q.dir, name) < 0)
            return;
}

/* What is in the log is found out, and told to who wants to know; nothing is changed before that. Then it is put right. */
static int recover(chron_writer *w, chron__born *born, chron__recovered *found)
{
    chron__wish wish = {.repair = 0};
    chron__survey s;
    int status;

    memset(found, 0, sizeof *found);
    take_wish(w, &wish);
    status = chron__survey_make(&w->q, &wish, &s);
    if (status == 0 && w->tell)
        status = chron__plan_offer(&s, w->tell);
    if (status == 0 && !born->queue)
        status = chron__birth_complete(w, born);
    if (status == 0)
        status = chron__recover(&s, w->options.mode, found);
    if (status == 0)
        remove_prepared(w);
    chron__survey_free(&s);
    return status;
}

/* Recovery, the new epoch, and the segment to append to. */
int chron__take_over(chron_writer *w, const char *path, chron__born *born, uint32_t reserve)
{
    chron__recovered found;
    int status = recover(w, born, &found);

    if (status == 0) /* one that is refused changes nothing */
        status = set_epoch(w, &found, reserve);
    if (status < 0) {
        chron__seg_release(found.seg);
        return status;
    }
    (void)w->q.io->unlink(w->q.io, w->q.dir, CHRON__FILE_SPARE); /* what it holds is not to meet its seqs again */
    chron__set32(&w->dir_dirty, 1); /* the writer before may have died before it put its names on disk */
    w->segments = (uint32_t)found.segments;
    w->memory.known = found.segments > 0;
    w->memory.oldest_base = found.oldest_base;
    w->unsynced_base = found.unsynced_base;
    if (!found.seg && born->queue) /* nothing was ever in it; the first segment's name remembers */
        found.next_seq = w->options.first_seq;
    chron__set64(&w->next_seq, found.next_seq);
    chron__set64(&w->durable_next, found.durable_next);
    w->first_seq = found.next_seq;
    found.report.epoch = w->full_epoch;
    w->recovery = found.report;
    w->inherited_base = CHRON_SEQ_NONE;
    w->seg = found.seg; /* so that it is released, whatever comes */
    status = chron__reuse_adopt(w, path);
    if (status == 0)
        status = begin_epoch(w, reserve);
    if (status == 0 && !found.seg) {
        status = first_segment(w, found.prev_base);
        born->segment = status == 0 && born->queue;
        return status;
    }
    if (status < 0)
        return status;
    if (found.next_seq > found.durable_next && found.tail > found.seg->data_offset) {
        w->inherited_base = found.seg->base_seq;
        w->inherited_end = found.tail;
    }
    chron__writer_enter_segment(w, found.seg, found.tail, &found.tally);
    return 0;
}
