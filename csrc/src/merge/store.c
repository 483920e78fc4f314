/* SPDX-License-Identifier: MIT */
/*
 * store.c - see store.h.
 *
 * Invariants:
 *  - The name leads to a file with a header and at least one whole area: it is made under another name, and renamed.
 *  - A store writes over the older area only, so the newer one stays whole until the store is.
 */
#include "merge/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/error.h"
#include "format/header.h"

#define SUFFIX ".merge"
#define AREA_HEAD 16u /* CRC, bytes, generation */
#define AREA_MAX (UINT64_C(1) << 32)
#define TRIES 100
#define IO (&chron__io_posix)

void chron__bytes_put(chron__bytes *b, const void *from, size_t count)
{
    if (count > b->room - b->count) {
        size_t room = 2u * b->room > b->count + count ? 2u * b->room : b->count + count + CHRON__PAGE;
        uint8_t *at = realloc(b->at, room);

        if (!at) {
            b->no_memory = 1;
            return;
        }
        b->at = at;
        b->room = room;
    }
    memcpy(b->at + b->count, from, count);
    b->count += count;
}

void chron__bytes_u32(chron__bytes *b, uint32_t value)
{
    uint8_t bytes[sizeof value];

    chron__write_le32(bytes, value);
    chron__bytes_put(b, bytes, sizeof bytes);
}

void chron__bytes_u64(chron__bytes *b, uint64_t value)
{
    uint8_t bytes[sizeof value];

    chron__write_le64(bytes, value);
    chron__bytes_put(b, bytes, sizeof bytes);
}

/* ---------------------------------------------------------------------------------------- writing */

static int write_all(int fd, const uint8_t *from, size_t count, uint64_t offset)
{
    while (count > 0) {
        int64_t n = IO->write_at(IO, fd, from, count, offset);

        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        from += n;
        count -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static uint64_t area_at(const chron__store *store, uint64_t generation)
{
    return CHRON__PAGE + (generation & 1u) * store->area_bytes;
}

/* The content, with a head in front of it, to the file `fd` at `offset`. */
static int write_area(const chron__store *store, int fd, uint64_t offset, uint64_t generation)
{
    const chron__bytes *b = &store->bytes;
    uint8_t *area = malloc(AREA_HEAD + b->count);
    int status;

    if (!area)
        return -ENOMEM;
    chron__write_le32(area + 4, (uint32_t)b->count);
    chron__write_le64(area + 8, generation);
    if (b->count)
        memcpy(area + AREA_HEAD, b->at, b->count);
    chron__write_le32(area, chron_crc32c(0, area + 4, AREA_HEAD - 4u + b->count));
    status = write_all(fd, area, AREA_HEAD + b->count, offset);
    free(area);
    return status;
}

/* Header and first area, in a file that nobody knows yet. */
static int write_file(chron__store *store, int fd, uint64_t generation)
{
    uint8_t page[CHRON__PAGE] = {0};
    chron__file_header header = {.created_ns = chron__clock_ns(0)};
    int status;

    store->area_bytes = (2u * (AREA_HEAD + store->bytes.count) / CHRON__PAGE + 1u) * CHRON__PAGE;
    memcpy(header.magic, CHRON__MAGIC_MERGE, sizeof header.magic);
    header.segment_size = store->area_bytes;
    chron__header_encode(&header, page);
    status = write_all(fd, page, sizeof page, 0);
    if (status == 0)
        status = write_area(store, fd, area_at(store, generation), generation);
    /* What a program left here that died before the rename: the other area is nobody's. */
    memset(page, 0, sizeof page);
    if (status == 0)
        status = write_all(fd, page, sizeof page, area_at(store, generation + 1u));
    return status;
}

/* Lock the file `name`, which `fd` leads to, unless that has changed: -EAGAIN, as when somebody else has it. */
static int lock_name(const chron__store *store, int fd, const char *name, chron__lock *out)
{
    int own = IO->open_file(IO, store->dir, name, CHRON__OPEN_WRITE, 0); /* the lock takes over a descriptor */
    int status;

    if (own < 0)
        return own == -ENOENT ? -EAGAIN : own;
    status = IO->lock(IO, own, out);
    if (status < 0) {
        IO->close_file(IO, own);
        return status;
    }
    return IO->same_file(IO, fd, store->dir, name) > 0 ? 0 : -ESTALE;
}

static void give_up(int fd, chron__lock *lock)
{
    if (lock->map || lock->fd >= 0)
        IO->unlock(IO, lock);
    if (fd >= 0)
        IO->close_file(IO, fd);
}

/*
 * Make the file anew, under a name of its own, and rename it: at first (`replace` 0: then another one may be faster, -EEXIST),
 * and when an area has become too small. The lock moves with it.
 */
static int make_file(chron__store *store, int replace, uint64_t generation)
{
    char temporary[sizeof store->file + 8];
    chron__lock lock = {.fd = -1};
    uint64_t area_bytes = store->area_bytes;
    int status;
    int fd;

    (void)snprintf(temporary, sizeof temporary, "%s.tmp", store->file);
    fd = IO->open_file(IO, store->dir, temporary, CHRON__OPEN_CREATE, 0600);
    if (fd < 0)
        return fd;
    status = lock_name(store, fd, temporary, &lock);
    if (status == 0)
        status = write_file(store, fd, generation);
    if (status == 0)
        status = IO->sync_file(IO, fd);
    if (status == 0)
        status = replace ? IO->rename(IO, store->dir, temporary, store->dir, store->file)
                         : IO->rename_new(IO, store->dir, temporary, store->file);
    if (status < 0) {
        give_up(fd, &lock);
        store->area_bytes = area_bytes;
        return status; /* what lies there is written over by the next one */
    }
    give_up(store->fd, &store->lock);
    store->fd = fd;
    store->lock = lock;
    store->generation = generation;
    store->names_synced = 0;
    return 0;
}

int chron__store_write(chron__store *store, int sync)
{
    const uint64_t generation = store->generation + 1u;
    int status;

    if (store->bytes.no_memory)
        return chron__fail(CHRON_ENOMEM, "no memory for the position of the merge");
    if (AREA_HEAD + store->bytes.count > store->area_bytes) {
        status = make_file(store, 1, generation);
    } else {
        status = write_area(store, store->fd, area_at(store, generation), generation);
        if (status == 0)
            store->generation = generation;
    }
    if (status == 0 && sync)
        status = IO->sync_file(IO, store->fd);
    if (status == 0 && sync && !store->names_synced) {
        status = IO->sync_dir(IO, store->dir);
        store->names_synced = status == 0;
    }
    return status < 0 ? chron__fail_sys(status, store->file, "cannot store the position of the merge") : 0;
}

/* ---------------------------------------------------------------------------------------- reading */

static int read_all(const chron__store *store, uint8_t *to, size_t count, uint64_t offset)
{
    size_t have = 0;

    while (have < count) {
        int64_t n = IO->read_at(IO, store->fd, to + have, count - have, offset + have);

        if (n < 0)
            return (int)n;
        if (n == 0)
            return 0;
        have += (size_t)n;
    }
    return 1;
}

/* The area at `offset`, if it is whole and newer than what is there. 0, or a negative errno. */
static int load_area(chron__store *store, uint64_t offset)
{
    uint8_t head[AREA_HEAD];
    uint8_t *content;
    uint64_t generation;
    size_t count;
    int status = read_all(store, head, sizeof head, offset);

    if (status <= 0)
        return status;
    count = chron__read_le32(head + 4);
    generation = chron__read_le64(head + 8);
    if (generation <= store->generation || count > store->area_bytes - AREA_HEAD)
        return 0;
    content = malloc(count + 1u);
    if (!content)
        return -ENOMEM;
    status = read_all(store, content, count, offset + AREA_HEAD);
    if (status > 0 &&
        chron__read_le32(head) == chron_crc32c(chron_crc32c(0, head + 4, AREA_HEAD - 4u), content, count)) {
        free(store->bytes.at);
        store->bytes = (chron__bytes){.at = content, .count = count, .room = count + 1u};
        store->generation = generation;
        return 0;
    }
    free(content);
    return status < 0 ? status : 0;
}

static int load(chron__store *store)
{
    uint8_t page[sizeof(chron__file_header)];
    chron__file_header header;
    int status = read_all(store, page, sizeof page, 0);

    if (status < 0)
        return chron__fail_sys(status, store->file, "cannot read the position of the merge");
    if (status == 0)
        memset(page, 0, sizeof page);
    status = chron__header_decode(page, CHRON__MAGIC_MERGE, NULL, store->file, &header);
    if (status < 0)
        return status;
    store->area_bytes = header.segment_size;
    if (store->area_bytes < CHRON__PAGE || store->area_bytes > AREA_MAX || store->area_bytes % CHRON__PAGE != 0)
        return chron__at(
            chron__fail(CHRON_ECORRUPT, "the header of %s is damaged: its areas have an impossible size", store->file),
            store->file, 0, CHRON_SEQ_NONE);
    status = load_area(store, CHRON__PAGE);
    if (status == 0)
        status = load_area(store, CHRON__PAGE + store->area_bytes);
    if (status < 0)
        return chron__fail_sys(status, store->file, "cannot read the position of the merge");
    if (store->generation == 0)
        return chron__at(
            chron__fail(CHRON_ECORRUPT,
                        "both copies of the position in %s are damaged: remove it, and open the merge with "
                        "a start other than resume",
                        store->file),
            store->file, CHRON__PAGE, CHRON_SEQ_NONE);
    return 0;
}

/* 0; 1: what was found is not there any more: again; else a status of the library. */
static int open_or_make(chron__store *store)
{
    int status;

    store->fd = IO->open_file(IO, store->dir, store->file, CHRON__OPEN_WRITE, 0);
    if (store->fd == -ENOENT) {
        status = make_file(store, 0, 1);
        if (status == -EEXIST)
            return 1;
    } else if (store->fd < 0) {
        status = store->fd;
    } else {
        status = lock_name(store, store->fd, store->file, &store->lock);
        if (status == 0)
            return load(store);
    }
    if (status == -ESTALE) {
        give_up(store->fd, &store->lock);
        store->fd = -1;
        store->lock = (chron__lock){.fd = -1};
        return 1;
    }
    if (status == -EAGAIN) /* somebody has the lock */
        return chron__fail(CHRON_EREADER, "the merge of %s is already active: a name serves one merge at a time",
                           store->file);
    return status < 0 ? chron__fail_sys(status, store->file, "cannot open the position of the merge") : 0;
}

int chron__store_open(chron__store *store, const char *home, const char *name)
{
    int tries = 0;
    int status;

    store->dir = IO->open_dir(IO, -1, home);
    if (store->dir < 0)
        return chron__fail_sys(store->dir, "", "cannot open %s, where the position of the merge is to be", home);
    (void)snprintf(store->file, sizeof store->file, "%s" SUFFIX, name);
    do {
        status = open_or_make(store);
    } while (status > 0 && ++tries < TRIES);
    return status > 0 ? chron__fail(CHRON_EREADER, "%s is made by others again and again", store->file) : status;
}

void chron__store_close(chron__store *store, int forked)
{
    if (forked) {
        store->lock.map = NULL;
        if (store->lock.fd >= 0)
            IO->close_file(IO, store->lock.fd); /* closing a copy does not give up the lock */
        store->lock.fd = -1;
    }
    give_up(store->fd, &store->lock);
    if (store->dir >= 0)
        IO->close_file(IO, store->dir);
    free(store->bytes.at);
    *store = (chron__store){.dir = -1, .fd = -1, .lock = {.fd = -1}};
}
