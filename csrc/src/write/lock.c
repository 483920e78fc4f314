/* SPDX-License-Identifier: MIT */
/*
 * lock.c - one writer at a time: the kernel's lock on writer.lock, and on queue.meta, in case somebody deletes writer.lock.
 *
 * A lock file invites people to delete it, and takes the lock along: whoever has locked a file looks whether its name still
 * leads to it. queue.meta is deleted by nobody who wants to keep the queue.
 */
#define _POSIX_C_SOURCE 200809L /* threads */

#include "write/lock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "format/shared.h"

#define LINE_BYTES CHRON__LOCK_LINE_BYTES /* always as long: rewriting it needs no room on a full disk */
#define LINE_TRIES 50
#define LINE_WAIT_NS 2000000u
#define RETRY_NS 10000000u /* how often a waiting writer tries: 10 ms */

/* The pid of one of several writers; 0: there is none. */
static int64_t holder_of_slot(const chron__queue *q)
{
    const chron__io *io = q->io;
    chron__map map = {.base = NULL};
    int64_t pid = 0;
    int fd = io->open_file(io, q->dir, CHRON__FILE_META, CHRON__OPEN_READ, 0);

    if (fd < 0)
        return 0;
    if (io->map(io, fd, CHRON__PAGE, 0, &map) == 0) {
        pid = chron__shared_pid(io, fd, map.base);
        io->unmap(io, &map);
    }
    io->close_file(io, fd);
    return pid;
}

int chron__lock_fail_held(const chron__queue *q, const char *path)
{
    chron__writer_line line = {.pid = 0};
    int status;

    if (q->meta.base || q->dir >= 0)
        line.pid = holder_of_slot(q);
    if (line.pid > 0) {
        status =
            chron__fail(CHRON_EWRITER,
                        "process %" PRId64 " and perhaps others take turns at writing to %s: open it as they do, or "
                        "wait until all have closed it",
                        line.pid, path);
        chron__error()->pid = line.pid;
        return status;
    }
    /* The holder writes its line a moment after it has the lock. */
    for (int i = 0; i < LINE_TRIES; i++) {
        chron__queue_writer_line(q, &line);
        if (line.pid > 0 || chron__sleep_ns(LINE_WAIT_NS) < 0)
            break;
    }
    status = chron__fail(CHRON_EWRITER, "process %" PRId64 " has %s open for writing: a queue has one writer at a time",
                         line.pid, path);
    chron__error()->pid = line.pid;
    return status;
}

/* 1: it is ours; 0: somebody has it; or -errno. */
static int try_lock(chron_writer *w, int *made)
{
    const chron__io *io = w->q.io;
    int status;
    int same;
    int fd = io->open_file(io, w->q.dir, CHRON__FILE_LOCK, CHRON__OPEN_WRITE, 0);

    *made = fd == -ENOENT;
    if (*made)
        fd = io->open_file(io, w->q.dir, CHRON__FILE_LOCK, CHRON__OPEN_CREATE, w->options.mode);
    if (fd < 0)
        return fd;
    same = io->copy_fd(io, fd); /* the lock takes the first one over */
    if (same < 0) {
        io->close_file(io, fd);
        return same;
    }
    status = io->lock(io, fd, &w->writer_lock);
    if (status < 0)
        io->close_file(io, fd);
    /* Who locks a file whose name is gone, or leads to another one, has locked nothing. */
    if (status == 0 && io->same_file(io, same, w->q.dir, CHRON__FILE_LOCK) != 1) {
        io->unlock(io, &w->writer_lock);
        status = -EAGAIN;
    }
    io->close_file(io, same);
    return status == 0 ? 1 : status == -EAGAIN ? 0 : status;
}

int chron__lock_take(chron_writer *w, const char *path, int *made)
{
    uint64_t start = chron__monotonic_ns();
    int64_t limit_ns = w->options.lock_wait_ns;

    for (;;) {
        int status = try_lock(w, made);

        if (status > 0) {
            if (chron__read_file(w->q.io, w->q.dir, CHRON__FILE_LOCK, w->line, LINE_BYTES) != LINE_BYTES)
                memset(w->line, ' ', LINE_BYTES);
            return chron__lock_write_line(w); /* at once: whoever is refused meanwhile wants to know by whom */
        }
        if (status == -ENOENT)
            return chron__fail(CHRON_EREMOVED, "the directory %s was removed while it was being opened", path);
        if (status < 0)
            return chron__fail_sys(status, CHRON__FILE_LOCK, "cannot take the writer's lock of %s", path);
        if (limit_ns >= 0 && chron__monotonic_ns() - start >= (uint64_t)limit_ns)
            return chron__lock_fail_held(&w->q, path);
        chron__cancel_point(w->on_cancel, w->opening);
        if (chron__sleep_ns(RETRY_NS) < 0)
            return chron__fail(CHRON_EINTR, "interrupted while waiting for the writer's lock of %s", path);
    }
}

int chron__lock_meta(chron_writer *w, const char *path)
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

int chron__lock_open_meta(chron_writer *w)
{
    int status = chron__queue_open_meta(&w->q, w->path_for_errors, 1);
    const chron_error damage = *chron_last_error();

    if (status == -CHRON_ECORRUPT)
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "%s. Readers can go on reading; repair the queue, which makes queue.meta anew",
                                     damage.text),
                         damage.file, damage.offset, CHRON_SEQ_NONE);
    if (status == 0 && !chron__queue_state(&w->q, &w->state))
        return chron__at(chron__fail(CHRON_ECORRUPT, "both copies of the writer's state in queue.meta are damaged: "
                                                     "repair the queue, which makes them anew"),
                         CHRON__FILE_META, CHRON__SLOT_A, CHRON_SEQ_NONE);
    if (status == 0) {
        status = w->q.io->place(w->q.io, w->q.meta_fd, &w->place);
        if (status < 0)
            status = chron__fail_sys(status, CHRON__FILE_META, "cannot tell where %s lies", w->path_for_errors);
    }
    if (status == 0)
        w->counts_links = w->q.io->links(w->q.io, w->q.meta_fd) > 0;
    return status;
}

int chron__lock_write_line(const chron_writer *w)
{
    const chron__io *io = w->q.io;
    char host[64];
    char text[LINE_BYTES + 1];
    int64_t status;
    int length;
    int fd;

    chron__hostname(host, sizeof host);
    memset(text, ' ', sizeof text);
    length = snprintf(text, sizeof text, "pid %" PRId64 " host %s start %" PRIu64 " epoch %" PRIu64, chron__pid(),
                      host[0] ? host : "-", chron__clock_ns(0), w->full_epoch);
    text[length] = ' ';
    text[LINE_BYTES - 1] = '\n';
    fd = io->open_file(io, w->q.dir, CHRON__FILE_LOCK, CHRON__OPEN_WRITE, 0);
    status = fd;
    if (fd >= 0) {
        status = io->write_at(io, fd, text, LINE_BYTES, 0);
        io->close_file(io, fd);
    }
    return status < 0 ? chron__fail_sys((int)status, CHRON__FILE_LOCK, "cannot write the line in writer.lock") : 0;
}

void chron__lock_undo(const chron_writer *w)
{
    const chron__io *io = w->q.io;
    int fd = io->open_file(io, w->q.dir, CHRON__FILE_LOCK, CHRON__OPEN_WRITE, 0);

    if (fd < 0)
        return;
    (void)io->write_at(io, fd, w->line, LINE_BYTES, 0);
    io->close_file(io, fd);
}

void chron__lock_release_meta(chron_writer *w)
{
    if (w->meta_lock.map || w->meta_lock.fd >= 0)
        w->q.io->unlock(w->q.io, &w->meta_lock);
}

void chron__lock_release(chron_writer *w)
{
    chron__lock_release_meta(w);
    if (w->writer_lock.map || w->writer_lock.fd >= 0)
        w->q.io->unlock(w->q.io, &w->writer_lock); /* last: then the next writer may come */
}
