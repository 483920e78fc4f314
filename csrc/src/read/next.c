/* SPDX-License-Identifier: MIT */
/*
 * next.c - reading forward. The hot path of readers.
 *
 * Invariants:
 *  - A record is returned only if its seq is the one expected, it lies within the mapping, its epoch is
 *    not below that of the record before, and its CRC matches.
 *  - An error leaves the position where it was.
 *  - "Nothing there" is said of a zero commit word only if nothing proves that a record must be there:
 *    neither the segment's seal, nor the durable mark, nor the writer's last words, nor a later segment.
 */
#include "read/next.h"

#include <inttypes.h>

#include "base/assert.h"
#include "base/error.h"
#include "queue/gaps.h"
#include "read/around.h"
#include "read/attach.h"

#define HOLE_LOOKS_MASK 0xFFFFu /* empty looks between two listings of the directory */

/* Is the record that was consumed last still what it was? Asked when the epoch changes. */
static int check_history(const chron_reader *r)
{
    chron__rec rec;

    if (!r->has_last || r->last_offset == 0)
        return 0;
    if (chron__rec_load(r->base, r->size, r->last_offset, &rec) == CHRON__REC_DATA && rec.crc == r->last_crc)
        return 0;
    return chron__at(chron__fail(CHRON_EREWRITTEN,
                                 "record %" PRIu64 ", which this reader has read, was replaced: a writer recovered "
                                 "from damage by cutting it off. Seek to where you want to go on",
                                 r->next_seq - 1u),
                     "", 0, r->next_seq - 1u);
}

/*
 * Is there a segment that begins behind the position, though this one has no record there? A live writer gives the
 * next one its name only when all before it is published, so that is a hole left by a loss of power, until the next
 * writer recovers. Or does an accepted gap begin here? Asked at the first look at an empty tail in a segment, and seldom
 * afterwards: it lists a directory.
 */
static int is_hole(const chron_reader *r)
{
    chron__bases bases;
    chron__gaps gaps;
    int found;

    if (chron__queue_list(&r->q, &bases) < 0)
        return 0;
    found = bases.count > 0 && bases.at[bases.count - 1u] > r->next_seq;
    chron__bases_free(&bases);
    if (!found && chron__gaps_load(&r->q, &gaps) == 0) {
        found = chron__gaps_find(&gaps, r->next_seq) != NULL;
        chron__gaps_free(&gaps);
    }
    return found;
}

/*
 * Has another writer opened the queue since? Its recovery may have cut off what this reader has read, and the record at
 * the position with it, or moved the segment away. 0: no; 1: yes, but the position is in the log as it is now: look
 * again; EREWRITTEN.
 */
static int check_takeover(chron_reader *r)
{
    int status;

    chron__queue_refresh_state(&r->q, &r->mark); /* it costs next to nothing */
    if (__builtin_expect(r->mark.epoch == r->writer_epoch, 1))
        return 0;
    status = chron__reader_reattach(r);
    if (status < 0)
        return status;
    r->writer_epoch = r->mark.epoch;
    return 1;
}

/* What stands at the position cannot be. Unless that is a writer's doing. */
static int check_broken(chron_reader *r, const char *why)
{
    int status = check_takeover(r);

    return status ? status : chron__reader_damaged(r, why);
}

/* A zero commit word at the position. 0: nothing there yet; 1: look again; ECORRUPT: it was erased. */
static int check_empty(chron_reader *r)
{
    const chron__slot_value *mark = &r->mark;
    chron__seal_value seal;
    const char *why;
    int status;

    r->eager_from = r->offset + CHRON__FAR_BEHIND;
    if (chron__map_faulted(&r->seg->map))
        return chron__reader_damaged(r, "");
    status = check_takeover(r);
    if (__builtin_expect(status != 0, 0))
        return status;
    if (chron__seg_seal_load(r->seg, &seal) == 1) /* [SEAL] END, and all before it, are visible now */
        why = "it was erased: the segment's seal says that there is one";
    else if (mark->durable_next > r->next_seq || ((mark->flags & CHRON__SLOT_CLEAN) && mark->next_seq > r->next_seq))
        why = "it was erased: queue.meta says that there is one";
    else if ((r->empty_looks++ & HOLE_LOOKS_MASK) == 0 && is_hole(r))
        why = "nothing stands there, but a later segment exists";
    else
        return 0;
    r->empty_looks = 0;                                     /* every look is to say so */
    if (chron__load_acquire_le32(r->base + r->offset) != 0) /* [PUBLISH] with chron__rec_publish */
        return 1;                                           /* it came in between */
    return chron__reader_damaged(r, why);
}

/* END at the position: go on in the segment that it leads to. */
static int follow_end(chron_reader *r, const chron__rec *rec)
{
    uint32_t last_crc = r->last_crc;
    uint32_t epoch = r->epoch;
    int has_last = r->has_last;
    chron__seg *next;
    int status;

    if (!chron__rec_crc_ok(rec, rec->payload))
        return chron__reader_damaged(r, "the CRC of the END record does not match");
    if (chron__rec_seq(rec) != r->next_seq)
        return chron__reader_damaged(r, "the END record leads to another seq");
    if (chron__rec_epoch(rec) < r->epoch)
        return chron__reader_damaged(r, "the END record is a remnant of an earlier epoch");
    if (r->next_seq == r->seg->base_seq) /* it would lead to itself; no writer leaves a segment empty */
        return chron__reader_damaged(r, "an END record stands in place of the segment's first record");
    status = chron__seg_open(&r->q, r->next_seq, CHRON__SEG_HEADLESS, &next);
    if (status == -CHRON_EGONE)
        return chron__reader_missing(r);
    if (status < 0)
        return status;
    if (!next->headless && next->prev_base != r->seg->base_seq) {
        chron__seg_release(next);
        return chron__reader_damaged(r, "the segment that END leads to does not follow this one");
    }
    chron__reader_enter_segment(r, next, next->data_offset, r->next_seq);
    r->last_crc = last_crc; /* the record before is the same one as before, only out of sight */
    r->has_last = has_last;
    r->epoch = epoch;
    CHRON__ASSERT(r->seg->base_seq == r->next_seq);
    r->stats.rolls++;
    return 1;
}

/* The reader has read all that is durable. 0; or EIO: there is no telling any more, as queue.meta went away. */
static int is_blind(const chron_reader *r)
{
    return __builtin_expect(chron__map_faulted(&r->q.meta), 0) ? chron__fail_fault(CHRON__FILE_META, "") : 0;
}

/* chron__reader_peek, but for gaps. */
static int look(chron_reader *r, chron__rec *rec)
{
    for (;;) {
        enum chron__rec_state state;
        int status;

        if (__builtin_expect(!chron__reader_is_visible(r, r->next_seq), 0))
            return is_blind(r);
        if (__builtin_expect(!r->seg, 0)) {
            status = chron__reader_attach(r);
            if (status <= 0)
                return status;
            continue;
        }
        state = chron__rec_load(r->base, r->size, r->offset, rec);
        if (state == CHRON__REC_NONE) {
            status = check_empty(r);
            if (status <= 0)
                return status;
            continue;
        }
        if (__builtin_expect(state == CHRON__REC_DATA, 1)) {
            if (__builtin_expect(chron__rec_seq(rec) == r->next_seq, 1))
                return 1;
            status = check_broken(r, "another seq stands in its place");
        } else if (state == CHRON__REC_BROKEN) {
            status = check_broken(r, "its length is impossible");
        } else {
            status = follow_end(r, rec);
        }
        if (status <= 0)
            return status;
    }
}

int chron__reader_pass_damage(chron_reader *r, int status)
{
    int passed = status == -CHRON_ECORRUPT ? chron__reader_pass_gap(r) : 0;

    return passed ? passed : status;
}

int chron__reader_peek(chron_reader *r, chron__rec *rec)
{
    int status;

    do {
        status = look(r, rec);
        if (__builtin_expect(status > 0, 1))
            return status;
        status = status == 0 ? chron__reader_look_around(r) : chron__reader_pass_damage(r, status);
    } while (status > 0);
    return status;
}

/* See chron__reader_check. */
static inline int check(const chron_reader *r, const chron__rec *rec, const void *payload)
{
    if (__builtin_expect(!chron__rec_crc_ok(rec, payload), 0))
        return chron__reader_damaged(r, "its CRC does not match");
    if (__builtin_expect(chron__rec_epoch(rec) != r->epoch, 0)) {
        if (chron__rec_epoch(rec) < r->epoch)
            return chron__reader_damaged(r, "it is a remnant of an earlier epoch");
        return check_history(r);
    }
    return 0;
}

int chron__reader_check(const chron_reader *r, const chron__rec *rec, const void *payload)
{
    return check(r, rec, payload);
}

/* What chron__reader_peek says when nothing is the matter, without a call. */
static inline int peek(chron_reader *r, chron__rec *rec)
{
    if (__builtin_expect(r->seg && r->next_seq < r->visible, 1) &&
        __builtin_expect(chron__rec_load(r->base, r->size, r->offset, rec) == CHRON__REC_DATA, 1) &&
        __builtin_expect(chron__rec_seq(rec) == r->next_seq, 1)) {
        return 1;
    }
    return chron__reader_peek(r, rec);
}

static inline int next(chron_reader *r, chron_view *out)
{
    chron__rec rec;
    int status;

    do {
        status = peek(r, &rec);
        if (__builtin_expect(status <= 0, 0))
            return status;
        chron__reader_ask_ahead(r->base, r->offset, r->eager_from, chron__rec_bytes(&rec));
        status = check(r, &rec, rec.payload);
        if (__builtin_expect(status == 0, 1))
            break;
        status = chron__reader_pass_damage(r, status);
    } while (status > 0);
    if (__builtin_expect(status < 0, 0))
        return status;
    chron__reader_view(&rec, rec.payload, out);
    chron__reader_advance(r, &rec);
    return 1;
}

int chron_reader_next(chron_reader *r, chron_view *out)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = out ? next(r, out) : chron__fail(CHRON_EINVAL, "there is no view to fill");
    chron__reader_leave(r);
    return status;
}

static int next_copy(chron_reader *r, void *buffer, size_t capacity, chron_view *out)
{
    chron__rec rec;
    int status = peek(r, &rec);

    if (status <= 0)
        return status;
    if (rec.length > capacity) {
        /* Before anybody allocates by this length, make sure that it is one. */
        status = check(r, &rec, rec.payload);
        if (status < 0) {
            status = chron__reader_pass_damage(r, status);
            return status > 0 ? next_copy(r, buffer, capacity, out) : status;
        }
        chron__reader_view(&rec, NULL, out);
        return chron__fail(CHRON_EBUFFER, "the payload has %u bytes, the buffer %zu", (unsigned)rec.length, capacity);
    }
    chron__reader_ask_ahead(r->base, r->offset, r->eager_from, chron__rec_bytes(&rec));
    if (rec.length)
        memcpy(buffer, rec.payload, rec.length);
    status = check(r, &rec, buffer);
    if (status < 0) {
        status = chron__reader_pass_damage(r, status);
        return status > 0 ? next_copy(r, buffer, capacity, out) : status;
    }
    chron__reader_view(&rec, buffer, out);
    chron__reader_advance(r, &rec);
    return 1;
}

int chron_reader_next_copy(chron_reader *r, void *buffer, size_t capacity, chron_view *out)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    if (!out || (!buffer && capacity > 0))
        status = chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    else
        status = next_copy(r, buffer, capacity, out);
    chron__reader_leave(r);
    return status;
}

/*
 * Up to `count` records that are plainly there: END, damage and the durable mark are left to the next call. The
 * position is kept in registers meanwhile.
 */
static size_t take_plain(chron_reader *r, chron_view *out, size_t count)
{
    const uint8_t *base = r->base;
    uint64_t size = r->size;
    uint64_t offset = r->offset;
    uint64_t seq = r->next_seq;
    uint64_t payload_bytes = 0;
    uint32_t crc = r->last_crc;
    uint64_t last_offset = r->last_offset;
    uint64_t eager_from = r->eager_from;
    size_t n;

    if (count > r->visible - seq)
        count = (size_t)(r->visible - seq);
    for (n = 0; n < count; n++, seq++) {
        chron__rec rec;

        if (chron__rec_load(base, size, offset, &rec) != CHRON__REC_DATA || chron__rec_seq(&rec) != seq ||
            chron__rec_epoch(&rec) != r->epoch || !chron__rec_crc_ok(&rec, rec.payload))
            break;
        chron__reader_ask_ahead(base, offset, eager_from, chron__rec_bytes(&rec));
        chron__reader_view(&rec, rec.payload, &out[n]);
        crc = rec.crc;
        last_offset = offset;
        offset += chron__rec_bytes(&rec);
        payload_bytes += rec.length;
    }
    CHRON__ASSERT(n <= count && seq == r->next_seq + n && offset <= size - CHRON__RECORD_HEADER);
    r->last_crc = crc;
    r->last_offset = last_offset;
    r->offset = offset;
    r->next_seq = seq;
    r->stats.records += n;
    r->stats.payload_bytes += payload_bytes;
    return n;
}

static int64_t next_batch(chron_reader *r, chron_view *out, size_t count)
{
    const chron__seg *seg;
    size_t n = 1;
    int status;

    if (count == 0)
        return 0;
    status = next(r, &out[0]); /* what is not plain */
    if (status <= 0)
        return status;
    seg = r->seg;
    if (r->next_seq < r->visible)
        n += take_plain(r, out + 1, count - 1u);
    if (chron__map_faulted(&seg->map)) /* [FAULT] then the views lead to zeros */
        return chron__reader_damaged(r, "");
    return (int64_t)n;
}

int64_t chron_reader_next_batch(chron_reader *r, chron_view *out, size_t count)
{
    int64_t status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = out ? next_batch(r, out, count) : chron__fail(CHRON_EINVAL, "there are no views to fill");
    chron__reader_leave(r);
    return status;
}
