/* SPDX-License-Identifier: MIT */
/*
 * seek.c - moving a reader: to a seq, a time, either end, back, past damage; and how far the end is.
 *
 * Invariant: a move that fails leaves the reader where it was.
 */
#include "read/seek.h"

#include <inttypes.h>

#include "base/error.h"
#include "read/around.h"
#include "read/attach.h"
#include "read/next.h"
#include "read/sift.h"

#define TRIES 100 /* retention may delete what a listing has just shown, again and again, but not for ever */

static int seek(chron_reader *r, uint64_t seq)
{
    uint64_t end = r->next_seq; /* what was read exists: only beyond it the end has to be found */
    int status = seq > end || !chron__reader_is_visible(r, seq) ? chron__reader_end(r, &end) : 0;

    if (status < 0)
        return status;
    if (seq > end)
        return chron__fail_range(r->options.flags & CHRON_DURABLE_ONLY ? "durable " : "", seq, end);
    status = chron__reader_move_to(r, seq, r->seg);
    return status < 0 ? status : 0;
}

static int seek_earliest(chron_reader *r)
{
    int status = 0;

    for (int tries = 0; tries < TRIES; tries++) {
        chron__bases bases;
        chron__told told;

        if (tries > 0 || !chron__queue_told(&r->q, &told)) {
            status = chron__queue_list(&r->q, &bases);
            if (status < 0)
                return status;
            told.oldest = bases.count ? bases.at[0] : 0;
            chron__bases_free(&bases);
        }
        status = chron__reader_move_to(r, told.oldest, r->seg);
        if (status != -CHRON_EGONE)
            break;
    }
    return status < 0 ? status : 0;
}

static int seek_latest(chron_reader *r)
{
    int status = 0;

    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t end;

        status = chron__reader_look_around(r);
        /* Whatever became of the position: it is about to be left. */
        if (status >= 0 || status == -CHRON_EREWRITTEN || status == -CHRON_EGONE)
            status = chron__reader_end(r, &end);
        if (status < 0)
            return status;
        status = chron__reader_move_to(r, end, r->seg);
        if (status != -CHRON_EGONE) /* else the writer has gone on since, and what was the end is deleted */
            break;
    }
    return status < 0 ? status : 0;
}

/* Does the sealed segment end before `timestamp_ns`? Then it need not be mapped. */
static int ends_before(chron_reader *r, uint64_t base_seq, uint64_t timestamp_ns)
{
    uint8_t page[CHRON__SEAL_END] = {0};
    char name[CHRON__NAME_BYTES];
    chron__seal_value seal;

    chron__segment_name(base_seq, name);
    if (chron__read_file(r->q.io, r->q.dir, name, page, sizeof page) != (int64_t)sizeof page)
        return 0;
    return chron__seal_decode(page, base_seq, &seal) == 1 && (seal.flags & CHRON__SEAL_MONOTONE) &&
           seal.last_ts < timestamp_ns;
}

/* In this segment? 1: the reader is there; 2: yes, but it is not visible yet; 0; or EIO. Damage is passed over. */
static int seek_time_in(chron_reader *r, uint64_t base_seq, uint64_t known, uint64_t timestamp_ns)
{
    chron__seg *seg;
    uint64_t offset;
    uint64_t seq;
    int status = chron__seg_open(&r->q, base_seq, CHRON__SEG_HEADLESS, &seg);

    if (status < 0)
        return status == -CHRON_EGONE || status == -CHRON_ECORRUPT ? 0 : status;
    status = chron__seg_find_time(seg, timestamp_ns, known, &offset, &seq);
    if (chron__map_faulted(&seg->map))
        status = chron__seg_fail_fault(seg, "");
    if (status > 0 && !chron__reader_is_visible(r, seq))
        status = 2;
    if (status == 1)
        chron__reader_enter_segment(r, seg, offset, seq);
    else
        chron__seg_release(seg);
    return status;
}

static int seek_time(chron_reader *r, uint64_t timestamp_ns)
{
    chron__bases bases;
    int status = chron__queue_list(&r->q, &bases);

    for (size_t i = 0; status == 0 && i < bases.count; i++)
        if (i + 1u == bases.count || !ends_before(r, bases.at[i], timestamp_ns))
            status = seek_time_in(r, bases.at[i], chron__reader_known(r, &bases, (int64_t)i), timestamp_ns);
    chron__bases_free(&bases);
    if (status < 0)
        return status;
    return status == 1 ? 0 : seek_latest(r);
}

/* ------------------------------------------------------------------------------------------- back */

/* The same, of those that are wanted: what lies in between is not, or is damaged. */
static int previous_wanted(chron_reader *r, chron_view *out)
{
    chron__seg *seg;
    chron__rec rec;
    uint64_t offset;
    int status = chron__reader_sift_back(r, &seg, &offset, &rec, UINT64_MAX);

    if (status <= 0)
        return status;
    chron__reader_enter_segment(r, seg, offset, chron__rec_seq(&rec));
    chron__reader_view(&rec, rec.payload, out);
    r->stats.records++;
    r->stats.payload_bytes += rec.length;
    return 1;
}

static int previous(chron_reader *r, chron_view *out)
{
    uint64_t from = r->next_seq;
    uint64_t skipped;
    chron__seg *seg;
    chron__rec rec;
    uint64_t offset;
    int status;

    if (r->sift)
        return previous_wanted(r, out);
    if (from > 0 && !chron__reader_is_visible(r, from - 1u))
        from = r->visible;
    status = chron__reader_find_before(r, from, &seg, &offset, &rec);
    if (status <= 0)
        return status;
    skipped = from - 1u - chron__rec_seq(&rec);
    if (skipped > 0) {
        r->stats.skipped += skipped;
        r->stats.gaps++;
    }
    chron__reader_enter_segment(r, seg, offset, chron__rec_seq(&rec));
    chron__reader_view(&rec, rec.payload, out);
    r->stats.records++;
    r->stats.payload_bytes += rec.length;
    return 1;
}

/* ------------------------------------------------------------------------------------ past damage */

/* Can the segment that begins with the position be entered? Then it was only the way there that is damaged. */
static int enter_whole(chron_reader *r, uint64_t base_seq)
{
    chron__seg *seg;

    if (chron__seg_open(&r->q, base_seq, CHRON__SEG_HEADLESS, &seg) < 0)
        return 0;
    chron__reader_enter_segment(r, seg, seg->data_offset, base_seq);
    return 1;
}

/*
 * Nothing that can be read follows the damage. What is known to have been there is passed over: the reader waits behind it.
 * Else it stays, as the next writer may cut it off, and give its seqs to others.
 */
static int64_t stand_behind(chron_reader *r)
{
    uint64_t from = r->next_seq;
    uint64_t behind = chron__reader_known(r, NULL, -1);
    int alive = chron__queue_writer_alive(&r->q);

    if (alive < 0)
        return alive;
    if (alive && behind <= from)
        behind = from + 1u; /* what a living writer has published stays */
    if (behind <= from)
        return chron__at(
            chron__fail(CHRON_ECORRUPT, "record %" PRIu64 " is damaged, and nothing readable follows it yet", from), "",
            0, from);
    chron__reader_enter_segment(r, NULL, 0, behind);
    return (int64_t)(behind - from);
}

/* Go on at the segment behind that of the position: how many seqs that passes over. */
static int64_t skip_segment(chron_reader *r)
{
    chron__bases bases;
    uint64_t from = r->next_seq;
    size_t i;
    int status = chron__queue_list(&r->q, &bases);

    if (status < 0)
        return status;
    for (i = (size_t)(chron__bases_find(&bases, r->seg ? r->seg->base_seq : from) + 1); i < bases.count; i++) {
        uint64_t base_seq = bases.at[i];

        if (base_seq == from && enter_whole(r, from))
            break;
        if (base_seq > from) {
            chron__reader_enter_segment(r, NULL, 0, base_seq);
            break;
        }
    }
    status = i == bases.count;
    chron__bases_free(&bases);
    return status ? stand_behind(r) : (int64_t)(r->next_seq - from);
}

/* The next whole record in the segment of the position: 1, and the reader is there; 0; or a failure. */
static int skip_within(chron_reader *r)
{
    chron__resync search = {.seg = r->seg, .offset = r->offset, .seq = r->next_seq};
    chron__bases bases;
    chron__seg *seg = NULL;
    uint64_t known;
    int64_t i;
    int status = 0;

    if (r->seg) {
        seg = chron__seg_retain(r->seg);
    } else {
        status = chron__queue_list(&r->q, &bases);
        i = status < 0 ? -1 : chron__bases_find(&bases, r->next_seq);
        if (i >= 0)
            status = chron__seg_open(&r->q, bases.at[i], CHRON__SEG_HEADLESS, &seg);
        known = chron__reader_known(r, &bases, i);
        chron__bases_free(&bases);
        if (!seg)
            return status == -CHRON_ECORRUPT || status == -CHRON_EGONE ? 0 : status;
        /* The damage begins somewhere before the position. */
        status = chron__seg_find(seg, r->next_seq, known, &search.offset, &search.seq);
    }
    search.seg = seg;
    search.limit = seg->size;
    status = (r->seg || status == -CHRON_ECORRUPT) && chron__seg_resync(&search, search.offset, search.seq) &&
             search.seq > r->next_seq;
    if (chron__map_faulted(&seg->map))
        status = chron__seg_fail_fault(seg, "");
    if (status > 0)
        chron__reader_enter_segment(r, seg, search.offset, search.seq);
    else
        chron__seg_release(seg);
    return status;
}

static int64_t skip_damaged(chron_reader *r)
{
    uint64_t from = r->next_seq;
    const uint32_t on_gap = r->options.on_gap;
    int64_t skipped;
    chron__rec rec;
    int status;

    r->options.on_gap = CHRON_GAP_OLDEST; /* what is known to be gone is passed over, too */
    status = chron__reader_peek(r, &rec);
    r->options.on_gap = on_gap;
    if (r->next_seq > from)
        return (int64_t)(r->next_seq - from);

    if (status == 1) {
        status = chron__reader_check(r, &rec, rec.payload);
        if (status == 0)
            return 0;
    }
    if (status != -CHRON_ECORRUPT)
        return status;
    status = skip_within(r);
    if (status < 0)
        return status;
    skipped = status > 0 ? (int64_t)(r->next_seq - from) : skip_segment(r);
    if (skipped > 0) {
        r->stats.skipped += (uint64_t)skipped;
        r->stats.gaps++;
    }
    return skipped;
}

/* ------------------------------------------------------------------------------------------- start */

static int fail_undone(const chron__slot_value *at, uint64_t end)
{
    int status = chron__fail(CHRON_EREWRITTEN,
                             "this reader had committed up to seq %" PRIu64 ", but the log ended before "
                             "%" PRIu64 ": a loss of power undid records that were not durable. Open it with another "
                             "start",
                             at->next_seq, end);

    chron__error()->seq = at->next_seq - 1u;
    chron__error()->next_seq = end;
    return status;
}

static int resume(chron_reader *r)
{
    const chron__slot_value *at = &r->position.value;
    uint32_t crc;
    int status;

    if (r->position.fd < 0 || at->next_seq == CHRON_SEQ_NONE)
        return seek_earliest(r);
    if (at->flags & CHRON__SLOT_UNDONE)
        return fail_undone(at, at->segment_base);
    status = chron__reader_move_to(r, at->next_seq, r->seg);
    if (status == -CHRON_ERANGE)
        return fail_undone(at, chron__error()->next_seq);
    /* After a gap the position is another one, and the fingerprint of no use. */
    if (status < 0 || r->next_seq != at->next_seq || !(at->flags & CHRON__SLOT_FINGERPRINT))
        return status;
    if (!r->seg) { /* damage is in the way: compared when there is a way */
        r->last_crc = at->fingerprint;
        r->has_last = 1;
        return 0;
    }
    if (chron__reader_fingerprint(r, &crc) && crc != at->fingerprint) {
        status = chron__fail(CHRON_EREWRITTEN,
                             "record %" PRIu64 " is not the one that this reader had read when it "
                             "committed: a loss of power undid it, and another took its place. Open with another start",
                             at->next_seq - 1u);
        chron__error()->seq = at->next_seq - 1u;
        return status;
    }
    return 0;
}

static int seek_snapshot(chron_reader *r)
{
    int status = seek_latest(r);

    if (status == 0)
        status = chron__sift_to_snapshot(r);
    return status == 0 ? seek_earliest(r) : status;
}

int chron__reader_start(chron_reader *r)
{
    int status;

    switch (r->options.start) {
    case CHRON_START_RESUME:
        status = resume(r);
        break;
    case CHRON_START_EARLIEST:
        status = seek_earliest(r);
        break;
    case CHRON_START_LATEST:
        status = seek_latest(r);
        break;
    case CHRON_START_SEQ:
        status = seek(r, r->options.start_value);
        break;
    case CHRON_START_SNAPSHOT:
        status = seek_snapshot(r);
        break;
    default:
        status = seek_time(r, r->options.start_value);
        break;
    }
    return status < 0 ? status : 0;
}

/* ------------------------------------------------------------------------------ the public functions */

int chron_reader_seek(chron_reader *r, uint64_t seq)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = seek(r, seq);
    chron__reader_leave(r);
    return status;
}

int chron_reader_seek_time(chron_reader *r, uint64_t timestamp_ns)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = seek_time(r, timestamp_ns);
    chron__reader_leave(r);
    return status;
}

int chron_reader_seek_earliest(chron_reader *r)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = seek_earliest(r);
    chron__reader_leave(r);
    return status;
}

int chron_reader_seek_latest(chron_reader *r)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = seek_latest(r);
    chron__reader_leave(r);
    return status;
}

int chron_reader_previous(chron_reader *r, chron_view *out)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = out ? previous(r, out) : chron__fail(CHRON_EINVAL, "there is no view to fill");
    chron__reader_leave(r);
    return status;
}

int64_t chron_reader_skip_damaged(chron_reader *r)
{
    int64_t status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = skip_damaged(r);
    chron__reader_leave(r);
    return status;
}

int64_t chron_reader_lag(chron_reader *r)
{
    uint64_t end = 0;
    int64_t status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = chron__reader_look_around(r);
    if (status >= 0)
        status = chron__reader_end(r, &end);
    chron__reader_leave(r);
    if (status < 0)
        return status;
    return end > r->next_seq ? (int64_t)(end - r->next_seq) : 0;
}
