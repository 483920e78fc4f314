/* SPDX-License-Identifier: MIT */
/*
 * sync.c - durability: putting records on disk, and saying so only afterwards.
 *
 * The order in chron__writer_sync is the promise: older segments, then the current one's header and
 * records, then the directory that names them; only then durable_next moves on, in memory and in
 * queue.meta. The first failure poisons the writer: Linux reports a lost page once, and answers the next
 * fsync with success.
 *
 * queue.meta itself is put on disk when a writer opens and closes, not at each sync: an old mark on disk
 * only makes recovery check more than it had to.
 */
#include "write/sync.h"

#include <errno.h>
#include <inttypes.h>

#include "base/assert.h"
#include "base/error.h"
#include "format/bell.h"

int chron__writer_store_state(chron_writer *w, int on_disk)
{
    const chron__io *io = w->q.io;
    int status = 0;

    CHRON__ASSERT(w->writer_lock.map || w->writer_lock.fd >= 0); /* nobody else writes queue.meta */
    w->state.time_ns = chron__clock_ns(1);
    chron__slots_store(w->q.meta.base, &w->state);
    if (chron__map_faulted(&w->q.meta))
        return chron__fail_fault(CHRON__FILE_META, "");
    if (on_disk)
        status = io->sync_map(io, w->q.meta_fd, &w->q.meta, 0, CHRON__PAGE);
    return status < 0 ? chron__fail_sys(status, CHRON__FILE_META, "cannot put queue.meta on disk") : 0;
}

/* One sealed segment, whole. Retention may have deleted it: then there is nothing to keep. */
static int sync_sealed(const chron__queue *q, uint64_t base_seq)
{
    char name[CHRON__NAME_BYTES];
    int status;
    int fd;

    chron__segment_name(base_seq, name);
    fd = q->io->open_file(q->io, q->dir, name, CHRON__OPEN_WRITE, 0);
    if (fd == -ENOENT)
        return 0;
    status = fd;
    if (fd >= 0) {
        status = q->io->sync_file(q->io, fd);
        q->io->close_file(q->io, fd);
    }
    return status < 0 ? chron__fail_sys(status, name, "cannot put %s on disk", name) : 0;
}

/* Segments from unsynced_base on that lie before the current one. */
static int sync_older(chron_writer *w, uint64_t current_base)
{
    chron__bases bases;
    int status;

    if (w->unsynced_base >= current_base)
        return 0;
    status = chron__queue_list(&w->q, &bases);
    if (status < 0)
        return status;
    for (size_t i = 0; status == 0 && i < bases.count; i++)
        if (bases.at[i] >= w->unsynced_base && bases.at[i] < current_base)
            status = sync_sealed(&w->q, bases.at[i]);
    chron__bases_free(&bases);
    CHRON__ASSERT(w->unsynced_base < current_base);
    if (status == 0)
        w->unsynced_base = current_base;
    return status;
}

/* The current segment up to `tail`: header and index once, records from where the last sync ended. */
static int sync_current(chron_writer *w, chron__seg *seg, uint64_t tail)
{
    const chron__io *io = w->q.io;
    uint64_t from;
    int status = 0;

    if (w->synced_base != seg->base_seq || w->synced_offset == 0) {
        status = io->sync_map(io, seg->fd, &seg->map, 0, seg->data_offset);
        w->synced_offset = 0;
    }
    from = w->synced_offset ? w->synced_offset : seg->data_offset;
    if (status >= 0 && tail > from)
        status = io->sync_map(io, seg->fd, &seg->map, from, tail - from);
    if (status < 0)
        return chron__fail_sys(status, "", "cannot put the segment that begins with seq %" PRIu64 " on disk",
                               seg->base_seq);
    if (chron__map_faulted(&seg->map))
        return chron__seg_fail_fault(seg, "");
    CHRON__ASSERT(tail >= w->synced_offset && tail >= seg->data_offset && tail <= seg->size);
    w->synced_base = seg->base_seq;
    w->synced_offset = tail;
    return 0;
}

static int sync_directory(chron_writer *w)
{
    int status;

    if (!chron__get32(&w->dir_dirty))
        return 0;
    chron__set32(&w->dir_dirty, 0); /* before the sync: a roll meanwhile sets it again */
    status = w->q.io->sync_dir(w->q.io, w->q.dir);
    return status < 0 ? chron__fail_sys(status, "", "cannot put the queue's directory on disk") : 0;
}

/* May this writer still sync, and would it help? */
static int check_sync(const chron_writer *w)
{
    if (chron__get32(&w->poisoned))
        return chron__fail(CHRON_EPOISONED,
                           "an earlier sync failed: what the disk holds is not known. Close the writer "
                           "and open the queue again");
    if (w->q.fs & CHRON__FS_VOLATILE)
        return chron__fail(CHRON_ENOTDURABLE, "the queue lies on a file system in memory, which keeps nothing over a "
                                              "loss of power: use a disk, or durability none");
    return 0;
}

/* With sync_lock held. */
static int sync_all(chron_writer *w)
{
    chron__seg *seg;
    uint64_t next_seq;
    uint64_t tail;
    int status = check_sync(w);

    CHRON__ASSERT_LOCKED(&w->sync_lock);
    if (status < 0)
        return status;
    pthread_mutex_lock(&w->lock);
    seg = chron__seg_retain(w->seg);
    next_seq = chron__get_acquire64(&w->next_seq); /* [TAIL] with chron__finish in append.h */
    tail = chron__get64(&w->tail);
    w->syncing_next = next_seq;
    pthread_mutex_unlock(&w->lock);
    status = sync_older(w, seg->base_seq);
    if (status == 0)
        status = sync_current(w, seg, tail);
    if (status == 0)
        status = sync_directory(w);
    chron__seg_release(seg);
    if (status == 0 && next_seq > chron__get64(&w->durable_next)) {
        w->state.durable_next = next_seq;
        status = chron__writer_store_state(w, 0);
    }
    if (status < 0) {
        chron__set32(&w->poisoned, 1);    /* [STOP] read by chron__writer_ready in append.h */
        chron__error()->code = CHRON_EIO; /* whatever it was: ENOSPC from an append would say "not appended" */
        return -CHRON_EIO;
    }
    CHRON__ASSERT(next_seq >= chron__get64(&w->durable_next) && next_seq <= chron__get64(&w->next_seq));
    CHRON__ASSERT(w->state.durable_next == next_seq); /* in queue.meta before anybody hears of it */
    chron__set64(&w->durable_next, next_seq);
    chron__add64(&w->syncs, 1); /* [COUNT] */
    return 0;
}

int chron__writer_sync(chron_writer *w)
{
    chron_bell *bell;
    int status;

    pthread_mutex_lock(&w->sync_lock);
    status = sync_all(w);
    pthread_mutex_lock(&w->lock);
    w->syncing_next = 0;
    bell = w->sync_bell;
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_unlock(&w->sync_lock);
    chron__bell_signal(bell); /* also after a failure: who waits has to hear of it */
    if (status == 0)
        (void)chron__doorbell_ring(&w->bell); /* readers of durable records wait for this */
    return status;
}

int chron_writer_sync(chron_writer *w)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = chron__writer_sync(w);
    if (status == 0)
        w->unsynced = 0;
    chron__writer_leave(w);
    return status;
}

static int sync_request(chron_writer *w, uint64_t seq)
{
    int status;

    if (seq >= chron__get64(&w->next_seq))
        return chron__fail_range(seq, chron__get64(&w->next_seq));
    if (chron__get64(&w->durable_next) > seq)
        return 1;
    status = check_sync(w);
    if (status < 0)
        return status;
    if (!w->keeper_running)
        return chron__fail(CHRON_EINVAL, "syncing in the background takes the keeper: open the writer with one, or use "
                                         "sync");
    pthread_mutex_lock(&w->lock);
    if (w->syncing_next <= seq) { /* else the sync that runs now does it */
        w->sync_wanted = 1;
        pthread_cond_signal(&w->keeper_wake);
    }
    pthread_mutex_unlock(&w->lock);
    return 0;
}

int chron_writer_sync_request(chron_writer *w, uint64_t seq)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = sync_request(w, seq);
    chron__writer_leave(w);
    return status;
}

static int writer_bell(chron_writer *w, chron_bell **out)
{
    if (!out)
        return chron__fail(CHRON_EINVAL, "there is no place to store the bell");
    *out = NULL;
    if (!w->sync_bell) {
        chron_bell *b = chron__bell_new();

        if (!b)
            return -CHRON_ENOMEM;
        pthread_mutex_lock(&w->lock);
        w->sync_bell = b;
        pthread_mutex_unlock(&w->lock);
    }
    *out = chron__bell_retain(w->sync_bell);
    return 0;
}

int chron_writer_bell(chron_writer *w, chron_bell **out)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = writer_bell(w, out);
    chron__writer_leave(w);
    return status;
}
