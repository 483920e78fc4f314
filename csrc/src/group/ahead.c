/* SPDX-License-Identifier: MIT */
/*
 * ahead.c - reading the log for a group: how far it goes, which records are gone, what their keys are, and a job's record.
 * Nothing here is done in the turn.
 */
#include "group/group.h"

#include <stdlib.h>

#include "read/attach.h"
#include "read/next.h"

#define STEP_MAX 4096u /* records that are stepped over, rather than searched for */

/* Step over the record at the position; its CRC is looked at only if somebody needs the payload. As chron_reader_next(). */
static int step(chron_reader *r)
{
    chron__rec rec;
    int status = chron__reader_peek(r, &rec);

    if (status > 0)
        chron__reader_advance(r, &rec);
    return status;
}

static int move_to(chron_reader *r, uint64_t seq)
{
    int status = 1;

    if (seq >= r->next_seq && seq - r->next_seq <= STEP_MAX)
        while (status > 0 && r->next_seq < seq)
            status = step(r);
    return r->next_seq == seq ? 0 : chron_reader_seek(r, seq);
}

/* With a key: the record's. One that is damaged gets a key of its own: it is handed out, and found out, as any other. */
static int step_with_key(chron_group *g)
{
    uint64_t seq = g->tail->next_seq;
    chron_view view;
    int64_t key = (int64_t)(seq * 2654435761u & UINT32_MAX);
    int status = chron_reader_next(g->tail, &view);

    if (status == -CHRON_ECORRUPT)
        status = step(g->tail);
    else if (status > 0)
        key = g->options.key(g->options.key_context, &view);
    if (key < 0) {
        (void)chron_reader_seek(g->tail, seq);
        return chron__fail(CHRON_EINTR, "the key function ended the call, at record %llu", (unsigned long long)seq);
    }
    if (status > 0)
        g->ahead_key[seq % CHRON__LOOK_AHEAD_MAX] = (uint32_t)key;
    return status;
}

/* Records from the tail on were deleted, up to the oldest there is. */
static int meet_gap(chron_group *g)
{
    uint64_t oldest = chron__error()->oldest;
    uint64_t seq = g->tail->next_seq;
    int status;

    if (g->options.on_gap != CHRON_GAP_OLDEST)
        return -CHRON_EGONE;
    status = chron_reader_seek(g->tail, oldest);
    if (status < 0)
        return status;
    g->hole_from = seq;
    g->hole_to = oldest;
    return 0;
}

/* A record that does not even lead to the next: it, and what cannot be found behind it, are jobs that cannot be read. */
static int meet_damage(chron_group *g)
{
    chron_error damage = *chron_last_error();
    uint64_t seq = g->tail->next_seq;
    int64_t passed = chron_reader_skip_damaged(g->tail);

    if (passed <= 0) {
        *chron__error() = damage;
        return -CHRON_ECORRUPT;
    }
    for (uint64_t i = 0; i < (uint64_t)passed && i < CHRON__LOOK_AHEAD_MAX; i++)
        g->ahead_key[(seq + i) % CHRON__LOOK_AHEAD_MAX] = (uint32_t)((seq + i) * 2654435761u);
    return 0;
}

int chron__group_look_ahead(chron_group *g, uint64_t from, uint64_t want)
{
    int status = 1;

    if (g->hole_to > from)
        return 0; /* first what is gone is done with */
    if (g->tail->next_seq < from) {
        status = move_to(g->tail, from);
        if (status == -CHRON_EGONE)
            return meet_gap(g);
        if (status < 0)
            return status;
        status = 1;
    }
    while (status > 0 && g->tail->next_seq < from + want) {
        status = g->options.key ? step_with_key(g) : step(g->tail);
        if (status > 0 && g->tail->epoch > g->epoch)
            g->epoch = g->tail->epoch;
    }
    if (status == -CHRON_EGONE)
        return meet_gap(g);
    if (status == -CHRON_ECORRUPT)
        return meet_damage(g);
    return status < 0 ? status : 0;
}

static int lend(chron_group *g, chron__seg *seg)
{
    chron__lent *lent = &g->lent;

    if (!seg || (lent->count > 0 && lent->at[lent->count - 1u] == seg))
        return 0;
    if (lent->count == lent->capacity) {
        size_t capacity = lent->capacity ? lent->capacity * 2u : 8u;
        chron__seg **at = realloc(lent->at, capacity * sizeof *at);

        if (!at)
            return chron__fail(CHRON_ENOMEM, "no memory for %zu segments", capacity);
        lent->at = at;
        lent->capacity = capacity;
    }
    lent->at[lent->count++] = chron__seg_retain(seg);
    return 0;
}

void chron__group_take_back_lent(chron_group *g)
{
    while (g->lent.count > 0)
        chron__seg_release(g->lent.at[--g->lent.count]);
}

int chron__group_read(chron_group *g, uint64_t seq, chron_view *out)
{
    int status = move_to(g->jobs, seq);

    if (status == 0)
        status = chron_reader_next(g->jobs, out);
    if (status == 0 || (status > 0 && out->seq != seq))
        status = chron__at(
            chron__fail(CHRON_ECORRUPT, "record %llu was there, and is not any more", (unsigned long long)seq), "", 0,
            seq);
    return status < 0 ? status : lend(g, g->jobs->seg);
}
