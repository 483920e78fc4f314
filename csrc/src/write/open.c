/* SPDX-License-Identifier: MIT */
/*
 * open.c - opening and closing a writer. The order of an opening:
 *
 *   directory, writer's lock, birth if there is no queue (birth.c), queue.meta and its lock, survey and recovery
 *   (recovery.c), new epoch on disk, line in writer.lock, a segment if there is none, keeper
 *
 * The new epoch is on disk before its first record is written, so that a record of an epoch that a power
 * cut undid can never pass for one of the next.
 *
 * Invariants: nothing in the directory is changed before both locks are held and the survey has come to its verdict; an
 * opening that fails leaves no birth half done; a chron_writer that was given out holds both locks, and its epoch is above
 * all that were ever seen here.
 */
#define _POSIX_C_SOURCE 200809L /* threads */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "base/struct.h"
#include "format/bell.h"
#include "queue/tell.h"
#include "write/birth.h"
#include "write/flush.h"
#include "write/join.h"
#include "write/keeper.h"
#include "write/lock.h"
#include "write/prepare.h"
#include "write/room.h"
#include "write/reuse.h"
#include "write/shared.h"
#include "write/sync.h"
#include "write/takeover.h"

#define DEFAULT_MODE 0600u
#define OPEN_TRIES 100
#define LEAD_SHARE 32u                /* prewritten pages take this part of the memory at most, */
#define LEAD_MAX (128u * 1024 * 1024) /* and so many bytes */
#define DEFAULT_INTERVAL_MS 100u
#define DEFAULT_BATCH 1000u

static int check_limits(chron_writer *w, uint64_t segment_size)
{
    const chron_writer_options *o = &w->options;
    uint64_t by_bytes = o->max_bytes / segment_size;

    w->limit_segments = o->max_segments;
    if (o->max_bytes && (!w->limit_segments || by_bytes < w->limit_segments))
        w->limit_segments = by_bytes;
    if ((o->max_bytes || o->max_segments) && w->limit_segments < 2)
        return chron__fail(CHRON_EINVAL,
                           "back-pressure needs room for two segments at least (here %" PRIu64 " bytes "
                           "each): raise max_bytes or max_segments",
                           segment_size);
    return 0;
}

/* The caller's, or the defaults, which are all 0. */
static int take_options(const chron_writer_options *from, chron_writer *w)
{
    chron_writer_options *o = &w->options;
    int status = from ? chron__struct_take("chron_writer_options", from, o, sizeof *o) : 0;

    if (status == 0 && o->retention)
        status = chron__struct_take("chron_retention", o->retention, &w->retention, sizeof w->retention);
    o->retention = NULL; /* it is the caller's */
    return status;
}

static int check_options(chron_writer_options *o)
{
    const uint32_t known = CHRON_KEEPER | CHRON_CHECKED | CHRON_ALLOW_NETFS | CHRON_REPAIR | CHRON_MUST_EXIST |
                           CHRON_TORN_CUT | CHRON_TORN_SKIP | CHRON_SHARED | CHRON_REUSE;

    if (o->flags & ~known)
        return chron__fail(CHRON_EINVAL, "unknown flags 0x%x", (unsigned)(o->flags & ~known));
    if ((o->flags & CHRON_SHARED) && (o->flags & CHRON_REUSE))
        return chron__fail(CHRON_EINVAL,
                           "several writers do not use segments again: leave out CHRON_REUSE, or CHRON_SHARED");
    if ((o->flags & CHRON_TORN_CUT) && (o->flags & CHRON_TORN_SKIP))
        return chron__fail(CHRON_EINVAL, "what may be torn is either cut off or skipped: not both");
    if (o->segment_size == 0)
        o->segment_size = CHRON_SEGMENT_SIZE_DEFAULT;
    if (o->segment_size < CHRON_SEGMENT_SIZE_MIN || o->segment_size > (uint64_t)CHRON_SEGMENT_SIZE_MAX ||
        o->segment_size % CHRON_SEGMENT_SIZE_MIN)
        return chron__fail(CHRON_EINVAL, "segment_size %" PRIu64 " is not a multiple of 65536 from 65536 to %" PRIu64,
                           o->segment_size, (uint64_t)CHRON_SEGMENT_SIZE_MAX);
    if (o->first_seq > INT64_MAX)
        return chron__fail(CHRON_EINVAL, "first_seq %" PRIu64 " is above 2^63 - 1", o->first_seq);
    if (o->durability > CHRON_DURABILITY_ALWAYS)
        return chron__fail(CHRON_EINVAL, "durability %u does not exist", (unsigned)o->durability);
    if (o->clock > CHRON_CLOCK_COUNTER)
        return chron__fail(CHRON_EINVAL, "clock %u does not exist", (unsigned)o->clock);
    if (o->mode & ~0666u)
        return chron__fail(CHRON_EINVAL, "mode 0%o: only the bits of 0666 make sense for a queue's files",
                           (unsigned)o->mode);
    if (o->mode == 0)
        o->mode = DEFAULT_MODE;
    if (o->durability == CHRON_DURABILITY_INTERVAL) {
        if (!(o->flags & CHRON_KEEPER))
            return chron__fail(CHRON_EINVAL, "durability interval needs the keeper: add CHRON_KEEPER");
        if (o->durability_n == 0)
            o->durability_n = DEFAULT_INTERVAL_MS;
    }
    if (o->durability == CHRON_DURABILITY_BATCH && o->durability_n == 0)
        o->durability_n = DEFAULT_BATCH;
    return 0;
}

/* The directory, made if it may be; nothing in it is changed yet. */
static int open_directory(chron_writer *w, const chron__io *io, const char *path, chron__born *born)
{
    const chron_writer_options *o = &w->options;
    int status;

    if (!(o->flags & CHRON_MUST_EXIST)) {
        status = io->make_dir(io, -1, path, chron__birth_directory_mode(o->mode));
        born->directory = status == 0;
        if (status == -ENOENT)
            return chron__fail(CHRON_ENOQUEUE,
                               "cannot make the queue %s: the directory that it would lie in is missing", path);
        if (status < 0 && status != -EEXIST)
            return chron__fail_sys(status, "", "cannot make the directory %s", path);
    }
    status = chron__queue_open_dir(&w->q, io, path, o->flags);
    if (status < 0 || chron__birth_was(&w->q))
        return status;
    status = chron__birth_may(&w->q, path);
    if (status < 0 && chron__birth_was(&w->q))
        return 0; /* another creator was faster */
    if (status == -CHRON_ECORRUPT && (o->flags & CHRON_REPAIR))
        return 0; /* queue.meta is made anew, under the lock */
    if ((status == 0 || status == -CHRON_EINVAL) && (o->flags & CHRON_MUST_EXIST))
        return chron__fail(CHRON_ENOQUEUE, "there is no queue at %s: the directory has no queue.meta", path);
    return status;
}

/* Both locks, and queue.meta with all that belongs to it: made, if there is no queue yet. */
static int open_files(chron_writer *w, const char *path, chron__born *born)
{
    int status = chron__lock_take(w, path, &born->lock);

    if (status == 0 && (w->options.flags & CHRON_REPAIR))
        status = chron__birth_again(w, path);
    if (status == 0 && !chron__birth_was(&w->q)) {
        status = check_limits(w, w->options.segment_size); /* before a queue is made for nothing */
        if (status == 0)
            status = chron__birth(w, path, born);
    }
    if (status == 0)
        status = chron__lock_meta(w, path);
    if (status == 0)
        status = chron__lock_open_meta(w);
    return status;
}

static void set_up(chron_writer *w)
{
    const chron_writer_options *o = &w->options;
    uint64_t share = chron__descriptor_limit() / CHRON__BACKLOG_SHARE;

    w->max_payload = w->q.segment_size - chron__data_offset(w->q.segment_size) - 2u * CHRON__RECORD_HEADER;
    if (w->max_payload > CHRON_PAYLOAD_MAX)
        w->max_payload = CHRON_PAYLOAD_MAX;
    w->checked = (o->flags & CHRON_CHECKED) != 0;
    w->clock = o->clock;
    if (w->clock == CHRON_CLOCK_COUNTER)
        chron__counter_start(&w->counter);
    w->lead_max = chron__memory_bytes() / LEAD_SHARE;
    if (w->lead_max > LEAD_MAX)
        w->lead_max = LEAD_MAX;
    w->sync_every = o->durability == CHRON_DURABILITY_ALWAYS  ? 1u
                    : o->durability == CHRON_DURABILITY_BATCH ? o->durability_n
                                                              : 0u;
    w->backlog.limit = share == 0 ? 1u : share < CHRON__BACKLOG_MAX ? (size_t)share : CHRON__BACKLOG_MAX;
    chron__reuse_set_up(w);
}

static void set_up_shared(chron_writer *w)
{
    w->edge = 0;
    w->bell.is_light = 0; /* another of them may have said that readers need not */
    w->base = w->seg->map.base;
    w->fault = w->seg->map.fault;
    w->next_block = w->seg->data_offset;
}

/* 1: the directory went away meanwhile. */
static int try_open(chron_writer *w, const chron__io *io, const char *path, chron__born *born, int tries)
{
    const chron_writer_options *o = &w->options;
    int status = open_directory(w, io, path, born);

    if (status < 0)
        return status;
    if (o->durability != CHRON_DURABILITY_NONE && (w->q.fs & CHRON__FS_VOLATILE))
        return chron__fail(CHRON_ENOTDURABLE,
                           "%s lies on a file system in memory, which keeps nothing over a loss of "
                           "power: use a disk, or durability none",
                           path);
    w->path_for_errors = path;
    w->check_limits = check_limits;
    status = o->flags & CHRON_SHARED ? chron__join(w, path, born) : open_files(w, path, born);
    if (status == -CHRON_EREMOVED && tries < OPEN_TRIES)
        return 1; /* a creator that failed took the directory away: make it again */
    if (status == 0 && !w->shared)
        status = check_limits(w, w->q.segment_size);
    if (status == 0 && !w->shared)
        status = chron__take_over(w, path, born, 0);
    if (status == 0 && !w->shared)
        status = chron__lock_write_line(w);
    if (status < 0)
        return status;
    w->path_for_errors = NULL;
    set_up(w);
    if (w->shared)
        set_up_shared(w);
    w->keeper_wanted = (o->flags & CHRON_KEEPER) != 0;
    chron__writer_trim(w);
    if (o->durability == CHRON_DURABILITY_INTERVAL)
        return chron__keeper_start(w);
    chron__keeper_try(w);
    return 0;
}

static int open_writer(chron_writer *w, const chron__io *io, const char *path, chron__born *born)
{
    for (int tries = 0;; tries++) {
        int status = try_open(w, io, path, born, tries);

        if (status <= 0)
            return status;
        chron__queue_close(&w->q);
        memset(born, 0, sizeof *born);
    }
}

static void release_backlog(chron_writer *w)
{
    for (size_t i = 0; i < w->backlog.count; i++)
        w->q.io->close_file(w->q.io, w->backlog.at[i].fd);
    w->backlog.count = 0;
}

/* Everything but the keeper, which has stopped. `born` is what a failed opening has made; else NULL. */
static void destroy(chron_writer *w, const char *path, const chron__born *born)
{
    const int undo = born && !w->shared; /* of several writers another one may have come meanwhile */

    CHRON__ASSERT(!w->keeper_running && w->claimed == 0);
    chron__seg_release(w->seg);
    if (w->next) {
        chron__seg_release(w->next);
        (void)w->q.io->unlink(w->q.io, w->q.dir, CHRON__FILE_NEXT);
    }
    chron__seg_release(w->retired);
    chron__reuse_release(w);
    release_backlog(w);
    if (w->bell.map.base)
        chron__doorbell_close(&w->q, &w->bell);
    chron_bell_release(w->sync_bell);
    chron__retention_forget(&w->memory);
    chron__shared_free(w);
    if (undo && (w->writer_lock.map || w->writer_lock.fd >= 0))
        chron__birth_undo(w, born);
    chron__lock_release(w);
    chron__queue_close(&w->q);
    if (born && born->directory)
        (void)w->q.io->remove_dir(w->q.io, -1, path); /* if nobody has put anything into it since */
    pthread_cond_destroy(&w->keeper_wake);
    pthread_cond_destroy(&w->keeper_done);
    pthread_cond_destroy(&w->syncer_wake);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->sync_lock);
    pthread_mutex_destroy(&w->clean_lock);
}

/* One with nothing open. */
static chron_writer *new_writer(const chron__io *io, chron__tell *tell)
{
    chron_writer *w = calloc(1, sizeof *w);

    if (!w)
        return NULL;
    w->fork_count = chron__get32(&chron__fork_count);
    w->writer_lock.fd = -1;
    w->meta_lock.fd = -1;
    w->q.dir = -1;
    w->q.meta_fd = -1;
    w->q.io = io;
    w->tell = tell;
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->sync_lock, NULL);
    pthread_mutex_init(&w->clean_lock, NULL);
    chron__cond_init(&w->keeper_wake);
    chron__cond_init(&w->syncer_wake);
    pthread_cond_init(&w->keeper_done, NULL);
    return w;
}

typedef struct opening {
    chron_writer *w;
    const char *path;
    chron__born born;
} opening;

/* It failed, or its thread is cancelled while it waits for the lock. */
static void abandon(void *argument)
{
    opening *o = argument;

    destroy(o->w, o->path, &o->born);
    free(o->w);
}

int chron__writer_open_telling(const chron__io *io, const char *path, const chron_writer_options *options,
                               chron__tell *tell, chron_writer **out)
{
    opening o = {.path = path};
    int status;

    if (!path || !out)
        return chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    *out = NULL;
    chron__fork_watch();
    o.w = new_writer(io, tell);
    if (!o.w)
        return chron__fail(CHRON_ENOMEM, "no memory for a writer");
    o.w->on_cancel = abandon;
    o.w->opening = &o;
    status = take_options(options, o.w);
    if (status == 0)
        status = check_options(&o.w->options);
    if (status == 0)
        status = open_writer(o.w, io, path, &o.born);
    o.w->opening = NULL;
    o.w->tell = NULL; /* it is the caller's */
    if (status < 0)
        abandon(&o);
    else
        *out = o.w;
    return status;
}

int chron__writer_open_with(const chron__io *io, const char *path, const chron_writer_options *options,
                            chron_writer **out)
{
    return chron__writer_open_telling(io, path, options, NULL, out);
}

int chron_writer_open(const char *path, const chron_writer_options *options, chron_writer **out)
{
    return chron__writer_open_with(&chron__io_posix, path, options, out);
}

/* ------------------------------------------------------------------------------------------- close */

/* In a forked child: give back memory and the child's own descriptors; leave all that is the parent's. */
static void forget(chron_writer *w)
{
    chron__seg_forget(w->seg);
    chron__seg_forget(w->next);
    chron__seg_forget(w->retired);
    chron__reuse_forget(w);
    chron__map_forget(&w->bell.map);
    chron__map_forget(&w->q.meta);
    release_backlog(w);
    if (w->shared) {
        chron__seg_forget(w->shared->next);
        chron__seg_forget(w->shared->left);
        w->shared->next = w->shared->left = NULL;
        chron__shared_free(w);
    }
    chron_bell_release(w->sync_bell);
    chron__retention_forget(&w->memory);
    if (w->meta_lock.fd >= 0)
        w->q.io->close_file(w->q.io, w->meta_lock.fd);
    if (w->writer_lock.fd >= 0)
        w->q.io->close_file(w->q.io, w->writer_lock.fd); /* closing a copy does not give up the lock */
    chron__queue_close(&w->q);
}

/* Nothing was promised; but what was appended had better not wait in memory for long. */
static void begin_writeback(const chron_writer *w)
{
    if (w->q.fs & CHRON__FS_VOLATILE)
        return;
    for (size_t i = 0; i < w->backlog.count; i++)
        w->q.io->start_sync(w->q.io, w->backlog.at[i].fd);
    w->q.io->start_sync(w->q.io, w->seg->fd);
}

static int last_words(chron_writer *w)
{
    int status = 0;

    if (w->claimed && !w->shared)
        memset(w->base + chron__get64(&w->tail), 0, (size_t)w->claimed);
    w->claimed = 0;
    if (chron__get32(&w->poisoned)) /* [STOP] the queue stays marked as not closed */
        return w->was_told ? 0 : chron__writer_fail_poisoned(w);
    if (w->options.durability != CHRON_DURABILITY_NONE)
        status = chron__writer_flush(w);
    if (status < 0)
        return status;
    if (w->shared) {
        if (w->options.durability == CHRON_DURABILITY_NONE)
            begin_writeback(w);
        return chron__leave(w);
    }
    w->state.flags |= CHRON__SLOT_CLEAN;
    w->state.next_seq = chron__get64(&w->next_seq);
    if (w->options.durability == CHRON_DURABILITY_NONE)
        begin_writeback(w);
    return chron__writer_store_state(w, w->options.durability != CHRON_DURABILITY_NONE);
}

/* With `closed` set the pointers in the handle are stale, and nothing looks at them any more. */
int chron_writer_shut(chron_writer *w)
{
    int status = 0;

    if (!w || chron__get_acquire32(&w->closed)) /* [BUSY] with the end of this function */
        return 0;
    if (w->fork_count != chron__get32(&chron__fork_count)) {
        forget(w);
    } else {
        status = chron__writer_enter(w);
        if (status < 0)
            return status;
        chron__keeper_stop(w);
        status = last_words(w);
        destroy(w, NULL, NULL);
    }
    chron__set_release32(&w->closed, 1); /* [BUSY] with chron__writer_enter */
    return status;
}

int chron_writer_close(chron_writer *w)
{
    int status = chron_writer_shut(w);

    if (status != -CHRON_EBUSY)
        free(w);
    return status;
}
