/* SPDX-License-Identifier: MIT */
/*
 * recover.c - the first to come puts a group in order, alone. After the death of processes there is nothing to do that they would
 * not have done for each other. After a loss of power cells, floor and log are each of another moment:
 *
 *  - A cell of the next lap says that the floor had passed its job, whatever the floor's slot says.
 *  - Records that are gone, and came anew, have a higher epoch than any that this group has seen: what is known of them, and of
 *    all behind, was of others.
 *  - Nobody has a job; leases, and words that tell who has the turn, are of another boot.
 *
 * Killed anywhere, the next first comer does all of it again.
 */
#include "group/group.h"

#include <inttypes.h>

#include "base/step.h"
#include "read/attach.h"
#include "read/next.h"

#define INCARNATION_MASK 0x1FFFFFu

/* Nobody may be taken for somebody whose name stands in a cell. */
static void raise_incarnations(chron_group *g)
{
    const chron__group_file *file = &g->file;
    uint32_t highest =
        chron__load_acquire_le32(file->map.base + CHRON__GROUP_INCARNATION) & INCARNATION_MASK; /* [TURN] */

    for (uint64_t i = 0; i < file->window; i++) {
        uint32_t one = chron__cell_owner(chron__cell_load(file, i)) >> CHRON__TURN_SLOT_BITS;

        highest = one > highest ? one : highest;
    }
    for (uint32_t i = 0; i < CHRON__GROUP_SLOTS; i++) {
        /* [TURN] with nobody's */
        uint32_t one = chron__load_acquire_le32(file->map.base + CHRON__GROUP_TABLE + i * CHRON__TURN_ENTRY);

        highest = (one & INCARNATION_MASK) > highest ? one & INCARNATION_MASK : highest;
    }
    chron__store_release_le32(file->map.base + CHRON__GROUP_INCARNATION, highest); /* [TURN] with chron__turn_join */
}

/* The floor that cells of a later lap prove. */
static uint64_t proven_floor(const chron_group *g, uint64_t floor)
{
    uint64_t proven = floor;

    for (uint64_t seq = floor; seq < floor + g->file.window; seq++) {
        uint64_t word = chron__cell_load(&g->file, seq);

        if (chron__cell_is_of(&g->file, seq + g->file.window, word))
            proven = seq + 1u;
    }
    return proven;
}

/* The epoch of record `seq`, which is there: 1; 0 if it cannot be told. */
static int epoch_of(chron_group *g, uint64_t seq, uint32_t *epoch)
{
    chron__rec rec;

    if (chron_reader_seek(g->tail, seq) < 0 || chron__reader_peek(g->tail, &rec) <= 0)
        return 0;
    *epoch = chron__rec_epoch(&rec);
    return 1;
}

/* The first record whose epoch this group has never seen; `end` if there is none. Epochs do not go down along a log. */
static uint64_t first_unseen(chron_group *g, uint64_t oldest, uint64_t end)
{
    uint64_t low = oldest;
    uint64_t high = end;
    uint32_t epoch;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2u;
        uint64_t at = middle;

        while (at > low && !epoch_of(g, at, &epoch))
            at--;
        if (epoch_of(g, at, &epoch) && epoch > g->floor.epoch)
            high = at;
        else
            low = middle + 1u;
    }
    return low;
}

static int check_fingerprint(chron_group *g, uint64_t floor)
{
    chron__seg *seg;
    uint64_t offset;
    chron__rec rec;
    int differs;

    if (!(g->floor.flags & CHRON__SLOT_FINGERPRINT) || floor != g->floor.next_seq ||
        chron__reader_find_before(g->tail, floor, &seg, &offset, &rec) <= 0)
        return 0;
    differs = chron__rec_seq(&rec) + 1u == floor && rec.crc != g->floor.fingerprint;
    chron__seg_release(seg);
    if (!differs)
        return 0;
    return chron__at(chron__fail(CHRON_EREWRITTEN,
                                 "record %" PRIu64
                                 ", which the group %s has done, is another one now: the log was replaced. "
                                 "Remove the group, and open it anew with a start",
                                 floor - 1u, g->name),
                     "", 0, floor - 1u);
}

/* What is known of jobs from `from` on is of records that are gone. Nobody has any of the others. */
static void settle_cells(chron_group *g, uint64_t floor, uint64_t from)
{
    for (uint64_t seq = floor; seq < floor + g->file.window; seq++) {
        uint64_t word = chron__cell_load(&g->file, seq);
        uint32_t state = chron__cell_state_of(&g->file, seq, word);
        uint64_t next = word;

        if (seq >= from)
            next = 0;
        else if (state == CHRON__CELL_RESERVED || state == CHRON__CELL_RUNNING)
            next = chron__cell_word(&g->file, seq, CHRON__CELL_READY, chron__cell_count(word), 0);
        if (next != word)
            (void)chron__cell_swap(&g->file, seq, word, next);
        CHRON__STEP("group: cell settled");
    }
}

/* Where a new group begins. */
static int find_start(chron_group *g, uint64_t *floor)
{
    const chron_group_options *o = &g->options;
    const chron__slot_value *known = &g->mirror.value;
    int status = 0;

    if (o->start == CHRON_START_RESUME && !g->mirror.is_new && known->next_seq != CHRON_SEQ_NONE)
        status = chron_reader_seek(g->tail, known->flags & CHRON__SLOT_UNDONE ? known->segment_base : known->next_seq);
    else if (o->start == CHRON_START_LATEST)
        status = chron_reader_seek_latest(g->tail);
    else if (o->start == CHRON_START_SEQ)
        status = chron_reader_seek(g->tail, o->start_value);
    else if (o->start == CHRON_START_TIME)
        status = chron_reader_seek_time(g->tail, o->start_value);
    *floor = g->tail->next_seq;
    return status;
}

static void reset_words(chron_group *g, uint64_t floor)
{
    chron__store_relaxed32(g->file.map.base + CHRON__GROUP_TURN, 0); /* [TURN] nobody is there */
    chron__group_set_word(&g->file, CHRON__GROUP_NEXT, floor);
    chron__group_set_word(&g->file, CHRON__GROUP_READY, floor);
    chron__group_set_word(&g->file, CHRON__GROUP_LEASE, UINT64_MAX);
    chron__group_set_word(&g->file, CHRON__GROUP_DUE, 0);
    chron__group_set_word(&g->file, CHRON__GROUP_SCANNED, 0);
}

int chron__group_recover(chron_group *g)
{
    uint64_t oldest = g->tail->next_seq;
    uint64_t floor;
    uint64_t end;
    uint64_t unseen;
    int status;

    if (!chron__slots_load(g->file.map.base, &g->floor))
        return chron__fail_fault("the group's file", "");
    floor = g->floor.next_seq;
    status = floor == CHRON_SEQ_NONE ? find_start(g, &floor) : 0;
    if (status == 0)
        status = chron__reader_end(g->tail, &end);
    if (status < 0)
        return status;
    raise_incarnations(g);
    if (g->floor.next_seq != CHRON_SEQ_NONE)
        floor = proven_floor(g, floor);
    unseen = g->floor.epoch == 0 ? end : first_unseen(g, oldest < floor ? oldest : floor, end);
    if (unseen > end)
        unseen = end;
    status = unseen >= floor ? check_fingerprint(g, floor) : 0;
    if (status < 0)
        return status;
    floor = unseen < floor ? unseen : floor;
    CHRON__STEP("group: judged");
    settle_cells(g, floor, unseen);
    reset_words(g, floor);
    status = chron__group_store_floor(g, floor);
    (void)chron_reader_seek_earliest(g->tail);
    return status < 0 ? status : 0;
}
