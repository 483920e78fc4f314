/* SPDX-License-Identifier: MIT */
/*
 * settle.c - taking jobs back: done, given back, rejected, released. An acknowledgement, and a job that is given back at once,
 * are one compare-and-swap from the receipt. What needs the cell's other words is done in the turn, so that a receipt that is
 * stale changes nothing of whoever has the job now.
 */
#include "group/group.h"

#include <inttypes.h>

#include "base/step.h"

static int stale(chron_group *g, uint64_t seq)
{
    g->stats.stale++;
    return chron__at(chron__fail(CHRON_ESTALE,
                                 "the job %" PRIu64 " is not this worker's any more: its lease had ended, somebody has "
                                 "released it, or it was settled before. Others may have it, or have done it",
                                 seq),
                     "", 0, seq);
}

/* Is it one that this handle got? A receipt tells its owner and lap. */
static int is_ours(const chron_group *g, uint64_t seq, uint64_t receipt)
{
    return chron__cell_state_of(&g->file, seq, receipt) == CHRON__CELL_RUNNING &&
           chron__cell_owner(receipt) == g->file.members.me;
}

static uint64_t next_word(const chron_group *g, uint64_t seq, uint64_t word, uint32_t state)
{
    return chron__cell_word(&g->file, seq, state, chron__cell_count(word), chron__cell_owner(word));
}

/* A receipt is given up for another state. 1 or, stale, ESTALE. */
static int settle(chron_group *g, uint64_t seq, uint64_t receipt, uint32_t state)
{
    CHRON__STEP("group: about to settle");
    if (!is_ours(g, seq, receipt) || !chron__cell_swap(&g->file, seq, receipt, next_word(g, seq, receipt, state)))
        return stale(g, seq);
    CHRON__STEP("group: settled");
    return 0;
}

static int is_faulted(chron_group *g)
{
    return chron__map_faulted(&g->file.map) ? chron__fail_fault("the group's file", "") : 0;
}

static int ack(chron_group *g, uint64_t seq, uint64_t receipt, int sync)
{
    int status = settle(g, seq, receipt, CHRON__CELL_DONE);

    if (status == 0)
        status = is_faulted(g);
    if (status < 0)
        return status;
    g->stats.acked++;
    if (g->keys.at)
        chron__group_ready(g, seq); /* the next one of its key */
    return sync ? chron__group_sync(chron__group_queue(g), &g->file) : 0;
}

int chron_group_ack(chron_group *g, uint64_t seq, uint64_t receipt, int sync)
{
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = ack(g, seq, receipt, sync);
    chron__group_leave(g);
    return status;
}

static int delay(chron_group *g, uint64_t seq, uint64_t receipt, uint64_t delay_ns)
{
    uint64_t now = chron__clock_ns(0);
    uint64_t due = now + delay_ns < now ? UINT64_MAX - 1u : now + delay_ns;
    int status = chron__group_turn(g);

    if (status < 0)
        return status;
    if (chron__cell_load(&g->file, seq) == receipt && is_ours(g, seq, receipt)) {
        chron__cell_set_arg(&g->file, seq, due);
        CHRON__STEP("group: due stored");
        status = settle(g, seq, receipt, CHRON__CELL_DELAYED);
        chron__group_lower_word(&g->file, CHRON__GROUP_DUE, due);
    } else {
        status = stale(g, seq);
    }
    chron__group_give(g);
    return status;
}

static int nack(chron_group *g, uint64_t seq, uint64_t receipt, uint64_t delay_ns)
{
    int status = delay_ns ? delay(g, seq, receipt, delay_ns) : settle(g, seq, receipt, CHRON__CELL_READY);

    if (status == 0)
        status = is_faulted(g);
    if (status < 0)
        return status;
    g->stats.nacked++;
    if (!delay_ns)
        chron__group_ready(g, seq);
    return 0;
}

int chron_group_nack(chron_group *g, uint64_t seq, uint64_t receipt, uint64_t delay_ns)
{
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = nack(g, seq, receipt, delay_ns);
    chron__group_leave(g);
    return status;
}

static int extend(chron_group *g, uint64_t seq, uint64_t receipt, uint64_t lease_ns)
{
    uint64_t now = chron__monotonic_ns();
    uint64_t end = lease_ns == 0 ? 0 : now + lease_ns < now ? UINT64_MAX : now + lease_ns;
    int status = chron__group_turn(g);

    if (status < 0)
        return status;
    if (chron__cell_load(&g->file, seq) == receipt && is_ours(g, seq, receipt)) {
        chron__cell_set_arg(&g->file, seq, end);
        if (end)
            chron__group_lower_word(&g->file, CHRON__GROUP_LEASE, end);
    } else {
        status = stale(g, seq);
    }
    chron__group_give(g);
    return status;
}

int chron_group_extend(chron_group *g, uint64_t seq, uint64_t receipt, uint64_t lease_ns)
{
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = extend(g, seq, receipt, lease_ns);
    chron__group_leave(g);
    return status;
}

int chron_group_reject(chron_group *g, uint64_t seq, uint64_t receipt, const char *reason)
{
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = settle(g, seq, receipt, CHRON__CELL_RESERVED);
    if (status == 0)
        status = chron__group_hand_over(g, seq, next_word(g, seq, receipt, CHRON__CELL_RESERVED), reason ? reason : "");
    chron__group_leave(g);
    return status;
}

/* ------------------------------------------------------------------------------- whoever has the job */

static int nobody_has(uint64_t seq)
{
    return chron__at(
        chron__fail(CHRON_ERANGE, "nobody has the job %" PRIu64 ": it is done, or was never handed out", seq), "", 0,
        seq);
}

/* In the turn: from whatever it is to `state`, with `owner`. *word is what it is then. ERANGE if `may` does not have its state. */
static int seize(chron_group *g, uint64_t seq, unsigned may, uint32_t state, uint32_t owner, uint64_t *word)
{
    uint64_t seen;
    uint32_t was;

    do { /* its owner may settle it meanwhile */
        seen = chron__cell_load(&g->file, seq);
        was = chron__cell_state_of(&g->file, seq, seen);
        if (seq < g->floor.next_seq || seq >= g->floor.next_seq + g->file.window || !(may >> was & 1u))
            return nobody_has(seq);
        *word = chron__cell_word(&g->file, seq, state, chron__cell_count(seen), owner);
    } while (!chron__cell_swap(&g->file, seq, seen, *word));
    return 0;
}

#define HELD (1u << CHRON__CELL_RESERVED | 1u << CHRON__CELL_RUNNING | 1u << CHRON__CELL_DELAYED)

int chron_group_release(chron_group *g, uint64_t seq)
{
    uint64_t word;
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = chron__group_turn(g);
    if (status == 0) {
        status = seize(g, seq, HELD, CHRON__CELL_READY, 0, &word);
        chron__group_give(g);
    }
    if (status == 0)
        chron__group_ready(g, seq);
    chron__group_leave(g);
    return status;
}

int chron_group_bury(chron_group *g, uint64_t seq, const char *reason)
{
    uint64_t word;
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = chron__group_turn(g);
    if (status == 0) {
        status = seize(g, seq, HELD | 1u << CHRON__CELL_READY, CHRON__CELL_RESERVED, g->file.members.me, &word);
        chron__group_give(g);
    }
    if (status == 0)
        status = chron__group_hand_over(g, seq, word, reason ? reason : "");
    chron__group_leave(g);
    return status;
}

int chron_group_sync(chron_group *g)
{
    int status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = chron__group_sync(chron__group_queue(g), &g->file);
    chron__group_leave(g);
    return status;
}
