/* SPDX-License-Identifier: MIT */
/*
 * take.c - handing out jobs.
 *
 * In the turn jobs are only reserved. They are started, and so counted, behind it, before the caller sees them: whoever dies
 * in between has not been the job's doing. A job that was started before is reserved alone. Everything that may take long, the
 * disk, the user's key function, the dead queue, is done without the turn.
 *
 * Invariant: a cell is changed by compare-and-swap from the value that was judged, also in the turn. An owner may have
 * acknowledged, and then died, between the look at its cell and the look at its lock.
 */
#include "group/group.h"

#include <errno.h>
#include <inttypes.h>

#include "base/step.h"
#include "base/struct.h"

#define FLOOR_LAG 64u /* jobs that may be done before the floor moves over them */
#define DECISECOND_NS 100000000u

/* Jobs that were reserved in one turn. */
typedef struct batch {
    uint64_t seq[CHRON_GROUP_TAKE_MAX];
    uint64_t word[CHRON_GROUP_TAKE_MAX];
    size_t count;
    size_t want;
    int alone;   /* it is full with one: that was started before, */
    int is_dead; /* or goes to the dead queue */
} batch;

/* --------------------------------------------------------------------------------- judging a cell */

void chron__scan_begin(chron__scan *scan)
{
    scan->count = 0;
    scan->mono_ns = chron__monotonic_ns();
    scan->clock_ns = chron__clock_ns(0);
    scan->lease_ns = UINT64_MAX;
    scan->due_ns = UINT64_MAX;
}

static int is_dead(const chron_group *g, chron__scan *scan, uint32_t owner)
{
    const uint32_t places = sizeof scan->asked / sizeof *scan->asked;
    uint32_t known = scan->count < places ? scan->count : places;
    int dead;

    if (owner == g->file.members.me)
        return 0;
    for (uint32_t i = 0; i < known; i++)
        if (scan->asked[i] == owner)
            return scan->dead[i];
    dead = chron__turn_is_dead(&g->file.members, owner);
    if (dead < 0)
        return chron__fail_sys(dead, "", "cannot ask about members of the group %s", g->name);
    scan->asked[scan->count % places] = owner;
    scan->dead[scan->count++ % places] = (uint8_t)dead;
    CHRON__STEP("group: owner asked about");
    return dead;
}

int chron__group_can_take(const chron_group *g, chron__scan *scan, uint64_t seq, uint64_t word)
{
    uint32_t owner = chron__cell_owner(word);
    uint64_t arg;

    switch (chron__cell_state_of(&g->file, seq, word)) {
    case CHRON__CELL_NEW:
    case CHRON__CELL_READY:
        return 1;
    case CHRON__CELL_DELAYED:
        arg = chron__cell_arg(&g->file, seq);
        if (arg > scan->clock_ns && arg < scan->due_ns)
            scan->due_ns = arg;
        return arg <= scan->clock_ns;
    case CHRON__CELL_RUNNING:
        arg = chron__cell_arg(&g->file, seq);
        if (arg && arg <= scan->mono_ns)
            return 1;
        if (arg && arg < scan->lease_ns)
            scan->lease_ns = arg;
        return is_dead(g, scan, owner);
    case CHRON__CELL_RESERVED:
        return is_dead(g, scan, owner);
    case CHRON__CELL_DEADING:
        return owner == g->file.members.me ? scan->mono_ns >= g->retry_ns : is_dead(g, scan, owner);
    default:
        return 0;
    }
}

int chron__group_scan_is_due(const chron_group *g, uint64_t mono_ns)
{
    return mono_ns - chron__group_word(&g->file, CHRON__GROUP_SCANNED) >= CHRON__SCAN_EVERY_NS ||
           mono_ns >= chron__group_word(&g->file, CHRON__GROUP_LEASE) ||
           chron__clock_ns(0) >= chron__group_word(&g->file, CHRON__GROUP_DUE);
}

/* ----------------------------------------------------------------------------- reserving, in the turn */

/* 1: reserved; 0: somebody was faster. `word` is what was judged. */
static int reserve(chron_group *g, chron__scan *scan, batch *b, uint64_t seq, uint64_t word)
{
    uint32_t state = chron__cell_state_of(&g->file, seq, word);
    uint32_t count = state == CHRON__CELL_NEW ? 0 : chron__cell_count(word);
    int to_dead = state == CHRON__CELL_DEADING || count >= g->options.max_deliveries;
    uint64_t lease = g->options.lease_ns;
    uint64_t next;

    if (!to_dead) {
        chron__cell_set_arg(&g->file, seq, lease ? scan->mono_ns + lease : 0);
        chron__cell_set_field(&g->file, seq, offsetof(chron__cell, aux), (uint32_t)(scan->mono_ns / DECISECOND_NS));
        if (lease)
            chron__group_lower_word(&g->file, CHRON__GROUP_LEASE, scan->mono_ns + lease);
    }
    next = chron__cell_word(&g->file, seq, state == CHRON__CELL_DEADING ? CHRON__CELL_DEADING : CHRON__CELL_RESERVED,
                            count, g->file.members.me);
    CHRON__STEP("group: about to reserve");
    if (!chron__cell_swap(&g->file, seq, word, next))
        return 0;
    CHRON__STEP("group: reserved");
    g->stats.reclaimed += state == CHRON__CELL_RESERVED || state == CHRON__CELL_RUNNING;
    b->seq[b->count] = seq;
    b->word[b->count++] = next;
    b->alone = count > 0 || to_dead;
    b->is_dead = to_dead;
    return 1;
}

static int is_full(const batch *b)
{
    return b->alone || b->count >= b->want;
}

/* Would it have to come alone, and is not the first? */
static int has_to_wait(const chron_group *g, const batch *b, uint64_t seq, uint64_t word)
{
    return b->count > 0 && chron__cell_is_of(&g->file, seq, word) && chron__cell_count(word) > 0;
}

/* Is there an undone job of this key in front? From now on there is. */
static int is_blocked(chron_group *g, uint32_t key)
{
    uint64_t entry = (uint64_t)g->keys.round << 32 | key;
    uint32_t i = (key * 2654435761u) & g->keys.mask;

    while (g->keys.at[i] >> 32 == g->keys.round) {
        if (g->keys.at[i] == entry)
            return 1;
        i = (i + 1u) & g->keys.mask;
    }
    g->keys.at[i] = entry;
    return 0;
}

static void new_round(chron_group *g)
{
    if (++g->keys.round == 0) {
        memset(g->keys.at, 0, ((size_t)g->keys.mask + 1u) * sizeof *g->keys.at);
        g->keys.round = 1;
    }
}

/* The cells of [from, to). Where it stopped is *stop. */
static int look_at_cells(chron_group *g, chron__scan *scan, batch *b, uint64_t from, uint64_t to, uint64_t *stop)
{
    uint64_t seq;

    if (g->keys.at)
        new_round(g);
    for (seq = from; seq < to && !is_full(b); seq++) {
        uint64_t word = chron__cell_load(&g->file, seq);
        int can;

        if (chron__cell_state_of(&g->file, seq, word) == CHRON__CELL_DONE)
            continue;
        if (g->keys.at && is_blocked(g, chron__cell_field(&g->file, seq, offsetof(chron__cell, key))))
            continue;
        can = chron__group_can_take(g, scan, seq, word);
        if (can < 0)
            return can;
        if (!can)
            continue;
        if (has_to_wait(g, b, seq, word))
            break;
        (void)reserve(g, scan, b, seq, word);
    }
    *stop = seq;
    return 0;
}

/* Jobs that were handed out before, or (with keys) seen. */
static int take_old(chron_group *g, chron__scan *scan, batch *b, uint64_t next)
{
    uint64_t floor = g->floor.next_seq;
    int is_whole = g->keys.at != NULL || chron__group_scan_is_due(g, scan->mono_ns);
    uint64_t ready = chron__group_word(&g->file, CHRON__GROUP_READY);
    uint64_t stop = next;
    int status;

    if (ready >= next && !is_whole)
        return 0;
    /* [HINT] taken away before the look, so that what becomes ready during it is told anew */
    chron__group_set_word(&g->file, CHRON__GROUP_READY, CHRON_SEQ_NONE);
    chron__fence_seq_cst(); /* [HINT] with chron__group_ready: swap the cell, then lower the word */
    CHRON__STEP("group: hint taken away");
    status = look_at_cells(g, scan, b, is_whole || ready < floor ? floor : ready, next, &stop);
    if (status < 0 || stop < next) {
        chron__group_lower_word(&g->file, CHRON__GROUP_READY, status < 0 ? floor : stop);
    } else if (is_whole) {
        chron__group_set_word(&g->file, CHRON__GROUP_LEASE, scan->lease_ns);
        chron__group_set_word(&g->file, CHRON__GROUP_DUE, scan->due_ns);
        chron__group_set_word(&g->file, CHRON__GROUP_SCANNED, scan->mono_ns);
    }
    return status;
}

static int is_in_hole(const chron_group *g, uint64_t seq)
{
    return seq >= g->hole_from && seq < g->hole_to;
}

/*
 * One job behind all that are known: reserve it; with keys, let it be known; if its record is gone, it is done. A loss of power may
 * have left a cell that is known behind one that is not.
 */
static void add_new(chron_group *g, chron__scan *scan, batch *b, uint64_t seq)
{
    uint64_t word = chron__cell_load(&g->file, seq);

    if (chron__cell_is_of(&g->file, seq, word)) {
        chron__group_lower_word(&g->file, CHRON__GROUP_READY, seq);
    } else if (is_in_hole(g, seq)) {
        if (chron__cell_swap(&g->file, seq, word, chron__cell_word(&g->file, seq, CHRON__CELL_DONE, 0, 0)))
            g->stats.lost++;
    } else if (g->keys.at) {
        chron__cell_set_field(&g->file, seq, offsetof(chron__cell, key), g->ahead_key[seq % CHRON__LOOK_AHEAD_MAX]);
        (void)chron__cell_swap(&g->file, seq, word, chron__cell_word(&g->file, seq, CHRON__CELL_READY, 0, 0));
    } else {
        (void)reserve(g, scan, b, seq, word);
    }
}

/* New ones, as far as the log is known and the window goes. *next: behind the last that is known. */
static int take_new(chron_group *g, chron__scan *scan, batch *b, uint64_t *next)
{
    uint64_t limit = g->floor.next_seq + g->file.window;

    if (limit > g->tail->next_seq)
        limit = g->tail->next_seq;
    if (*next < limit && g->epoch > g->floor.epoch) {
        int status = chron__group_store_epoch(g, g->epoch);

        if (status < 0)
            return status;
    }
    while (*next < limit && !is_full(b)) {
        add_new(g, scan, b, *next);
        *next += 1;
        chron__group_set_word(&g->file, CHRON__GROUP_NEXT, *next);
        CHRON__STEP("group: next stored");
    }
    return 0;
}

/* Move the floor over what is done, if it is worth it. */
static int raise_floor(chron_group *g, uint64_t next, uint64_t least)
{
    uint64_t floor = g->floor.next_seq;

    while (floor < next && chron__cell_state_of(&g->file, floor, chron__cell_load(&g->file, floor)) == CHRON__CELL_DONE)
        floor++;
    return floor - g->floor.next_seq >= least ? chron__group_store_floor(g, floor) : 0;
}

/* Behind the last job that is known. Whoever died between a cell and the word is made up for. */
static uint64_t find_next(const chron_group *g)
{
    uint64_t floor = g->floor.next_seq;
    uint64_t next = chron__group_word(&g->file, CHRON__GROUP_NEXT);

    if (next < floor || next > floor + g->file.window)
        next = floor;
    while (next < floor + g->file.window && chron__cell_is_of(&g->file, next, chron__cell_load(&g->file, next)))
        next++;
    return next;
}

int chron__group_raise(chron_group *g)
{
    return raise_floor(g, find_next(g), 1);
}

static int take_in_turn(chron_group *g, batch *b, uint64_t *next)
{
    chron__scan scan;
    int status;

    chron__scan_begin(&scan);
    *next = find_next(g);
    status = raise_floor(g, *next, *next + b->want > g->floor.next_seq + g->file.window ? 1 : FLOOR_LAG);
    if (status == 0 && !g->keys.at)
        status = take_old(g, &scan, b, *next);
    if (status == 0 && !is_full(b))
        status = take_new(g, &scan, b, next);
    if (status == 0 && g->keys.at)
        status = take_old(g, &scan, b, *next);
    if (status == 0 && b->count == 0)
        status = raise_floor(g, *next, 1);
    return status;
}

/* ------------------------------------------------------------------------ starting, behind the turn */

/* Failed to read: it was handed out, and comes again. */
static int put_back(chron_group *g, uint64_t seq, uint64_t word, int status)
{
    chron_error why = *chron_last_error();
    int is_lost = status == -CHRON_EGONE && g->options.on_gap == CHRON_GAP_OLDEST;

    (void)chron__cell_swap(
        &g->file, seq, word,
        chron__cell_word(&g->file, seq, is_lost ? CHRON__CELL_DONE : CHRON__CELL_READY, chron__cell_count(word), 0));
    g->stats.lost += (uint64_t)is_lost;
    chron__group_ready(g, seq);
    *chron__error() = why;
    return is_lost ? 0 : status;
}

/* Count it, and read it. 1; 0: it is another's, or gone; or why it cannot be read. */
static int start(chron_group *g, uint64_t seq, uint64_t reserved, chron_job *out)
{
    uint32_t count = chron__cell_count(reserved) + 1u;
    uint64_t word = chron__cell_word(&g->file, seq, CHRON__CELL_RUNNING, count, g->file.members.me);
    chron_view view;
    int status;

    CHRON__STEP("group: about to start");
    if (!chron__cell_swap(&g->file, seq, reserved, word))
        return 0; /* somebody has released it */
    CHRON__STEP("group: started");
    status = chron__group_read(g, seq, &view);
    if (status < 0)
        return put_back(g, seq, word, status);
    *out = (chron_job){sizeof *out,  count,      word, seq, view.timestamp_ns, view.payload, view.length,
                       view.type_id, view.flags, 0,    0};
    g->stats.taken++;
    g->stats.redelivered += count > 1u;
    return 1;
}

/* Those that were not started: as if they had not been reserved. */
static void unreserve(chron_group *g, const batch *b, size_t from)
{
    chron_error why = *chron_last_error();

    for (size_t i = from; i < b->count; i++) {
        if (chron__cell_state(b->word[i]) == CHRON__CELL_DEADING)
            continue; /* where its letter may lie must not be forgotten: it is tried again */
        (void)chron__cell_swap(
            &g->file, b->seq[i], b->word[i],
            chron__cell_word(&g->file, b->seq[i], CHRON__CELL_READY, chron__cell_count(b->word[i]), 0));
        chron__group_ready(g, b->seq[i]);
    }
    *chron__error() = why;
}

static int64_t start_all(chron_group *g, const batch *b, const chron__array *out)
{
    int64_t count = 0;

    for (size_t i = 0; i < b->count; i++) {
        chron_job job;
        int status = start(g, b->seq[i], b->word[i], &job);

        if (status < 0) {
            unreserve(g, b, i + 1u);
            return count > 0 ? count : status; /* the one that failed comes again, alone, and fails then */
        }
        if (status > 0)
            chron__array_put(out, (size_t)count++, &job, sizeof job);
    }
    return count;
}

static int full(const chron_group *g, uint64_t next)
{
    uint64_t floor = g->floor.next_seq;
    int status = chron__at(chron__fail(CHRON_EWINDOW,
                                       "the group %s has handed out its window of %u jobs, from %" PRIu64
                                       " on, which is not done: acknowledge, release or bury that one first",
                                       g->name, (unsigned)g->file.window, floor),
                           "", 0, floor);

    chron__error()->next_seq = next;
    return status;
}

/* One turn. 1: something came of it, *count jobs at most; 0: there is nothing; or an error. */
static int try_to_take(chron_group *g, const chron__array *out, uint64_t ahead, int64_t *count)
{
    batch b = {.count = 0, .want = out->capacity < CHRON_GROUP_TAKE_MAX ? out->capacity : CHRON_GROUP_TAKE_MAX};
    uint64_t next = chron__group_word(&g->file, CHRON__GROUP_NEXT);
    int status = chron__group_look_ahead(g, next, ahead);

    if (status < 0)
        return status;
    status = chron__group_turn(g);
    if (status < 0)
        return status;
    status = take_in_turn(g, &b, &next);
    chron__group_give(g);
    if (status < 0) {
        unreserve(g, &b, 0);
        return status;
    }
    if (b.is_dead) {
        status = chron__group_hand_over(g, b.seq[0], b.word[0], NULL);
        return status < 0 ? status : 1;
    }
    *count = start_all(g, &b, out);
    if (*count != 0 || b.count > 0)
        return *count < 0 ? (int)*count : 1;
    if (next >= g->floor.next_seq + g->file.window)
        return chron__group_look_ahead(g, next, 1) == 0 && g->tail->next_seq > next ? full(g, next) : 0;
    status = chron__group_look_ahead(g, next, 1); /* others have taken all that was known */
    return status < 0 ? status : g->tail->next_seq > next;
}

static int64_t take(chron_group *g, const chron__array *out)
{
    uint64_t ahead = g->keys.at                             ? CHRON__LOOK_AHEAD_MAX / 2u
                     : out->capacity < CHRON_GROUP_TAKE_MAX ? out->capacity
                                                            : CHRON_GROUP_TAKE_MAX;
    int64_t count = 0;
    int status;

    chron__group_take_back_lent(g);
    do {
        status = try_to_take(g, out, ahead, &count);
    } while (status > 0 && count == 0);
    return status < 0 ? status : count;
}

int64_t chron_group_take(chron_group *g, chron_job *out, size_t count)
{
    chron__array array;
    int64_t status = chron__group_enter(g);

    if (status < 0)
        return status;
    status = out ? chron__array_take("chron_job", out, count, &array)
                 : chron__fail(CHRON_EINVAL, "there are no jobs to fill");
    if (status == 0 && count > 0)
        status = take(g, &array);
    chron__group_leave(g);
    return status;
}
