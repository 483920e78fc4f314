/* SPDX-License-Identifier: MIT */
/*
 * survey.c - reading the log to its end, before anybody changes it. See survey.h; hole.c judges what is not right.
 *
 * In the same boot and place, only the last segment is read (and the one before, if its seal does not vouch for it): the
 * others were complete when it got its name. Else all that may hold a record above the durable mark is read, CRC and all.
 * Repair reads everything.
 *
 * Crash states of a roll (numbers as in write/roll.c): after 3 the next segment has its name, and there is no END; after 4
 * there is END, and no seal. After a loss of power END may be there without the next segment, whose name was not on disk.
 */
#include "queue/survey.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "format/header.h"
#include "queue/tell.h"
#include "queue/verdict.h"

#define TOLD_BYTES (1u << 20) /* read between two words about progress */

/* A segment being read. */
typedef struct place {
    size_t i; /* index in bases */
    chron__seg *seg;
    chron__stretch one;
    chron__walk walk;
    uint64_t next_block; /* of the index */
} place;

static uint64_t base_after(const chron__survey *s, size_t i)
{
    return i + 1u < s->bases.count ? s->bases.at[i + 1u] : CHRON_SEQ_NONE;
}

/* Index of the segment that begins with `base_seq`, which is there. */
static size_t index_of(const chron__survey *s, uint64_t base_seq)
{
    int64_t i = chron__bases_find(&s->bases, base_seq);

    CHRON__ASSERT(i >= 0 && s->bases.at[i] == base_seq);
    return (size_t)i;
}

/* Does an accepted gap lead to this segment? */
static int leads_to(const chron__survey *s, uint64_t base_seq)
{
    for (size_t i = 0; i < s->gaps.count; i++)
        if (s->gaps.at[i].base_seq == base_seq)
            return 1;
    return 0;
}

/* ------------------------------------------------------------------------------------- one segment */

/* Is the block index as a writer would have left it that never died? */
static void check_index(place *p, uint64_t offset)
{
    uint64_t block = chron__seg_block_of(p->seg, offset);

    if (block < p->next_block)
        return;
    for (uint64_t b = p->next_block; b < block; b++)
        p->one.index |= chron__seg_index_raw(p->seg, b) != 0;
    p->one.index |= chron__seg_index_raw(p->seg, block) != offset;
    p->next_block = block + 1u;
}

/* Behind END there is nothing; of one that is missing, its entry may be there. */
static void check_rest_of_index(place *p)
{
    for (uint64_t b = p->next_block; b < chron__seg_blocks(p->seg); b++) {
        uint64_t offset = chron__seg_index_raw(p->seg, b);

        p->one.index |= offset != 0 && !(p->one.end && offset == p->one.offset);
    }
}

/* Does an accepted gap lead on within this segment? Then the walk goes on behind it. */
static int pass_gap(const chron__survey *s, place *p)
{
    const chron__gap *gap = chron__gaps_find(&s->gaps, p->walk.next_seq);

    if (!gap || gap->base_seq != p->seg->base_seq || gap->offset <= p->walk.offset ||
        gap->offset > p->seg->size - CHRON__RECORD_HEADER)
        return 0;
    p->one.tally.records += gap->seq_end - p->walk.next_seq;
    p->walk.offset = gap->offset;
    p->walk.next_seq = gap->seq_end;
    return 1;
}

/* 0: the caller wants no more. */
static int tell_progress(const chron__survey *s, const place *p, uint64_t *told)
{
    char name[CHRON__NAME_BYTES];

    if (!s->wish->tell)
        return 1;
    chron__segment_name(p->seg->base_seq, name);
    chron__tell_progress(s->wish->tell, name, p->walk.next_seq, p->walk.offset - *told);
    *told = p->walk.offset;
    return !s->wish->tell->stopped;
}

static int read_records(chron__survey *s, place *p)
{
    uint64_t from = p->walk.offset;
    uint64_t told = from;
    uint64_t before = p->one.tally.records;
    chron__rec rec;

    for (;;) {
        uint64_t offset = p->walk.offset;

        if (!chron__seg_step(p->seg, &p->walk, 1, &rec, &p->one.stop)) {
            if (p->one.stop != CHRON__STOP_END && pass_gap(s, p))
                continue;
            break;
        }
        check_index(p, offset);
        if (p->one.first_epoch == 0)
            p->one.first_epoch = chron__rec_epoch(&rec);
        chron__tally_add(&p->one.tally, chron__rec_timestamp(&rec));
        if (p->walk.offset - told >= TOLD_BYTES && !tell_progress(s, p, &told))
            return chron__fail(CHRON_EINTR, "the repair was stopped by its caller; nothing was changed");
    }
    if (p->one.stop == CHRON__STOP_END)
        check_index(p, p->walk.offset);
    p->one.offset = p->walk.offset;
    p->one.next_seq = p->walk.next_seq;
    p->one.epoch = p->walk.epoch;
    s->scanned_records += p->one.tally.records - before;
    s->scanned_bytes += p->walk.offset - from;
    return chron__map_faulted(&p->seg->map) ? chron__seg_fail_fault(p->seg, "") : 0;
}

/* It is known now how the segment ends: remember it, and what is to be put right. */
static int push(chron__survey *s, place *p, int is_complete)
{
    chron__seal_value seal;
    int sealed = chron__seg_seal_load(p->seg, &seal);

    if (is_complete) {
        p->one.end |= p->one.stop != CHRON__STOP_END && p->one.next_seq == base_after(s, p->i);
        check_rest_of_index(p);
        p->one.seal = sealed != 1 || seal.end_offset != p->one.offset || seal.records != p->one.tally.records;
    }
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2u : 16u;
        chron__stretch *at = realloc(s->at, capacity * sizeof *at);

        if (!at)
            return chron__fail(CHRON_ENOMEM, "no memory for what was found in the log");
        s->at = at;
        s->capacity = capacity;
    }
    CHRON__ASSERT(p->one.next_seq - p->one.base_seq == p->one.tally.records);
    s->at[s->count++] = p->one;
    return 0;
}

/* --------------------------------------------------------------------------------- from one to the next */

/* What stands behind the records of a segment. */
enum follows {
    FOLLOWS_NOTHING, /* here the log ends */
    FOLLOWS_SEGMENT, /* the next one */
    FOLLOWS_HOLE,
};

/* Is there no whole record behind? After a loss of power the one in front of others may be missing. 1, 0, or a failure. */
static int is_last(const chron__survey *s, const chron__hole *h)
{
    const chron__log log = chron__log_of(s);
    chron__behind behind;
    int status = chron__hole_look_behind(&log, h, &behind);

    return status < 0 ? status : behind.records == 0;
}

/* May a process that died, or a loss of power, have left the zero commit word at the end of the last segment? The same. */
static int is_end(const chron__survey *s, const place *p)
{
    const chron__words *words = &s->wish->words;
    const chron__log log = chron__log_of(s);
    const chron__hole h = {
        .i = p->i, .seg = p->seg, .offset = p->one.offset, .seq = p->one.next_seq, .epoch = p->one.epoch};
    /* Only behind the first record of a batch, and in a claim, may whole records stand that nobody has ever seen. */
    int is_group = words->base == (uint32_t)p->one.base_seq && (uint64_t)words->group * CHRON__ALIGN == p->one.offset;
    uint64_t intent = is_group ? (uint64_t)words->intent * CHRON__ALIGN : 0;
    chron__seal_value seal;
    int proven;

    if (chron__seg_seal_load(p->seg, &seal) == 1)
        return 0;
    if (s->wish->whence != CHRON__FROM_HERE)
        return is_last(s, &h);
    if (s->wish->state.flags & CHRON__SLOT_CLEAN) /* it said where the log ends */
        return p->one.next_seq >= s->wish->state.next_seq;
    proven = chron__hole_is_proven(&log, &h, intent);
    return proven < 0 ? proven : !proven;
}

static int what_follows(const chron__survey *s, const place *p, chron__hole *h, enum follows *out)
{
    uint64_t follower = base_after(s, p->i);
    int end = 0;

    *h =
        (chron__hole){.i = p->i, .seg = p->seg, .offset = p->one.offset, .seq = p->one.next_seq, .epoch = p->one.epoch};
    *out = FOLLOWS_HOLE;
    if (follower == p->one.next_seq && follower > p->one.base_seq) {
        *out = FOLLOWS_SEGMENT; /* all its records are there: END can tell nothing new */
    } else if (p->one.stop == CHRON__STOP_END) {
        h->kind = CHRON__HOLE_MISSING;
        h->i = p->i + 1u;
        h->why = "the segment before it leads to another one, which is missing";
    } else if (p->one.stop == CHRON__STOP_BROKEN) {
        h->kind = CHRON__HOLE_RECORD;
        h->why = p->walk.why;
    } else {
        h->kind = CHRON__HOLE_NOTHING;
        h->why = "nothing stands there";
        if (chron__gaps_over(&s->gaps, &s->bases, p->one.next_seq) > p->one.next_seq)
            *out = FOLLOWS_NOTHING; /* a repair was cut off before it made the segment that the log goes on in */
        else
            end = follower == CHRON_SEQ_NONE ? is_end(s, p) : 0;
        if (end > 0)
            *out = FOLLOWS_NOTHING;
    }
    return end < 0 ? end : 0;
}

/*
 * Does the log go on in segment `i`, as far as its header tells? 1 with the segment open; 0 with *h: no; or a failure.
 * A damaged header is a matter of what stands behind it.
 */
static int enter(const chron__survey *s, size_t i, uint32_t epoch, place *p, chron__hole *h)
{
    uint64_t base_seq = s->bases.at[i];
    uint64_t prev_base = i > 0 ? s->bases.at[i - 1u] : CHRON_SEQ_NONE;
    int status = chron__seg_open(s->q, base_seq, chron__hole_open_flags(s->wish), &p->seg);

    *h = (chron__hole){.kind = CHRON__HOLE_HEADER, .i = i, .seq = base_seq, .epoch = epoch};
    h->why = "it is of another size than it should be, or another file, or no file, under this name";
    if (status < 0)
        return status == -CHRON_ECORRUPT ? 0 : status;
    p->i = i;
    p->next_block = 0;
    p->one = (chron__stretch){
        .base_seq = base_seq, .prev_base = prev_base, .header = p->seg->headless, .anew = p->seg->is_remnant};
    p->walk = (chron__walk){.offset = p->seg->data_offset, .next_seq = base_seq, .epoch = epoch};
    if (p->seg->headless)
        return 1;
    if ((uint32_t)p->seg->epoch > p->walk.epoch)
        p->walk.epoch = (uint32_t)p->seg->epoch; /* what is older is a remnant */
    if (i == 0 && s->wish->repair && p->seg->prev_base != CHRON_SEQ_NONE && p->seg->prev_base >= base_seq)
        p->one.header = 1; /* nothing lies in front of it: that can be put right */
    if ((i == 0 || p->seg->prev_base == prev_base || leads_to(s, base_seq)) && (uint32_t)p->seg->epoch >= epoch)
        return 1;
    h->kind = CHRON__HOLE_CHAIN;
    h->why = "it does not follow the segment before it";
    return 0;
}

/* A damaged header in front of whole records can be made anew. In front of nothing, or below the mark, it is a hole. */
static int is_headless_hole(const chron__survey *s, const place *p, chron__hole *h)
{
    if (!p->one.header)
        return 0;
    *h = (chron__hole){.kind = CHRON__HOLE_HEADER,
                       .i = p->i,
                       .seg = p->seg,
                       .offset = p->one.offset,
                       .seq = p->one.base_seq,
                       .epoch = p->one.epoch};
    h->why = "its header is damaged";
    if (p->one.tally.records == 0)
        return 1;
    return !s->wish->repair && (s->wish->whence == CHRON__FROM_HERE || p->one.base_seq < s->wish->state.durable_next);
}

/* Read segment p->i to where it ends. *next: index of the one to go on in; bases.count: the log ends. */
static int read_segment(chron__survey *s, place *p, size_t *next)
{
    for (;;) {
        enum follows follows = FOLLOWS_HOLE;
        const chron__gap *gap;
        chron__hole h;
        int status = read_records(s, p);

        if (status < 0)
            return status;
        if (is_headless_hole(s, p, &h)) {
            gap = chron__verdict_pass(s, &h, &status);
            if (status == 0 && gap && gap->base_seq == p->seg->base_seq)
                continue; /* whole records stand in it, behind the gap */
            *next = gap ? index_of(s, gap->base_seq) : s->bases.count;
            return status;
        }
        status = what_follows(s, p, &h, &follows);
        if (status < 0)
            return status;
        *next = follows == FOLLOWS_SEGMENT ? p->i + 1u : s->bases.count;
        if (follows != FOLLOWS_HOLE)
            return push(s, p, follows == FOLLOWS_SEGMENT);
        gap = chron__verdict_pass(s, &h, &status);
        if (status < 0)
            return status;
        if (gap && gap->base_seq == p->seg->base_seq)
            continue; /* in this one, behind the gap */
        if (gap)
            *next = index_of(s, gap->base_seq);
        return push(s, p, gap != NULL);
    }
}

static int read_log(chron__survey *s)
{
    size_t i = s->first;
    int status = 0;

    while (status >= 0 && i < s->bases.count) {
        uint32_t epoch = s->count ? s->at[s->count - 1u].epoch : 1u; /* the first there is */
        place p = {.seg = NULL};
        chron__hole h;

        status = enter(s, i, epoch, &p, &h);
        if (status > 0) {
            status = read_segment(s, &p, &i);
        } else if (status == 0) {
            const chron__gap *gap = chron__verdict_pass(s, &h, &status);

            i = gap ? index_of(s, gap->base_seq) : s->bases.count;
        }
        chron__seg_release(p.seg);
    }
    return status;
}

/* ------------------------------------------------------------------------------------ where to begin */

/* Does the seal of segment `i` vouch that it is complete, and leads to the next? Nothing of it has to be read then. */
static int is_vouched_for(const chron__survey *s, size_t i)
{
    uint8_t page[CHRON__PAGE] = {0};
    char name[CHRON__NAME_BYTES];
    chron__seal_value seal;

    chron__segment_name(s->bases.at[i], name);
    return chron__read_file(s->q->io, s->q->dir, name, page, sizeof page) == (int64_t)sizeof page &&
           chron__seal_decode(page, s->bases.at[i], &seal) == 1 && seal.last_seq + 1u == base_after(s, i);
}

static size_t where_to_begin(const chron__survey *s)
{
    uint64_t mark = s->wish->state.durable_next;
    int64_t i;

    if (s->wish->repair)
        return 0;
    if (s->wish->whence == CHRON__FROM_HERE) {
        size_t last = s->bases.count - 1u;

        return last > 0 && !is_vouched_for(s, last - 1u) ? last - 1u : last;
    }
    /* The segment of the last durable record is read too: it may lack END and seal. */
    i = chron__bases_find(&s->bases, mark ? mark - 1u : 0);
    return i < 0 ? 0 : (size_t)i;
}

/* Segments in front of the first one that is read are not; but none of them may be missing. */
static int check_chain(const chron__survey *s)
{
    for (size_t i = 1; i < s->first; i++) {
        uint8_t bytes[sizeof(chron__file_header)] = {0};
        chron__file_header header;
        chron__hole h = {.i = i};
        char name[CHRON__NAME_BYTES];
        int64_t n;
        int status;

        chron__segment_name(s->bases.at[i], name);
        n = chron__read_file(s->q->io, s->q->dir, name, bytes, sizeof bytes);
        if (n < 0)
            return chron__fail_sys((int)n, name, "cannot read %s", name);
        status = chron__header_decode(bytes, CHRON__MAGIC_SEGMENT, s->q->uuid, name, &header);
        if (status < 0 && status != -CHRON_ECORRUPT)
            return status;
        h.seq = status < 0 ? s->bases.at[i] : header.prev_base;
        h.why = status < 0 ? "its header is damaged" : "the segment before it is missing";
        if (status < 0 || (header.prev_base != s->bases.at[i - 1u] && !leads_to(s, s->bases.at[i])))
            return chron__verdict_refuse(s, &h);
    }
    return 0;
}

/* ------------------------------------------------------------------------------------ what was promised */

/* Seq behind the last record that is known to have been in this log. */
static uint64_t promised(const chron__wish *wish)
{
    uint64_t end = wish->state.durable_next;

    if (wish->whence == CHRON__FROM_HERE && (wish->state.flags & CHRON__SLOT_CLEAN) && wish->state.next_seq > end)
        end = wish->state.next_seq;
    return end;
}

/* In this boot: were there segments, of which none is left? How many records that were, nobody knows. */
static int all_is_gone(const chron__survey *s)
{
    return s->bases.count == 0 && s->next_seq == 0 && s->wish->whence == CHRON__FROM_HERE &&
           s->wish->words.segments > 0;
}

static int refuse_end(const chron__survey *s, const chron__hole *h, uint64_t end)
{
    if (s->bases.count)
        return chron__verdict_refuse(s, h);
    if (end)
        (void)chron__fail(CHRON_ECORRUPT,
                          "queue.meta tells of records up to seq %" PRIu64
                          ", but there is no segment: they were deleted. "
                          "Restore them, or repair the queue to go on behind them",
                          end - 1u);
    else
        (void)chron__fail(CHRON_ECORRUPT,
                          "there is no segment, though there were some since the machine was started: they "
                          "were deleted. Restore them, or repair the queue to begin anew");
    return chron__at(-CHRON_ECORRUPT, CHRON__FILE_META, CHRON__SLOT_A, s->next_seq);
}

/*
 * Records that were promised are missing at the end: refused, or, in a repair, given up as a gap; the seqs are not given
 * away again.
 */
static int check_promised(chron__survey *s)
{
    uint64_t end = promised(s->wish);
    chron__hole h = {.kind = CHRON__HOLE_MISSING, .i = s->bases.count, .seq = s->next_seq};
    chron__behind behind = {.seq = end, .base_seq = end};
    int status;

    h.why = "records that were there are missing";
    if (s->next_seq >= end && !all_is_gone(s))
        return 0;
    if (s->count) {
        h.i = index_of(s, s->at[s->count - 1u].base_seq);
        h.offset = s->at[s->count - 1u].offset;
    }
    if (!s->wish->repair)
        return refuse_end(s, &h, end);
    if (s->next_seq >= end)
        return chron__verdict_note(s, &h, CHRON_SEQ_NONE);
    status = chron__verdict_accept(s, &h, &behind);
    s->next_seq = end;
    return status;
}

/* The gaps that were accepted. A repair takes what can be had of a damaged list: what is missing there, it finds again. */
static int load_gaps(chron__survey *s)
{
    int status = chron__gaps_load(s->q, &s->gaps);

    if (status != -CHRON_ECORRUPT || !s->wish->repair)
        return status;
    chron__gaps_free(&s->gaps);
    s->gaps_damaged = 1;
    return chron__gaps_salvage(s->q, &s->gaps);
}

int chron__survey_make(const chron__queue *q, const chron__wish *wish, chron__survey *s)
{
    int status;

    memset(s, 0, sizeof *s);
    s->q = q;
    s->wish = wish;
    status = chron__queue_list(q, &s->bases);
    if (status == 0)
        status = load_gaps(s);
    s->cut_from = s->bases.count;
    if (status == 0 && s->bases.count) {
        s->first = where_to_begin(s);
        if (wish->whence != CHRON__FROM_HERE || wish->words.segments != s->bases.count)
            status = check_chain(s);
        if (status == 0)
            status = read_log(s);
        s->next_seq = s->count ? s->at[s->count - 1u].next_seq : s->bases.at[s->first];
    }
    if (status < 0)
        return status;
    s->next_seq = chron__gaps_over(&s->gaps, &s->bases, s->next_seq);
    return check_promised(s);
}

int chron__survey_sets_aside(const chron__survey *s, size_t i)
{
    if (i < s->first)
        return 0;
    for (size_t k = 0; i < s->cut_from && k < s->count; k++)
        if (s->at[k].base_seq == s->bases.at[i])
            return 0;
    return 1;
}

void chron__survey_free(chron__survey *s)
{
    chron__bases_free(&s->bases);
    chron__gaps_free(&s->gaps);
    free(s->at);
    free(s->found);
    s->at = NULL;
    s->found = NULL;
}
