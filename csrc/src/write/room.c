/* SPDX-License-Identifier: MIT */
/*
 * room.c - back-pressure and cleaning: may another segment be made, and what to delete or to wait for if not.
 */
#include "write/room.h"

#include "base/assert.h"
#include "base/error.h"
#include "queue/retention.h"
#include "write/sync.h"

#define ROOM_POLL_NS 1000000u /* how often a blocked append looks whether readers went on: 1 ms */

int chron__writer_clean(chron_writer *w, chron_cleanup *out, const chron__array *fates)
{
    chron__front front;
    chron__cleaning cleaning = {
        .limits = &w->retention,
        .delete_too = 1,
        /* Where power loss matters, no position may fall back to before what was deleted. */
        .sync_positions = w->options.durability != CHRON_DURABILITY_NONE,
        .memory = &w->memory,
        .front = fates ? NULL : &front,
    };
    int status;

    pthread_mutex_lock(&w->clean_lock);
    CHRON__ASSERT_LOCKED(&w->clean_lock);
    pthread_mutex_lock(&w->lock);
    front = (chron__front){.active_base = w->seg->base_seq, .segments = w->segments};
    front.next_seq = chron__get64(&w->next_seq);
    pthread_mutex_unlock(&w->lock);
    status = chron__retention_apply(&w->q, &cleaning, out, fates);
    pthread_mutex_unlock(&w->clean_lock);
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
        status = chron__writer_clean(w, &done, &array);
        if (out)
            chron__struct_give(&done, sizeof done, out);
    }
    chron__writer_leave(w);
    return status;
}

/* -------------------------------------------------------------------------------- back-pressure */

int chron__writer_has_room(chron_writer *w)
{
    int room;

    if (w->limit_segments == 0)
        return 1;
    pthread_mutex_lock(&w->lock);
    room = w->segments < w->limit_segments;
    pthread_mutex_unlock(&w->lock);
    return room;
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
    status = w->next != NULL;
    pthread_mutex_unlock(&w->lock);
    if (!status)
        status = chron__writer_make_room(w, timeout_ns, leave);
    chron__writer_leave(w);
    return status;
}
