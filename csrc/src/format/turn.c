/* SPDX-License-Identifier: MIT */
/*
 * turn.c - see turn.h. Modelled in tests/models/wake.pml (the sleeping) and turn.pml (slots that are used again).
 *
 * Invariants:
 *  - A word is changed by compare-and-swap from exactly what was judged: only one of many takes a dead owner's turn, and
 *    nobody that of an owner who came meanwhile.
 *  - Who has slept takes the word with WAITERS set: others may sleep as well, and the wake-up that it got was theirs too.
 *  - Every sleep is short: a wake-up that went to somebody who then died costs one slice.
 *  - An owner is dead when its byte is not locked, or when the table has another incarnation in its slot. The byte
 *    is locked before the table is written, and the word is taken after that: so a living owner never looks dead.
 */
#include "format/turn.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/step.h"

#define SPINS 100
#define SLICE_NS 2000000u /* longest sleep: 2 ms */
#define POLL_NS 100000u   /* where a word cannot be slept at */
#define INCARNATION_MASK 0x1FFFFFu

#define ENTRY_PID 4u
#define ENTRY_JOINED 8u

static uint32_t slot_of(uint32_t word)
{
    return word & CHRON__TURN_SLOT_MASK;
}

static uint32_t incarnation_of(uint32_t word)
{
    return (word & ~CHRON__TURN_WAITERS) >> CHRON__TURN_SLOT_BITS;
}

static uint8_t *entry_of(const chron__members *m, uint32_t slot)
{
    return m->table + (size_t)slot * CHRON__TURN_ENTRY;
}

/* ------------------------------------------------------------------------------------------- members */

static uint32_t next_incarnation(const chron__members *m)
{
    for (;;) {
        uint32_t n = (chron__add32(m->next_incarnation, 1u) + 1u) & INCARNATION_MASK; /* [TURN] a number, each once */

        if (n != 0)
            return n;
    }
}

int chron__turn_join(chron__members *m, int fd)
{
    CHRON__ASSERT(m->slots > 0 && m->slots <= CHRON__TURN_SLOTS_MAX && m->me == 0);
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        uint8_t *entry = entry_of(m, slot);
        int status = m->io->lock_byte(m->io, fd, CHRON__TURN_BYTES + slot, CHRON__BYTE_OURS);
        uint32_t incarnation;

        if (status == -EAGAIN)
            continue;
        if (status < 0)
            return status;
        CHRON__STEP("turn: slot locked");
        incarnation = next_incarnation(m);
        chron__store_release_le32(entry + ENTRY_PID, (uint32_t)chron__pid()); /* [TURN] for people */
        chron__store_relaxed_le64(entry + ENTRY_JOINED, chron__clock_ns(0));  /* [TURN] the same */
        chron__store_release_le32(entry, incarnation);                        /* [TURN] with chron__turn_is_dead */
        CHRON__STEP("turn: joined");
        m->me = incarnation << CHRON__TURN_SLOT_BITS | slot;
        return 0;
    }
    return -EAGAIN;
}

int chron__turn_is_dead(const chron__members *m, uint32_t word)
{
    uint32_t slot = slot_of(word);
    int held;

    if (slot >= m->slots)
        return 1; /* no member ever was there */
    /* [TURN] with chron__turn_join: a newcomer in that slot */
    if (chron__load_acquire_le32(entry_of(m, slot)) != incarnation_of(word))
        return 1;
    held = m->io->byte_held(m->io, m->fd, CHRON__TURN_BYTES + slot);
    return held < 0 ? held : !held;
}

void chron__turn_owner(const chron__members *m, uint32_t word, chron__member *out)
{
    const uint8_t *entry;

    memset(out, 0, sizeof *out);
    if (slot_of(word) >= m->slots)
        return;
    entry = entry_of(m, slot_of(word));
    if (chron__load_acquire_le32(entry) != incarnation_of(word)) /* [TURN] with chron__turn_join */
        return;
    out->pid = (int64_t)chron__load_acquire_le32(entry + ENTRY_PID); /* [TURN] the same */
    out->joined_ns = chron__load_relaxed_le64(entry + ENTRY_JOINED); /* [TURN] the same */
    out->state = chron__process_state(out->pid);
}

void chron__turn_describe(const chron__members *m, uint32_t word, char *text, size_t bytes)
{
    chron__member owner;

    chron__turn_owner(m, word, &owner);
    if (owner.pid == 0)
        (void)snprintf(text, bytes, "a process that is not known");
    else
        (void)snprintf(text, bytes, "process %" PRId64 "%s", owner.pid,
                       owner.state == 'T'   ? ", which is stopped"
                       : owner.state == 't' ? ", which is stopped by a debugger"
                       : owner.state == 'D' ? ", which waits for the disk"
                                            : "");
}

/* --------------------------------------------------------------------------------------------- turns */

static int spin(const chron__members *m, uint8_t *word)
{
    for (int i = 0; i < SPINS; i++) {
        if (chron__load_relaxed32(word) == 0 &&
            chron__turn_try(m, word)) /* [TURN] looked at first: it is shared then */
            return 1;
        chron__pause();
    }
    return 0;
}

/* Until the word is another than `seen`, or a slice has passed: 1 then. */
static int sleep_at(uint8_t *word, uint32_t seen)
{
    int status = chron__futex_wait(word, seen, SLICE_NS);

    if (status == -ENOSYS)
        status = chron__sleep_ns(POLL_NS) == -EINTR ? -EINTR : -ETIMEDOUT;
    CHRON__STEP("turn: slept");
    return status == -ETIMEDOUT ? 1 : status;
}

/* Take the word from `seen`, whose owner is dead. 1: done; 0: it lives, or somebody was faster; or -errno. */
static int take_over(const chron__members *m, uint8_t *word, uint32_t seen)
{
    int dead = chron__turn_is_dead(m, seen);

    if (dead <= 0)
        return dead;
    CHRON__STEP("turn: owner is dead");
    /* [TURN] with nobody: what a dead process has stored is there */
    return chron__cas_acquire32(word, seen, m->me | CHRON__TURN_WAITERS);
}

/* Has one owner, who lives, kept the word for so long? */
typedef struct patience {
    uint64_t timeout_ns;
    uint64_t since_ns;
    uint32_t owner;
} patience;

static int is_over(patience *p, uint32_t word, uint32_t *owner)
{
    uint64_t now = chron__monotonic_ns();

    *owner = word & ~CHRON__TURN_WAITERS;
    if (*owner != p->owner) {
        p->owner = *owner;
        p->since_ns = now;
    }
    return now - p->since_ns >= p->timeout_ns;
}

static int wait_asleep(const chron__members *m, uint8_t *word, patience *p, uint32_t *owner)
{
    for (;;) {
        uint32_t seen = chron__load_relaxed32(word); /* [TURN] a guess: the swaps decide */
        int status;

        if (seen == 0) {
            if (chron__cas_acquire32(word, 0, m->me | CHRON__TURN_WAITERS)) /* [TURN] with chron__turn_give */
                return CHRON__TURN_CLEAN;
            continue;
        }
        if (!(seen & CHRON__TURN_WAITERS)) {
            if (!chron__cas_acquire32(word, seen,
                                      seen | CHRON__TURN_WAITERS)) /* [TURN] with chron__turn_give: wake me */
                continue;
            seen |= CHRON__TURN_WAITERS;
            CHRON__STEP("turn: announced");
        }
        status = sleep_at(word, seen);
        if (status == 1) {
            status = take_over(m, word, seen);
            if (status == 1)
                return CHRON__TURN_INHERITED;
        }
        if (status < 0)
            return status;
        if (is_over(p, seen, owner) && chron__load_relaxed32(word) == seen) /* [TURN] a guess */
            return -ETIMEDOUT;
    }
}

int chron__turn_wait(const chron__members *m, uint8_t *word, uint64_t timeout_ns, uint32_t *owner)
{
    uint32_t seen = chron__load_relaxed32(word); /* [TURN] its own, if it is ours */
    patience p = {.timeout_ns = timeout_ns};

    CHRON__ASSERT(m->me != 0);
    if ((seen & ~CHRON__TURN_WAITERS) == m->me)
        return CHRON__TURN_INHERITED; /* left by a jump, or a thread that was cancelled in it */
    if (spin(m, word)) {
        CHRON__STEP("turn: taken");
        return CHRON__TURN_CLEAN;
    }
    return wait_asleep(m, word, &p, owner);
}

int chron__turn_inherit(const chron__members *m, uint8_t *word)
{
    uint32_t seen = chron__load_relaxed32(word); /* [TURN] a guess: the swap decides */

    if (seen == 0 || slot_of(seen) != slot_of(m->me) || (seen & ~CHRON__TURN_WAITERS) == m->me)
        return 0;
    return chron__cas_acquire32(word, seen, m->me | CHRON__TURN_WAITERS); /* [TURN] as in take_over */
}

void chron__turn_wake(uint8_t *word)
{
    CHRON__STEP("turn: given back, nobody woken");
    (void)chron__futex_wake_one(word);
}
