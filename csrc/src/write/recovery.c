/* SPDX-License-Identifier: MIT */
/*
 * recovery.c - find the end of the log, and make everything behind it zero.
 *
 * Segments that hold a record at or above the durable mark are read record by record, CRC and all. The
 * log ends before the first record that does not check out. That is normal above the durable mark (the
 * writer died, or the power went), and damage below it: then nothing is touched and the opening refused.
 *
 * Crash states of a roll, and what becomes of them (numbers as in roll.c):
 *   before 3  only next.tmp is there                -> removed, when the next one is made
 *   after 3   the next segment has its name, no END -> END and seal are written now
 *   after 4   END, no seal                          -> the seal is written now
 *   after a power cut: END, but the next segment's name is not on disk -> END is taken back
 *
 * Order, so that being killed here loses nothing: first copy to quarantine/ (and sync the copy), then
 * zero. A second run meets the same first bad record, and finds less behind it.
 */
#include "write/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/header.h"
#include "queue/quarantine.h"

/* The search so far. */
typedef struct survey {
    const chron__queue *q;
    const chron__slot_value *state;
    chron__bases bases;
    int repair;
    size_t at;                  /* index in bases of the segment that `seg` is */
    chron__seg *seg;            /* the last one that was read; NULL: none could be */
    chron__walk walk;           /* where its records end */
    enum chron__walk_stop stop; /* and why */
    chron__tally tally;
    chron__recovered *out;
} survey;

/* Keep the block index as it would be if the writer had never died; touch only what differs. */
static void note_index(chron__seg *seg, uint64_t *next_block, uint64_t offset)
{
    uint64_t block = chron__seg_block_of(seg, offset);

    if (block < *next_block)
        return;
    for (uint64_t b = *next_block; b < block; b++)
        if (chron__seg_index_get(seg, b))
            chron__seg_index_set(seg, b, 0);
    if (chron__seg_index_get(seg, block) != offset)
        chron__seg_index_set(seg, block, offset);
    *next_block = block + 1u;
}

static int scan(survey *s)
{
    uint64_t next_block = 0;
    uint32_t epoch = s->walk.epoch;
    chron__rec rec;

    memset(&s->tally, 0, sizeof s->tally);
    memset(&s->walk, 0, sizeof s->walk);
    s->walk.offset = s->seg->data_offset;
    s->walk.next_seq = s->seg->base_seq;
    s->walk.epoch = epoch;
    for (;;) {
        uint64_t offset = s->walk.offset;

        if (!chron__seg_step(s->seg, &s->walk, 1, &rec, &s->stop))
            break;
        note_index(s->seg, &next_block, offset);
        chron__tally_add(&s->tally, chron__rec_timestamp(&rec));
    }
    if (s->stop == CHRON__STOP_END)
        note_index(s->seg, &next_block, s->walk.offset);
    s->out->report.scanned_records += s->tally.records;
    s->out->report.scanned_bytes += s->walk.offset - s->seg->data_offset;
    if (chron__map_faulted(&s->seg->map))
        return chron__seg_fail_fault(s->seg, "");
    return 0;
}

/* A record that must be there is not: refuse, or, if repair was asked for, go on. */
static int damage(const survey *s, uint64_t seq, const char *file, uint64_t offset, const char *why)
{
    if (s->repair)
        return 0;
    return chron__at(chron__fail(CHRON_ECORRUPT,
                                 "%s is damaged at offset %" PRIu64 ", seq %" PRIu64 ": %s. It was on "
                                 "disk once. Nothing was changed; readers can still read what is whole. Restore the "
                                 "file, or open with repair to set aside this record and all behind it",
                                 file, offset, seq, why),
                     file, offset, seq);
}

static void seal_now(survey *s)
{
    chron__seg_seal_store(s->seg, &s->tally, s->walk.offset, chron__clock_ns(0));
}

/* The next segment is there, and follows: see that END and seal say so. */
static void finish_roll(survey *s)
{
    chron__seal_value seal;
    uint8_t *at = s->seg->map.base + s->walk.offset;

    CHRON__ASSERT(s->stop != CHRON__STOP_BROKEN && s->bases.at[s->at + 1u] == s->walk.next_seq);
    if (s->stop == CHRON__STOP_NONE) {
        chron__rec_write_header(at, s->walk.next_seq, 0, CHRON__TYPE_OURS, 0, s->walk.epoch);
        chron__rec_write_crc(at, 0);
        CHRON__STEP("recovery: END written");
        chron__rec_publish(at, 0);
        if (!chron__seg_index_get(s->seg, chron__seg_block_of(s->seg, s->walk.offset)))
            chron__seg_index_set(s->seg, chron__seg_block_of(s->seg, s->walk.offset), s->walk.offset);
        s->out->report.repaired_rolls++;
    }
    if (chron__seg_seal_load(s->seg, &seal) != 1 || seal.end_offset != s->walk.offset ||
        seal.records != s->tally.records) {
        seal_now(s);
        if (s->stop == CHRON__STOP_END)
            s->out->report.repaired_rolls++;
    }
    CHRON__STEP("recovery: roll finished");
}

/* Does segment `i` follow the one that was read? 1 with *next open; 0 if not; or a failure. */
static int open_follower(survey *s, size_t i, chron__seg **next)
{
    int status = chron__seg_open(s->q, s->bases.at[i], 1, next);

    if (status == -CHRON_ECORRUPT && (s->repair || s->bases.at[i] >= s->state->durable_next))
        return 0; /* made, but its header did not reach the disk */
    if (status < 0)
        return status;
    if ((*next)->prev_base == s->seg->base_seq && (s->stop != CHRON__STOP_BROKEN))
        return 1;
    chron__seg_release(*next);
    *next = NULL;
    return 0;
}

/* Read from `first` on, until the log ends in s->seg. */
static int read_on(survey *s, size_t first)
{
    int status = chron__seg_open(s->q, s->bases.at[first], 1, &s->seg);

    s->at = first;
    if (status == -CHRON_ECORRUPT && (s->repair || s->bases.at[first] >= s->state->durable_next))
        return 0; /* s->seg is NULL: not even its header reached the disk */
    if (status < 0)
        return status;
    for (;;) {
        chron__seg *next = NULL;
        char name[CHRON__NAME_BYTES];
        size_t i = s->at + 1u;

        status = scan(s);
        if (status < 0 || i == s->bases.count || s->stop == CHRON__STOP_BROKEN)
            return status;
        chron__segment_name(s->bases.at[i], name);
        if (s->bases.at[i] != s->walk.next_seq) {
            /* Without END the log simply ends here. With END the segment it leads to is missing. */
            if (s->stop == CHRON__STOP_END)
                return damage(s, s->walk.next_seq, name, 0,
                              "the segment before it leads to another one, which is missing");
            return 0;
        }
        status = open_follower(s, i, &next);
        if (status <= 0)
            return status;
        finish_roll(s);
        chron__seg_release(s->seg);
        s->seg = next;
        s->at = i;
    }
}

/* Segments that end below the durable mark are not read; but none of them may be missing. */
static int check_chain(const survey *s, size_t first)
{
    for (size_t i = 1; i <= first; i++) {
        uint8_t bytes[sizeof(chron__file_header)] = {0};
        chron__file_header header;
        char name[CHRON__NAME_BYTES];
        int64_t n;
        int status;

        chron__segment_name(s->bases.at[i], name);
        n = chron__read_file(s->q->io, s->q->dir, name, bytes, sizeof bytes);
        if (n < 0)
            return chron__fail_sys((int)n, name, "cannot read %s", name);
        status = chron__header_decode(bytes, CHRON__MAGIC_SEGMENT, s->q->uuid, name, &header);
        if (status == 0 && header.prev_base != s->bases.at[i - 1u])
            status = damage(s, header.prev_base, name, 0, "the segment before it is missing");
        if (status < 0 && !s->repair)
            return status;
    }
    return 0;
}

/* Is the end that was found above the durable mark? */
static int check_durable(const survey *s)
{
    char name[CHRON__NAME_BYTES];
    const char *why = "records that were on disk are missing";

    if (!s->seg || s->walk.next_seq >= s->state->durable_next)
        return 0;
    if (s->stop == CHRON__STOP_BROKEN)
        why = s->walk.why;
    else if (s->stop == CHRON__STOP_NONE)
        why = "nothing stands there";
    chron__segment_name(s->seg->base_seq, name);
    return damage(s, s->walk.next_seq, name, s->walk.offset, why);
}

/*
 * An END that leads nowhere, and a seal, are taken back, and that is on disk before anything is appended: else they
 * could come back to life after another loss of power, in front of what was appended since.
 */
static int take_back(const survey *s)
{
    const chron__io *io = s->q->io;
    int status = 0;

    if (s->stop == CHRON__STOP_END) {
        memset(s->seg->map.base + s->walk.offset, 0, CHRON__RECORD_HEADER);
        status = io->sync_map(io, s->seg->fd, &s->seg->map, s->walk.offset, CHRON__RECORD_HEADER);
    }
    /* [SEAL] nobody else writes it: this is recovery */
    if (status >= 0 && chron__load_relaxed_le32(s->seg->map.base + CHRON__SEAL_AT) != CHRON__SEAL_OPEN) {
        chron__seg_unseal(s->seg);
        status = io->sync_map(io, s->seg->fd, &s->seg->map, 0, CHRON__PAGE);
    }
    CHRON__STEP("recovery: END taken back");
    return status < 0 ? chron__fail_sys(status, "", "cannot put the cleaned end of the log on disk") : 0;
}

/* Make the end that was found the end: nothing behind it, in this segment or in later ones. */
static int cut(survey *s)
{
    chron__recovered *out = s->out;
    uint64_t epoch = s->state->epoch + 1u;
    size_t from = s->seg ? s->at + 1u : s->at;
    int status = 0;

    for (size_t i = s->bases.count; status == 0 && i > from; i--) {
        status = chron__quarantine_segment(s->q, s->bases.at[i - 1u], epoch);
        out->report.cut_segments++;
        out->report.quarantined = 1;
        CHRON__STEP("recovery: segment moved");
    }
    if (status < 0 || !s->seg)
        return status;
    status = take_back(s);
    if (status < 0)
        return status;
    return chron__quarantine_tail(s->q, s->seg, s->walk.offset, s->walk.next_seq, epoch, &out->report);
}

/* Records above the durable mark may go with a loss of power, even all of them; those below it may not. */
static int no_segments(const chron__slot_value *state, int repair, chron__recovered *out)
{
    out->next_seq = state->durable_next;
    if (out->next_seq > 0 && !repair)
        return chron__fail(CHRON_ECORRUPT,
                           "queue.meta tells of %" PRIu64 " records that were on disk, but there is no "
                           "segment: they were deleted. Restore them, or open with repair to go on behind them",
                           out->next_seq);
    return 0;
}

static uint64_t count_lost(const chron__slot_value *state, uint64_t next_seq)
{
    return (state->flags & CHRON__SLOT_CLEAN) && state->next_seq > next_seq ? state->next_seq - next_seq : 0;
}

static void fill_report(const survey *s)
{
    chron__recovered *out = s->out;

    CHRON__ASSERT(!s->seg || s->walk.next_seq - s->seg->base_seq == s->tally.records);
    CHRON__ASSERT(s->at < s->bases.count);
    out->seg = s->seg;
    out->tail = s->seg ? s->walk.offset : 0;
    out->next_seq = s->seg ? s->walk.next_seq : s->bases.at[s->at];
    out->prev_base = s->at > 0 ? s->bases.at[s->at - 1u] : CHRON_SEQ_NONE;
    out->tally = s->tally;
    out->epoch = s->walk.epoch;
}

int chron__recover(const chron__queue *q, const chron__slot_value *state, int repair, chron__recovered *out)
{
    survey s = {.q = q, .state = state, .repair = repair, .out = out};
    uint64_t durable_next = state->durable_next;
    int64_t first;
    int status = chron__queue_list(q, &s.bases);

    memset(out, 0, sizeof *out);
    out->prev_base = CHRON_SEQ_NONE;
    out->report.clean = (state->flags & CHRON__SLOT_CLEAN) != 0 || state->epoch == 0; /* never opened */
    if (status < 0)
        return status;
    if (s.bases.count == 0) {
        status = no_segments(state, repair, out);
    } else {
        /* The segment of the last durable record is read too: it may lack END and seal. */
        first = chron__bases_find(&s.bases, durable_next ? durable_next - 1u : 0);
        if (first < 0)
            first = 0;
        out->unsynced_base = s.bases.at[first];
        status = check_chain(&s, (size_t)first);
        if (status == 0)
            status = read_on(&s, (size_t)first);
        if (status == 0)
            status = check_durable(&s);
        if (status == 0)
            status = cut(&s);
        fill_report(&s);
    }
    chron__bases_free(&s.bases);
    if (status < 0) {
        chron__seg_release(out->seg);
        out->seg = NULL;
    }
    out->report.next_seq = out->next_seq;
    out->report.lost_records = count_lost(state, out->next_seq);
    return status;
}
