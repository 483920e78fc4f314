/* SPDX-License-Identifier: MIT */
/*
 * open.c - opening and closing a reader. Nothing of a queue is changed by it, but for the position file of a reader that has
 * a name.
 */
#include "read/seek.h"
#include "read/sift.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/struct.h"
#include "queue/rebuild.h"

#define READ_BITS 0444u

static int check_options(const chron_reader_options *o)
{
    const uint32_t known = CHRON_CHECKED | CHRON_ALLOW_NETFS | CHRON_DURABLE_ONLY;

    if (o->flags & ~known)
        return chron__fail(CHRON_EINVAL, "unknown flags 0x%x", (unsigned)(o->flags & ~known));
    if (o->start > CHRON_START_SNAPSHOT)
        return chron__fail(CHRON_EINVAL, "start %u does not exist", (unsigned)o->start);
    if (o->on_gap > CHRON_GAP_LATEST)
        return chron__fail(CHRON_EINVAL, "on_gap %u does not exist", (unsigned)o->on_gap);
    if (o->wait > CHRON_WAIT_SLEEP)
        return chron__fail(CHRON_EINVAL, "wait %u does not exist", (unsigned)o->wait);
    if (o->mode & ~0666u)
        return chron__fail(CHRON_EINVAL, "mode 0%o: only the bits of 0666 make sense for a queue's files",
                           (unsigned)o->mode);
    return o->name ? chron__reader_name_check(o->name) : 0;
}

static void destroy(chron_reader *r)
{
    chron__sift_close(r);
    chron__seg_release(r->seg);
    if (r->bell.map.base)
        chron__doorbell_close(&r->q, &r->bell);
    chron__position_close(&r->q, &r->position);
    chron__queue_close(&r->q);
}

/* Of a new position: who may read the queue may know how far its readers are; retention has to. */
static unsigned position_mode(const chron_reader *r)
{
    chron__stat meta = {.mode = 0};

    if (r->options.mode)
        return r->options.mode;
    (void)r->q.io->stat_name(r->q.io, r->q.dir, CHRON__FILE_META, &meta);
    return 0600u | (meta.mode & READ_BITS);
}

static int open_reader(chron_reader *r, const chron__io *io, const char *path)
{
    const chron_reader_options *o = &r->options;
    int status = chron__remains_open(&r->q, io, path, o->flags);

    if (status < 0)
        return status;
    if (!chron__queue_state(&r->q, &r->mark) && r->visible == 0)
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "what is durable stands in queue.meta, and that is lost: read without "
                                     "durable_only, or repair the queue, which makes it anew"),
                         CHRON__FILE_META, CHRON__SLOT_A, CHRON_SEQ_NONE);
    r->writer_epoch = r->mark.epoch;
    chron__doorbell_open(&r->q, &r->bell);
    if (o->name)
        status = chron__position_open(&r->q, o->name, position_mode(r), o->start != CHRON_START_RESUME, &r->position);
    if (status < 0)
        return status;
    status = chron__reader_start(r);
    if (status < 0 && o->name)
        chron__position_withdraw(&r->q, &r->position, o->name); /* a reader that there never was holds nothing */
    return status;
}

int chron__reader_open_with(const chron__io *io, const char *path, const chron_reader_options *options,
                            chron_reader **out)
{
    chron_reader *r;
    int status;

    if (!path || !out)
        return chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    *out = NULL;
    chron__fork_watch();
    r = calloc(1, sizeof *r);
    if (!r)
        return chron__fail(CHRON_ENOMEM, "no memory for a reader");
    r->fork_count = chron__get32(&chron__fork_count);
    r->q.dir = -1;
    r->q.meta_fd = -1;
    r->position.dir = -1;
    r->position.fd = -1;
    r->position.lock.fd = -1;
    status = options ? chron__struct_take("chron_reader_options", options, &r->options, sizeof r->options) : 0;
    if (status == 0)
        status = check_options(&r->options);
    if (status == 0)
        status = chron__sift_open(r);
    if (status == 0) {
        r->checked = (r->options.flags & CHRON_CHECKED) != 0;
        r->visible = r->options.flags & CHRON_DURABLE_ONLY ? 0 : CHRON_SEQ_NONE;
        status = open_reader(r, io, path);
    }
    if (status < 0) {
        r->q.io = io;
        destroy(r);
        free(r);
        return status;
    }
    r->options.name = NULL; /* they are the caller's */
    r->options.types = NULL;
    *out = r;
    return 0;
}

int chron_reader_open(const char *path, const chron_reader_options *options, chron_reader **out)
{
    return chron__reader_open_with(&chron__io_posix, path, options, out);
}

/* In a forked child: give back memory and the child's own descriptors; leave all that is the parent's. */
static void forget(chron_reader *r)
{
    chron__sift_forget(r);
    chron__seg_forget(r->seg);
    chron__map_forget(&r->bell.map);
    chron__map_forget(&r->position.map);
    r->position.lock.map = NULL;
    if (r->position.lock.fd >= 0)
        r->q.io->close_file(r->q.io, r->position.lock.fd); /* closing a copy does not give up the lock */
    r->position.lock.fd = -1;
    chron__position_close(&r->q, &r->position);
    chron__map_forget(&r->q.meta);
    chron__queue_close(&r->q);
}

/* With `closed` set the pointers in the handle are stale, and nothing looks at them any more. */
int chron_reader_shut(chron_reader *r)
{
    int status = 0;

    if (!r || chron__get_acquire32(&r->closed)) /* [BUSY] with the end of this function */
        return 0;
    if (r->fork_count != chron__get32(&chron__fork_count)) {
        forget(r);
    } else {
        status = chron__reader_enter(r);
        if (status < 0)
            return status;
        destroy(r);
    }
    chron__set_release32(&r->closed, 1); /* [BUSY] with chron__reader_enter */
    return status;
}

int chron_reader_close(chron_reader *r)
{
    int status = chron_reader_shut(r);

    if (status != -CHRON_EBUSY)
        free(r);
    return status;
}
