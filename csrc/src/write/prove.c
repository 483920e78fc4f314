/* SPDX-License-Identifier: MIT */
/*
 * prove.c - after a failed write-back the kernel keeps a page as if it had been written, and says so once, to those who have
 * the file open: a later opening that syncs is told that all is well (measured on ext4, xfs and others). So what was written before
 * a writer opened the queue is believed to be on the device when it was read from there, past the page cache. Pages that
 * are not there are made dirty once more, and synced again, which writes them anew.
 *
 * Where the device cannot be read past the cache, every page is written again: then the sync itself is the proof.
 */
#define _POSIX_C_SOURCE 200809L /* posix_memalign */

#include "write/prove.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (1024u * 1024)

/* Make the pages of [from, to) dirty, and change nothing. */
static void make_dirty(const chron__seg *seg, uint64_t from, uint64_t to)
{
    for (uint64_t at = from / CHRON__PAGE * CHRON__PAGE; at < to; at += CHRON__PAGE)
        chron__touch32(seg->map.base + at); /* [TOUCH] a write that changes nothing, beside the owner's */
}

/* Compares pages of one chunk. Returns how many differ; they are dirty afterwards. */
static size_t compare(const chron__seg *seg, const uint8_t *device, uint64_t at, uint64_t from, uint64_t to)
{
    size_t wrong = 0;

    for (uint64_t page = at; page < at + CHUNK_BYTES && page < to; page += CHRON__PAGE) {
        uint64_t begin = page > from ? page : from;
        uint64_t end = page + CHRON__PAGE < to ? page + CHRON__PAGE : to;

        if (end <= begin || memcmp(seg->map.base + begin, device + (begin - at), (size_t)(end - begin)) == 0)
            continue;
        make_dirty(seg, begin, end);
        wrong++;
    }
    return wrong;
}

/* How many pages the device does not have; -ENOTSUP if it cannot be asked; or another failure. */
static int64_t look(const chron__queue *q, const chron__seg *seg, uint64_t from, uint64_t to, uint8_t *buffer)
{
    char name[CHRON__NAME_BYTES];
    int64_t wrong = 0;

    chron__segment_name(seg->base_seq, name);
    for (uint64_t at = from / CHUNK_BYTES * CHUNK_BYTES; at < to; at += CHUNK_BYTES) {
        int64_t n = q->io->read_device(q->io, q->dir, name, buffer, CHUNK_BYTES, at);

        if (n < 0)
            return n;
        if ((uint64_t)n < CHUNK_BYTES)
            memset(buffer + n, 0, CHUNK_BYTES - (size_t)n);
        wrong += (int64_t)compare(seg, buffer, at, from, to);
    }
    return wrong;
}

int chron__prove(const chron__queue *q, chron__seg *seg, uint64_t from, uint64_t to)
{
    void *buffer = NULL;
    int64_t wrong;
    int status = 0;

    if (from >= to)
        return 0;
    if (posix_memalign(&buffer, CHRON__DIRECT_ALIGN, CHUNK_BYTES) != 0)
        return -ENOMEM;
    wrong = look(q, seg, from, to, buffer);
    if (wrong == -ENOTSUP)
        make_dirty(seg, from, to);
    if (wrong > 0 || wrong == -ENOTSUP)
        status = q->io->sync_file(q->io, seg->fd);
    if (status == 0 && wrong > 0)
        wrong = look(q, seg, from, to, buffer);
    free(buffer);
    if (status < 0)
        return status;
    return wrong > 0 ? -EIO : wrong < 0 && wrong != -ENOTSUP ? (int)wrong : 0;
}
