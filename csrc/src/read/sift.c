/* SPDX-License-Identifier: MIT */
/*
 * sift.c - reading some types only. Blocks without them are passed over by the segment's summary (format/summary.h), the
 * records of the others one by one, each with its CRC checked.
 *
 * Invariants:
 *  - What is handed out, and where the position comes to stand, is what reading all and leaving out the rest would give: a summary
 *    only ever says that a block has nothing.
 *  - No jump is made but to a record that stands there with the seq that the summary says. If another one does, the
 *    summary is not used any more.
 *  - The segment that is appended to has no summary: it is read.
 */
#include "read/sift.h"

#include <stdlib.h>

#include "base/error.h"
#include "format/summary_file.h"
#include "read/attach.h"

struct chron__sift {
    chron__filter filter;
    chron__seg *seg; /* a reference: what follows is of this one */
    chron__summary *summary;
    chron__builder builder;
    int is_building;
    uint64_t from, until; /* offsets between which the summary need not be asked again */
};

/* ------------------------------------------------------------------------------- beginning, end */

int chron__sift_open(chron_reader *r)
{
    const chron_reader_options *o = &r->options;

    if (o->type_count > (uint64_t)CHRON_TYPE_MAX + 1u)
        return chron__fail(CHRON_EINVAL, "type_count is more than there are types");
    if (o->type_count > 0 && !o->types)
        return chron__fail(CHRON_EINVAL, "types is NULL, but type_count is not 0");
    if (o->type_count == 0)
        return 0;
    r->sift = calloc(1, sizeof *r->sift);
    if (!r->sift)
        return chron__fail(CHRON_ENOMEM, "no memory for a reader's types");
    for (uint64_t i = 0; i < o->type_count; i++) {
        if (o->types[i] > CHRON_TYPE_MAX)
            return chron__fail(CHRON_EINVAL, "type_id 0x%x is reserved: use 0 to 0x%x", (unsigned)o->types[i],
                               CHRON_TYPE_MAX);
        chron__type_set_add(&r->sift->filter.types, o->types[i]);
    }
    return 0;
}

static void drop(chron__sift *s)
{
    chron__builder_end(&s->builder);
    chron__summary_free(s->summary);
    s->summary = NULL;
    s->is_building = 0;
    s->from = s->until = 0;
}

void chron__sift_close(chron_reader *r)
{
    if (!r->sift)
        return;
    drop(r->sift);
    chron__seg_release(r->sift->seg);
    free(r->sift);
    r->sift = NULL;
}

void chron__sift_forget(chron_reader *r)
{
    if (!r->sift)
        return;
    drop(r->sift);
    chron__seg_forget(r->sift->seg);
    free(r->sift);
    r->sift = NULL;
}

/* ---------------------------------------------------------------------------------- the summary */

/* What is known is of `seg` from now on: nothing yet, if it was of another one. */
static void turn_to(chron__sift *s, chron__seg *seg)
{
    if (s->seg == seg)
        return;
    drop(s);
    chron__seg_release(s->seg);
    s->seg = chron__seg_retain(seg);
}

static void begin_building(chron__sift *s)
{
    s->is_building = chron__builder_begin(&s->builder, s->seg) == 0;
    if (!s->is_building)
        drop(s); /* no memory for it: everything is read */
}

/* 1: the summary is there, or cannot be had; 0: *bytes are used up. */
static int build(const chron_reader *r, uint64_t *bytes)
{
    chron__sift *s = r->sift;

    while (s->is_building) {
        uint64_t piece = *bytes < CHRON__SIFT_BYTES ? *bytes : CHRON__SIFT_BYTES;
        int status;

        if (piece == 0)
            return 0;
        status = chron__builder_step(&s->builder, piece);
        *bytes -= piece;
        if (status == 0)
            continue;
        s->is_building = 0;
        if (status == 1) {
            s->summary = chron__builder_take(&s->builder);
            chron__summary_store(&r->q, s->seg, s->summary);
        }
        chron__builder_end(&s->builder);
    }
    return 1;
}

/* Know the types in the segment of the position, if it is sealed. As build(). */
static int know(const chron_reader *r, uint64_t *bytes)
{
    chron__sift *s = r->sift;
    chron__seal_value seal;

    if (s->seg != r->seg) {
        turn_to(s, r->seg);
        s->summary = chron__summary_load(&r->q, r->seg);
        /* Who comes in the middle reads the rest once; to read all of it for that would be a loss. */
        if (!s->summary && r->offset == r->seg->data_offset && chron__seg_seal_load(r->seg, &seal) == 1)
            begin_building(s);
    }
    return build(r, bytes);
}

/* ---------------------------------------------------------------------------------------- forward */

chron__cursor chron__cursor_of(const chron_reader *r)
{
    return (chron__cursor){.offset = r->offset,
                           .seq = r->next_seq,
                           .last_offset = r->last_offset,
                           .last_crc = r->last_crc,
                           .has_last = r->has_last};
}

void chron__cursor_pass(chron__cursor *at, const chron__rec *rec)
{
    at->last_offset = at->offset;
    at->last_crc = rec->crc;
    at->has_last = 1;
    at->offset += chron__rec_bytes(rec);
    at->seq++;
}

/* Does what the summary says stand there? */
static int stands_there(const chron_reader *r, uint64_t offset, uint64_t seq)
{
    enum chron__rec_state state;
    chron__rec rec;

    state = chron__rec_load(r->base, r->size, offset, &rec);
    return (state == CHRON__REC_DATA || state == CHRON__REC_END) && chron__rec_seq(&rec) == seq;
}

/* Move the cursor over blocks that have nothing, if it is at the beginning of some. */
static void skip(const chron_reader *r, chron__cursor *at)
{
    chron__sift *s = r->sift;
    const chron__summary *sum = s->summary;
    uint64_t block;
    uint64_t offset;
    uint64_t seq;

    if (!sum || !sum->is_whole || s->seg != r->seg || at->offset >= sum->end_offset ||
        (at->offset >= s->from && at->offset < s->until))
        return;
    block = chron__seg_block_of(r->seg, at->offset);
    s->from = at->offset;
    s->until = r->seg->data_offset + (block + 1u) * CHRON__STRIDE;
    if (chron__summary_takes(sum, block, &s->filter))
        return;
    do
        block++;
    while (block < sum->block_count && !chron__summary_takes(sum, block, &s->filter));
    offset = block < sum->block_count ? sum->blocks[block].offset : sum->end_offset;
    seq = block < sum->block_count ? sum->blocks[block].seq : sum->end_seq;
    if (seq > r->visible)
        return; /* the durable mark lies before: up to there one by one */
    if (offset <= at->offset || seq <= at->seq || !stands_there(r, offset, seq)) {
        drop(s);
        return;
    }
    at->unread += seq - at->seq;
    at->offset = offset;
    at->seq = seq;
    at->has_last = 0;
    at->last_offset = 0;
    at->last_crc = 0;
    s->from = offset;
    s->until = r->seg->data_offset + (block + 1u) * CHRON__STRIDE;
}

int chron__sift_plain(const chron_reader *r, chron__cursor *at, uint32_t epoch, chron__rec *rec, uint64_t bytes)
{
    uint64_t stop = at->offset + (bytes < r->size ? bytes : r->size);

    while (at->seq < r->visible && at->offset < stop) {
        skip(r, at);
        if (chron__rec_load(r->base, r->size, at->offset, rec) != CHRON__REC_DATA || chron__rec_seq(rec) != at->seq ||
            chron__rec_epoch(rec) != epoch)
            return 0;
        if (chron__filter_takes(&r->sift->filter, rec))
            return at->seq < r->visible;
        if (at->seq >= r->visible || !chron__rec_crc_ok(rec, rec->payload))
            return 0;
        chron__cursor_pass(at, rec);
    }
    return 0;
}

void chron__sift_settle(chron_reader *r, const chron__cursor *at, size_t taken, uint64_t payload_bytes)
{
    CHRON__ASSERT(at->seq >= r->next_seq + taken && at->offset <= r->size - CHRON__RECORD_HEADER);
    r->stats.filtered += at->seq - r->next_seq - taken;
    r->stats.unread += at->unread;
    r->stats.records += taken;
    r->stats.payload_bytes += payload_bytes;
    r->offset = at->offset;
    r->next_seq = at->seq;
    r->last_offset = at->last_offset;
    r->last_crc = at->last_crc;
    r->has_last = at->has_last;
}

/* Over blocks, at the position. */
static void skip_here(chron_reader *r)
{
    chron__cursor at = chron__cursor_of(r);

    skip(r, &at);
    if (at.seq > r->next_seq)
        chron__sift_settle(r, &at, 0, 0);
}

/* Over the record at the position, which is not wanted. */
static int pass(chron_reader *r, const chron__rec *rec)
{
    chron__cursor at = chron__cursor_of(r);
    int status = chron__reader_check(r, rec, rec->payload);

    if (status < 0)
        return chron__reader_pass_damage(r, status);
    chron__cursor_pass(&at, rec);
    r->epoch = chron__rec_epoch(rec);
    chron__sift_settle(r, &at, 0, 0);
    return 1;
}

int chron__reader_sift(chron_reader *r, chron__rec *rec, uint64_t bytes)
{
    for (;;) {
        int status;

        if (r->seg) {
            if (!know(r, &bytes))
                return CHRON_NOT_READY;
            skip_here(r);
        }
        status = chron__reader_peek(r, rec);
        if (status <= 0)
            return status;
        if (r->seg != r->sift->seg)
            continue; /* it has entered one: ask that one's summary before anything of it is read */
        if (chron__filter_takes(&r->sift->filter, rec))
            return 1;
        status = pass(r, rec);
        if (status < 0)
            return status;
        if (chron__rec_bytes(rec) >= bytes)
            return CHRON_NOT_READY;
        bytes -= chron__rec_bytes(rec);
    }
}

/* ------------------------------------------------------------------------------------------- back */

/* Have a summary of `seg` that goes up to `seq`; of one that is not sealed, what is there now. As build(). */
static int know_back(chron_reader *r, chron__seg *seg, uint64_t seq, uint64_t *bytes)
{
    chron__sift *s = r->sift;

    turn_to(s, seg);
    if (!s->is_building && (!s->summary || (!s->summary->is_whole && s->summary->end_seq < seq))) {
        drop(s);
        s->summary = chron__summary_load(&r->q, seg);
        if (!s->summary)
            begin_building(s);
    }
    return build(r, bytes);
}

/* The segment that `seq` lies in: 1 with a reference, or NULL if it cannot be read; 0: there is none. */
static int open_of(chron_reader *r, uint64_t seq, uint64_t *base_seq, chron__seg **seg)
{
    chron__bases bases;
    int64_t i;
    int status = chron__queue_list(&r->q, &bases);

    *seg = NULL;
    if (status < 0)
        return status;
    i = chron__bases_find(&bases, seq);
    if (i >= 0)
        *base_seq = bases.at[i];
    chron__bases_free(&bases);
    if (i < 0)
        return 0;
    if (r->seg && r->seg->base_seq == *base_seq)
        *seg = chron__seg_retain(r->seg);
    else if (r->sift->seg && r->sift->seg->base_seq == *base_seq)
        *seg = chron__seg_retain(r->sift->seg);
    else
        status = chron__seg_open(&r->q, *base_seq, CHRON__SEG_HEADLESS, seg);
    return status == 0 || status == -CHRON_EGONE || status == -CHRON_ECORRUPT ? 1 : status;
}

int chron__reader_sift_back(chron_reader *r, chron__seg **seg, uint64_t *offset, chron__rec *rec, uint64_t bytes)
{
    chron__sift *s = r->sift;
    uint64_t from = r->next_seq;
    uint64_t base_seq = 0;

    if (from > 0 && !chron__reader_is_visible(r, from - 1u))
        from = r->visible;
    while (from > 0) {
        int status = open_of(r, from - 1u, &base_seq, seg);

        if (status <= 0)
            return status;
        if (*seg && !know_back(r, *seg, from, &bytes)) {
            chron__seg_release(*seg);
            return CHRON_NOT_READY;
        }
        if (*seg && s->summary && chron__summary_find_last(*seg, s->summary, &s->filter, from, offset, rec))
            return 1;
        if (*seg && chron__map_faulted(&(*seg)->map)) {
            status = chron__seg_fail_fault(*seg, "");
            chron__seg_release(*seg);
            return status;
        }
        r->stats.filtered += from - base_seq;
        from = base_seq;
        chron__reader_enter_segment(r, *seg, *seg ? (*seg)->data_offset : 0, base_seq);
    }
    return 0;
}

int chron__sift_to_snapshot(chron_reader *r)
{
    const int is_ours = !r->sift;
    chron__seg *seg;
    chron__rec rec;
    uint64_t offset;
    int status;

    if (is_ours) {
        r->sift = calloc(1, sizeof *r->sift);
        if (!r->sift)
            return chron__fail(CHRON_ENOMEM, "no memory for a search for snapshots");
        memset(&r->sift->filter.types, 0xFF, sizeof r->sift->filter.types);
    }
    r->sift->filter.snapshots_only = 1;
    status = chron__reader_sift_back(r, &seg, &offset, &rec, UINT64_MAX);
    if (status == 1)
        chron__reader_enter_segment(r, seg, offset, chron__rec_seq(&rec));
    r->stats.filtered = r->stats.unread = 0;
    if (is_ours)
        chron__sift_close(r);
    else
        r->sift->filter.snapshots_only = 0;
    return status;
}

/* --------------------------------------------------------------------------- the public function */

/* 1 also for a failure: next() answers that. */
static int look_ahead(chron_reader *r)
{
    chron__rec rec;
    int status = r->sift ? chron__reader_sift(r, &rec, CHRON__SIFT_BYTES) : chron__reader_peek(r, &rec);

    return status < 0 && status != CHRON_NOT_READY ? 1 : status;
}

static int sift(chron_reader *r, int back)
{
    chron__seg *seg;
    chron__rec rec;
    uint64_t offset;
    int status;

    if (!back)
        return look_ahead(r);
    status = r->sift ? chron__reader_sift_back(r, &seg, &offset, &rec, CHRON__SIFT_BYTES)
                     : chron__reader_find_before(r, r->next_seq, &seg, &offset, &rec);
    if (status != 1)
        return status;
    if (r->sift) /* behind it: previous() finds it at once */
        chron__reader_enter_segment(r, seg, offset + chron__rec_bytes(&rec), chron__rec_seq(&rec) + 1u);
    else
        chron__seg_release(seg);
    return 1;
}

int chron_reader_sift(chron_reader *r, int back)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = sift(r, back);
    chron__reader_leave(r);
    return status;
}
