/* SPDX-License-Identifier: MIT */
/* anew.c - see anew.h. The name changes its file in one step: killed anywhere, it leads to a whole one. */
#include "queue/anew.h"

#include <errno.h>

#include "base/step.h"

#define TEMPORARY "anew.tmp"

static int write_copy(const chron__queue *q, const chron__seg *seg, int fd)
{
    int64_t status = q->io->allocate(q->io, fd, q->segment_size);

    if (status >= 0)
        status = q->io->write_at(q->io, fd, seg->map.base, (size_t)seg->size, 0);
    if (status >= 0)
        status = chron__map_faulted(&seg->map) ? -EIO : q->io->sync_file(q->io, fd);
    return status < 0 ? (int)status : 0;
}

int chron__write_anew(const chron__queue *q, const chron__seg *seg, unsigned mode)
{
    const chron__io *io = q->io;
    char name[CHRON__NAME_BYTES];
    int status;
    int fd;

    (void)io->unlink(io, q->dir, TEMPORARY);
    fd = io->open_file(io, q->dir, TEMPORARY, CHRON__OPEN_CREATE | CHRON__OPEN_EXCLUSIVE, mode);
    if (fd < 0)
        return fd;
    status = write_copy(q, seg, fd);
    io->close_file(io, fd);
    CHRON__STEP("anew: written");
    chron__segment_name(seg->base_seq, name);
    if (status == 0)
        status = io->rename(io, q->dir, TEMPORARY, q->dir, name);
    CHRON__STEP("anew: named");
    if (status < 0)
        (void)io->unlink(io, q->dir, TEMPORARY);
    return status;
}
