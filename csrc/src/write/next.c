/* SPDX-License-Identifier: MIT */
/*
 * next.c - the next segment of a queue with several writers. Its file is made by one of them at a time, who has the word
 * `preparer`, and never with the turn; it is called next.<n>.tmp, and each n is used once. Whoever rolls takes it.
 *
 * The order of a roll is that of write/roll.c, in one turn: intent, header, rename, END, `ready` = 0, seal, head, intent 0.
 */
#include "write/next.h"

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "write/mend.h"
#include "write/prepare.h"
#include "write/room.h"
#include "write/sync.h"

static uint32_t prepared(const chron_writer *w)
{
    return chron__load_acquire_le32(chron__word(w, CHRON__P_READY)); /* [TURN] stored when the file is complete */
}

/* ------------------------------------------------------------------------------------------- making it */

/* Named, allocated, and written ahead where that pays. */
static int make_file(const chron_writer *w, uint32_t n)
{
    char name[CHRON__NAME_BYTES];
    chron__seg *seg;
    int status;

    chron__shared_name(n, name);
    status = chron__seg_create(&w->q, name, w->options.mode, &seg);
    while (status == 0 && chron__writer_prewrites(w) && seg->zeroed < seg->size && seg->zeroed < w->lead_max) {
        status = chron__seg_zero(&w->q, seg, name);
        if (status < 0)
            return status; /* it is gone */
    }
    if (status == 0)
        chron__seg_release(seg);
    return status;
}

/* With the word: the file of a preparer that died. */
static void remove_half(const chron_writer *w)
{
    uint32_t n = chron__load_acquire_le32(chron__word(w, CHRON__P_COUNT)); /* [TURN] in the preparer's turn */
    char name[CHRON__NAME_BYTES];

    chron__shared_name(n, name);
    if (n != 0 && n != prepared(w))
        (void)w->q.io->unlink(w->q.io, w->q.dir, name);
}

static int make_if_missing(chron_writer *w)
{
    uint32_t n;
    int status;

    if (prepared(w) != 0)
        return 0;
    status = chron__writer_has_room(w); /* again: no other is prepared now, and none begun */
    if (status <= 0)
        return status;
    n = chron__load_acquire_le32(chron__word(w, CHRON__P_COUNT)) + 1u; /* [TURN] in the preparer's turn */
    n += n == 0;
    chron__store_release_le32(chron__word(w, CHRON__P_COUNT), n); /* [TURN] */
    CHRON__STEP("next: begun");
    status = make_file(w, n);
    if (status < 0)
        return status;
    CHRON__STEP("next: made");
    chron__store_release_le32(chron__word(w, CHRON__P_READY), n); /* [TURN] with prepared() */
    CHRON__STEP("next: ready");
    return 1;
}

int chron__next_make(chron_writer *w)
{
    struct chron__shared *s = w->shared;
    uint32_t owner = 0;
    int status;

    pthread_mutex_lock(&s->prep_lock);
    status = chron__turn_take(&s->m, chron__word(w, CHRON__P_PREPARER), s->timeout_ns, &owner);
    if (status < 0) {
        status = chron__turn_fail(w, status, owner, "the preparing of the next segment");
    } else {
        if (status == CHRON__TURN_INHERITED)
            remove_half(w);
        status = make_if_missing(w);
        chron__turn_give(chron__word(w, CHRON__P_PREPARER));
    }
    pthread_mutex_unlock(&s->prep_lock);
    return status;
}

static void give_up(void *writer)
{
    chron__writer_leave(writer);
}

/* Some file is ready, or somebody has just taken it. */
static int wait_for_one(chron_writer *w)
{
    int status = chron__writer_make_room(w, w->options.block_ns, give_up);

    if (status == 0)
        return chron__writer_fail_full(w);
    if (status > 0) {
        status = chron__next_make(w);
        w->rolls_unprepared += status > 0;
    }
    return status;
}

int chron__next_have(chron_writer *w)
{
    struct chron__shared *s = w->shared;
    char name[CHRON__NAME_BYTES];
    uint32_t n = prepared(w);
    int status = n == 0 ? wait_for_one(w) : 0;

    if (status < 0)
        return status;
    n = prepared(w);
    if (n == 0 || (s->next && s->next_n == n))
        return 0;
    chron__seg_release(s->next);
    s->next = NULL;
    chron__shared_name(n, name);
    status = chron__seg_open_made(&w->q, name, &s->next);
    s->next_n = n;
    if (status < 0)
        return status == -CHRON_EGONE ? 0 : status; /* taken meanwhile; if not, the roll finds out */
    (void)chron__writer_touch(w, s->next, s->next->data_offset + CHRON__EDGE_STEP,
                              s->next->data_offset + CHRON__EDGE_STEP);
    return 0;
}

/* ------------------------------------------------------------------------------------------- taking it */

chron__seg *chron__next_adopt(chron_writer *w, chron__seg *seg)
{
    chron__seg *old = w->seg;
    uint64_t now = chron__monotonic_ns();

    if (old)
        chron__set64(&w->fill_ns, now - w->entered_ns); /* [COUNT] advice for the keeper */
    w->entered_ns = now;
    pthread_mutex_lock(&w->lock);
    w->seg = seg;
    chron__set64(&w->tail, seg->data_offset);
    pthread_mutex_unlock(&w->lock);
    w->base = seg->map.base;
    w->fault = seg->map.fault;
    w->next_block = seg->data_offset;
    return old;
}

void chron__next_leave(chron_writer *w, chron__seg *old)
{
    chron__writer_owe(w, old);
    chron__writer_retire(w, old);
    chron__writer_kick(w);
}

/* Its file has the name of a segment now, or not: 0. */
static int name_it(const chron_writer *w, uint32_t n)
{
    char from[CHRON__NAME_BYTES];
    char to[CHRON__NAME_BYTES];
    int status;

    chron__shared_name(n, from);
    chron__segment_name(w->shared->head.next_seq, to);
    status = w->q.io->rename(w->q.io, w->q.dir, from, w->q.dir, to);
    return status < 0 ? chron__fail_sys(status, to, "cannot give the next segment its name %s", to) : 0;
}

int chron__next_enter(chron_writer *w)
{
    struct chron__shared *s = w->shared;
    uint8_t *meta = w->q.meta.base;
    chron__seg *old = w->seg;
    int status;

    if (!s->next || prepared(w) != s->next_n)
        return 0;
    if (s->left) /* two rolls in a turn: the first is enough for any batch */
        return 0;
    chron__head_intend(meta, CHRON__INTENT_ROLL);
    CHRON__STEP("roll: begun");
    chron__seg_write_header(&w->q, s->next, s->head.next_seq, s->head.base, w->full_epoch, chron__clock_ns(0));
    CHRON__STEP("roll: header written");
    status = name_it(w, s->next_n);
    if (status < 0) {
        chron__store_release_le32(meta + CHRON__P_READY, 0); /* [TURN] whatever is the matter with it */
        chron__head_intend(meta, 0);
        return status;
    }
    CHRON__STEP("roll: renamed");
    (void)chron__add32(meta + CHRON__S_DIR, 1); /* [HEAD] a sync that sees the commit sees it */
    chron__complete_roll(w, old);
    CHRON__STEP("roll: done");
    s->left = chron__next_adopt(w, s->next);
    s->next = NULL;
    w->rolls++;
    return 1;
}
