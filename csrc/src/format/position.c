/* SPDX-License-Identifier: MIT */
/*
 * position.c - position files. Invariant: a file that has a header has at least one valid slot; a file
 * without one (all zeros, or shorter) is a registration that was cut off, and holds no position.
 */
#include "format/position.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "format/header.h"

#define SUFFIX ".pos"

/* Are the first `length` bytes of `text` a reader's name? */
static int is_reader_name(const char *text, size_t length)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    return length >= 1 && length <= CHRON_READER_NAME_MAX && text[0] != '.' && strspn(text, allowed) >= length;
}

int chron__is_reader_name(const char *name)
{
    return is_reader_name(name, strlen(name));
}

int chron__reader_name_check(const char *name)
{
    if (!is_reader_name(name, strlen(name)))
        return chron__fail(CHRON_EINVAL,
                           "\"%.80s\" cannot be a reader's name: use 1 to %d of A-Z a-z 0-9 . _ - and "
                           "do not begin with a dot",
                           name, CHRON_READER_NAME_MAX);
    return 0;
}

static int is_blank(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i])
            return 0;
    return 1;
}

/* For reader_ttl_ms. */
static void stamp(chron__position *p)
{
    chron__moment_pass(&p->stamp);
    p->value.time_ns = p->stamp.clock_ns;
    p->value.boot_ns = p->stamp.boot_ns;
    p->value.boot = p->stamp.boot;
}

/* The header of this queue's positions, as the first bytes of a page. */
static void write_header(const chron__queue *q, uint64_t created_ns, uint8_t *page)
{
    chron__file_header header = {.created_ns = created_ns};

    memcpy(header.magic, CHRON__MAGIC_POSITION, sizeof header.magic);
    memcpy(header.uuid, q->uuid, sizeof header.uuid);
    chron__header_encode(&header, page);
}

/*
 * Nothing of a position depends on its header: one that is damaged, and not another file's, takes nothing away from the
 * slots. The status of chron__header_decode; or 1: it is damaged, and the slots count.
 */
static int check_header(const chron__queue *q, const uint8_t *page, const char *file)
{
    chron__file_header header;
    int status = chron__header_decode(page, CHRON__MAGIC_POSITION, q->uuid, file, &header);

    return status == -CHRON_ECORRUPT && !chron__header_is_whole(page) ? 1 : status;
}

/*
 * Write a new file: header, and a slot that says "no position yet", so that a first commit which is cut off
 * leaves a valid slot behind. In one write of one page: a process cannot die in the middle of it.
 */
static int format_file(const chron__queue *q, chron__position *p)
{
    uint8_t page[CHRON__PAGE] = {0};
    int64_t n;

    memset(&p->value, 0, sizeof p->value);
    p->value.next_seq = CHRON_SEQ_NONE;
    stamp(p); /* it is not silent since 1970 */
    write_header(q, p->value.time_ns, page);
    chron__slots_store(page, &p->value, CHRON__SLOTS_TURN);
    n = q->io->write_at(q->io, p->fd, page, sizeof page, 0);
    return n < 0 ? (int)n : 0;
}

/* What lock_file takes over `fd` with. A member of a group shares the lock with the others: it keeps out whoever wants all. */
static int lock_it(const chron__io *io, chron__position *p, int fd, int shared)
{
    int status;

    if (!shared)
        return io->lock(io, fd, &p->lock);
    status = io->lock_byte(io, fd, 0, CHRON__BYTE_SHARED);
    if (status < 0)
        return status;
    status = io->hold(io, fd, p->fd, &p->lock);
    return status < 0 ? -ENOTSUP : 0;
}

/* Lock the file, and make sure that the name still leads to it. -EAGAIN: it was removed, start again. */
static int lock_file(const chron__queue *q, chron__position *p, const char *file, const char *name, int shared)
{
    const chron__io *io = q->io;
    int status;
    int fd = io->open_file(io, p->dir, file, CHRON__OPEN_WRITE, 0);

    if (fd == -ENOENT)
        return -EAGAIN;
    if (fd < 0)
        return chron__fail_sys(fd, file, "cannot open the position of reader %s", name);
    status = lock_it(io, p, fd, shared);
    if (status < 0) {
        if (!shared || status == -EAGAIN)
            io->close_file(io, fd);
        if (status == -EAGAIN)
            return chron__fail(CHRON_EREADER,
                               "a reader named %s is already active: a name serves one reader at a "
                               "time",
                               name);
        return chron__fail_sys(status, file, "cannot lock the position of reader %s", name);
    }
    /* Whoever removes a reader holds this lock while doing so; now nobody can. */
    status = io->same_file(io, p->fd, p->dir, file);
    if (status > 0)
        return 0;
    io->unlock(io, &p->lock);
    return status < 0 ? chron__fail_sys(status, file, "cannot look at the position of reader %s", name) : -EAGAIN;
}

/* The file is ours now: give it its size and a header if it has none, then load. */
static int load_file(const chron__queue *q, chron__position *p, const char *file, const char *name, int overwrite)
{
    const chron__io *io = q->io;
    uint8_t copy[sizeof(chron__file_header)];
    uint64_t bytes = 0;
    int status = io->file_size(io, p->fd, &bytes);

    p->is_new = status >= 0 && bytes == 0;
    if (status >= 0)
        status = bytes < CHRON__PAGE ? io->allocate(io, p->fd, CHRON__PAGE) : io->fill(io, p->fd, CHRON__PAGE);
    if (status >= 0)
        status = io->map(io, p->fd, CHRON__PAGE, CHRON__MAP_WRITE | CHRON__MAP_DONTFORK, &p->map);
    if (status < 0)
        return chron__fail_sys(status, file, "cannot make a position file for reader %s", name);
    memcpy(copy, p->map.base, sizeof copy);
    if (is_blank(copy, sizeof copy) && !chron__slots_load(p->map.base, &p->value)) {
        p->is_new = 1;
        goto format;
    }
    status = check_header(q, copy, file);
    if (status >= 0 && !chron__slots_load(p->map.base, &p->value))
        status = chron__at(chron__fail(CHRON_ECORRUPT,
                                       "both copies of the position of reader %s are damaged: open it "
                                       "with a start other than resume",
                                       name),
                           file, CHRON__SLOT_A, CHRON_SEQ_NONE);
    if (status > 0) {
        write_header(q, p->value.time_ns, p->map.base);
        status = 0;
    }
    if (status != -CHRON_ECORRUPT || !overwrite)
        return status;
format:
    status = format_file(q, p);
    return status < 0 ? chron__fail_sys(status, file, "cannot make a position file for reader %s", name) : 0;
}

static int open_position(const chron__queue *q, const char *name, unsigned mode, int overwrite, int shared,
                         chron__position *out)
{
    const chron__io *io = q->io;
    char file[CHRON__POSITION_NAME_BYTES];
    int status;

    memset(out, 0, sizeof *out);
    out->fd = -1;
    out->lock.fd = -1;
    out->dir = io->open_dir(io, q->dir, CHRON__DIR_READERS);
    if (out->dir == -ENOENT) { /* it went away: who can read files may look for them */
        (void)io->make_dir(io, q->dir, CHRON__DIR_READERS, 0700u | mode | (mode & 0444u) >> 2);
        out->dir = io->open_dir(io, q->dir, CHRON__DIR_READERS);
    }
    if (out->dir < 0)
        return chron__fail_sys(out->dir, CHRON__DIR_READERS, "cannot open the directory of positions");
    (void)snprintf(file, sizeof file, "%s" SUFFIX, name);
    do { /* until the file that we locked is the one the name leads to: it may be removed in between */
        if (out->fd >= 0)
            io->close_file(io, out->fd);
        out->fd = io->open_file(io, out->dir, file, CHRON__OPEN_CREATE, mode);
        if (out->fd < 0) {
            status = chron__fail_sys(out->fd, file, "cannot make a position file for reader %s", name);
            break;
        }
        status = lock_file(q, out, file, name, shared);
    } while (status == -EAGAIN);
    if (status >= 0)
        status = load_file(q, out, file, name, overwrite);
    if (status < 0) {
        chron__position_withdraw(q, out, name);
        chron__position_close(q, out);
    }
    return status;
}

int chron__position_open(const chron__queue *q, const char *name, unsigned mode, int overwrite, chron__position *out)
{
    return open_position(q, name, mode, overwrite, 0, out);
}

int chron__position_share(const chron__queue *q, const char *name, unsigned mode, chron__position *out)
{
    return open_position(q, name, mode, 1, 1, out);
}

void chron__position_withdraw(const chron__queue *q, chron__position *p, const char *name)
{
    char file[CHRON__POSITION_NAME_BYTES];

    if (!p->is_new)
        return;
    (void)snprintf(file, sizeof file, "%s" SUFFIX, name);
    (void)q->io->unlink(q->io, p->dir, file); /* under its lock: whoever opened it meanwhile sees that it is gone */
}

void chron__position_close(const chron__queue *q, chron__position *p)
{
    if (p->map.base)
        q->io->unmap(q->io, &p->map);
    if (p->lock.map || p->lock.fd >= 0)
        q->io->unlock(q->io, &p->lock);
    if (p->fd >= 0)
        q->io->close_file(q->io, p->fd);
    if (p->dir >= 0)
        q->io->close_file(q->io, p->dir);
    p->fd = -1;
    p->dir = -1;
}

int chron__position_store(const chron__queue *q, chron__position *p, int sync)
{
    int status;

    CHRON__ASSERT(p->lock.map || p->lock.fd >= 0); /* only the holder of its lock writes to a position */
    CHRON__ASSERT(p->value.next_seq == CHRON_SEQ_NONE || p->value.segment_base <= p->value.next_seq);
    stamp(p);
    chron__slots_store(p->map.base, &p->value, CHRON__SLOTS_TURN);
    if (chron__map_faulted(&p->map))
        return chron__fail_fault("the position file", "");
    if (!sync)
        return 0;
    status = q->io->sync_map(q->io, p->fd, &p->map, 0, CHRON__PAGE);
    /* The names that lead to it have to be on disk as well; whoever made them may not have seen to that. */
    if (status >= 0 && !p->names_synced) {
        status = q->io->sync_dir(q->io, p->dir);
        if (status >= 0)
            status = q->io->sync_dir(q->io, q->dir);
        p->names_synced = status >= 0;
    }
    return status < 0 ? chron__fail_sys(status, "", "cannot put the position on disk") : 0;
}

/* ------------------------------------------------------------------------------- seen from outside */

static int is_position_file(const char *file)
{
    size_t length = strlen(file);
    size_t suffix = sizeof SUFFIX - 1u;

    return length > suffix && is_reader_name(file, length - suffix) && strcmp(file + length - suffix, SUFFIX) == 0;
}

static int add_reader(void *context, const char *file)
{
    chron__registered_list *list = context;
    chron__registered *one;

    if (!is_position_file(file))
        return 0;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2u : 16u;
        chron__registered *at = realloc(list->at, capacity * sizeof *at);

        if (!at)
            return -ENOMEM;
        list->at = at;
        list->capacity = capacity;
    }
    one = &list->at[list->count++];
    memset(one, 0, sizeof *one);
    memcpy(one->name, file, strlen(file) - (sizeof SUFFIX - 1u));
    return 0;
}

/* What the file says, as of now: 0; 1: though its header is damaged; or what is wrong: -EBADMSG for its content, else -errno. */
static int read_value(const chron__queue *q, int fd, const char *file, chron__slot_value *value)
{
    uint8_t page[CHRON__PAGE] = {0};
    int64_t n = q->io->read_at(q->io, fd, page, sizeof page, 0);
    int status;

    if (n < 0)
        return (int)n;
    if (n == 0 || is_blank(page, sizeof page)) {
        value->next_seq = CHRON_SEQ_NONE; /* being registered right now */
        return 0;
    }
    status = check_header(q, page, file);
    return n < (int64_t)sizeof page || status < 0 || !chron__slots_load(page, value) ? -EBADMSG : status;
}

/* 0, or -ENOENT when the reader was removed meanwhile. Damage is an answer, not a failure. */
static int look_at(const chron__queue *q, int dir, chron__registered *one)
{
    const chron__io *io = q->io;
    char file[CHRON__POSITION_NAME_BYTES];
    chron__stat st;
    int fd;

    (void)snprintf(file, sizeof file, "%s" SUFFIX, one->name);
    fd = io->open_file(io, dir, file, CHRON__OPEN_READ, 0);
    if (fd == -ENOENT)
        return -ENOENT;
    one->why = fd < 0 ? fd : 0;
    if (fd >= 0) {
        one->alive = io->lock_held(io, fd) > 0;
        /* A store may be under way: then the bytes that we copy are torn. Look again. */
        for (int tries = 0; tries < 8; tries++)
            if ((one->why = read_value(q, fd, file, &one->value)) >= 0)
                break;
        io->close_file(io, fd);
    }
    one->damaged = one->why < 0;
    one->headless = one->why > 0;
    /* The file's own time is all that is left to tell how long the reader has been silent. */
    if (one->damaged && io->stat_name(io, dir, file, &st) == 0)
        one->value.time_ns = st.modified_ns;
    return 0;
}

int chron__registered_errno(const chron__registered *one)
{
    return one->why < 0 && one->why != -EBADMSG ? -one->why : 0;
}

void chron__registered_reason(const chron__registered *one, char *text, size_t capacity)
{
    if (one->why == -EBADMSG)
        (void)snprintf(text, capacity, "it is damaged");
    else if (one->why == -EINVAL || one->why == -ELOOP)
        (void)snprintf(text, capacity, "it is no regular file");
    else
        chron__sys_reason(one->why, text, capacity);
}

static int compare_readers(const void *a, const void *b)
{
    return strcmp(((const chron__registered *)a)->name, ((const chron__registered *)b)->name);
}

int chron__registered_load(const chron__queue *q, chron__registered_list *out)
{
    size_t kept = 0;
    int status;
    int dir = q->io->open_dir(q->io, q->dir, CHRON__DIR_READERS);

    memset(out, 0, sizeof *out);
    if (dir == -ENOENT)
        return 0;
    if (dir < 0)
        return chron__fail_sys(dir, CHRON__DIR_READERS, "cannot open the directory of positions");
    status = q->io->list(q->io, dir, add_reader, out);
    for (size_t i = 0; status >= 0 && i < out->count; i++)
        if (look_at(q, dir, &out->at[i]) >= 0)
            out->at[kept++] = out->at[i];
    q->io->close_file(q->io, dir);
    if (status < 0) {
        chron__registered_free(out);
        return chron__fail_sys(status, CHRON__DIR_READERS, "cannot list the registered readers");
    }
    out->count = kept;
    if (kept)
        qsort(out->at, kept, sizeof *out->at, compare_readers);
    return 0;
}

uint64_t chron__registered_passed(const chron__registered *one)
{
    if (one->value.flags & CHRON__SLOT_UNDONE)
        return one->value.segment_base;
    return one->value.next_seq == CHRON_SEQ_NONE ? 0 : one->value.next_seq;
}

void chron__registered_free(chron__registered_list *list)
{
    free(list->at);
    memset(list, 0, sizeof *list);
}

static int undo_one(const chron__queue *q, const char *name, uint64_t end)
{
    chron__position p;
    int status = chron__position_open(q, name, 0600, 0, &p);

    if (status == -CHRON_EREADER || status == -CHRON_ECORRUPT || status == -CHRON_EACCESS)
        return 0;
    if (status < 0)
        return status;
    if (!p.is_new && p.value.next_seq != CHRON_SEQ_NONE && p.value.next_seq > end) {
        p.value.flags = CHRON__SLOT_UNDONE;
        p.value.fingerprint = 0;
        p.value.segment_base = end;
        p.value.offset = 0;
        status = chron__position_store(q, &p, 1);
    }
    chron__position_withdraw(q, &p, name); /* if it was removed meanwhile */
    chron__position_close(q, &p);
    return status;
}

int chron__positions_undo(const chron__queue *q, uint64_t end)
{
    chron__registered_list readers;
    int status = chron__registered_load(q, &readers);

    for (size_t i = 0; status == 0 && i < readers.count; i++)
        if (!readers.at[i].damaged && chron__registered_passed(&readers.at[i]) > end)
            status = undo_one(q, readers.at[i].name, end);
    chron__registered_free(&readers);
    return status;
}

int chron__registered_sync(const chron__queue *q, const char *name)
{
    char file[sizeof CHRON__DIR_READERS + 1u + CHRON__POSITION_NAME_BYTES];
    int status;
    int fd;

    (void)snprintf(file, sizeof file, CHRON__DIR_READERS "/%s" SUFFIX, name);
    fd = q->io->open_file(q->io, q->dir, file, CHRON__OPEN_READ, 0);
    if (fd == -ENOENT)
        return 0;
    status = fd;
    if (fd >= 0) {
        status = q->io->sync_file(q->io, fd);
        q->io->close_file(q->io, fd);
    }
    return status < 0 ? chron__fail_sys(status, file, "cannot put the position of reader %s on disk", name) : 0;
}
