/* SPDX-License-Identifier: MIT */
/*
 * next.c - the record at the position: is there one, and if not, what does that mean? take.c hands it out.
 *
 * Invariants:
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

int chron__reader_check_history(const chron_reader *r)
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
    chron__told told;
    int found = 0;

    if (!chron__queue_told(&r->q, &told) || told.active != r->seg->base_seq) {
        if (chron__queue_list(&r->q, &bases) < 0)
            return 0;
        found = bases.count > 0 && bases.at[bases.count - 1u] > r->next_seq;
        chron__bases_free(&bases);
    }
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

/* What is as good as nothing: a zero commit word, or a record that the file held as another segment. */
static int is_nothing(const chron_reader *r, enum chron__rec_state state, const chron__rec *rec)
{
    if (state != CHRON__REC_DATA && state != CHRON__REC_END)
        return state == CHRON__REC_NONE;
    return __builtin_expect(chron__rec_seq(rec) != r->next_seq, 0) && chron__seg_is_stale(r->seg, rec);
}

/* Nothing at the position. 0: nothing there yet; 1: look again; ECORRUPT: it was erased. */
static int check_empty(chron_reader *r)
{
    const chron__slot_value *mark = &r->mark;
    chron__seal_value seal;
    const char *why;
    chron__rec rec;
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
    r->empty_looks = 0; /* every look is to say so */
    if (!is_nothing(r, chron__rec_load(r->base, r->size, r->offset, &rec), &rec))
        return 1; /* it came in between */
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
        if (__builtin_expect(is_nothing(r, state, rec), 0)) {
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
