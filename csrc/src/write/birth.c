/* SPDX-License-Identifier: MIT */
/*
 * birth.c - making a queue. The order of a birth, under the lock of writer.lock:
 *
 *   readers/, quarantine/, doorbell, queue.meta under another name, all of that on disk, then its own name
 *
 * A queue is there when queue.meta is, and is complete then: readers that wait for it find everything. Its name is given by
 * a rename that never replaces. The first segment comes afterwards: so segments without queue.meta always mean that
 * queue.meta was lost. A birth that fails takes back what it made, and nothing else.
 */
#include "write/birth.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/step.h"
#include "format/doorbell.h"
#include "queue/plan.h"
#include "write/lock.h"
#include "write/reuse.h"

unsigned chron__birth_directory_mode(unsigned mode)
{
    return mode | (mode & 0444u) >> 2;
}

/* What systems put into directories: the root of an ext4 volume has lost+found. */
static int is_the_systems(const char *name)
{
    static const char *const known[] = {"lost+found", ".DS_Store",       ".fseventsd",
                                        ".Trashes",   ".Spotlight-V100", ".snapshot"};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i]) == 0)
            return 1;
    return strncmp(name, ".nfs", 4) == 0;
}

/* What may lie in a directory that becomes a queue: that, and the remains of a creation that was cut off. */
static int is_foreign(void *context, const char *name)
{
    size_t length = strlen(name);
    uint64_t base_seq;

    if (chron__segment_name_parse(name, &base_seq))
        return 2;
    if (strcmp(name, CHRON__FILE_LOCK) == 0 || strcmp(name, CHRON__FILE_DOORBELL) == 0 ||
        strcmp(name, CHRON__DIR_READERS) == 0 || strcmp(name, CHRON__DIR_QUARANTINE) == 0 ||
        (length > 4 && strcmp(name + length - 4, ".tmp") == 0) || is_the_systems(name))
        return 0;
    (void)snprintf(context, CHRON__NAME_BYTES, "%s", name);
    return 1;
}

int chron__birth_was(const chron__queue *q)
{
    int fd = q->io->open_file(q->io, q->dir, CHRON__FILE_META, CHRON__OPEN_READ, 0);

    if (fd >= 0)
        q->io->close_file(q->io, fd);
    return fd != -ENOENT;
}

int chron__birth_may(const chron__queue *q, const char *path)
{
    char foreign[CHRON__NAME_BYTES] = "";
    int status = q->io->list(q->io, q->dir, is_foreign, foreign);

    if (status == 2)
        return chron__at(
            chron__fail(CHRON_ECORRUPT,
                        "%s has segments but no queue.meta, which was lost: readers can go on reading; repair "
                        "the queue, which makes queue.meta anew",
                        path),
            CHRON__FILE_META, 0, CHRON_SEQ_NONE);
    if (status == 1)
        return chron__fail(CHRON_EINVAL, "%s is not a queue, and not empty (there is %s): choose another directory",
                           path, foreign);
    return status < 0 ? chron__fail_sys(status, "", "cannot list %s", path) : 0;
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

static int make_directory(const chron_writer *w, const char *name, int *made)
{
    int status = w->q.io->make_dir(w->q.io, w->q.dir, name, chron__birth_directory_mode(w->options.mode));

    *made = status == 0;
    if (status == -EEXIST)
        return 0;
    return status < 0 ? chron__fail_sys(status, name, "cannot make the directory %s", name) : 0;
}

int chron__birth_complete(chron_writer *w, chron__born *born)
{
    int status = make_directory(w, CHRON__DIR_READERS, &born->readers);

    if (status == 0)
        status = make_directory(w, CHRON__DIR_QUARANTINE, &born->quarantine);
    if (status == 0)
        status = chron__doorbell_create(&w->q, w->options.mode, &w->bell, &born->doorbell);
    return status;
}

int chron__birth(chron_writer *w, const char *path, chron__born *born)
{
    int status;

    w->q.reuses = (w->options.flags & CHRON_REUSE) && chron__reuse_can(&w->q, w->options.segment_size);
    status = chron__queue_prepare_meta(&w->q, w->options.segment_size, w->options.mode);
    CHRON__STEP("birth: queue.meta prepared");
    if (status == 0)
        status = chron__birth_complete(w, born);
    CHRON__STEP("birth: complete but for queue.meta");
    if (status == 0)
        status = sync_parent(w, path);
    if (status == 0) {
        status = chron__queue_name_meta(&w->q);
        born->queue = status == 0;
    }
    CHRON__STEP("birth: done");
    return status;
}

int chron__birth_again(chron_writer *w, const char *path)
{
    chron__tell nobody = {.report = NULL};
    chron_recovery counts = {0};
    chron__remains r;
    int made;
    int status = chron__remains_look(&w->q, path, &r);

    if (status == -CHRON_ENOQUEUE)
        return 0; /* there is none: an opening may make one */
    if (status < 0 || !r.why)
        return status;
    if (r.exists) /* writer.lock may have been deleted under a live writer */
        status = chron__lock_meta(w, path);
    if (status == 0)
        status = chron__plan_make(&w->q, &r, w->tell ? w->tell : &nobody, &counts);
    w->tell = NULL; /* all is told */
    if (status == 0)
        status = make_directory(w, CHRON__DIR_QUARANTINE, &made);
    if (status == 0)
        status = chron__rebuild(&w->q, &r, w->options.mode);
    CHRON__STEP("rebuild: done");
    chron__lock_release_meta(w);
    return status;
}

/* Under the lock, so nobody else has begun to make a queue of it; a reader may have opened the one that we take back. */
void chron__birth_undo(chron_writer *w, const chron__born *born)
{
    const chron__io *io = w->q.io;
    char name[CHRON__NAME_BYTES];

    if (w->q.dir < 0)
        return;
    chron__segment_name(0, name);
    if (born->segment && io->unlink(io, w->q.dir, name) < 0)
        return; /* a queue without records, then: never segments without queue.meta */
    if (born->queue)
        (void)io->unlink(io, w->q.dir, CHRON__FILE_META);
    else if (chron__birth_was(&w->q)) { /* the queue is older than this opening: what it lacked, it may keep */
        chron__lock_undo(w);
        return;
    }
    (void)io->unlink(io, w->q.dir, CHRON__FILE_META ".tmp");
    if (born->doorbell)
        (void)io->unlink(io, w->q.dir, CHRON__FILE_DOORBELL);
    if (born->readers)
        (void)io->remove_dir(io, w->q.dir, CHRON__DIR_READERS);
    if (born->quarantine)
        (void)io->remove_dir(io, w->q.dir, CHRON__DIR_QUARANTINE);
    if (born->lock)
        (void)io->unlink(io, w->q.dir, CHRON__FILE_LOCK);
    else /* segments whose queue.meta is lost, or what an older creation left */
        chron__lock_undo(w);
}
