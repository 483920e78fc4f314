/* SPDX-License-Identifier: MIT */
/*
 * group.c - see group.h. Locks on the file: byte 0, shared by members, exclusive for who puts it in order or removes it; the
 * byte in front of those of the members is held while somebody joins. A file of no bytes, or of zeros only, is one whose
 * making was cut off.
 */
#include "format/group.h"

#include <errno.h>
#include <stdio.h>

#include "base/step.h"
#include "format/header.h"
#include "format/segment.h"

#define SUFFIX ".grp"
#define JOIN_BYTE (CHRON__TURN_BYTES - 1u)
#define JOIN_TRIES 10000 /* of a millisecond */
#define JOIN_PAUSE_NS 1000000u
#define SHAPE_CRC_BYTES (offsetof(chron__group_shape, crc))

static uint64_t file_bytes(uint32_t window)
{
    uint64_t bytes = CHRON__GROUP_CELLS + (uint64_t)window * sizeof(chron__cell);

    return (bytes + CHRON__PAGE - 1u) & ~(uint64_t)(CHRON__PAGE - 1u);
}

static void file_name(const char *name, char *out)
{
    (void)snprintf(out, CHRON__POSITION_NAME_BYTES, "%s" SUFFIX, name);
}

static int is_shape(uint32_t window, uint32_t flags)
{
    return window >= CHRON__GROUP_WINDOW_MIN && window <= CHRON__GROUP_WINDOW_MAX && (window & (window - 1u)) == 0 &&
           (flags & ~CHRON__GROUP_KEYED) == 0;
}

/* --------------------------------------------------------------------------------- making, checking */

/* All of the first page in one write: a process cannot die in the middle of it. */
static int format_file(const chron__queue *q, const chron__group_birth *birth, int fd)
{
    uint8_t page[CHRON__PAGE] = {0};
    uint8_t *shape = page + CHRON__GROUP_SHAPE_AT;
    chron__file_header header = {.created_ns = chron__clock_ns(0)};
    chron__slot_value value = {.next_seq = CHRON_SEQ_NONE, .time_ns = header.created_ns};
    int64_t n = q->io->allocate(q->io, fd, file_bytes(birth->window));

    if (n < 0)
        return (int)n;
    CHRON__STEP("group: allocated");
    memcpy(header.magic, CHRON__MAGIC_GROUP, sizeof header.magic);
    memcpy(header.uuid, q->uuid, sizeof header.uuid);
    chron__header_encode(&header, page);
    chron__write_le32(shape, birth->window);
    chron__write_le32(shape + offsetof(chron__group_shape, flags), birth->flags);
    chron__write_le32(shape + SHAPE_CRC_BYTES, chron_crc32c(0, shape, SHAPE_CRC_BYTES));
    chron__slots_store(page, &value, CHRON__SLOTS_TURN);
    n = q->io->write_at(q->io, fd, page, sizeof page, 0);
    return n < 0 ? (int)n : 0;
}

static int damaged(const char *file, const char *what, uint64_t offset)
{
    return chron__at(chron__fail(CHRON_ECORRUPT,
                                 "%s of the group %s is damaged: who has which job is not known. Remove the group, and "
                                 "open it anew with a start; its position, readers/, says how far it was",
                                 what, file),
                     file, offset, CHRON_SEQ_NONE);
}

/* The first page: 0 with the shape, or what is wrong. *blank: it was never written. */
static int check_page(const chron__queue *q, int fd, const char *name, uint64_t bytes, chron__group_file *out,
                      int *blank)
{
    uint8_t page[CHRON__PAGE];
    const uint8_t *shape = page + CHRON__GROUP_SHAPE_AT;
    chron__file_header header;
    char file[CHRON__POSITION_NAME_BYTES];
    int64_t n = q->io->read_at(q->io, fd, page, sizeof page, 0);
    int status;

    file_name(name, file);
    if (n < 0)
        return chron__fail_sys((int)n, file, "cannot read the group %s", name);
    *blank = chron__is_zero(page, (size_t)n);
    if (*blank)
        return 0;
    if (n < (int64_t)sizeof page)
        return damaged(file, "the first page", 0);
    status = chron__header_decode(page, CHRON__MAGIC_GROUP, q->uuid, file, &header);
    if (status < 0)
        return status;
    out->window = chron__read_le32(shape);
    out->flags = chron__read_le32(shape + offsetof(chron__group_shape, flags));
    if (chron__read_le32(shape + SHAPE_CRC_BYTES) != chron_crc32c(0, shape, SHAPE_CRC_BYTES) ||
        !is_shape(out->window, out->flags))
        return damaged(file, "the shape", CHRON__GROUP_SHAPE_AT);
    return bytes == file_bytes(out->window) ? 0 : damaged(file, "the size", bytes);
}

static int map_file(const chron__queue *q, const char *name, int flags, chron__group_file *out)
{
    char file[CHRON__POSITION_NAME_BYTES];
    chron__slot_value value;
    int status;

    file_name(name, file);
    status = flags & CHRON__MAP_WRITE ? q->io->fill(q->io, out->fd, file_bytes(out->window)) : 0;
    if (status >= 0)
        status = q->io->map(q->io, out->fd, (size_t)file_bytes(out->window), flags, &out->map);
    if (status < 0)
        return chron__fail_sys(status, file, "cannot map the group %s", name);
    if (!chron__slots_load(out->map.base, &value))
        return damaged(file, "the floor", CHRON__SLOT_A);
    out->members = (chron__members){
        .io = q->io,
        .fd = out->fd,
        .slots = CHRON__GROUP_SLOTS,
        .table = out->map.base + CHRON__GROUP_TABLE,
        .next_incarnation = out->map.base + CHRON__GROUP_INCARNATION,
    };
    return 0;
}

/* ------------------------------------------------------------------------------------------- opening */

static int open_dir(const chron__queue *q, const chron__group_birth *birth, chron__group_file *out)
{
    const chron__io *io = q->io;

    out->dir = io->open_dir(io, q->dir, CHRON__DIR_GROUPS);
    if (out->dir == -ENOENT && birth && birth->create) {
        (void)io->make_dir(io, q->dir, CHRON__DIR_GROUPS, 0700u | birth->mode | (birth->mode & 0444u) >> 2);
        out->dir = io->open_dir(io, q->dir, CHRON__DIR_GROUPS);
    }
    if (out->dir == -ENOENT)
        return -ENOENT;
    return out->dir < 0 ? chron__fail_sys(out->dir, CHRON__DIR_GROUPS, "cannot open the directory of groups") : 0;
}

static int no_such_group(const char *name)
{
    return chron__fail(CHRON_ENOQUEUE, "there is no group named %s in this queue", name);
}

static void drop_files(const chron__queue *q, chron__group_file *file)
{
    if (file->lock_fd >= 0)
        q->io->close_file(q->io, file->lock_fd);
    if (file->fd >= 0)
        q->io->close_file(q->io, file->fd);
    file->lock_fd = -1;
    file->fd = -1;
}

/* Nobody else joins, or leaves nobody behind, until we are through. */
static int lock_joining(const chron__queue *q, const char *name, chron__group_file *out)
{
    int status = -EAGAIN;

    for (int i = 0; i < JOIN_TRIES && status == -EAGAIN; i++) {
        status = q->io->lock_byte(q->io, out->lock_fd, JOIN_BYTE, CHRON__BYTE_OURS);
        if (status == -EAGAIN && chron__sleep_ns(JOIN_PAUSE_NS) == -EINTR)
            return chron__fail(CHRON_EINTR, "interrupted by a signal while waiting to join the group %s", name);
    }
    if (status == -EAGAIN)
        return chron__fail(CHRON_EHELD, "another process has been joining the group %s for ten seconds: is it stopped?",
                           name);
    if (status == -ENOTSUP)
        return chron__fail(CHRON_ENOTSUP, "groups need locks that belong to an open file, which this system has not");
    return status < 0 ? chron__fail_sys(status, name, "cannot lock the group %s", name) : 0;
}

/* Both descriptors, locked, of the file that the name leads to. -EAGAIN: it was removed meanwhile. */
static int open_files(const chron__queue *q, const chron__group_birth *birth, const char *file, chron__group_file *out)
{
    const chron__io *io = q->io;
    int status;

    out->fd = io->open_file(io, out->dir, file, birth->create ? CHRON__OPEN_CREATE : CHRON__OPEN_WRITE, birth->mode);
    if (out->fd == -ENOENT)
        return no_such_group(birth->name);
    if (out->fd < 0)
        return chron__fail_sys(out->fd, file, "cannot open the group %s", birth->name);
    out->lock_fd = io->open_file(io, out->dir, file, CHRON__OPEN_WRITE, 0);
    if (out->lock_fd == -ENOENT)
        return -EAGAIN;
    if (out->lock_fd < 0)
        return chron__fail_sys(out->lock_fd, file, "cannot open the group %s", birth->name);
    status = lock_joining(q, birth->name, out);
    if (status < 0)
        return status;
    status = io->same_file(io, out->fd, out->dir, file);
    if (status > 0)
        status = io->same_file(io, out->lock_fd, out->dir, file);
    if (status < 0)
        return chron__fail_sys(status, file, "cannot look at the group %s", birth->name);
    return status > 0 ? 0 : -EAGAIN;
}

/* With the lock on joining: make it if it is not there yet, and see whether we are alone. */
static int settle_file(const chron__queue *q, const chron__group_birth *birth, chron__group_file *out)
{
    const chron__io *io = q->io;
    uint64_t bytes = 0;
    int blank = 1;
    int status = io->file_size(io, out->fd, &bytes);

    if (status >= 0)
        status = io->lock_byte(io, out->lock_fd, 0, CHRON__BYTE_OURS);
    out->is_first = status >= 0;
    if (status == -EAGAIN)
        status = io->lock_byte(io, out->lock_fd, 0, CHRON__BYTE_SHARED);
    if (status < 0)
        return chron__fail_sys(status, birth->name, "cannot lock the group %s", birth->name);
    if (bytes > 0)
        status = check_page(q, out->fd, birth->name, bytes, out, &blank);
    if (status < 0 || !blank)
        return status < 0 ? status : map_file(q, birth->name, CHRON__MAP_WRITE | CHRON__MAP_DONTFORK, out);
    if (!birth->create)
        return no_such_group(birth->name);
    out->is_new = 1;
    out->window = birth->window;
    out->flags = birth->flags;
    status = format_file(q, birth, out->fd);
    if (status < 0)
        return chron__fail_sys(status, birth->name, "cannot make the group %s", birth->name);
    return map_file(q, birth->name, CHRON__MAP_WRITE | CHRON__MAP_DONTFORK, out);
}

static void clear(chron__group_file *out)
{
    memset(out, 0, sizeof *out);
    out->dir = -1;
    out->fd = -1;
    out->lock_fd = -1;
    out->held.fd = -1;
}

void chron__group_unlink(const chron__queue *q, chron__group_file *file, const char *name)
{
    char names[CHRON__POSITION_NAME_BYTES];

    CHRON__ASSERT(file->lock_fd >= 0); /* nobody can have joined it: the lock on joining is ours */
    file_name(name, names);
    (void)q->io->unlink(q->io, file->dir, names);
}

int chron__group_open(const chron__queue *q, const chron__group_birth *birth, chron__group_file *out)
{
    char file[CHRON__POSITION_NAME_BYTES];
    int status;

    clear(out);
    if (!CHRON__HAS_A64)
        return chron__fail(CHRON_ENOTSUP,
                           "groups need 64 bits that are swapped in one piece, which this machine has not");
    status = open_dir(q, birth, out);
    if (status == -ENOENT)
        return no_such_group(birth->name);
    file_name(birth->name, file);
    if (status == 0)
        do { /* until what we locked is what the name leads to */
            drop_files(q, out);
            status = open_files(q, birth, file, out);
        } while (status == -EAGAIN);
    if (status == 0)
        status = settle_file(q, birth, out);
    if (status < 0) {
        if (out->is_new)
            chron__group_unlink(q, out, birth->name);
        chron__group_close(q, out);
    }
    return status;
}

int chron__group_admit(const chron__queue *q, chron__group_file *file, const char *name)
{
    const chron__io *io = q->io;
    int status = io->lock_byte(io, file->lock_fd, 0, CHRON__BYTE_SHARED);

    if (status == 0)
        status = chron__turn_join(&file->members, file->lock_fd);
    if (status == -EAGAIN)
        return chron__fail(CHRON_EHELD, "the group %s has %u members: there is no room for more", name,
                           CHRON__GROUP_SLOTS);
    CHRON__STEP("group: joined");
    /* A turn that somebody who sat here died in: nobody else can tell that he is dead. There is nothing to repair. */
    if (status == 0 && chron__turn_inherit(&file->members, file->map.base + CHRON__GROUP_TURN))
        chron__turn_give(file->map.base + CHRON__GROUP_TURN);
    if (status >= 0)
        status = io->lock_byte(io, file->lock_fd, JOIN_BYTE, CHRON__BYTE_FREE);
    if (status >= 0) {
        int fd = file->lock_fd;

        file->lock_fd = -1;
        status = io->hold(io, fd, file->fd, &file->held);
    }
    if (status == -ENOTSUP)
        return chron__fail(CHRON_ENOTSUP,
                           "groups need locks that a forked child does not keep, which this file system cannot hold "
                           "(an overlay file system): put the queue on a volume of its own");
    return status < 0 ? chron__fail_sys(status, name, "cannot join the group %s", name) : 0;
}

void chron__group_close(const chron__queue *q, chron__group_file *file)
{
    if (file->map.base)
        q->io->unmap(q->io, &file->map);
    file->map.base = NULL;
    if (file->held.map || file->held.fd >= 0)
        q->io->unlock(q->io, &file->held);
    drop_files(q, file);
    if (file->dir >= 0)
        q->io->close_file(q->io, file->dir);
    file->dir = -1;
}

void chron__group_forget(const chron__queue *q, chron__group_file *file)
{
    chron__map_forget(&file->map);
    file->held.map = NULL;
    chron__group_close(q, file);
}

int chron__group_sync(const chron__queue *q, chron__group_file *file)
{
    int status = q->io->sync_map(q->io, file->fd, &file->map, 0, file->map.bytes);

    if (status >= 0 && !file->names_synced) {
        status = q->io->sync_dir(q->io, file->dir);
        if (status >= 0)
            status = q->io->sync_dir(q->io, q->dir);
        file->names_synced = status >= 0;
    }
    return status < 0 ? chron__fail_sys(status, "", "cannot put the group on disk") : 0;
}

/* -------------------------------------------------------------------------------- seen from outside */

int chron__group_look(const chron__queue *q, const char *name, chron__group_file *out)
{
    char file[CHRON__POSITION_NAME_BYTES];
    uint64_t bytes = 0;
    int blank = 1;
    int status;

    clear(out);
    file_name(name, file);
    status = open_dir(q, NULL, out);
    if (status == 0)
        out->fd = q->io->open_file(q->io, out->dir, file, CHRON__OPEN_READ, 0);
    if (status == -ENOENT || out->fd == -ENOENT)
        status = no_such_group(name);
    else if (status == 0 && out->fd < 0)
        status = chron__fail_sys(out->fd, file, "cannot open the group %s", name);
    if (status == 0 && q->io->file_size(q->io, out->fd, &bytes) == 0)
        status = check_page(q, out->fd, name, bytes, out, &blank);
    if (status == 0)
        status = blank ? no_such_group(name) : map_file(q, name, 0, out);
    if (status < 0)
        chron__group_close(q, out);
    return status;
}

int chron__group_remove(const chron__queue *q, const char *name)
{
    const chron__group_birth birth = {.name = name};
    chron__group_file file;
    char names[CHRON__POSITION_NAME_BYTES];
    int status;

    clear(&file);
    status = open_dir(q, NULL, &file);
    if (status == -ENOENT)
        return no_such_group(name);
    file_name(name, names);
    if (status == 0)
        do {
            drop_files(q, &file);
            status = open_files(q, &birth, names, &file);
        } while (status == -EAGAIN);
    if (status == 0) {
        status = q->io->lock_byte(q->io, file.lock_fd, 0, CHRON__BYTE_OURS);
        if (status == -EAGAIN)
            status = chron__fail(CHRON_EHELD, "the group %s has members: close them first", name);
        else if (status == 0)
            status = q->io->unlink(q->io, file.dir, names);
        if (status < 0 && status != -CHRON_EHELD)
            status = chron__fail_sys(status, names, "cannot remove the group %s", name);
    }
    chron__group_close(q, &file);
    return status;
}

typedef struct visit {
    int (*each)(void *context, const char *name);
    void *context;
} visit;

static int visit_file(void *context, const char *file)
{
    const visit *v = context;
    char name[CHRON__POSITION_NAME_BYTES];
    size_t length = strlen(file);

    if (length < sizeof SUFFIX || length >= sizeof name || strcmp(file + length - (sizeof SUFFIX - 1u), SUFFIX) != 0)
        return 0;
    memcpy(name, file, length - (sizeof SUFFIX - 1u));
    name[length - (sizeof SUFFIX - 1u)] = '\0';
    return chron__is_reader_name(name) ? v->each(v->context, name) : 0;
}

int chron__groups_list(const chron__queue *q, int (*each)(void *context, const char *name), void *context)
{
    visit v = {each, context};
    int dir = q->io->open_dir(q->io, q->dir, CHRON__DIR_GROUPS);
    int status;

    if (dir == -ENOENT)
        return 0;
    if (dir < 0)
        return chron__fail_sys(dir, CHRON__DIR_GROUPS, "cannot open the directory of groups");
    status = q->io->list(q->io, dir, visit_file, &v);
    q->io->close_file(q->io, dir);
    return status < 0 ? chron__fail_sys(status, CHRON__DIR_GROUPS, "cannot list the groups") : 0;
}

void chron__group_lower_word(const chron__group_file *file, size_t at, uint64_t value)
{
    uint64_t seen = chron__group_word(file, at);

    while (value < seen && !chron__cas_le64(file->map.base + at, seen, value)) /* [HINT] with chron__group_word */
        seen = chron__group_word(file, at);
}
