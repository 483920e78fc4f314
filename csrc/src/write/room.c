/* SPDX-License-Identifier: MIT */
/*
 * room.c - back-pressure and cleaning: may another segment be made, and what to delete or to wait for if not.
 */
#include "write/room.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/error.h"
#include "format/identity.h"
#include "queue/kept.h"
#include "queue/retention.h"
#include "write/reuse.h"
#include "write/shared.h"
#include "write/sync.h"

#define ROOM_POLL_NS 1000000u /* how often a blocked append looks whether readers went on: 1 ms */

#define KEPT_EVERY_NS 60000000000u /* how often quarantine/ is looked at: it changes with openings, and with age */

/* With clean_lock: what is in quarantine/, and what is too much of it. Fills out->quarantine_.... */
static int trim_kept(chron_writer *w, int delete_too, chron_cleanup *out)
{
    const chron__kept_limits limits = chron__kept_limits_of(&w->q, &w->retention, w->limit_segments);
    uint64_t now = chron__monotonic_ns();
    int status;

    CHRON__ASSERT_LOCKED(&w->clean_lock);
    memset(out, 0, sizeof *out);
    if (w->kept_due_ns && now < w->kept_due_ns)
        return 0;
    status = chron__kept_trim(&w->q, &limits, delete_too, out);
    if (status < 0)
        return status;
    chron__set64(&w->kept_bytes, out->quarantine_bytes);
    if (delete_too)
        w->kept_due_ns = now + KEPT_EVERY_NS;
    return 0;
}

void chron__writer_trim(chron_writer *w)
{
    chron_cleanup kept;

    if (!w->retention.automatic && w->limit_segments == 0)
        return;
    pthread_mutex_lock(&w->clean_lock);
    (void)trim_kept(w, w->recovery.quarantined != 0, &kept); /* the next cleanup tells what is the matter */
    pthread_mutex_unlock(&w->clean_lock);
}

/* Of several writers each may have made or deleted some. */
static int recount(chron_writer *w)
{
    chron__bases bases;
    int status = chron__queue_list(&w->q, &bases);

    if (status < 0)
        return status;
    pthread_mutex_lock(&w->lock);
    w->segments = (uint32_t)bases.count;
    pthread_mutex_unlock(&w->lock);
    chron__bases_free(&bases);
    return 0;
}

static chron__front front_of(chron_writer *w)
{
    chron__front front;
    chron__head head;

    pthread_mutex_lock(&w->lock);
    front = (chron__front){.active_base = w->seg->base_seq, .segments = w->segments};
    front.next_seq = chron__get64(&w->next_seq);
    pthread_mutex_unlock(&w->lock);
    if (w->shared) {
        chron__head_snapshot(w->q.meta.base, &head);
        front.active_base = head.base;
        front.next_seq = head.next_seq;
    }
    return front;
}

int chron__writer_clean(chron_writer *w, chron_cleanup *out, const chron__array *fates)
{
    chron_retention limits = w->retention;
    chron__front front;
    chron__cleaning cleaning = {
        .limits = &limits,
        .delete_too = 1,
        /* Where power loss matters, no position may fall back to before what was deleted. */
        .sync_positions = w->options.durability != CHRON_DURABILITY_NONE,
        .memory = w->shared ? NULL : &w->memory, /* others delete, too */
        .front = fates ? NULL : &front,
    };
    chron_cleanup kept;
    int status;

    pthread_mutex_lock(&w->clean_lock);
    CHRON__ASSERT_LOCKED(&w->clean_lock);
    status = trim_kept(w, 1, &kept);
    chron__kept_count(&limits, chron__get64(&w->kept_bytes));
    memset(out, 0, sizeof *out);
    if (status == 0 && w->shared)
        status = recount(w);
    front = front_of(w);
    if (chron__reuse_begin(w)) {
        cleaning.take = chron__reuse_take;
        cleaning.context = w;
    }
    if (status == 0)
        status = chron__retention_apply(&w->q, &cleaning, out, fates);
    chron__reuse_end(w, status, out->deleted_segments ? out->oldest_seq : 0);
    if (out->deleted_segments && !w->shared)
        chron__oldest_store(w->q.meta.base, out->oldest_seq);
    pthread_mutex_unlock(&w->clean_lock);
    chron__kept_report(&kept, out);
    if (out->deleted_segments) {
        chron__writer_count_segments(w, -(int32_t)out->deleted_segments);
        chron__writer_forgive(w, out->oldest_seq);
    }
    chron__add64(&w->deleted_segments, out->deleted_segments); /* [COUNT] */
    return status;
}

int chron_writer_cleanup(chron_writer *w, chron_cleanup *out, chron_segment_fate *fates, size_t capacity)
{
    chron_cleanup done;
    chron__array array;
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = chron__cleanup_check(out, fates, capacity, &array);
    if (status == 0) {
        pthread_mutex_lock(&w->clean_lock);
        w->kept_due_ns = 0; /* asked for: look now */
        pthread_mutex_unlock(&w->clean_lock);
        status = chron__writer_clean(w, &done, array.capacity ? &array : NULL);
        if (out)
            chron__struct_give(&done, sizeof done, out);
    }
    chron__writer_leave(w);
    return status;
}

/* -------------------------------------------------------------------------------- back-pressure */

int chron__writer_has_room(chron_writer *w)
{
    uint64_t by_bytes = w->options.max_bytes;
    uint64_t kept_bytes = chron__get64(&w->kept_bytes);
    uint64_t limit = w->limit_segments;
    int room;

    if (limit == 0)
        return 1;
    if (w->shared) {
        room = recount(w);
        if (room < 0)
            return room;
    }
    if (by_bytes) {
        by_bytes = by_bytes > kept_bytes ? (by_bytes - kept_bytes) / w->q.segment_size : 0;
        limit = by_bytes < limit ? by_bytes : limit;
        limit = limit < 2u ? 2u : limit; /* it could not go on with less */
    }
    pthread_mutex_lock(&w->lock);
    room = w->segments < limit;
    pthread_mutex_unlock(&w->lock);
    return room;
}

int chron__writer_fail_full(chron_writer *w)
{
    chron_segment_fate oldest = {.struct_size = sizeof oldest};
    char why[CHRON_READER_NAME_MAX + 240] = "no reader is registered that could go on";
    char cause[160] = "it is damaged";
    chron__array array;
    chron_cleanup done;
    int status = chron__array_take("chron_segment_fate", &oldest, 1, &array);

    if (status == 0)
        status = chron__writer_clean(w, &done, &array);
    if (status < 0)
        return status;
    if (oldest.sys_errno)
        chron__sys_reason(-oldest.sys_errno, cause, sizeof cause);
    if (oldest.reason == CHRON_KEPT_READER)
        (void)snprintf(why, sizeof why, "reader %s has not committed past the oldest", oldest.reader);
    else if (oldest.reason == CHRON_KEPT_DAMAGED)
        (void)snprintf(why, sizeof why, "the position of reader %s cannot be read: %s", oldest.reader, cause);
    return chron__fail(CHRON_EFULL, "the queue is full: %" PRIu64 " segments are allowed, and %s", w->limit_segments,
                       why);
}

int chron__writer_make_room(chron_writer *w, int64_t timeout_ns, void (*on_cancel)(void *writer))
{
    uint64_t start = chron__monotonic_ns();
    chron_cleanup done;
    int waited = 0;

    for (;;) {
        uint64_t passed;
        int status = chron__writer_has_room(w);

        if (status != 0)
            return status;
        status = chron__writer_clean(w, &done, NULL);
        if (status >= 0)
            status = chron__writer_has_room(w);
        if (status != 0)
            return status;
        if (!waited++)
            w->full_waits++;
        passed = chron__monotonic_ns() - start;
        if (timeout_ns >= 0 && passed >= (uint64_t)timeout_ns)
            return 0;
        chron__cancel_point(on_cancel, w);
        if (chron__sleep_ns(ROOM_POLL_NS) < 0)
            return chron__fail(CHRON_EINTR, "interrupted while waiting for readers to make room");
    }
}

static void leave(void *writer)
{
    chron__writer_leave(writer);
}

int chron_writer_wait_room(chron_writer *w, int64_t timeout_ns)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    /* As long as the current segment has room for another record, or a next one is there, nothing waits. */
    pthread_mutex_lock(&w->lock);
    status = w->next != NULL || w->spare != NULL || w->preparing == 2 ||
             (w->shared && chron__load_relaxed_le32(chron__word(w, CHRON__P_READY)) != 0); /* [TURN] advice */
    pthread_mutex_unlock(&w->lock);
    if (!status)
        status = chron__writer_make_room(w, timeout_ns, leave);
    chron__writer_leave(w);
    return status;
}
