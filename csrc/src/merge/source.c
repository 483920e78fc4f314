/* SPDX-License-Identifier: MIT */
/*
 * source.c - see source.h.
 *
 * Invariants:
 *  - The ring ascends by (place, seq), and therefore by seq: entries come in order of seq, and go elsewhere if their place is
 *    below the last one's. The heap holds the others. The lesser of their first ones is the source's next one.
 *  - The promise only rises, and no entry that comes has a place below it.
 *  - A hold lives as long as an entry, the chunk, or the batch that was handed out last, leads there.
 */
#include "merge/source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"

#define ROOM_MIN 64u

static int is_before(const chron__entry *a, const chron__entry *b)
{
    uint64_t place = chron__place_of(a);
    uint64_t other = chron__place_of(b);

    return place != other ? place < other : a->seq < b->seq;
}

char *chron__copy_text(const char *text, size_t length)
{
    char *copy = malloc(length + 1u);

    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

/* ------------------------------------------------------------------------------------------ holds */

static void spend(chron__source *s, chron__hold *hold)
{
    if (hold->entries || hold->is_current)
        return;
    hold->next_spent = *s->spent;
    *s->spent = hold;
}

void chron__hold_drop(chron__source *s, chron__hold *hold)
{
    CHRON__ASSERT(hold->entries > 0);
    hold->entries--;
    spend(s, hold);
}

void chron__holds_free(chron__hold **spent)
{
    while (*spent) {
        chron__hold *hold = *spent;

        *spent = hold->next_spent;
        chron_segment_release(hold->segment);
        free(hold);
    }
}

/* Takes over the reference to the segment, in every case. */
static int hold_segment(chron__source *s, chron_segment *segment)
{
    chron__hold *hold;

    if (s->hold && s->hold->segment == segment) {
        chron_segment_release(segment);
        return 0;
    }
    hold = calloc(1, sizeof *hold);
    if (!hold) {
        chron_segment_release(segment);
        return chron__fail(CHRON_ENOMEM, "no memory to read %s", s->path);
    }
    hold->segment = segment;
    hold->is_current = 1;
    if (s->hold) {
        s->hold->is_current = 0;
        spend(s, s->hold);
    }
    s->hold = hold;
    return 0;
}

/* ------------------------------------------------------------------------------- what is not handed out */

const chron__entry *chron__source_front(const chron__source *s)
{
    const chron__entry *first = s->run_count ? &s->run[s->run_at] : NULL;

    if (__builtin_expect(s->stray_count != 0, 0) && (!first || is_before(&s->strays[0], first)))
        return &s->strays[0];
    return first;
}

static void sink(chron__entry *heap, size_t count, size_t at)
{
    const chron__entry moved = heap[at];
    size_t below;

    while ((below = 2u * at + 1u) < count) {
        if (below + 1u < count && is_before(&heap[below + 1u], &heap[below]))
            below++;
        if (!is_before(&heap[below], &moved))
            break;
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = moved;
}

chron__entry chron__source_take(chron__source *s)
{
    const chron__entry *front = chron__source_front(s);
    chron__entry taken = *front;

    if (s->stray_count && front == &s->strays[0]) {
        s->strays[0] = s->strays[--s->stray_count];
        if (s->stray_count)
            sink(s->strays, s->stray_count, 0);
    } else {
        s->run_at = (s->run_at + 1u) & (s->run_room - 1u);
        s->run_count--;
    }
    return taken;
}

static int no_memory(const chron__source *s)
{
    return chron__fail(CHRON_ENOMEM, "no memory for what lies within the lateness in %s: a smaller one needs less",
                       s->path);
}

static int grow_run(chron__source *s)
{
    size_t room = s->run_room ? 2u * s->run_room : ROOM_MIN;
    chron__entry *run = malloc(room * sizeof *run);

    if (!run)
        return no_memory(s);
    for (size_t i = 0; i < s->run_count; i++)
        run[i] = s->run[(s->run_at + i) & (s->run_room - 1u)];
    free(s->run);
    s->run = run;
    s->run_room = room;
    s->run_at = 0;
    return 0;
}

static int grow_strays(chron__source *s)
{
    size_t room = s->stray_room ? 2u * s->stray_room : ROOM_MIN;
    chron__entry *strays = realloc(s->strays, room * sizeof *strays);

    if (!strays)
        return no_memory(s);
    s->strays = strays;
    s->stray_room = room;
    return 0;
}

static int put_stray(chron__source *s, const chron__entry *e)
{
    size_t at = s->stray_count;
    int status = at == s->stray_room ? grow_strays(s) : 0;

    if (status < 0)
        return status;
    s->stray_count++;
    while (at > 0 && is_before(e, &s->strays[(at - 1u) / 2u])) {
        s->strays[at] = s->strays[(at - 1u) / 2u];
        at = (at - 1u) / 2u;
    }
    s->strays[at] = *e;
    return 0;
}

static int put(chron__source *s, const chron__entry *e)
{
    int status;

    if (s->run_count &&
        chron__place_of(e) < chron__place_of(&s->run[(s->run_at + s->run_count - 1u) & (s->run_room - 1u)]))
        return put_stray(s, e);
    status = s->run_count == s->run_room ? grow_run(s) : 0;
    if (status < 0)
        return status;
    s->run[(s->run_at + s->run_count++) & (s->run_room - 1u)] = *e;
    return 0;
}

/* ---------------------------------------------------------------------------------------- reading */

/* The source has nothing, and a stop that it has not come to. */
static int check_end(const chron__source *s, uint64_t at)
{
    if (s->stop == CHRON_SEQ_NONE)
        return 0;
    return chron__fail(CHRON_ERANGE, "%s ends at seq %" PRIu64 ", and was to be read up to %" PRIu64, s->path, at,
                       s->stop);
}

/* The next chunk. 1; 0 as chron__source_read(). */
static int fetch(chron__source *s)
{
    chron__chunk *c = s->chunk;
    uint64_t at = chron_reader_position(s->reader);
    uint64_t seqs[CHRON__CHUNK];
    chron_columns columns = {.struct_size = sizeof columns,
                             .seq = seqs,
                             .timestamp_ns = c->timestamp_ns,
                             .offset = c->offset,
                             .length = c->length,
                             .type_id = c->type_id,
                             .flags = c->flags};
    chron_segment *segment;
    int64_t n;
    int status;

    s->ended = at >= s->stop;
    if (s->ended)
        return 0;
    n = chron_reader_peek_columns(s->reader, &columns,
                                  s->stop - at < CHRON__CHUNK ? (size_t)(s->stop - at) : CHRON__CHUNK, &segment);
    if (n <= 0)
        return n < 0 ? (int)n : check_end(s, at);
    status = hold_segment(s, segment);
    if (status == 0)
        status = chron_reader_advance(s->reader, (size_t)n);
    if (status < 0)
        return status;
    if (seqs[0] >= s->stop) { /* on_gap has led beyond it */
        s->ended = 1;
        return 0;
    }
    c->first_seq = seqs[0];
    c->at = 0;
    c->count = (uint64_t)n < s->stop - seqs[0] ? (size_t)n : (size_t)(s->stop - seqs[0]);
    return 1;
}

/* Was this one handed out before? Asked with rising seqs. */
static int is_done(chron__source *s, uint64_t seq)
{
    while (s->done_at < s->done_count && s->done[s->done_at].end <= seq)
        s->done_at++;
    return s->done_at < s->done_count && s->done[s->done_at].begin <= seq;
}

uint64_t chron__source_next_seq(const chron__source *s)
{
    if (s->chunk && s->chunk->at < s->chunk->count)
        return s->chunk->first_seq + s->chunk->at;
    return chron_reader_position(s->reader);
}

int chron__source_read(chron__source *s)
{
    chron__chunk *c = s->chunk;
    chron__entry e;
    uint64_t after;
    int status = c->at == c->count ? fetch(s) : 1;

    if (status <= 0)
        return status;
    e = (chron__entry){.timestamp_ns = c->timestamp_ns[c->at],
                       .promise = s->promise,
                       .seq = c->first_seq + c->at,
                       .payload = (const uint8_t *)chron_segment_bytes(s->hold->segment) + c->offset[c->at],
                       .hold = s->hold,
                       .length = c->length[c->at],
                       .type_id = c->type_id[c->at],
                       .flags = c->flags[c->at]};
    if (__builtin_expect(s->done_at == s->done_count, 1) || !is_done(s, e.seq)) {
        status = put(s, &e);
        if (status < 0)
            return status;
        s->hold->entries++;
    }
    c->at++;
    after = e.timestamp_ns > s->lateness_ns ? e.timestamp_ns - s->lateness_ns : 0;
    if (after > s->promise)
        s->promise = after;
    s->dry_ns = 0;
    return 1;
}

void chron__source_close(chron__source *s)
{
    while (s->run_count || s->stray_count)
        chron__hold_drop(s, chron__source_take(s).hold);
    if (s->hold) {
        s->hold->is_current = 0;
        spend(s, s->hold);
    }
    s->hold = NULL;
    free(s->run);
    free(s->strays);
    free(s->chunk);
    free(s->done);
    s->run = NULL;
    s->strays = NULL;
    s->chunk = NULL;
    s->done = NULL;
    s->run_room = s->stray_room = s->done_count = 0;
    chron_bell_release(s->bell);
    s->bell = NULL;
    (void)chron_reader_close(s->reader);
    s->reader = NULL;
}
