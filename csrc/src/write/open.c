/* SPDX-License-Identifier: MIT */
/*
 * open.c - opening and closing a writer. The order of an opening:
 *
 *   directory, writer's lock, queue.meta, doorbell, recovery, new epoch on disk, line in writer.lock,
 *   first segment if there is none, keeper
 *
 * The new epoch is on disk before its first record is written, so that a record of an epoch that a power
 * cut undid can never pass for one of the next.
 */
#define _POSIX_C_SOURCE 200809L /* threads */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "base/struct.h"
#include "format/bell.h"
#include "format/segment.h"
#include "write/keeper.h"
#include "write/prepare.h"
#include "write/recovery.h"
#include "write/roll.h"
#include "write/sync.h"

#define DEFAULT_MODE 0600u
#define DEFAULT_INTERVAL_MS 100u
#define DEFAULT_BATCH 1000u
#define LOCK_LINE_BYTES 256 /* always as long: rewriting it needs no room on a full disk */
#define LOCK_LINE_TRIES 50
#define LOCK_LINE_WAIT_NS 2000000u

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
    const uint32_t known = CHRON_KEEPER | CHRON_CHECKED | CHRON_ALLOW_NETFS | CHRON_REPAIR | CHRON_MUST_EXIST;

    if (o->flags & ~known)
        return chron__fail(CHRON_EINVAL, "unknown flags 0x%x", (unsigned)(o->flags & ~known));
    if (o->segment_size == 0)
        o->segment_size = CHRON_SEGMENT_SIZE_DEFAULT;
    if (o->segment_size < CHRON_SEGMENT_SIZE_MIN || o->segment_size > (uint64_t)CHRON_SEGMENT_SIZE_MAX ||
        o->segment_size % CHRON_SEGMENT_SIZE_MIN)
        return chron__fail(CHRON_EINVAL, "segment_size %" PRIu64 " is not a multiple of 65536 from 65536 to %" PRIu64,
                           o->segment_size, (uint64_t)CHRON_SEGMENT_SIZE_MAX);
    if (o->durability > CHRON_DURABILITY_ALWAYS)
        return chron__fail(CHRON_EINVAL, "durability %u does not exist", (unsigned)o->durability);
    if (o->clock > CHRON_CLOCK_COARSE)
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

/* Directories get x where files get r. */
static unsigned directory_mode(unsigned mode)
{
    return mode | (mode & 0444u) >> 2;
}

/* What may lie in a directory that becomes a queue: the remains of a creation that was cut off. */
static int is_foreign(void *context, const char *name)
{
    size_t length = strlen(name);
    uint64_t base_seq;

    (void)context;
    if (chron__segment_name_parse(name, &base_seq))
        return 2;
    if (strcmp(name, CHRON__FILE_LOCK) == 0 || strcmp(name, CHRON__FILE_DOORBELL) == 0 ||
        strcmp(name, CHRON__DIR_READERS) == 0 || strcmp(name, CHRON__DIR_QUARANTINE) == 0 ||
        (length > 4 && strcmp(name + length - 4, ".tmp") == 0))
        return 0;
    return 1;
}

static int has_meta(const chron__queue *q)
{
    int fd = q->io->open_file(q->io, q->dir, CHRON__FILE_META, CHRON__OPEN_READ, 0);

    if (fd >= 0)
        q->io->close_file(q->io, fd);
    return fd != -ENOENT;
}

/* The directory, made if it may be; nothing in it is changed yet. */
static int open_directory(chron_writer *w, const chron__io *io, const char *path)
{
    const chron_writer_options *o = &w->options;
    int status;

    if (!(o->flags & CHRON_MUST_EXIST)) {
        status = io->make_dir(io, -1, path, directory_mode(o->mode));
        if (status < 0 && status != -EEXIST)
            return chron__fail_sys(status, "", "cannot make the directory %s", path);
    }
    status = chron__queue_open_dir(&w->q, io, path, o->flags);
    if (status < 0 || has_meta(&w->q))
        return status;
    if (o->flags & CHRON_MUST_EXIST)
        return chron__fail(CHRON_ENOQUEUE, "there is no queue at %s: the directory has no queue.meta", path);
    status = io->list(io, w->q.dir, is_foreign, NULL);
    if (status == 2)
        return chron__fail(CHRON_ECORRUPT, "%s has segments but no queue.meta: restore it", path);
    if (status == 1)
        return chron__fail(CHRON_EINVAL, "%s is not a queue, and not empty: choose another directory", path);
    return status < 0 ? chron__fail_sys(status, "", "cannot list %s", path) : 0;
}

static int take_lock(chron_writer *w, const char *path)
{
    const chron__io *io = w->q.io;
    chron__writer_line line;
    int status;
    int fd = io->open_file(io, w->q.dir, CHRON__FILE_LOCK, CHRON__OPEN_CREATE, w->options.mode);

    if (fd < 0)
        return chron__fail_sys(fd, CHRON__FILE_LOCK, "cannot open the writer's lock of %s", path);
    status = io->lock(io, fd, &w->writer_lock);
    if (status == 0)
        return 0;
    io->close_file(io, fd);
    if (status != -EAGAIN)
        return chron__fail_sys(status, CHRON__FILE_LOCK, "cannot take the writer's lock of %s", path);
    /* The holder writes its line a moment after it has the lock. */
    for (int i = 0; i < LOCK_LINE_TRIES; i++) {
        chron__queue_writer_line(&w->q, &line);
        if (line.pid > 0 || chron__sleep_ns(LOCK_LINE_WAIT_NS) < 0)
            break;
    }
    status = chron__fail(CHRON_EWRITER, "process %" PRId64 " has %s open for writing: a queue has one writer at a time",
                         line.pid, path);
    chron__error()->pid = line.pid;
    return status;
}

/*
 * A lock file invites people to delete it, which takes the lock along: the next writer makes a new one. So queue.meta,
 * which nobody deletes, is locked as well.
 */
static int lock_meta(chron_writer *w, const char *path)
{
    const chron__io *io = w->q.io;
    int fd = io->open_file(io, w->q.dir, CHRON__FILE_META, CHRON__OPEN_WRITE, 0);
    int status = fd;

    if (fd >= 0) {
        status = io->lock(io, fd, &w->meta_lock);
        if (status < 0)
            io->close_file(io, fd);
    }
    if (status == -EAGAIN)
        return chron__fail(CHRON_EWRITER,
                           "some process has %s open for writing, though its writer.lock was deleted: a queue has one "
                           "writer at a time",
                           path);
    return status < 0 ? chron__fail_sys(status, CHRON__FILE_META, "cannot lock queue.meta of %s", path) : 0;
}

static int write_lock_line(chron_writer *w)
{
    const chron__io *io = w->q.io;
    char host[64];
    char text[LOCK_LINE_BYTES + 1];
    int64_t status;
    int length;
    int fd;

    chron__hostname(host, sizeof host);
    memset(text, ' ', sizeof text);
    length = snprintf(text, sizeof text, "pid %" PRId64 " host %s start %" PRIu64 " epoch %" PRIu64, chron__pid(),
                      host[0] ? host : "-", chron__clock_ns(0), w->full_epoch);
    text[length] = ' ';
    text[LOCK_LINE_BYTES - 1] = '\n';
    fd = io->open_file(io, w->q.dir, CHRON__FILE_LOCK, CHRON__OPEN_WRITE, 0);
    status = fd;
    if (fd >= 0) {
        status = io->write_at(io, fd, text, LOCK_LINE_BYTES, 0);
        io->close_file(io, fd);
    }
    return status < 0 ? chron__fail_sys((int)status, CHRON__FILE_LOCK, "cannot write the line in writer.lock") : 0;
}

/* The queue's own name on disk, before queue.meta makes a queue of the directory. */
static int sync_parent(const chron_writer *w, const char *path)
{
    const chron__io *io = w->q.io;
    int parent = io->open_dir(io, w->q.dir, "..");
    int status = parent == -EACCES ? 0 : parent; /* who may not read that directory cannot sync it either */

    if (parent >= 0) {
        status = io->sync_dir(io, parent);
        io->close_file(io, parent);
    }
    return status < 0 ? chron__fail_sys(status, "", "cannot put the directory that %s lies in on disk", path) : 0;
}

/* queue.meta, the two directories, the doorbell: made if they are missing. */
static int open_files(chron_writer *w, const char *path)
{
    static const char *const directories[] = {CHRON__DIR_READERS, CHRON__DIR_QUARANTINE};
    const chron__io *io = w->q.io;
    int status = 0;

    if (!has_meta(&w->q)) {
        status = sync_parent(w, path);
        if (status == 0)
            status = chron__queue_create_meta(&w->q, w->options.segment_size, w->options.mode);
    }
    if (status == 0)
        status = lock_meta(w, path);
    if (status == 0)
        status = chron__queue_open_meta(&w->q, path, 1);
    for (size_t i = 0; status == 0 && i < sizeof directories / sizeof *directories; i++) {
        status = io->make_dir(io, w->q.dir, directories[i], directory_mode(w->options.mode));
        if (status == -EEXIST)
            status = 0;
        else if (status < 0)
            status = chron__fail_sys(status, directories[i], "cannot make the directory %s", directories[i]);
    }
    if (status == 0)
        status = chron__doorbell_create(&w->q, w->options.mode, &w->bell);
    if (status == 0 && !chron__queue_state(&w->q, &w->state))
        status = chron__at(chron__fail(CHRON_ECORRUPT, "both copies of the writer's state in queue.meta are damaged: "
                                                       "restore the file"),
                           CHRON__FILE_META, CHRON__SLOT_A, CHRON_SEQ_NONE);
    return status;
}

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
    chron__writer_enter_segment(w, seg, seg->data_offset, &nothing);
    return 0;
}

/* Recovery, the new epoch, and the segment to append to. */
static int take_over(chron_writer *w)
{
    chron__recovered found;
    int status = chron__recover(&w->q, &w->state, (w->options.flags & CHRON_REPAIR) != 0, &found);

    if (status < 0)
        return status;
    CHRON__ASSERT(found.next_seq >= w->state.durable_next || (w->options.flags & CHRON_REPAIR));
    if (found.seg)
        chron__writer_enter_segment(w, found.seg, found.tail, &found.tally);
    w->unsynced_base = found.unsynced_base;
    chron__set32(&w->dir_dirty, 1); /* the writer before may have died before it put its names on disk */
    chron__set64(&w->next_seq, found.next_seq);
    w->first_seq = found.next_seq;
    /* Only repair can have cut below the mark. */
    if (w->state.durable_next > found.next_seq)
        w->state.durable_next = found.next_seq;
    chron__set64(&w->durable_next, w->state.durable_next);
    w->full_epoch = w->state.epoch + 1u;
    /* A damaged slot may have hidden the newest epoch; the records tell. */
    if (found.epoch >= (uint32_t)w->full_epoch)
        w->full_epoch += (uint64_t)(found.epoch - (uint32_t)w->full_epoch) + 1u;
    if (w->full_epoch > UINT32_MAX || found.next_seq > INT64_MAX)
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "epoch %" PRIu64 " or seq %" PRIu64 " is beyond what this format can count: no "
                                     "queue gets there by itself, so queue.meta or the name of a segment is damaged",
                                     w->full_epoch, found.next_seq),
                         CHRON__FILE_META, CHRON__SLOT_A, found.next_seq);
    CHRON__ASSERT(w->full_epoch > w->state.epoch && (uint32_t)w->full_epoch > found.epoch);
    w->epoch = (uint32_t)w->full_epoch;
    found.report.epoch = w->full_epoch;
    w->recovery = found.report;
    w->state.epoch = w->full_epoch;
    w->state.flags = 0;
    w->state.next_seq = 0;
    status = chron__writer_store_state(w, 1);
    CHRON__STEP("open: epoch stored");
    if (status == 0 && !found.seg)
        status = first_segment(w, found.prev_base);
    return status;
}

static int open_writer(chron_writer *w, const chron__io *io, const char *path)
{
    const chron_writer_options *o = &w->options;
    int status = open_directory(w, io, path);

    if (status < 0)
        return status;
    if (o->durability != CHRON_DURABILITY_NONE && (w->q.fs & CHRON__FS_VOLATILE))
        return chron__fail(CHRON_ENOTDURABLE,
                           "%s lies on a file system in memory, which keeps nothing over a loss of "
                           "power: use a disk, or durability none",
                           path);
    if (!has_meta(&w->q))
        status = check_limits(w, o->segment_size); /* before a queue is made for nothing */
    if (status == 0)
        status = take_lock(w, path);
    if (status == 0)
        status = write_lock_line(w); /* at once: whoever is refused meanwhile wants to know by whom */
    if (status == 0)
        status = open_files(w, path);
    if (status == 0)
        status = check_limits(w, w->q.segment_size);
    if (status == 0)
        status = take_over(w);
    if (status == 0)
        status = write_lock_line(w);
    if (status < 0)
        return status;
    w->max_payload = w->q.segment_size - chron__data_offset(w->q.segment_size) - 2u * CHRON__RECORD_HEADER;
    if (w->max_payload > CHRON_PAYLOAD_MAX)
        w->max_payload = CHRON_PAYLOAD_MAX;
    w->checked = (o->flags & CHRON_CHECKED) != 0;
    w->coarse_clock = o->clock == CHRON_CLOCK_COARSE;
    w->sync_every = o->durability == CHRON_DURABILITY_ALWAYS  ? 1u
                    : o->durability == CHRON_DURABILITY_BATCH ? o->durability_n
                                                              : 0u;
    return o->flags & CHRON_KEEPER ? chron__keeper_start(w) : 0;
}

/* Everything but the keeper, which has stopped. */
static void destroy(chron_writer *w)
{
    CHRON__ASSERT(!w->keeper_running && w->claimed == 0);
    chron__seg_release(w->seg);
    if (w->next) {
        chron__seg_release(w->next);
        (void)w->q.io->unlink(w->q.io, w->q.dir, CHRON__FILE_NEXT);
    }
    chron__seg_release(w->retired);
    if (w->bell.map.base)
        chron__doorbell_close(&w->q, &w->bell);
    chron_bell_release(w->sync_bell);
    if (w->meta_lock.map || w->meta_lock.fd >= 0)
        w->q.io->unlock(w->q.io, &w->meta_lock);
    if (w->writer_lock.map || w->writer_lock.fd >= 0)
        w->q.io->unlock(w->q.io, &w->writer_lock); /* last: then the next writer may come */
    chron__queue_close(&w->q);
    pthread_cond_destroy(&w->keeper_wake);
    pthread_cond_destroy(&w->keeper_done);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->sync_lock);
    pthread_mutex_destroy(&w->clean_lock);
}

int chron__writer_open_with(const chron__io *io, const char *path, const chron_writer_options *options,
                            chron_writer **out)
{
    chron_writer *w;
    int status;

    if (!path || !out)
        return chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    *out = NULL;
    chron__fork_watch();
    w = calloc(1, sizeof *w);
    if (!w)
        return chron__fail(CHRON_ENOMEM, "no memory for a writer");
    w->fork_count = chron__get32(&chron__fork_count);
    w->writer_lock.fd = -1;
    w->meta_lock.fd = -1;
    w->q.dir = -1;
    w->q.meta_fd = -1;
    w->q.io = io;
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->sync_lock, NULL);
    pthread_mutex_init(&w->clean_lock, NULL);
    chron__cond_init(&w->keeper_wake);
    pthread_cond_init(&w->keeper_done, NULL);
    status = take_options(options, w);
    if (status == 0)
        status = check_options(&w->options);
    if (status == 0)
        status = open_writer(w, io, path);
    if (status < 0) {
        destroy(w);
        free(w);
        return status;
    }
    *out = w;
    return 0;
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
    chron__map_forget(&w->bell.map);
    chron__map_forget(&w->q.meta);
    chron_bell_release(w->sync_bell);
    if (w->meta_lock.fd >= 0)
        w->q.io->close_file(w->q.io, w->meta_lock.fd);
    if (w->writer_lock.fd >= 0)
        w->q.io->close_file(w->q.io, w->writer_lock.fd); /* closing a copy does not give up the lock */
    chron__queue_close(&w->q);
}

static int last_words(chron_writer *w)
{
    int status = 0;

    if (w->claimed) {
        memset(w->base + chron__get64(&w->tail), 0, (size_t)w->claimed);
        w->claimed = 0;
    }
    if (chron__get32(&w->poisoned))
        return 0; /* whoever met the failure was told; the queue stays marked as not closed */
    if (w->options.durability != CHRON_DURABILITY_NONE)
        status = chron__writer_sync(w);
    if (status < 0)
        return status;
    w->state.flags |= CHRON__SLOT_CLEAN;
    w->state.next_seq = chron__get64(&w->next_seq);
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
        destroy(w);
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
