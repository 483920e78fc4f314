/* SPDX-License-Identifier: MIT */
/*
 * turn.c - the group's turn, and what is stored in it: the floor. Nothing is repaired after a death in the turn: each store
 * leaves a state that whoever comes next takes as it is (the hints are looked through, the mirror is behind at worst).
 */
#include "group/group.h"

#include <errno.h>
#include <inttypes.h>

#include "base/step.h"

int chron__group_turn(chron_group *g)
{
    uint8_t *word = g->file.map.base + CHRON__GROUP_TURN;
    uint32_t owner = 0;
    int status = chron__turn_take(&g->file.members, word, CHRON__TURN_WAIT_NS, &owner);
    chron__slot_value floor;

    if (status == -ETIMEDOUT) {
        char who[96];
        chron__member member;

        chron__turn_owner(&g->file.members, owner, &member);
        chron__turn_describe(&g->file.members, owner, who, sizeof who);
        status =
            chron__fail(CHRON_EHELD, "%s has been handing out jobs of the group %s for five seconds", who, g->name);
        chron__error()->pid = member.pid;
        return status;
    }
    if (status == -EINTR)
        return chron__fail(CHRON_EINTR, "interrupted by a signal while waiting for a turn in the group %s", g->name);
    if (status < 0)
        return chron__fail_sys(status, "", "cannot ask about members of the group %s", g->name);
    g->stats.inherited += status == CHRON__TURN_INHERITED;
    CHRON__STEP("group: turn taken");
    if (!chron__slots_load(g->file.map.base, &floor) || chron__map_faulted(&g->file.map)) {
        chron__group_give(g);
        return chron__at(chron__fail(CHRON_EIO, "the file of the group %s went away under its mapping", g->name),
                         CHRON__DIR_GROUPS, 0, CHRON_SEQ_NONE);
    }
    g->floor = floor;
    return 0;
}

void chron__group_give(chron_group *g)
{
    CHRON__STEP("group: turn to be given back");
    chron__turn_give(g->file.map.base + CHRON__GROUP_TURN);
}

static void store(chron_group *g)
{
    chron__moment now = {0};

    chron__moment_pass(&now);
    g->floor.time_ns = now.clock_ns;
    g->floor.boot_ns = now.boot_ns;
    g->floor.boot = now.boot;
    chron__slots_store(g->file.map.base, &g->floor, CHRON__SLOTS_TURN);
}

/* The CRC of the record before the floor, if it is near at hand: readers, and verify, compare it. */
static void fingerprint(const chron_group *g, chron__slot_value *at)
{
    const chron_reader *r = g->jobs;
    uint64_t offset;
    chron__rec rec;

    at->flags = 0;
    at->fingerprint = 0;
    if (!r->seg || at->next_seq <= r->seg->base_seq || at->next_seq > r->next_seq ||
        chron__seg_find_before(r->seg, at->next_seq, &offset, &rec) <= 0 || chron__rec_seq(&rec) + 1u != at->next_seq)
        return;
    at->flags = CHRON__SLOT_FINGERPRINT;
    at->fingerprint = rec.crc;
}

int chron__group_store_floor(chron_group *g, uint64_t floor)
{
    chron__slot_value mirror;

    g->floor.next_seq = floor;
    fingerprint(g, &g->floor);
    store(g);
    CHRON__STEP("group: floor stored");
    if (g->mirror.fd < 0 || !chron__slots_load(g->mirror.map.base, &mirror))
        return 0;
    mirror.next_seq = floor;
    mirror.segment_base = 0;
    mirror.offset = 0;
    mirror.flags = g->floor.flags;
    mirror.fingerprint = g->floor.fingerprint;
    g->mirror.value = mirror;
    return chron__position_store(chron__group_queue(g), &g->mirror, 0);
}

int chron__group_store_epoch(chron_group *g, uint32_t epoch)
{
    g->floor.epoch = epoch;
    store(g);
    CHRON__STEP("group: epoch stored");
    return 0;
}

void chron__group_ready(chron_group *g, uint64_t seq)
{
    chron__doorbell *bell = &g->tail->bell;

    CHRON__STEP("group: ready, nobody told");
    chron__group_lower_word(&g->file, CHRON__GROUP_READY, seq);
    if (!bell->map.base)
        return;
    chron__fence_seq_cst(); /* [BELL] with chron__doorbell_announce: say so, then look for sleepers */
    if (chron__load_relaxed32(bell->map.base + CHRON__BELL_WAITING) != 0) /* [BELL] the same */
        (void)chron__doorbell_wake(bell);
}
