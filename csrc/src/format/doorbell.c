/* SPDX-License-Identifier: MIT */
/*
 * doorbell.c - see doorbell.h. Why no wake-up is lost: the reader stores waiting, fences, and looks once
 * more for a record; the writer publishes, fences, and looks at waiting. With both fences at least one
 * of them sees the other. If it is the writer, it adds to notify before it wakes, so a reader that had
 * not gone to sleep yet does not.
 *
 * The writer publishes far more often than a reader goes to sleep, and its fence is a third of the price of a small
 * append. So a writer whose process takes part in chron__membarrier() does without (`fence` is 1), and the reader calls
 * that between announcing and looking: it is a full fence in the writer's thread at some point of its program. If that
 * point lies behind the publish, the reader sees the record; if it lies before, the writer's look at waiting comes later
 * and sees the reader. `fence` changes under the writer's lock only, before it publishes anything, with a full fence
 * behind it; and a reader looks at it behind its own: so a reader that has seen the old value is seen by the new writer.
 * A reader that may not call it (a sandbox) announces itself nevertheless, and polls.
 *
 * `waiting` is a flag and not a count: a reader that dies asleep costs one spare wake-up.
 */
#include "format/doorbell.h"

#include <errno.h>

#include "base/error.h"
#include "format/header.h"

static int check(const chron__queue *q, const chron__map *map, uint32_t *features)
{
    uint8_t copy[sizeof(chron__file_header)];
    chron__file_header header;
    int status;

    memcpy(copy, map->base, sizeof copy);
    status = chron__header_decode(copy, CHRON__MAGIC_DOORBELL, q->uuid, CHRON__FILE_DOORBELL, &header);
    *features = header.incompat;
    return status;
}

static int map_bell(const chron__queue *q, chron__doorbell *bell, uint32_t *features)
{
    const chron__io *io = q->io;
    int status;
    int fd = io->open_file(io, q->dir, CHRON__FILE_DOORBELL, CHRON__OPEN_WRITE, 0);

    bell->map.base = NULL;
    if (fd < 0)
        return fd;
    status = io->map(io, fd, CHRON__PAGE, CHRON__MAP_WRITE | CHRON__MAP_DONTFORK, &bell->map);
    io->close_file(io, fd);
    if (status < 0)
        return status;
    status = check(q, &bell->map, features);
    if (status < 0)
        io->unmap(io, &bell->map);
    return status;
}

static int write_new(const chron__queue *q, unsigned mode)
{
    static const char temporary[] = CHRON__FILE_DOORBELL ".tmp";
    const chron__io *io = q->io;
    uint8_t page[CHRON__PAGE] = {0};
    chron__file_header header = {.created_ns = chron__clock_ns(0), .incompat = CHRON__INCOMPAT_FENCE};
    int64_t n;
    int fd;

    memcpy(header.magic, CHRON__MAGIC_DOORBELL, sizeof header.magic);
    memcpy(header.uuid, q->uuid, sizeof header.uuid);
    chron__header_encode(&header, page);
    (void)io->unlink(io, q->dir, temporary);
    fd = io->open_file(io, q->dir, temporary, CHRON__OPEN_CREATE | CHRON__OPEN_EXCLUSIVE, mode);
    if (fd < 0)
        return fd;
    n = io->allocate(io, fd, sizeof page);
    if (n >= 0)
        n = io->write_at(io, fd, page, sizeof page, 0);
    io->close_file(io, fd);
    if (n >= 0)
        n = io->rename(io, q->dir, temporary, q->dir, CHRON__FILE_DOORBELL);
    if (n < 0)
        (void)io->unlink(io, q->dir, temporary);
    return n < 0 ? (int)n : 0;
}

/* Readers that still map a damaged one, or one of the first release, look every CHRON__SLEEP_SLICE_NS. */
static int make_new(const chron__queue *q, unsigned mode, chron__doorbell *bell)
{
    uint32_t features;
    int status = write_new(q, mode);

    chron__doorbell_close(q, bell);
    return status < 0 ? status : map_bell(q, bell, &features);
}

/* Which of the two ways is it from now on? */
static void settle_fence(chron__doorbell *bell)
{
    bell->is_light = chron__membarrier_join() == 0;
    chron__store_relaxed32(bell->map.base + CHRON__BELL_FENCE, bell->is_light); /* [BELL] with needs_membarrier */
    chron__fence_seq_cst(); /* [BELL] with chron__doorbell_announce: what is published from here on */
}

int chron__doorbell_create(const chron__queue *q, unsigned mode, chron__doorbell *bell, int *made)
{
    uint32_t features = 0;
    int status;

    if (bell->map.base)
        return 0;
    status = map_bell(q, bell, &features);
    if (status < 0 || !(features & CHRON__INCOMPAT_FENCE)) {
        *made = 1;
        status = make_new(q, mode, bell);
    }
    if (status < 0)
        return chron__fail_sys(status, CHRON__FILE_DOORBELL, "cannot make the doorbell");
    settle_fence(bell);
    return 0;
}

void chron__doorbell_open(const chron__queue *q, chron__doorbell *bell)
{
    uint32_t features;

    (void)map_bell(q, bell, &features);
}

void chron__doorbell_close(const chron__queue *q, chron__doorbell *bell)
{
    if (bell->map.base)
        q->io->unmap(q->io, &bell->map);
}

static int needs_membarrier(const chron__doorbell *bell)
{
    return chron__load_relaxed32(bell->map.base + CHRON__BELL_FENCE) != 0; /* [BELL] with settle_fence */
}

int chron__doorbell_works(const chron__doorbell *bell)
{
    return bell->map.base && (!needs_membarrier(bell) || chron__membarrier() == 0);
}

uint32_t chron__doorbell_announce(chron__doorbell *bell)
{
    uint32_t announced;

    if (!bell->map.base)
        return 0;
    announced = chron__load_relaxed32(bell->map.base + CHRON__BELL_NOTIFY); /* [BELL] with chron__doorbell_wake */
    chron__store_relaxed32(bell->map.base + CHRON__BELL_WAITING, 1);        /* [BELL] with chron__doorbell_ring */
    chron__fence_seq_cst(); /* [BELL] with chron__doorbell_ring: announce, then look for a record */
    bell->is_missed = needs_membarrier(bell) && chron__membarrier() < 0; /* [BELL] where the ring has no fence */
    return announced;
}

int chron__doorbell_sleep(chron__doorbell *bell, uint32_t announced, uint64_t ns)
{
    int status = -ENOSYS;

    if (chron__doorbell_will_wake(bell))
        status = chron__futex_wait(bell->map.base + CHRON__BELL_NOTIFY, announced, ns);
    if (status == -ENOSYS)
        status = chron__sleep_ns(ns < CHRON__POLL_MAX_NS ? ns : CHRON__POLL_MAX_NS);
    return status == -EINTR ? -EINTR : 0;
}

int chron__doorbell_wake(chron__doorbell *bell)
{
    if (chron__exchange32(bell->map.base + CHRON__BELL_WAITING, 0) == 0) /* [BELL] with chron__doorbell_announce */
        return 0;
    (void)chron__add32(bell->map.base + CHRON__BELL_NOTIFY, 1); /* [BELL] with chron__doorbell_announce */
    (void)chron__futex_wake_all(bell->map.base + CHRON__BELL_NOTIFY);
    return 1;
}
