/* SPDX-License-Identifier: MIT */
/*
 * seek.c - moving a reader: to a seq, a time, either end, back, past damage.
 *
 * Invariant: a move that fails leaves the reader where it was.
 */
#include "read/seek.h"

#include <inttypes.h>

#include "base/error.h"
#include "read/attach.h"
#include "read/next.h"

#define TRIES 100 /* retention may delete what a listing has just shown, again and again, but not for ever */

static int seek(chron_reader *r, uint64_t seq)
{
    uint64_t end = r->next_seq; /* what was read exists: only beyond it the end has to be found */
    int status = seq > end ? chron__log_end(&r->q, r->seg, &end) : 0;

    if (status < 0)
        return status;
    if (seq > end)
        return chron__fail_range(seq, end);
    status = chron__reader_move_to(r, seq, r->seg);
    return status < 0 ? status : 0;
}

static int seek_earliest(chron_reader *r)
{
    int status = 0;

    for (int tries = 0; tries < TRIES; tries++) {
        chron__bases bases;
        uint64_t oldest;

        status = chron__queue_list(&r->q, &bases);
        if (status < 0)
            return status;
        oldest = bases.count ? bases.at[0] : 0;
        chron__bases_free(&bases);
        status = chron__reader_move_to(r, oldest, r->seg);
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

        status = chron__log_end(&r->q, r->seg, &end);
        if (status == 0)
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

static int seek_time(chron_reader *r, uint64_t timestamp_ns)
{
    chron__bases bases;
    int status = chron__queue_list(&r->q, &bases);

    for (size_t i = 0; status >= 0 && i < bases.count; i++) {
        chron__seg *seg;
        chron__rec rec;
        uint64_t offset;
        uint64_t seq;

        if (i + 1u < bases.count && ends_before(r, bases.at[i], timestamp_ns))
            continue;
        status = chron__seg_open(&r->q, bases.at[i], 0, &seg);
        if (status == -CHRON_EGONE) {
            status = 0;
            continue;
        }
        if (status < 0)
            break;
        status = chron__seg_find_time(seg, timestamp_ns, &offset, &seq);
        if (status == 0 && chron__rec_load(seg->map.base, seg->size, offset, &rec) == CHRON__REC_DATA) {
            chron__reader_enter_segment(r, seg, offset, seq);
            chron__bases_free(&bases);
            return 0;
        }
        chron__seg_release(seg);
    }
    chron__bases_free(&bases);
    return status < 0 ? status : seek_latest(r);
}

/* ------------------------------------------------------------------------------------------- back */

static int previous(chron_reader *r, chron_view *out)
{
    char name[CHRON__NAME_BYTES];
    chron__seg *seg;
    chron__rec rec;
    uint64_t offset;
    int status;

    if (!chron__reader_is_visible(r, r->next_seq - 1u))
        return 0;
    status = chron__reader_locate_previous(r, &seg, &offset);
    if (status <= 0)
        return status;
    if (chron__rec_load(seg->map.base, seg->size, offset, &rec) != CHRON__REC_DATA ||
        chron__rec_seq(&rec) != r->next_seq - 1u || !chron__rec_crc_ok(&rec, rec.payload)) {
        chron__segment_name(seg->base_seq, name);
        status = chron__map_faulted(&seg->map)
                     ? chron__seg_fail_fault(seg, "")
                     : chron__at(chron__fail(CHRON_ECORRUPT, "record %" PRIu64 " is damaged: seek to one before it",
                                             r->next_seq - 1u),
                                 name, offset, r->next_seq - 1u);
        chron__seg_release(seg);
        return status;
    }
    chron__reader_enter_segment(r, seg, offset, r->next_seq - 1u);
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

    if (chron__seg_open(&r->q, base_seq, 0, &seg) < 0)
        return 0;
    chron__reader_enter_segment(r, seg, seg->data_offset, base_seq);
    return 1;
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
    if (i == bases.count)
        status = chron__at(
            chron__fail(CHRON_ECORRUPT, "record %" PRIu64 " is damaged, and nothing readable follows it yet", from), "",
            0, from);
    chron__bases_free(&bases);
    return status < 0 ? status : (int64_t)(r->next_seq - from);
}

static int64_t skip_damaged(chron_reader *r)
{
    uint64_t from = r->next_seq;
    const uint32_t on_gap = r->options.on_gap;
    chron__resync search;
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
    search = (chron__resync){.seg = r->seg, .limit = r->size}; /* without a segment the size is 0 */
    if (chron__seg_resync(&search, r->offset, from)) {
        chron__reader_enter_segment(r, chron__seg_retain(r->seg), search.offset, search.seq);
        skipped = (int64_t)(search.seq - from);
    } else {
        skipped = skip_segment(r);
    }
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
