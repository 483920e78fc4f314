/* SPDX-License-Identifier: MIT */
/*
 * around.c - a reader maps files, and finds nothing new in them. Is it that nothing new is written, or that it is written
 * elsewhere? Files may be removed, restored from a backup, or replaced by copies while they are mapped (an overlay file
 * system copies a file when it is first written to, and gives the copy the same inode number). So a reader that
 * has nothing to do looks now and then at what the names lead to, and compares what stands there.
 *
 * Invariant: what is read through a name before the mapping is looked at cannot be newer than the mapping, if both are
 * the same file.
 */
#include "read/around.h"

#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/error.h"
#include "format/header.h"
#include "read/attach.h"

#define BELL_EVERY_NS 50000000u /* 50 ms: less than a sleep without it takes */
#define LOOK_EVERY_NS 10000000u /* 10 ms, in which nothing was read */

static int removed(const char *what)
{
    return chron__fail(CHRON_EREMOVED,
                       "%s while this reader had it open: nothing more will come here. Close it, and open "
                       "the queue that is there now, if there is one",
                       what);
}

/* Go over to the queue.meta that is there now, and to the position in the segments that are there now. As look_around. */
static int go_over(chron_reader *r)
{
    chron__queue now = r->q;
    int status;

    now.meta.base = NULL;
    status = chron__queue_open_meta(&now, "the queue", 0);
    if (status < 0) {
        if (now.meta.base)
            now.io->unmap(now.io, &now.meta);
        return 0; /* it has just been changed once more: the next look tells */
    }
    if (r->q.meta.base)
        r->q.io->unmap(r->q.io, &r->q.meta);
    r->q.meta = now.meta;
    r->q.meta_lost = 0;
    r->q.reuses = now.reuses;
    memset(&r->mark, 0, sizeof r->mark);
    chron__queue_refresh_state(&r->q, &r->mark);
    r->visible = r->options.flags & CHRON_DURABLE_ONLY ? 0 : CHRON_SEQ_NONE;
    status = chron__reader_reattach(r);
    if (status < 0)
        return status;
    r->writer_epoch = r->mark.epoch;
    return 1;
}

/* Is queue.meta the one that is mapped? */
static int check_meta(chron_reader *r)
{
    uint8_t page[CHRON__PAGE] = {0};
    chron__file_header header;
    chron__slot_value there;
    int64_t n = chron__read_file(r->q.io, r->q.dir, CHRON__FILE_META, page, sizeof page);

    if (n == -ENOENT && r->q.io->links(r->q.io, r->q.dir) == 0)
        return removed("the queue was removed");
    if (n != (int64_t)sizeof page || chron__header_decode(page, CHRON__MAGIC_META, NULL, CHRON__FILE_META, &header) < 0)
        return 0; /* lost, or damaged: what is mapped is better */
    if (memcmp(header.uuid, r->q.uuid, sizeof header.uuid) != 0)
        return removed("another queue took the place of this one");
    if (!chron__slots_load(page, &there))
        return 0;
    chron__queue_refresh_state(&r->q, &r->mark); /* afterwards: it cannot be older */
    return (int64_t)(there.generation - r->mark.generation) > 0 ? go_over(r) : 0;
}

/* Is the segment the one that is mapped? A record at the position which the mapping does not show tells that it is not. */
static int check_segment(chron_reader *r)
{
    const chron__io *io = r->q.io;
    char name[CHRON__NAME_BYTES];
    uint8_t word[4] = {0};
    int64_t n;
    int fd;

    if (!r->seg)
        return 0;
    chron__segment_name(r->seg->base_seq, name);
    fd = io->open_file(io, r->q.dir, name, CHRON__OPEN_READ, 0);
    if (fd < 0)
        return 0;
    n = io->read_at(io, fd, word, sizeof word, r->offset);
    io->close_file(io, fd);
    if (n != (int64_t)sizeof word || chron__read_le32(word) == 0 ||
        chron__load_acquire_le32(r->base + r->offset) != 0) /* [PUBLISH] with chron__rec_publish */
        return 0;
    n = chron__reader_reattach(r);
    return n < 0 ? (int)n : 1;
}

void chron__reader_mind_doorbell(chron_reader *r)
{
    uint8_t header[sizeof(chron__file_header)] = {0};
    uint64_t now = chron__clock_ns(1);

    if (__builtin_expect(now - r->bell_ns < BELL_EVERY_NS, 1))
        return;
    r->bell_ns = now;
    if (r->bell.map.base &&
        (chron__read_file(r->q.io, r->q.dir, CHRON__FILE_DOORBELL, header, sizeof header) != (int64_t)sizeof header ||
         memcmp(header, r->bell.map.base, sizeof header) == 0))
        return;
    chron__doorbell_close(&r->q, &r->bell);
    chron__doorbell_open(&r->q, &r->bell);
}

int chron__reader_look_around(chron_reader *r)
{
    uint64_t now = chron__clock_ns(1);
    chron_error before;
    int status;

    if (__builtin_expect(now - r->looked_ns < LOOK_EVERY_NS, 1))
        return 0;
    if (r->looked_at != r->stats.records) { /* where records come, this is where they come */
        r->looked_at = r->stats.records;
        r->looked_ns = now;
        return 0;
    }
    before = *chron_last_error();
    r->looked_ns = now;
    status = check_meta(r);
    if (status == 0)
        status = check_segment(r);
    if (status < 0)
        r->looked_ns = 0; /* whoever asks again is told again */
    else
        *chron__error() = before; /* what could not be read is nobody's business */
    return status;
}
