/* SPDX-License-Identifier: MIT */
/*
 * bell.c - bells for event loops: what another thread waits at, many of them at once, while the loop's own thread
 * uses the handles that they belong to. Knows no handle: read/wait.c and write/sync.c give out theirs.
 *
 * Invariants:
 *  - A bell's word only ever counts up (and wraps). Who waits compares it with what was last seen, so a ring between
 *    two waits is not lost; and who arms a reader looks for a record after that, so none is before the first.
 *  - A reader's bell is a mapping of the doorbell of its own, so it outlives the reader. It is not in forked children.
 *  - Nothing here is data: whoever was woken looks again.
 */
#include "format/bell.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "format/doorbell.h"

struct chron_bell {
    chron__a32 refs; /* [REFS] */
    uint32_t fork_count;
    chron__a32 own;       /* [BELL] the word of a bell that is no doorbell */
    chron__doorbell door; /* base NULL: `own` counts */
    const chron__io *io;
};

chron_bell *chron__bell_new(void)
{
    chron_bell *b = calloc(1, sizeof *b);

    if (!b) {
        (void)chron__fail(CHRON_ENOMEM, "no memory for a bell");
        return NULL;
    }
    chron__fork_watch();
    chron__set32(&b->refs, 1);
    b->fork_count = chron__get32(&chron__fork_count);
    return b;
}

chron_bell *chron__bell_retain(chron_bell *b)
{
    CHRON__ASSERT(chron__get32(&b->refs) > 0);
    (void)chron__count_up32(&b->refs); /* [REFS] */
    return b;
}

static int is_forked(const chron_bell *b)
{
    return b->fork_count != chron__get32(&chron__fork_count);
}

static void *word_of(const chron_bell *b)
{
    return b->door.map.base ? b->door.map.base + CHRON__BELL_NOTIFY : (uint8_t *)(uintptr_t)&b->own;
}

/* May be called with what is NULL, by any thread. */
void chron__bell_signal(chron_bell *b)
{
    if (!b)
        return;
    chron__fence_seq_cst(); /* [BELL] with take_rung: what was done before is seen by who finds the new count */
    (void)chron__add32(&b->own, 1);
    (void)chron__futex_wake_all(&b->own);
}

/* --------------------------------------------------------------------------------- making, ringing */

int chron_bell_new(chron_bell **out)
{
    if (!out)
        return chron__fail(CHRON_EINVAL, "there is no place to store the bell");
    *out = chron__bell_new();
    return *out ? 0 : -CHRON_ENOMEM;
}

int chron__bell_of_queue(const chron__queue *q, chron_bell **out)
{
    chron_bell *b;

    if (!out)
        return chron__fail(CHRON_EINVAL, "there is no place to store the bell");
    *out = NULL;
    b = chron__bell_new();
    if (!b)
        return -CHRON_ENOMEM;
    b->io = q->io;
    chron__doorbell_open(q, &b->door);
    if (!chron__doorbell_works(&b->door)) {
        chron_bell_release(b);
        return chron__fail(CHRON_EACCESS,
                           "the doorbell cannot be written to, or is damaged, or membarrier(2) is forbidden: "
                           "look for records now and then instead");
    }
    *out = b;
    return 0;
}

void chron_bell_release(chron_bell *b)
{
    CHRON__ASSERT(!b || chron__get32(&b->refs) > 0);
    if (!b || chron__count_down32(&b->refs) > 0) /* [REFS] */
        return;
    if (b->door.map.base) {
        if (is_forked(b))
            chron__map_forget(&b->door.map);
        else
            b->io->unmap(b->io, &b->door.map);
    }
    free(b);
}

int chron_bell_ring(chron_bell *b)
{
    if (!b || b->door.map.base)
        return chron__fail(CHRON_EINVAL, "only a bell made by chron_bell_new() is rung by its owner");
    chron__bell_signal(b);
    return 0;
}

/* ----------------------------------------------------------------------------------------- waiting */

uint32_t chron_bell_count(const chron_bell *b)
{
    return b && !is_forked(b) ? chron__load_relaxed32(word_of(b)) : 0; /* [BELL] with chron__doorbell_wake */
}

/* How many have been rung since; their counts are brought up to date. */
static int take_rung(chron_bell *const *bells, uint32_t *counts, size_t n)
{
    int rung = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t now = chron__load_relaxed32(word_of(bells[i])); /* [BELL] with chron__doorbell_wake */

        rung += now != counts[i];
        counts[i] = now;
    }
    chron__fence_seq_cst(); /* [BELL] with chron__bell_signal */
    return rung;
}

_Static_assert(CHRON_BELLS_MAX <= CHRON__FUTEX_WORDS_MAX, "one call waits for all of them");

/* Sleep at most ns. 0, or -EINTR. */
static int sleep_at(chron_bell *const *bells, const uint32_t *counts, size_t n, uint64_t ns)
{
    void *words[CHRON_BELLS_MAX];
    int status;

    for (size_t i = 0; i < n; i++)
        words[i] = word_of(bells[i]);
    status = chron__futex_wait_any(words, counts, n, ns);
    if (status < 0 && status != -EINTR && status != -ETIMEDOUT) /* not here: never spin for it */
        status = chron__sleep_ns(ns < CHRON__POLL_MAX_NS ? ns : CHRON__POLL_MAX_NS);
    return status == -EINTR ? -EINTR : 0;
}

int chron_bells_wait(chron_bell *const *bells, uint32_t *counts, size_t n, int64_t timeout_ns)
{
    uint64_t ns = timeout_ns < 0 ? UINT64_MAX : (uint64_t)timeout_ns;
    uint64_t start = chron__monotonic_ns();

    if (!bells || !counts || n == 0 || n > CHRON_BELLS_MAX)
        return chron__fail(CHRON_EINVAL, "%zu bells: 1 to %d are possible", n, CHRON_BELLS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (!bells[i])
            return chron__fail(CHRON_EINVAL, "bell %zu is NULL", i);
        if (is_forked(bells[i]))
            return chron__fail(CHRON_EFORKED, "bell %zu was made before a fork, in the parent process", i);
    }
    for (;;) {
        int rung = take_rung(bells, counts, n);
        uint64_t passed = chron__monotonic_ns() - start;

        if (rung > 0 || passed >= ns)
            return rung;
        if (sleep_at(bells, counts, n, ns - passed) == -EINTR)
            return chron__fail(CHRON_EINTR, "interrupted by a signal while waiting for a bell");
    }
}
