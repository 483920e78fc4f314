/* SPDX-License-Identifier: MIT */
/*
 * reuse.c - the file of a segment that retention gives up becomes the next segment. That saves unlinking it, allocating
 * another, and fresh pages; but bytes change in a file that others may have opened as something else. The order:
 *
 *   1. rename it: from here on no segment's name leads to it, and it counts as deleted
 *   2. own it: nobody else has it open or mapped, it has no second name, and whoever opened it before 1 and comes now finds
 *      a lock (chron__io.own, chron__io.share)
 *   3. the directory on disk: a loss of power must not give it its old name back, with other bytes
 *   4. zeros, all over: only now a byte changes
 *   5. its header, which tells those who come late that it is another segment; then they may have their lock
 *   6. its new name, and all that belongs to a roll (roll.c)
 *
 * What fails on the way ends in an unlink: then it is as if there was no reuse. A reader that kept a view, or has not
 * gone on yet, makes 2 fail.
 *
 * After a loss of power a segment may hold what its file held before 4: records with seqs below its own, which count as
 * zeros (chron__seg_is_stale). None of those seqs is ever given away again while such a file is there: every opening unlinks
 * the spare before it appends.
 *
 * Readers of releases that know nothing of this lock nothing. An incompat flag in queue.meta keeps them away.
 *
 * Invariants: there is one spare at most, and none while there is a next segment: it takes no room besides. Only the thread
 * that holds clean_lock makes one.
 */
#include "write/reuse.h"

#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/identity.h"
#include "write/lock.h"

#ifndef CHRON__REUSE_MIN
#define CHRON__REUSE_MIN (1u << 20) /* bytes: of smaller segments a new one costs less than the care that this takes */
#endif
#define LEFT_SHARE 4u /* kept mappings: so many times what may be prewritten */
#define MAPPED_NS \
    10000000000u /* one that was left longer ago is mapped anew: its pages may have been written, and each */
                 /* would fault once more (measured: 1.4 us a page instead of 0.2) */

int chron__reuse_can(const chron__queue *q, uint64_t segment_size)
{
    return (q->fs & CHRON__FS_REUSE) && segment_size >= CHRON__REUSE_MIN;
}

void chron__reuse_set_up(chron_writer *w)
{
    uint64_t limit = w->lead_max * LEFT_SHARE / w->q.segment_size;

    w->reuses = (w->options.flags & CHRON_REUSE) && w->q.reuses && chron__reuse_can(&w->q, w->q.segment_size);
    if (limit > CHRON__LEFT_MAX)
        limit = CHRON__LEFT_MAX;
    if (limit > w->backlog.limit) /* a share of the descriptors */
        limit = w->backlog.limit;
    w->left.limit = w->reuses ? (size_t)limit : 0;
}

/* ------------------------------------------------------------------------- segments that were left */

/* The oldest, off the list. */
static chron__seg *drop_oldest(chron__left *left)
{
    chron__seg *seg = left->at[0].seg;

    left->count--;
    memmove(&left->at[0], &left->at[1], left->count * sizeof left->at[0]);
    return seg;
}

chron__seg *chron__reuse_keep(chron_writer *w, chron__seg *seg)
{
    chron__left *left = &w->left;
    chron__seg *old = NULL;

    if (left->limit == 0)
        return seg;
    pthread_mutex_lock(&w->lock);
    if (left->count == left->limit)
        old = drop_oldest(left);
    left->at[left->count].seg = seg;
    left->at[left->count++].since_ns = chron__monotonic_ns();
    pthread_mutex_unlock(&w->lock);
    return old;
}

/* The segment `base_seq` as it was left, or NULL; those before it are gone, and are unmapped. */
static chron__seg *take_left(chron_writer *w, uint64_t base_seq)
{
    for (;;) {
        chron__seg *seg = NULL;
        uint64_t age_ns = 0;

        pthread_mutex_lock(&w->lock);
        if (w->left.count && w->left.at[0].seg->base_seq <= base_seq) {
            age_ns = chron__monotonic_ns() - w->left.at[0].since_ns;
            seg = drop_oldest(&w->left);
        }
        pthread_mutex_unlock(&w->lock);
        /* Nobody else has it: not the syncer, for whom it was the current one. It is not to be had again. */
        if (!seg || (seg->base_seq == base_seq && age_ns < MAPPED_NS && chron__get32(&seg->references) == 1 &&
                     !chron__map_faulted(&seg->map))) /* [REFS] ours */
            return seg;
        chron__seg_release(seg);
    }
}

/* ------------------------------------------------------------------------------------------- taking */

/* Zeros that reach the disk before records do are written twice: so only where a segment is full before that. */
static int is_worth_it(const chron_writer *w)
{
    return (w->q.fs & CHRON__FS_VOLATILE) || chron__writer_fills_fast(w);
}

int chron__reuse_begin(chron_writer *w)
{
    int wanted;

    CHRON__ASSERT_LOCKED(&w->clean_lock);
    CHRON__ASSERT(!w->taken);
    if (!w->reuses || !is_worth_it(w))
        return 0;
    pthread_mutex_lock(&w->lock);
    wanted = !w->spare && !w->next && !w->preparing;
    pthread_mutex_unlock(&w->lock);
    return wanted;
}

int chron__reuse_take(void *writer, uint64_t base_seq, const char *name)
{
    chron_writer *w = writer;
    const chron__io *io = w->q.io;
    chron__seg *seg;
    int status;

    if (w->taken)
        return 0;
    seg = take_left(w, base_seq);
    status = io->rename(io, w->q.dir, name, w->q.dir, CHRON__FILE_SPARE);
    if (status < 0) {
        chron__seg_release(seg);
        return 0; /* unlinking it tells what is the matter */
    }
    CHRON__STEP("reuse: renamed");
    if (!seg)
        status = chron__seg_adopt(&w->q, CHRON__FILE_SPARE, &seg);
    if (status == 0)
        status = io->own(io, seg->fd);
    CHRON__STEP("reuse: owned");
    if (status < 0) {
        (void)chron__seg_discard(&w->q, seg, CHRON__FILE_SPARE, status);
        return 1;
    }
    seg->is_old = 1;
    seg->zeroed = 0;
    w->taken = seg;
    return 1;
}

void chron__reuse_end(chron_writer *w, int status, uint64_t oldest_base)
{
    chron__seg *seg = w->taken;

    CHRON__ASSERT_LOCKED(&w->clean_lock);
    if (seg)
        CHRON__STEP("reuse: on disk");
    w->taken = NULL;
    pthread_mutex_lock(&w->lock);
    if (seg && status == 0 && !w->spare && !w->next && !w->preparing) {
        w->spare = seg;
        seg = NULL;
    }
    pthread_mutex_unlock(&w->lock);
    if (seg)
        (void)chron__seg_discard(&w->q, seg, CHRON__FILE_SPARE, status);
    if (oldest_base > 0)
        chron__seg_release(take_left(w, oldest_base - 1u)); /* which is none: those before it go */
}

/* -------------------------------------------------------------------------------------------- using */

/* With lock held throughout: a cleanup that sees no spare may use its name at once. */
static chron__seg *take_spare(chron_writer *w)
{
    chron__seg *seg = w->spare;

    CHRON__ASSERT_LOCKED(&w->lock);
    w->spare = NULL;
    if (!seg || w->q.io->rename(w->q.io, w->q.dir, CHRON__FILE_SPARE, w->q.dir, CHRON__FILE_NEXT) == 0)
        return seg;
    (void)chron__seg_discard(&w->q, seg, CHRON__FILE_SPARE, 0);
    return NULL;
}

chron__seg *chron__reuse_next(chron_writer *w)
{
    chron__seg *seg;

    pthread_mutex_lock(&w->lock);
    seg = take_spare(w);
    pthread_mutex_unlock(&w->lock);
    if (seg)
        CHRON__STEP("reuse: next");
    return seg;
}

void chron__reuse_slice(chron_writer *w, uint64_t bytes)
{
    int status;

    CHRON__ASSERT(!w->keeper_running); /* so the spare is ours alone */
    if (!w->spare || chron__seg_is_ready(w->spare))
        return;
    status = chron__seg_wipe(&w->q, w->spare, CHRON__FILE_SPARE, bytes);
    if (status < 0) {
        w->spare = NULL;
        chron__writer_note_failure(w, status);
    }
}

void chron__reuse_release(chron_writer *w)
{
    while (w->left.count)
        chron__seg_release(drop_oldest(&w->left));
    if (w->spare)
        (void)chron__seg_discard(&w->q, w->spare, CHRON__FILE_SPARE, 0);
    w->spare = NULL;
}

void chron__reuse_forget(chron_writer *w)
{
    while (w->left.count)
        chron__seg_forget(drop_oldest(&w->left));
    chron__seg_forget(w->spare);
    w->spare = NULL;
}

/* ----------------------------------------------------------------------------- a queue that is older */

/* Who has queue.meta open knows nothing of the flag, and may be of a release that locks nothing: has anybody? We own it then. */
static int own_meta(chron_writer *w, int *fd)
{
    const chron__io *io = w->q.io;
    int status;

    io->unmap(io, &w->q.meta);
    io->close_file(io, w->q.meta_fd);
    w->q.meta_fd = -1;
    chron__lock_release_meta(w);
    *fd = io->open_file(io, w->q.dir, CHRON__FILE_META, CHRON__OPEN_WRITE, 0);
    if (*fd < 0)
        return *fd;
    status = io->own(io, *fd);
    if (status < 0)
        io->close_file(io, *fd);
    return status;
}

/* The new queue.meta says of itself, not of the old one, where it lies. */
static int write_identity(chron_writer *w, uint8_t *page)
{
    const chron__io *io = w->q.io;
    int fd = io->open_file(io, w->q.dir, CHRON__FILE_META_NEW, CHRON__OPEN_WRITE, 0);
    int64_t status = fd;

    if (fd >= 0) {
        status = io->place(io, fd, &w->place);
        if (status >= 0) {
            chron__state_store(page, &w->state, &w->place, CHRON__SLOTS_TURN);
            status = io->write_at(io, fd, page, CHRON__PAGE, 0);
        }
        if (status >= 0)
            status = io->sync_file(io, fd);
        io->close_file(io, fd);
    }
    return status < 0 ? chron__fail_sys((int)status, CHRON__FILE_META, "cannot write queue.meta") : 0;
}

static int replace_meta(chron_writer *w, uint8_t *page)
{
    chron__stat before = {.mode = 0};
    int status;

    (void)w->q.io->stat_name(w->q.io, w->q.dir, CHRON__FILE_META, &before);
    w->q.reuses = 1;
    chron__queue_encode_geometry(&w->q, page);
    status = chron__queue_write_meta(&w->q, page, before.mode);
    if (status == 0)
        status = write_identity(w, page);
    CHRON__STEP("reuse: queue.meta prepared");
    return status < 0 ? status : chron__queue_swap_meta(&w->q);
}

int chron__reuse_adopt(chron_writer *w, const char *path)
{
    uint8_t page[CHRON__PAGE];
    int status = 0;
    int fd = -1;

    if (!(w->options.flags & CHRON_REUSE) || w->q.reuses || !chron__reuse_can(&w->q, w->q.segment_size))
        return 0;
    memcpy(page, w->q.meta.base, sizeof page);
    memset(page + CHRON__WORDS_AT, 0,
           sizeof(chron__words)); /* of a writer before: the log is as this recovery has left it */
    if (own_meta(w, &fd) == 0) {
        status = replace_meta(w, page);
        w->q.io->close_file(w->q.io, fd);
        w->state_on_disk = w->state.generation;
        w->mark_on_disk = w->state.durable_next;
    }
    CHRON__STEP("reuse: queue.meta replaced");
    if (status == 0)
        status = chron__lock_meta(w, path);
    return status < 0 ? status : chron__queue_open_meta(&w->q, path, 1);
}
