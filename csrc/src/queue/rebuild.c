/* SPDX-License-Identifier: MIT */
/*
 * rebuild.c - see rebuild.h. Each segment's header says what queue.meta's does. What the slots said is lost with them: then
 * nothing counts as durable, and nobody knows how the last writer ended, as after another boot. But the epoch must
 * not be given away again: it goes on far above the highest that was ever seen, also in what a loss of power left behind
 * the end of the log.
 */
#include "queue/rebuild.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/step.h"
#include "format/header.h"
#include "format/segment.h"
#include "queue/quarantine.h"

#define EPOCH_MARGIN 65536u /* openings whose every trace may be gone */
#define NAMES_BYTES 320u

/* ------------------------------------------------------------------------------------- what is left */

/* The header of one segment: 1; 0 if it cannot be believed; or a failure. */
static int read_header(const chron__queue *q, uint64_t base_seq, char *name, chron__file_header *out)
{
    uint8_t bytes[sizeof(chron__file_header)] = {0};
    int64_t n;
    int status;

    chron__segment_name(base_seq, name);
    n = chron__read_file(q->io, q->dir, name, bytes, sizeof bytes);
    if (n < 0 && n != -EIO && n != -EINVAL && n != -ELOOP && n != -ENOENT)
        return chron__fail_sys((int)n, name, "cannot read %s", name);
    if (n < (int64_t)sizeof bytes)
        return 0;
    status = chron__header_decode(bytes, CHRON__MAGIC_SEGMENT, NULL, name, out);
    if (status < 0)
        return status == -CHRON_ECORRUPT ? 0 : status;
    return out->base_seq == base_seq;
}

static int is_same_queue(const chron__file_header *a, const chron__file_header *b)
{
    return memcmp(a->uuid, b->uuid, sizeof a->uuid) == 0 && a->segment_size == b->segment_size;
}

/* The names of those that are (not) of the same queue as `first`, as many as there is room for. */
static int list_names(const chron__queue *q, const chron__bases *bases, const chron__file_header *first, int same,
                      char *text)
{
    size_t length = 0;

    for (size_t i = 0; i < bases->count && length + CHRON__NAME_BYTES < NAMES_BYTES; i++) {
        char name[CHRON__NAME_BYTES];
        chron__file_header header;
        int known = read_header(q, bases->at[i], name, &header);

        if (known < 0)
            return known;
        if (known && is_same_queue(&header, first) == same)
            length += (size_t)snprintf(text + length, NAMES_BYTES - length, "%s%s", length ? ", " : "", name);
    }
    return 0;
}

static int refuse_mixture(const chron__queue *q, const chron__bases *bases, const chron__file_header *first,
                          size_t same, size_t others, const char *path)
{
    char names[NAMES_BYTES] = "";
    size_t fewer = others <= same ? others : same;
    int status = list_names(q, bases, first, others > same, names);

    if (status < 0)
        return status;
    return chron__at(
        chron__fail(CHRON_ECORRUPT,
                    "the segments in %.60s are of different queues: %zu of %zu are of another than the rest "
                    "(%s). Move those away that do not belong here, and repair again",
                    path, fewer, same + others, names),
        CHRON__FILE_META, 0, CHRON_SEQ_NONE);
}

/* Take the geometry from the segments, which have to agree. */
static int take_from_segments(chron__queue *q, const chron__bases *bases, const char *path, chron__remains *r)
{
    chron__file_header first = {0};
    size_t same = 0;
    size_t others = 0;

    for (size_t i = 0; i < bases->count; i++) {
        char name[CHRON__NAME_BYTES];
        chron__file_header header;
        int known = read_header(q, bases->at[i], name, &header);

        if (known < 0)
            return known;
        if (known && same == 0) {
            first = header;
            memcpy(r->source, name, sizeof r->source);
        }
        same += known && is_same_queue(&header, &first);
        others += known && !is_same_queue(&header, &first);
    }
    if (others)
        return refuse_mixture(q, bases, &first, same, others, path);
    if (same)
        return chron__queue_take_geometry(q, &first);
    return chron__at(
        chron__fail(CHRON_ECORRUPT, "queue.meta of %.60s %s, and %s from which it could be made anew", path, r->why,
                    bases->count ? "no segment has a header that can be believed," : "there is no segment"),
        CHRON__FILE_META, 0, CHRON_SEQ_NONE);
}

/* What stands in the file itself. */
static int look_at_file(chron__queue *q, chron__remains *r)
{
    const chron__io *io = q->io;
    chron__file_header header;
    int64_t n;
    int status;
    int fd = io->open_file(io, q->dir, CHRON__FILE_META, CHRON__OPEN_READ, 0);

    memset(r, 0, sizeof *r);
    r->exists = fd != -ENOENT;
    r->header_lost = r->state_lost = !r->exists;
    r->why = r->exists ? NULL : "is missing";
    if (!r->exists)
        return 0;
    if (fd < 0)
        return chron__fail_sys(fd, CHRON__FILE_META, "cannot open queue.meta");
    n = io->read_at(io, fd, r->page, sizeof r->page, 0);
    status = n < 0 ? (int)n : io->place(io, fd, &r->place);
    io->close_file(io, fd);
    if (status < 0)
        return chron__fail_sys(status, CHRON__FILE_META, "cannot read queue.meta");
    r->bytes = (size_t)n;
    r->state_lost = !chron__slots_load(r->page, &r->state);
    if (r->state_lost)
        r->why = "has no valid copy of the writer's state";
    status = chron__header_decode(r->page, CHRON__MAGIC_META, NULL, CHRON__FILE_META, &header);
    if (status == 0)
        status = chron__queue_take_geometry(q, &header);
    r->header_lost = status == -CHRON_ECORRUPT;
    if (r->header_lost)
        r->why = "is damaged";
    if (r->bytes < sizeof r->page)
        r->why = "is cut short";
    return r->header_lost ? 0 : status;
}

int chron__remains_look(chron__queue *q, const char *path, chron__remains *r)
{
    chron__bases bases;
    int status = look_at_file(q, r);

    if (status < 0 || !r->header_lost)
        return status;
    status = chron__queue_list(q, &bases);
    if (status < 0)
        return status;
    if (!r->exists && bases.count == 0)
        status = chron__fail(CHRON_ENOQUEUE, "there is no queue at %s: the directory has no queue.meta", path);
    else
        status = take_from_segments(q, &bases, path, r);
    chron__bases_free(&bases);
    return status;
}

int chron__remains_open(chron__queue *q, const chron__io *io, const char *path, uint32_t flags)
{
    chron__remains r;
    int status = chron__queue_open_dir(q, io, path, flags);

    if (status < 0)
        return status;
    status = chron__queue_open_meta(q, path, 0);
    if (status != -CHRON_ECORRUPT && status != -CHRON_ENOQUEUE)
        return status;
    q->meta_lost = 1;
    status = chron__remains_look(q, path, &r);
    if (status == 0 && r.state_lost && q->meta.base)
        io->unmap(io, &q->meta);
    return status;
}

void chron__remains_wish(const chron__remains *r, chron__wish *wish)
{
    wish->state = r->state;
    if (r->state_lost) {
        wish->state.epoch = r->epoch;
        return;
    }
    wish->whence = chron__state_whence(r->page, &r->state, &r->place);
    (void)chron__words_load(r->page, r->state.epoch, &wish->words);
}

int chron__remains_date(const chron__queue *q, chron__remains *r)
{
    chron__bases bases;
    int status;

    if (!r->state_lost)
        return 0;
    status = chron__queue_list(q, &bases);
    if (status < 0)
        return status;
    for (size_t i = 0; status == 0 && i < bases.count; i++) {
        int flags = CHRON__SEG_KEEP | CHRON__SEG_HEADLESS | CHRON__SEG_SALVAGE;
        uint32_t epoch;
        chron__seg *seg;

        status = chron__seg_open(q, bases.at[i], flags, &seg);
        if (status == -CHRON_ECORRUPT) { /* nothing can be had of it */
            status = 0;
            continue;
        }
        if (status < 0)
            break;
        epoch = chron__seg_highest_epoch(seg);
        r->epoch = seg->epoch > r->epoch ? seg->epoch : r->epoch;
        r->epoch = epoch > r->epoch ? epoch : r->epoch;
        status = chron__map_faulted(&seg->map) ? chron__seg_fail_fault(seg, "") : 0;
        chron__seg_release(seg);
    }
    chron__bases_free(&bases);
    return status;
}

void chron__remains_tell(const chron__remains *r, chron__tell *tell)
{
    chron_problem found = {.kind = CHRON_PROBLEM_META, .action = CHRON_ACTION_ANEW};

    found.seq = found.seq_end = CHRON_SEQ_NONE;
    found.offset = r->header_lost ? 0 : CHRON__SLOT_A;
    if (!r->why)
        return;
    chron__tell_say(tell, &found, CHRON__FILE_META, "queue.meta %s: it is made anew%s%s%s", r->why,
                    r->header_lost ? ", from what " : "", r->source, r->header_lost ? " says" : "");
}

/* ----------------------------------------------------------------------------------------- making it */

/* The state is whole: only the header is put right, in place, so that all else that is known of the queue stays. */
static int mend_header(const chron__queue *q)
{
    const chron__io *io = q->io;
    uint8_t header[sizeof(chron__file_header)];
    int fd = io->open_file(io, q->dir, CHRON__FILE_META, CHRON__OPEN_WRITE, 0);
    int64_t status = fd;

    chron__queue_encode_geometry(q, header);
    if (fd >= 0) {
        status = io->write_at(io, fd, header, sizeof header, 0);
        if (status >= 0)
            status = io->sync_file(io, fd);
        io->close_file(io, fd);
    }
    return status < 0 ? chron__fail_sys((int)status, CHRON__FILE_META, "cannot write queue.meta") : 0;
}

int chron__rebuild(const chron__queue *q, const chron__remains *r, unsigned mode)
{
    uint8_t page[CHRON__PAGE] = {0};
    chron__slot_value state = {.epoch = r->epoch + EPOCH_MARGIN - 1u, .time_ns = chron__clock_ns(0)};
    int status = r->exists ? chron__quarantine_page(q, CHRON__FILE_META, r->page, r->bytes, state.epoch) : 0;

    CHRON__STEP("rebuild: old queue.meta kept");
    if (status < 0)
        return status;
    if (!r->state_lost && r->bytes == sizeof r->page)
        return mend_header(q);
    chron__queue_encode_geometry(q, page);
    if (!r->state_lost)
        state = r->state;
    chron__slots_store(page, &state, CHRON__SLOTS_TURN);
    return chron__queue_replace_meta(q, page, mode);
}
