/* SPDX-License-Identifier: MIT */
/*
 * prove.c - after a failed write-back the kernel keeps a page as if it had been written, and says so once, to those who have
 * the file open: a later opening that syncs is told that all is well (measured on ext4, xfs and others). So what was
 * written before a writer opened the queue is believed to be on the device when it was read from there, past the page
 * cache.
 *
 * What is not there is written anew, to a new file. Making the old pages dirty once more does not help: ext4 writes them to
 * their blocks then, but goes on saying of those that they were never written (measured: 771 of 776 pages still missing).
 */
#define _POSIX_C_SOURCE 200809L /* posix_memalign */

#include "write/prove.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (1024u * 1024)

/* Of the chunk that begins at `at`: is what lies in [from, to) the same? */
static int is_same(const chron__seg *seg, const uint8_t *device, uint64_t at, uint64_t from, uint64_t to)
{
    uint64_t begin = at > from ? at : from;
    uint64_t end = at + CHUNK_BYTES < to ? at + CHUNK_BYTES : to;

    return memcmp(seg->map.base + begin, device + (begin - at), (size_t)(end - begin)) == 0;
}

static int look(const chron__queue *q, const chron__seg *seg, uint64_t from, uint64_t to, uint8_t *buffer)
{
    char name[CHRON__NAME_BYTES];

    chron__segment_name(seg->base_seq, name);
    for (uint64_t at = from / CHUNK_BYTES * CHUNK_BYTES; at < to; at += CHUNK_BYTES) {
        int64_t n = q->io->read_device(q->io, q->dir, name, buffer, CHUNK_BYTES, at);

        if (n < 0)
            return n == -ENOTSUP ? 0 : (int)n;
        memset(buffer + n, 0, CHUNK_BYTES - (size_t)n);
        if (!is_same(seg, buffer, at, from, to))
            return 0;
    }
    return 1;
}

int chron__prove(const chron__queue *q, const chron__seg *seg, uint64_t from, uint64_t to)
{
    void *buffer = NULL;
    int status;

    if (from >= to)
        return 1;
    if (posix_memalign(&buffer, CHRON__DIRECT_ALIGN, CHUNK_BYTES) != 0)
        return -ENOMEM;
    status = look(q, seg, from, to, buffer);
    free(buffer);
    return status;
}
