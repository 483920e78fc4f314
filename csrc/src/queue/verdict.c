/* SPDX-License-Identifier: MIT */
/* verdict.c - a hole in the log: may it be passed, does the log end before it, or is that not for us to decide? */
#include "queue/verdict.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/error.h"

int chron__verdict_refuse(const chron__survey *s, const chron__hole *h)
{
    char name[CHRON__NAME_BYTES];

    chron__segment_name(h->i < s->bases.count ? s->bases.at[h->i] : h->seq, name);
    return chron__at(chron__fail(CHRON_ECORRUPT,
                                 "%s is damaged at offset %" PRIu64 ", seq %" PRIu64 ": %s. Nothing was changed; "
                                 "readers can still read what is whole. Restore the file, or repair the queue: that "
                                 "keeps all whole records, and accepts the others as lost",
                                 name, h->offset, h->seq, h->why),
                     name, h->offset, h->seq);
}

static int ask(const chron__survey *s, const chron__hole *h, uint64_t before, uint64_t behind)
{
    char name[CHRON__NAME_BYTES];

    chron__segment_name(h->i < s->bases.count ? s->bases.at[h->i] : h->seq, name);
    return chron__at(chron__fail(CHRON_ECORRUPT,
                                 "a loss of power may have torn record %" PRIu64 " in %s at offset %" PRIu64
                                 " (%s), but %" PRIu64 " whole records lie behind it, and only %" PRIu64
                                 " before it since "
                                 "the last sync. Nothing was changed. Open with torn=skip to keep them and accept the "
                                 "gap, or with torn=cut to set them aside",
                                 h->seq, name, h->offset, h->why, behind, before),
                     name, h->offset, h->seq);
}

int chron__verdict_note(chron__survey *s, const chron__hole *h, uint64_t seq_end)
{
    static const uint32_t kinds[] = {
        [CHRON__HOLE_RECORD] = CHRON_PROBLEM_RECORD, [CHRON__HOLE_NOTHING] = CHRON_PROBLEM_RECORD,
        [CHRON__HOLE_MISSING] = CHRON_PROBLEM_CHAIN, [CHRON__HOLE_HEADER] = CHRON_PROBLEM_HEADER,
        [CHRON__HOLE_CHAIN] = CHRON_PROBLEM_CHAIN,
    };
    chron__found *one;

    if (s->found_count == s->found_capacity) {
        size_t capacity = s->found_capacity ? s->found_capacity * 2u : 16u;
        chron__found *at = realloc(s->found, capacity * sizeof *at);

        if (!at)
            return chron__fail(CHRON_ENOMEM, "no memory for what was found in the log");
        s->found = at;
        s->found_capacity = capacity;
    }
    one = &s->found[s->found_count++];
    *one =
        (chron__found){.kind = kinds[h->kind], .offset = h->offset, .seq = h->seq, .seq_end = seq_end, .why = h->why};
    one->action = seq_end == CHRON_SEQ_NONE ? CHRON_ACTION_CUT : CHRON_ACTION_GAP;
    one->base_seq = h->i < s->bases.count ? s->bases.at[h->i] : h->seq;
    return 0;
}

/* The log ends before the hole. What is behind goes to quarantine. */
static int cut(chron__survey *s, const chron__hole *h, const chron__behind *behind)
{
    s->cut_from = h->kind == CHRON__HOLE_RECORD || h->kind == CHRON__HOLE_NOTHING ? h->i + 1u : h->i;
    s->cut_records = behind->records;
    return chron__verdict_note(s, h, CHRON_SEQ_NONE);
}

int chron__verdict_accept(chron__survey *s, const chron__hole *h, const chron__behind *behind)
{
    chron__gap gap = {.seq = h->seq,
                      .seq_end = behind->seq,
                      .base_seq = behind->base_seq,
                      .offset = behind->offset,
                      .accepted_ns = chron__clock_ns(0)};
    int status = chron__gaps_add(&s->gaps, &gap);

    if (status == 0) {
        s->accepted++;
        s->accepted_seqs += gap.seq_end - gap.seq;
        status = chron__verdict_note(s, h, gap.seq_end);
    }
    return status;
}

/* May it be gone on behind the hole? 1: yes, *out leads there; 0: the log ends before it; or a refusal. */
static int decide(chron__survey *s, const chron__hole *h)
{
    const chron__log log = chron__log_of(s);
    const uint64_t mark = s->wish->state.durable_next;
    const uint64_t from = s->count && s->at[0].base_seq > mark ? s->at[0].base_seq : mark;
    const uint64_t before = h->seq > from ? h->seq - from : 0;
    chron__behind behind;
    int damage = chron__hole_is_damage(&log, h);
    int status;

    if (damage < 0)
        return damage;
    status = chron__hole_look_behind(&log, h, &behind);
    if (status < 0)
        return status;
    /* The last record above the mark may go on another boot in any case: with it, nothing that can be read is lost. */
    if (behind.records == 0 && s->wish->whence != CHRON__FROM_HERE && h->seq >= mark)
        damage = 0;
    if (damage && !s->wish->repair)
        return chron__verdict_refuse(s, h);
    if (!s->wish->repair && behind.records > before && s->wish->torn == CHRON__TORN_ASK)
        return ask(s, h, before, behind.records);
    if (behind.records > 0 && (s->wish->repair || s->wish->torn == CHRON__TORN_SKIP)) {
        status = chron__verdict_accept(s, h, &behind);
        return status < 0 ? status : 1;
    }
    return cut(s, h, &behind);
}

/* An accepted gap that leads on from the hole, to a segment that is there. */
static const chron__gap *way_on(const chron__survey *s, const chron__hole *h)
{
    const chron__gap *gap = chron__gaps_find(&s->gaps, h->seq);
    int64_t found = gap ? chron__bases_find(&s->bases, gap->base_seq) : -1;

    if (found < (int64_t)h->i || s->bases.at[found] != gap->base_seq)
        return NULL;
    if (found > (int64_t)h->i || h->kind == CHRON__HOLE_MISSING)
        return gap;
    return h->seg && gap->offset > h->offset ? gap : NULL;
}

const chron__gap *chron__verdict_pass(chron__survey *s, const chron__hole *h, int *status)
{
    const chron__gap *gap = way_on(s, h);

    *status = gap ? 1 : decide(s, h);
    if (*status > 0 && !gap)
        gap = way_on(s, h);
    *status = *status < 0 ? *status : 0;
    return gap;
}
