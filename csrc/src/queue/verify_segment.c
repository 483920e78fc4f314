/* SPDX-License-Identifier: MIT */
/*
 * verify_segment.c - read one segment from end to end and check it against docs/FORMAT.md: header, place in the
 * chain, each record with its CRC, END, seal, block index.
 *
 * A live writer must not cause a false alarm. What it may have half done at any moment, and what therefore is no
 * problem: bytes behind the last published record; an index entry that is still 0; in the last segment but one,
 * END and seal that are still missing while the last one has its name already.
 */
#include "queue/verify_segment.h"

#include <inttypes.h>

#include "base/error.h"
#include "format/summary_file.h"

/* One segment's walk. */
typedef struct check {
    chron__verify *v;
    chron__seg *seg;
    char name[CHRON__NAME_BYTES];
    uint64_t follower;
    int in_middle;
    int sealed; /* 1 with `seal`, 0, or negative: damaged */
    chron__seal_value seal;
    chron__walk walk;
    enum chron__walk_stop stop;
    chron__tally tally;
    int damaged;             /* some record was: the tally is not complete */
    uint64_t known_block;    /* first block whose first record is not known yet */
    int contiguous;          /* nothing was skipped right before the cursor */
    chron__resync behind;    /* damage */
    chron__summary *summary; /* that is kept of it; NULL: none, or none that anybody believes */
} check;

static int is_fault(check *c)
{
    return chron__map_faulted(&c->seg->map);
}

/* ------------------------------------------------------------------------------------------ index */

static void check_entry(check *c, uint64_t block, uint64_t expected)
{
    uint64_t offset = chron__seg_index_raw(c->seg, block);

    if (offset == 0 || offset == expected || is_fault(c))
        return;
    chron__verify_problem(c->v, CHRON_PROBLEM_INDEX, c->name, CHRON__INDEX_AT + block * 4u, CHRON_SEQ_NONE,
                          CHRON_SEQ_NONE,
                          "index entry %" PRIu64 " leads to offset %" PRIu64 ", where no record begins "
                          "(readers fall back to a scan)",
                          block, offset);
}

/* A record or END starts at `offset`. */
static void note_start(check *c, uint64_t offset)
{
    uint64_t block = chron__seg_block_of(c->seg, offset);

    if (block < c->known_block)
        return;
    if (c->contiguous) {
        for (uint64_t b = c->known_block; b < block; b++)
            check_entry(c, b, 0); /* a record covers the whole block */
        check_entry(c, block, offset);
    }
    c->known_block = block + 1u;
}

static void check_rest_of_index(check *c)
{
    uint64_t blocks = chron__seg_blocks(c->seg);

    if (c->damaged || (c->stop != CHRON__STOP_END && c->v->alive))
        return;
    for (uint64_t b = c->known_block; b < blocks; b++)
        check_entry(c, b, 0);
}

/* ---------------------------------------------------------------------------------------- records */

/* Are there bytes behind the end of a log that nobody writes to? */
static void check_tail(check *c)
{
    const uint8_t *base = c->seg->map.base;
    uint64_t at = c->walk.offset;

    if (c->v->alive)
        return;
    while (at < c->seg->size && base[at] == 0)
        at++;
    if (at == c->seg->size || is_fault(c))
        return;
    /* [PUBLISH] with chron__rec_publish */
    if (chron__load_acquire_le32(base + c->walk.offset) != 0 || chron__queue_writer_alive(&c->v->q) != 0)
        return; /* a writer has come meanwhile */
    chron__verify_problem(c->v, CHRON_PROBLEM_TAIL, c->name, at, c->walk.next_seq, CHRON_SEQ_NONE,
                          "there are bytes behind the last record: an append was cut off. The next writer will set "
                          "them aside in quarantine/");
}

/* The log cannot go on at the cursor. Report it; 1 if the walk can go on behind the damage. */
static int pass_damage(check *c, const char *why)
{
    chron__verify *v = c->v;
    uint64_t from = c->walk.offset;
    uint64_t seq = c->walk.next_seq;
    int more = chron__seg_resync(&c->behind, from, seq);

    if (is_fault(c))
        return 0;
    c->damaged = 1;
    if (!more && c->follower == CHRON_SEQ_NONE && c->sealed == 0 && !v->alive && seq >= v->state.durable_next) {
        chron__verify_problem(v, CHRON_PROBLEM_TAIL, c->name, from, seq, CHRON_SEQ_NONE,
                              "the record at the end of the "
                              "log is not whole: %s. An append was cut off, or it is damaged; the next writer will set "
                              "it aside in quarantine/",
                              why);
        return 0;
    }
    chron__verify_problem(v, CHRON_PROBLEM_RECORD, c->name, from, seq, more ? c->behind.seq : c->follower,
                          "record %" PRIu64 " is damaged: %s", seq, why);
    if (!more) {
        if (c->follower != CHRON_SEQ_NONE)
            c->walk.next_seq = c->follower;
        return 0;
    }
    c->walk = (chron__walk){.offset = c->behind.offset, .next_seq = c->behind.seq, .epoch = c->walk.epoch};
    c->contiguous = 0;
    return 1;
}

/* Commit word 0 at the cursor: is that the end of the log? If not: what is wrong. */
static const char *why_not_end(const check *c)
{
    const chron__gap *gap = chron__gaps_find(&c->v->gaps, c->walk.next_seq);

    if (gap && gap->base_seq == c->seg->base_seq && gap->offset > c->walk.offset)
        return "nothing stands there, though the log goes on behind"; /* which was accepted, and is no problem */
    if (c->sealed == 1)
        return "nothing stands there, though the segment is sealed";
    if (c->follower == CHRON_SEQ_NONE)
        return NULL;
    if (c->follower != c->walk.next_seq)
        return "nothing stands there, though the log goes on in the next segment";
    return c->in_middle ? "the END record is missing" : NULL; /* a roll that is, or was left, half done */
}

/* 1: go on. */
static int at_stop(check *c)
{
    const char *why;

    switch (c->stop) {
    case CHRON__STOP_NONE:
        why = why_not_end(c);
        if (why)
            return pass_damage(c, why);
        if (c->follower == CHRON_SEQ_NONE)
            check_tail(c);
        return 0;
    case CHRON__STOP_END:
        note_start(c, c->walk.offset);
        return 0;
    default:
        return pass_damage(c, c->walk.why);
    }
}

/* A summary may say too much, and never too little. */
static void check_summary(check *c, uint64_t offset, const chron__rec *rec)
{
    uint64_t block = chron__seg_block_of(c->seg, offset);

    if (!c->summary || chron__summary_has(c->summary, block, rec))
        return;
    chron__verify_problem(c->v, CHRON_PROBLEM_INDEX, c->name, offset, chron__rec_seq(rec), CHRON_SEQ_NONE,
                          "types/%020" PRIu64 ".sum leaves out type %u, which record %" PRIu64
                          " has: delete that file, and it is made anew",
                          c->seg->base_seq, (unsigned)chron__rec_type(rec), chron__rec_seq(rec));
    chron__summary_free(c->summary); /* said once */
    c->summary = NULL;
}

static void read_records(check *c)
{
    uint64_t since = c->walk.offset;
    chron__rec rec;

    for (;;) {
        uint64_t offset = c->walk.offset;

        if (c->v->to.stopped || is_fault(c))
            return;
        if (!chron__seg_step(c->seg, &c->walk, 1, &rec, &c->stop)) {
            if (!at_stop(c))
                break;
            continue;
        }
        note_start(c, offset);
        check_summary(c, offset, &rec);
        c->contiguous = 1;
        chron__tally_add(&c->tally, chron__rec_timestamp(&rec));
        c->v->summary->records++;
        c->v->summary->payload_bytes += rec.length;
        if (c->walk.offset - since >= 1u << 20) {
            chron__verify_progress(c->v, c->name, c->walk.offset - since);
            since = c->walk.offset;
        }
    }
    check_rest_of_index(c);
}

/* ------------------------------------------------------------------------------------------- seal */

static void check_seal(check *c)
{
    const chron__seal_value *seal = &c->seal;
    const char *wrong = NULL;

    if (c->sealed < 0) {
        chron__verify_failure(c->v, CHRON_PROBLEM_SEAL, c->name, c->seg->base_seq, CHRON_SEQ_NONE);
        return;
    }
    if (c->sealed == 0) {
        if (c->in_middle)
            wrong = "it is missing";
    } else if (c->damaged) {
        return; /* what it says cannot be compared */
    } else if (seal->end_offset != c->walk.offset || seal->records != c->tally.records) {
        wrong = "it tells of another end, or number of records";
    } else if (seal->first_ts != c->tally.first_ts || seal->last_ts != c->tally.last_ts ||
               ((seal->flags & CHRON__SEAL_MONOTONE) != 0) == c->tally.goes_back) {
        wrong = "it tells of other timestamps";
    }
    if (wrong)
        chron__verify_problem(c->v, CHRON_PROBLEM_SEAL, c->name, CHRON__SEAL_AT, c->seg->base_seq, CHRON_SEQ_NONE,
                              "the seal of %s does not match: %s", c->name, wrong);
}

/* ------------------------------------------------------------------------------------------ chain */

static void check_chain(check *c)
{
    chron__verify *v = c->v;
    uint64_t base = c->seg->base_seq;

    if (!v->begun) {
        v->summary->oldest_seq = base;
        if (c->seg->prev_base != CHRON_SEQ_NONE ? c->seg->prev_base >= base : base != 0 && !v->state.generation)
            chron__verify_problem(v, CHRON_PROBLEM_CHAIN, c->name, offsetof(chron__file_header, prev_base), base,
                                  CHRON_SEQ_NONE, "%s says that the segment before it begins with seq %" PRIu64,
                                  c->name, c->seg->prev_base);
    } else if (base != v->next_seq) {
        chron__verify_problem(v, CHRON_PROBLEM_CHAIN, c->name, 0, v->next_seq < base ? v->next_seq : base,
                              v->next_seq < base ? base : v->next_seq,
                              "%s begins with seq %" PRIu64 ", but %" PRIu64 " comes next: %s", c->name, base,
                              v->next_seq, v->next_seq < base ? "a segment is missing" : "segments overlap");
    } else if (c->seg->prev_base != v->last_base) {
        chron__verify_problem(v, CHRON_PROBLEM_CHAIN, c->name, offsetof(chron__file_header, prev_base), base,
                              CHRON_SEQ_NONE,
                              "%s says that the segment before it begins with seq %" PRIu64 ", but that "
                              "begins with %" PRIu64,
                              c->name, c->seg->prev_base, v->last_base);
    }
}

/* The segment that END leads to got its name before END was written. */
static void check_follower(check *c)
{
    chron__bases bases;
    uint64_t wanted = c->walk.end_seq;
    int64_t i;

    if (c->stop != CHRON__STOP_END || c->follower != CHRON_SEQ_NONE || c->v->to.stopped)
        return;
    if (chron__queue_list(&c->v->q, &bases) < 0)
        return;
    i = chron__bases_find(&bases, wanted);
    /* A list that begins behind it: retention has passed this place. */
    if (bases.count == 0 || (i >= 0 && bases.at[i] != wanted))
        chron__verify_problem(c->v, CHRON_PROBLEM_CHAIN, c->name, c->walk.offset, wanted, CHRON_SEQ_NONE,
                              "%s ends and leads to the segment that begins with seq %" PRIu64 ", which is missing",
                              c->name, wanted);
    chron__bases_free(&bases);
}

/* Has retention deleted it since it was listed? */
static int was_deleted(const chron__verify *v, uint64_t base_seq)
{
    chron__bases bases;
    int deleted;

    if (chron__queue_list(&v->q, &bases) < 0)
        return 0;
    deleted = bases.count > 0 && bases.at[0] > base_seq;
    chron__bases_free(&bases);
    return deleted;
}

static void cannot_open(chron__verify *v, int status, uint64_t base_seq, uint64_t follower, const char *name)
{
    uint32_t kind = status == -CHRON_ECORRUPT || status == -CHRON_EFORMAT ? CHRON_PROBLEM_HEADER : CHRON_PROBLEM_FILE;

    if (status == -CHRON_EGONE && was_deleted(v, base_seq)) {
        v->begun = 0; /* and with it all before it: the log begins behind it now */
        return;
    }
    if (!v->begun)
        v->summary->oldest_seq = base_seq;
    chron__verify_failure(v, kind, name, base_seq, follower);
    v->begun = 1;
    v->last_base = base_seq;
    v->next_seq = follower != CHRON_SEQ_NONE ? follower : base_seq;
    v->end_unknown = kind == CHRON_PROBLEM_FILE && follower == CHRON_SEQ_NONE;
}

void chron__verify_segment(chron__verify *v, uint64_t base_seq, uint64_t follower, int in_middle)
{
    check c = {.v = v, .follower = follower, .in_middle = in_middle, .contiguous = 1};
    int status = chron__seg_open(&v->q, base_seq, 0, &c.seg);

    chron__segment_name(base_seq, c.name);
    if (status < 0) {
        cannot_open(v, status, base_seq, follower, c.name);
        return;
    }
    v->summary->segments++;
    c.sealed = chron__seg_seal_load(c.seg, &c.seal);
    check_chain(&c);
    c.behind = (chron__resync){.seg = c.seg, .limit = c.seg->size};
    c.walk.offset = c.seg->data_offset;
    c.walk.next_seq = base_seq;
    c.walk.epoch =
        (uint32_t)c.seg->epoch > v->epoch ? (uint32_t)c.seg->epoch : v->epoch; /* what is older is a remnant */
    c.summary = chron__summary_load(&v->q, c.seg);
    read_records(&c);
    chron__summary_free(c.summary);
    if (is_fault(&c)) {
        (void)chron__at(chron__seg_fail_fault(c.seg, ""), c.name, c.walk.offset, c.walk.next_seq);
        chron__verify_failure(v, CHRON_PROBLEM_FILE, c.name, c.walk.next_seq, follower);
        c.walk.next_seq = follower != CHRON_SEQ_NONE ? follower : c.walk.next_seq;
        v->end_unknown = follower == CHRON_SEQ_NONE;
    } else if (!v->to.stopped) {
        if (c.sealed == 0)
            c.sealed = chron__seg_seal_load(c.seg, &c.seal); /* it may have been sealed while we read */
        if (c.sealed != 1 || c.stop == CHRON__STOP_END)
            check_seal(&c);
        check_follower(&c);
    }
    v->begun = 1;
    v->last_base = base_seq;
    v->next_seq = c.walk.next_seq;
    v->epoch = c.walk.epoch;
    chron__verify_progress(v, c.name, UINT64_MAX);
    chron__seg_release(c.seg);
}
