/* SPDX-License-Identifier: MIT */
/*
 * summary.c - which types begin in each block of a segment: made from the records, and searched. summary_file.c keeps them.
 *
 * Invariants:
 *  - A block's list has the type of every whole record that begins in it. It may have more, never fewer: what is
 *    passed over because of it has no record that is wanted.
 *  - What comes of it is checked like any record: nothing is believed because a summary says so, but that there is
 *    nothing.
 */
#include "format/summary.h"

#include <stdlib.h>

#include "base/error.h"

static int no_memory(void)
{
    return chron__fail(CHRON_ENOMEM, "no memory for the summary of a segment");
}

void chron__summary_free(chron__summary *s)
{
    if (!s)
        return;
    free(s->blocks);
    free(s->types);
    free(s);
}

/* ------------------------------------------------------------------------------------------ making */

int chron__builder_begin(chron__builder *b, const chron__seg *seg)
{
    memset(b, 0, sizeof *b);
    b->seg = seg;
    b->beyond = (chron__resync){.seg = seg, .limit = seg->size};
    b->walk = (chron__walk){.offset = seg->data_offset, .next_seq = seg->base_seq};
    b->summary = calloc(1, sizeof *b->summary);
    if (!b->summary)
        return no_memory();
    b->summary->block_count = chron__seg_blocks(seg);
    b->summary->blocks = calloc(b->summary->block_count + 1u, sizeof *b->summary->blocks);
    if (!b->summary->blocks)
        return no_memory();
    b->summary->blocks[0].seq = CHRON_SEQ_NONE;
    return 0;
}

void chron__builder_end(chron__builder *b)
{
    chron__summary_free(b->summary);
    b->summary = NULL;
}

chron__summary *chron__builder_take(chron__builder *b)
{
    chron__summary *made = b->summary;

    b->summary = NULL;
    return made;
}

static int add(chron__builder *b, uint16_t type)
{
    chron__summary *s = b->summary;

    if (chron__type_set_has(&b->seen, type))
        return 0;
    if (b->count == b->capacity) {
        size_t capacity = b->capacity ? b->capacity * 2u : 64u;
        uint16_t *types = realloc(s->types, capacity * sizeof *types);

        if (!types)
            return no_memory();
        s->types = types;
        b->capacity = capacity;
    }
    s->types[b->count++] = type;
    chron__type_set_add(&b->seen, type);
    return 0;
}

/* Records begin in `block` from now on: those in between have none. */
static void enter_block(chron__builder *b, uint64_t block)
{
    chron__summary *s = b->summary;

    for (size_t i = s->blocks[b->block].types; i < b->count; i++)
        b->seen.words[s->types[i] / 64u] = 0;
    while (b->block < block)
        s->blocks[++b->block] = (chron__block){.seq = CHRON_SEQ_NONE, .types = (uint32_t)b->count};
}

static int note(chron__builder *b, uint64_t offset, const chron__rec *rec)
{
    uint64_t block = chron__seg_block_of(b->seg, offset);
    chron__block *at;
    int status;

    if (block > b->block)
        enter_block(b, block);
    at = &b->summary->blocks[block];
    if (at->offset == 0) {
        at->offset = offset;
        at->seq = chron__rec_seq(rec);
    }
    status = add(b, chron__rec_type(rec));
    if (status == 0 && chron__rec_flags(rec) & CHRON__RECORD_SNAPSHOT)
        status = add(b, CHRON__TYPE_OURS);
    return status;
}

/* The walk is over. */
static void finish(chron__builder *b, enum chron__walk_stop stop)
{
    chron__summary *s = b->summary;
    chron__seal_value seal;

    enter_block(b, s->block_count);
    s->end_offset = b->walk.offset;
    s->end_seq = b->walk.next_seq;
    s->is_damaged = b->damaged;
    s->is_whole = !b->damaged && stop == CHRON__STOP_END && !b->seg->headless &&
                  chron__seg_seal_load(b->seg, &seal) == 1 && seal.end_offset == s->end_offset &&
                  seal.last_seq + 1u == s->end_seq;
}

int chron__builder_step(chron__builder *b, uint64_t bytes)
{
    uint64_t until = b->walk.offset + (bytes < b->seg->size ? bytes : b->seg->size);
    enum chron__walk_stop stop;
    chron__rec rec;

    while (b->walk.offset < until) {
        uint64_t offset = b->walk.offset;

        if (chron__seg_step(b->seg, &b->walk, 1, &rec, &stop)) {
            if (note(b, offset, &rec) < 0)
                return -CHRON_ENOMEM;
            continue;
        }
        if (chron__map_faulted(&b->seg->map))
            return chron__seg_fail_fault(b->seg, "");
        if (stop == CHRON__STOP_END || !chron__seg_resync(&b->beyond, offset, b->walk.next_seq)) {
            b->damaged |= stop == CHRON__STOP_BROKEN;
            finish(b, stop);
            return 1;
        }
        b->damaged = 1;
        b->walk = (chron__walk){.offset = b->beyond.offset, .next_seq = b->beyond.seq};
    }
    return chron__map_faulted(&b->seg->map) ? chron__seg_fail_fault(b->seg, "") : 0;
}

/* --------------------------------------------------------------------------------------- searching */

static int lists(const chron__summary *s, uint64_t block, uint16_t type)
{
    for (size_t i = s->blocks[block].types; i < s->blocks[block + 1u].types; i++)
        if (s->types[i] == type)
            return 1;
    return 0;
}

int chron__summary_has(const chron__summary *s, uint64_t block, const chron__rec *rec)
{
    return lists(s, block, chron__rec_type(rec)) &&
           (!(chron__rec_flags(rec) & CHRON__RECORD_SNAPSHOT) || lists(s, block, CHRON__TYPE_OURS));
}

int chron__summary_takes(const chron__summary *s, uint64_t block, const chron__filter *filter)
{
    if (filter->snapshots_only && !lists(s, block, CHRON__TYPE_OURS))
        return 0;
    for (size_t i = s->blocks[block].types; i < s->blocks[block + 1u].types; i++)
        if (s->types[i] != CHRON__TYPE_OURS && chron__type_set_has(&filter->types, s->types[i]))
            return 1;
    return 0;
}

/* The last one that is wanted among those that begin in a block, before `seq`. */
static int find_last_in(const chron__seg *seg, const chron__block *block, uint64_t end, const chron__filter *filter,
                        uint64_t seq, uint64_t *offset, chron__rec *rec)
{
    chron__resync beyond = {.seg = seg, .limit = end < seg->size ? end : seg->size};
    chron__walk walk = {.offset = block->offset, .next_seq = block->seq};
    int found = 0;

    while (walk.offset < end && walk.next_seq < seq) {
        uint64_t at = walk.offset;
        enum chron__walk_stop stop;
        chron__rec next;

        if (chron__seg_step(seg, &walk, 1, &next, &stop)) {
            if (chron__filter_takes(filter, &next)) {
                *offset = at;
                *rec = next;
                found = 1;
            }
            continue;
        }
        if (stop == CHRON__STOP_END || !chron__seg_resync(&beyond, at, walk.next_seq))
            break;
        walk = (chron__walk){.offset = beyond.offset, .next_seq = beyond.seq};
    }
    return found;
}

int chron__summary_find_last(const chron__seg *seg, const chron__summary *s, const chron__filter *filter, uint64_t seq,
                             uint64_t *offset, chron__rec *rec)
{
    for (uint64_t block = s->block_count; block > 0; block--) {
        const chron__block *at = &s->blocks[block - 1u];

        if (at->offset && at->seq < seq && chron__summary_takes(s, block - 1u, filter) &&
            find_last_in(seg, at, seg->data_offset + block * CHRON__STRIDE, filter, seq, offset, rec))
            return 1;
    }
    return 0;
}
