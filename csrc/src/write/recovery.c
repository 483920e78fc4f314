/* SPDX-License-Identifier: MIT */
/*
 * recovery.c - carrying out what the survey found: nothing is changed before it is through.
 *
 * Order, so that being killed here loses nothing and a second run comes to the same end: what is accepted as lost is written
 * down first; whole segments are set aside, newest first; what can be known from elsewhere is put right (headers, END,
 * seals, index entries); what lies behind the end is copied to quarantine/, the copy synced, and then zeroed. The zeroed tail is
 * on disk before anything is appended: else it could come back to life after another loss of power, in front of what was
 * appended since.
 */
#include "write/recovery.h"

#include <inttypes.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/position.h"
#include "queue/anew.h"
#include "queue/plan.h"
#include "queue/quarantine.h"

/* ------------------------------------------------------------------------------------- putting right */

/* Keep the block index as it would be if the writer had never died; touch only what differs. */
static void note_index(chron__seg *seg, uint64_t *next_block, uint64_t offset)
{
    uint64_t block = chron__seg_block_of(seg, offset);

    if (block < *next_block)
        return;
    for (uint64_t b = *next_block; b < block; b++)
        if (chron__seg_index_raw(seg, b))
            chron__seg_index_set(seg, b, 0);
    if (chron__seg_index_raw(seg, block) != offset)
        chron__seg_index_set(seg, block, offset);
    *next_block = block + 1u;
}

/* Walk a segment again, and put its index right. Behind a gap it goes on as the survey did. */
static void mend_index(const chron__survey *s, chron__seg *seg)
{
    chron__walk walk = {.offset = seg->data_offset, .next_seq = seg->base_seq};
    uint64_t next_block = 0;
    enum chron__walk_stop stop;
    chron__rec rec;

    for (;;) {
        uint64_t offset = walk.offset;
        const chron__gap *gap;

        if (chron__seg_step(seg, &walk, 1, &rec, &stop)) {
            note_index(seg, &next_block, offset);
            continue;
        }
        gap = chron__gaps_find(&s->gaps, walk.next_seq);
        if (stop == CHRON__STOP_END || !gap || gap->base_seq != seg->base_seq || gap->offset <= walk.offset)
            break;
        walk.offset = gap->offset;
        walk.next_seq = gap->seq_end;
    }
    if (stop == CHRON__STOP_END)
        note_index(seg, &next_block, walk.offset);
    for (; next_block < chron__seg_blocks(seg); next_block++)
        if (chron__seg_index_raw(seg, next_block))
            chron__seg_index_set(seg, next_block, 0);
}

/* The next segment is there, and follows: see that END says so. */
static int write_end(const chron__survey *s, chron__seg *seg, const chron__stretch *one)
{
    uint8_t *at = seg->map.base + one->offset;
    int status = 0;

    /* Without a commit word it was never more than half of an END. [PUBLISH] of a writer that is dead */
    if (one->stop != CHRON__STOP_NONE && chron__load_relaxed_le32(at) != 0) /* else it counts as nothing */
        status = chron__quarantine_bytes(s->q, seg, one->offset, CHRON__RECORD_HEADER, one->next_seq,
                                         s->wish->state.epoch + 1u);
    if (status < 0)
        return status;
    memset(at, 0, CHRON__RECORD_HEADER);
    chron__rec_write_header(at, one->next_seq, 0, CHRON__TYPE_OURS, 0, one->epoch);
    chron__rec_write_crc(at, 0);
    CHRON__STEP("recovery: END written");
    chron__rec_publish(at, 0);
    if (!chron__seg_index_get(seg, chron__seg_block_of(seg, one->offset)))
        chron__seg_index_set(seg, chron__seg_block_of(seg, one->offset), one->offset);
    return 0;
}

/* All of a header is known from elsewhere: its name, queue.meta, the segment before; its epoch, as near as can be told, from its
 * first record. */
static int write_header(const chron__survey *s, chron__seg *seg, const chron__stretch *one)
{
    const chron__io *io = s->q->io;
    int status = chron__quarantine_bytes(s->q, seg, 0, CHRON__PAGE, one->base_seq, s->wish->state.epoch + 1u);

    if (status < 0)
        return status;
    chron__seg_write_header(s->q, seg, one->base_seq, one->prev_base, one->first_epoch, chron__clock_ns(0));
    CHRON__STEP("recovery: header written");
    status = io->sync_map(io, seg->fd, &seg->map, 0, CHRON__PAGE);
    return status < 0 ? chron__fail_sys(status, "", "cannot put a segment's header on disk") : 0;
}

static int mend(const chron__survey *s, chron__seg *seg, const chron__stretch *one, chron_recovery *report)
{
    int status = 0;

    if (one->header) {
        status = write_header(s, seg, one);
        report->repaired_headers++;
    }
    if (status == 0 && one->index)
        mend_index(s, seg);
    if (status == 0 && one->end)
        status = write_end(s, seg, one);
    if (status == 0 && one->seal)
        chron__seg_seal_store(seg, &one->tally, one->offset);
    report->repaired_rolls += one->end || one->seal;
    CHRON__STEP("recovery: segment put right");
    return status < 0 ? status : chron__map_faulted(&seg->map) ? chron__seg_fail_fault(seg, "") : 0;
}

static int open_writable(const chron__survey *s, const chron__stretch *one, chron__seg **out)
{
    return chron__seg_open(s->q, one->base_seq, CHRON__SEG_WRITE | (one->header ? CHRON__SEG_HEADLESS : 0), out);
}

/* Files that are too short or too long, or that cannot be read in part. What was there stays in quarantine/, if it holds more. */
static int make_anew(const chron__survey *s, unsigned mode, chron_recovery *report)
{
    int status = 0;

    for (size_t i = 0; status == 0 && i < s->count; i++) {
        const chron__stretch *one = &s->at[i];
        chron__seg *seg;

        if (!one->anew)
            continue;
        status = chron__seg_open(s->q, one->base_seq, chron__hole_open_flags(s->wish), &seg);
        if (status < 0)
            return status;
        if (seg->size == s->q->segment_size)
            status = chron__quarantine_keep(s->q, one->base_seq, s->wish->state.epoch + 1u);
        if (status >= 0) {
            status = chron__write_anew(s->q, seg, mode);
            if (status < 0)
                status = chron__fail_sys(status, "", "cannot make a new file for a damaged segment");
        }
        chron__seg_release(seg);
        report->repaired_files++;
    }
    if (status == 0 && report->repaired_files) {
        status = s->q->io->sync_dir(s->q->io, s->q->dir);
        if (status < 0)
            status = chron__fail_sys(status, "", "cannot put new files for damaged segments on disk");
    }
    return status;
}

/* All but the last, which is left open for appending. */
static int mend_all(const chron__survey *s, chron_recovery *report)
{
    for (size_t i = 0; i + 1u < s->count; i++) {
        const chron__stretch *one = &s->at[i];
        chron__seg *seg;
        int status;

        if (!one->header && !one->index && !one->end && !one->seal)
            continue;
        status = open_writable(s, one, &seg);
        if (status < 0)
            return status;
        status = mend(s, seg, one, report);
        chron__seg_release(seg);
        if (status < 0)
            return status;
    }
    return 0;
}

/* -------------------------------------------------------------------------------------- setting aside */

/*
 * Nothing is in the log, and the first segment is no good. Its name says which seq comes next, and nothing else may: without it a
 * log whose beginning was deleted would begin at 0 again, if this opening is cut off. So a new one takes its name.
 */
static int begins_again(const chron__survey *s)
{
    return s->count == 0 && s->first == 0 && s->bases.count > 0 && s->next_seq == s->bases.at[0];
}

static int begin_again(const chron__survey *s, unsigned mode, chron__recovered *out)
{
    static const char temporary[] = "anew.tmp";
    const chron__io *io = s->q->io;
    char name[CHRON__NAME_BYTES];
    chron__seg *seg;
    int status = chron__seg_create(s->q, temporary, mode, &seg);

    if (status == 0)
        status = chron__seg_map(s->q, seg, temporary);
    if (status < 0)
        return status;
    out->seg = seg;
    out->tail = seg->data_offset;
    out->segments++;
    chron__seg_write_header(s->q, seg, s->next_seq, CHRON_SEQ_NONE, s->wish->state.epoch + 1u, chron__clock_ns(0));
    chron__segment_name(s->next_seq, name);
    status = io->sync_map(io, seg->fd, &seg->map, 0, CHRON__PAGE);
    if (status >= 0)
        status = io->rename(io, s->q->dir, temporary, s->q->dir, name);
    CHRON__STEP("recovery: begun again");
    if (status >= 0)
        status = io->sync_dir(io, s->q->dir);
    return status < 0 ? chron__fail_sys(status, name, "cannot make %s anew", name) : 0;
}

/* May bytes of the segment that a file was before have taken the place of what did not reach the disk? */
static int may_be_stale(const chron__survey *s)
{
    return s->q->reuses && s->wish->whence != CHRON__FROM_HERE;
}

/* Did a segment get its name, and nothing of what was to be in it reached the disk? What it holds was deleted long ago. */
static int holds_nothing(const chron__survey *s, uint64_t base_seq)
{
    chron__walk walk = {.next_seq = base_seq};
    chron__resync search = {.limit = 0};
    enum chron__walk_stop stop;
    chron__seg *seg;
    chron__rec rec;
    int nothing;

    if (!may_be_stale(s) || chron__seg_open(s->q, base_seq, CHRON__SEG_HEADLESS, &seg) < 0)
        return 0;
    walk.offset = seg->data_offset;
    search.seg = seg;
    search.limit = seg->size;
    nothing = seg->headless && !chron__seg_step(seg, &walk, 1, &rec, &stop) &&
              !chron__seg_resync(&search, walk.offset, base_seq) && !chron__map_faulted(&seg->map);
    chron__seg_release(seg);
    return nothing;
}

static int unlink_segment(const chron__survey *s, uint64_t base_seq)
{
    char name[CHRON__NAME_BYTES];
    int status;

    chron__segment_name(base_seq, name);
    status = s->q->io->unlink(s->q->io, s->q->dir, name);
    return status < 0 ? chron__fail_sys(status, name, "cannot remove %s, in which there is nothing", name) : 0;
}

/* Segments behind the end, and those that cannot be read and were given up. Newest first: no hole in between. */
static int set_aside(const chron__survey *s, chron__recovered *out)
{
    uint64_t epoch = s->wish->state.epoch + 1u;
    int status = 0;
    int kept = 0;

    out->segments = s->bases.count;
    for (size_t i = s->bases.count; status == 0 && i > s->first; i--) {
        if (!chron__survey_sets_aside(s, i - 1u))
            continue;
        if (!(i == 1u && begins_again(s)) && holds_nothing(s, s->bases.at[i - 1u])) {
            status = unlink_segment(s, s->bases.at[i - 1u]);
            out->segments--;
            continue;
        }
        if (i == 1u && begins_again(s))
            kept = chron__quarantine_keep(s->q, s->bases.at[0], epoch);
        status = kept > 0 ? 0 : kept < 0 ? kept : chron__quarantine_segment(s->q, s->bases.at[i - 1u], epoch);
        out->report.cut_segments++;
        out->report.quarantined = 1;
        out->segments--;
        CHRON__STEP("recovery: segment moved");
    }
    if (status == 0 && out->report.cut_segments)
        status = chron__quarantine_sync(s->q);
    return status;
}

/* An END that leads nowhere, and a seal, are taken back. */
static int take_back(const chron__survey *s, chron__seg *seg, const chron__stretch *one)
{
    const chron__io *io = s->q->io;
    int status = 0;

    if (one->stop == CHRON__STOP_END) {
        memset(seg->map.base + one->offset, 0, CHRON__RECORD_HEADER);
        status = io->sync_map(io, seg->fd, &seg->map, one->offset, CHRON__RECORD_HEADER);
    }
    /* [SEAL] nobody else writes it: this is recovery */
    if (status >= 0 && chron__load_relaxed_le32(seg->map.base + CHRON__SEAL_AT) != CHRON__SEAL_OPEN) {
        chron__seg_unseal(seg);
        status = io->sync_map(io, seg->fd, &seg->map, 0, CHRON__PAGE);
    }
    CHRON__STEP("recovery: END taken back");
    return status < 0 ? chron__fail_sys(status, "", "cannot put the cleaned end of the log on disk") : 0;
}

/* How far a writer that died may have been placing what it had not published; 0: nobody knows. */
static uint64_t unfinished_to(const chron__survey *s, const chron__stretch *one)
{
    const chron__words *words = &s->wish->words;

    if (s->wish->whence != CHRON__FROM_HERE || s->wish->repair || words->base != (uint32_t)one->base_seq)
        return 0;
    return (uint64_t)words->intent * CHRON__ALIGN;
}

/* The segment that the log ends in: clean behind its last record, and open for more. */
static int clean_end(const chron__survey *s, chron__recovered *out)
{
    const chron__stretch *one = &s->at[s->count - 1u];
    const chron__tail tail = {.offset = one->offset,
                              .next_seq = one->next_seq,
                              .epoch = s->wish->state.epoch + 1u,
                              .unfinished_to = unfinished_to(s, one),
                              .may_be_stale = may_be_stale(s)};
    chron__seg *seg;
    int status = open_writable(s, one, &seg);

    if (status < 0)
        return status;
    out->seg = seg;
    status = mend(s, seg, one, &out->report);
    if (status == 0)
        status = take_back(s, seg, one);
    if (status == 0)
        status = chron__quarantine_tail(s->q, seg, &tail, &out->report);
    out->tail = one->offset;
    out->tally = one->tally;
    out->epoch = one->epoch;
    return status;
}

/* Seqs that were given up are not given away again: the log goes on in a segment of its own behind them. */
static void leave_end(const chron__survey *s, chron__recovered *out)
{
    const chron__stretch *one = &s->at[s->count - 1u];

    chron__seg_seal_store(out->seg, &one->tally, one->offset);
    chron__seg_release(out->seg);
    out->seg = NULL;
    out->prev_base = one->base_seq;
}

static int save_gaps(chron__survey *s, unsigned mode)
{
    if (!s->accepted && !s->gaps_damaged)
        return 0;
    chron__gaps_forget(&s->gaps, s->bases.count ? s->bases.at[0] : 0);
    return chron__gaps_save(s->q, &s->gaps, mode);
}

static int carry_out(chron__survey *s, unsigned mode, chron__recovered *out)
{
    int status = save_gaps(s, mode);

    if (status == 0)
        status = set_aside(s, out);
    if (status == 0)
        status = make_anew(s, mode, &out->report);
    if (status == 0)
        status = mend_all(s, &out->report);
    if (status == 0 && s->count)
        status = clean_end(s, out);
    else if (status == 0 && begins_again(s))
        status = begin_again(s, mode, out);
    else if (status == 0 && s->first > 0)
        out->prev_base = s->bases.at[s->first - 1u];
    if (status == 0 && s->count && s->next_seq > s->at[s->count - 1u].next_seq)
        leave_end(s, out);
    return status;
}

/* --------------------------------------------------------------------------------------- what is said */

/* What is known to be on disk: of a copy, nothing. */
static void set_mark(const chron__survey *s, chron__recovered *out)
{
    int64_t i = chron__bases_find(&s->bases, s->wish->state.durable_next ? s->wish->state.durable_next - 1u : 0);

    out->durable_next = s->wish->whence == CHRON__FROM_COPY ? 0 : s->wish->state.durable_next;
    if (out->durable_next > s->next_seq)
        out->durable_next = s->next_seq; /* only repair can have given up what was below the mark */
    out->unsynced_base = s->bases.count ? s->bases.at[i > 0 && out->durable_next ? (size_t)i : 0] : 0;
}

int chron__recover(chron__survey *s, unsigned mode, chron__recovered *out)
{
    int status;

    memset(out, 0, sizeof *out);
    out->prev_base = CHRON_SEQ_NONE;
    status = carry_out(s, mode, out);
    if (status == 0 && (s->wish->whence != CHRON__FROM_HERE || out->report.quarantined))
        status = chron__positions_undo(s->q, s->next_seq);
    if (status == 0) {
        set_mark(s, out);
        out->next_seq = s->next_seq;
        out->oldest_base =
            s->bases.count ? s->bases.at[0] : 0; /* what is set aside lies behind it, or it is the only one */
        chron__plan_report(s, &out->report);
    } else {
        chron__seg_release(out->seg);
        out->seg = NULL;
    }
    return status;
}
