/* SPDX-License-Identifier: MIT */
/*
 * repair.c - a repair is an opening that accepts damage (CHRON_REPAIR), and says what it does before it does it. Nothing is
 * changed before the whole log was read, and all that was found told.
 *
 * A dry run takes no lock and needs no permission to write: it goes the same way up to there.
 */
#include "write/repair.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/struct.h"
#include "queue/plan.h"
#include "write/lock.h"
#include "write/writer.h"

static int dry_run(const chron__io *io, const char *path, uint32_t flags, chron__tell *tell, chron_recovery *out)
{
    chron__remains r;
    chron__queue q;
    int status = chron__queue_open_dir(&q, io, path, flags);

    if (status == 0)
        status = chron__queue_writer_alive(&q);
    if (status > 0)
        status = chron__lock_fail_held(&q, path);
    if (status == 0)
        status = chron__remains_look(&q, path, &r);
    if (status == 0)
        status = chron__plan_make(&q, &r, tell, out);
    chron__queue_close(&q);
    return status;
}

static int repair(const chron__io *io, const char *path, uint32_t flags, chron__tell *tell, chron_recovery *out)
{
    chron_writer_options options = {.struct_size = sizeof options, .flags = CHRON_REPAIR | CHRON_MUST_EXIST | flags};
    chron_writer *w;
    int closed;
    int status = chron__writer_open_telling(io, path, &options, tell, &w);

    if (status < 0)
        return status;
    *out = w->recovery;
    /* What is there now is put on disk, and then counts as durable: else the next loss of power might undo the repair. */
    if (!(w->q.fs & CHRON__FS_VOLATILE))
        status = chron_writer_sync(w);
    closed = chron_writer_close(w);
    return status < 0 ? status : closed;
}

int chron__repair_with(const chron__io *io, const char *path, uint32_t flags, chron_problem_fn report, void *context,
                       chron_recovery *out)
{
    chron__tell tell = {.report = report, .context = context};
    chron_recovery done = {0};
    int status = out ? chron__struct_check("chron_recovery", out) : 0;

    if (status == 0 && !path)
        status = chron__fail(CHRON_EINVAL, "the path is NULL");
    if (status == 0 && (flags & ~(uint32_t)(CHRON_DRY_RUN | CHRON_ALLOW_NETFS)))
        status = chron__fail(CHRON_EINVAL, "unknown flags 0x%x", (unsigned)flags);
    if (status == 0)
        status = flags & CHRON_DRY_RUN ? dry_run(io, path, flags, &tell, &done)
                                       : repair(io, path, flags & CHRON_ALLOW_NETFS, &tell, &done);
    if (status == 0 && out)
        chron__struct_give(&done, sizeof done, out);
    return status;
}

int chron_queue_repair(const char *path, uint32_t flags, chron_problem_fn report, void *context, chron_recovery *out)
{
    return chron__repair_with(&chron__io_posix, path, flags, report, context, out);
}
