/* SPDX-License-Identifier: MIT */
/*
 * merge.c - records of many sources in order. The hot path of merges.
 *
 * Invariants:
 *  - The heap's first is the source with the least (place, index). If it is ready, no source can come with anything before
 *    its next record: that one goes out. If it is not, it is asked; nothing goes out before it has answered, has ended or is idle.
 *  - What goes out has a place not below that of what went out before: `reached`.
 *  - An error is met by the call that has nothing else to hand out, and changes nothing.
 */
#include "merge/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/struct.h"

#define IDLE_LOOK_NS 1000000u /* between two looks at sources that hold up nobody, while others keep coming */

/* ------------------------------------------------------------------------------------------- heap */

static int is_less(const chron__contender *a, const chron__contender *b)
{
    return a->place != b->place ? a->place < b->place : a->index < b->index;
}

static void sink(chron_merge *m, size_t at)
{
    chron__contender *heap = m->heap;
    const chron__contender moved = heap[at];
    size_t below;

    while ((below = 2u * at + 1u) < m->heap_count) {
        if (below + 1u < m->heap_count && is_less(&heap[below + 1u], &heap[below]))
            below++;
        if (!is_less(&heap[below], &moved))
            break;
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = moved;
}

static void rise(chron_merge *m, size_t at)
{
    chron__contender *heap = m->heap;
    const chron__contender moved = heap[at];

    for (; at > 0 && is_less(&moved, &heap[(at - 1u) / 2u]); at = (at - 1u) / 2u)
        heap[at] = heap[(at - 1u) / 2u];
    heap[at] = moved;
}

static void remove_at(chron_merge *m, size_t at)
{
    m->heap[at] = m->heap[--m->heap_count];
    if (at < m->heap_count) {
        sink(m, at);
        rise(m, at);
    }
}

/* What the source comes with, as far as that is known without reading on. */
static chron__contender contender_of(const chron__source *s)
{
    const chron__entry *front = chron__source_front(s);
    uint64_t place = front ? chron__place_of(front) : 0;

    if (front && (place <= s->promise || s->ended || s->flush))
        return (chron__contender){.place = place, .index = s->index, .is_ready = 1};
    return (chron__contender){.place = s->promise, .index = s->index};
}

void chron__merge_join(chron_merge *m, chron__source *s)
{
    m->heap[m->heap_count] = contender_of(s);
    rise(m, m->heap_count++);
}

void chron__merge_leave(chron_merge *m, uint32_t index)
{
    for (size_t i = 0; i < m->heap_count; i++)
        if (m->heap[i].index == index) {
            remove_at(m, i);
            break;
        }
    for (size_t i = 0; i < m->idle_count; i++)
        if (m->idle[i] == index) {
            m->idle[i] = m->idle[--m->idle_count];
            break;
        }
}

/* ------------------------------------------------------------------------------------ who is asked */

int chron__merge_blame(chron_merge *m, const chron__source *s, int status)
{
    chron_error *error = chron__error();
    char text[sizeof error->text];

    m->failed = s->index;
    if (strstr(error->text, s->path))
        return status;
    memcpy(text, error->text, sizeof text);
    (void)snprintf(error->text, sizeof error->text, "%.255s: %.250s", s->path, text);
    return status;
}

/* It comes back, or goes on: what it brings now has no place in front of what went out meanwhile. */
static void rejoin(const chron_merge *m, chron__source *s)
{
    s->flush = 0;
    s->idle = 0;
    s->rejoined = m->reached;
    if (m->reached > s->promise)
        s->promise = m->reached;
}

/* One record more of a source that is at the top of the heap, or idle. 1; 0 as chron__source_read(). */
static int ask(chron_merge *m, chron__source *s)
{
    const uint64_t promise = s->promise;
    const uint64_t rejoined = s->rejoined;
    const int flush = s->flush;
    const int idle = s->idle;
    int status;

    if (!flush && !idle)
        return chron__source_read(s);
    rejoin(m, s); /* before it reads: the record's place is made then */
    status = chron__source_read(s);
    if (status <= 0 && !s->ended) {
        s->promise = promise;
        s->rejoined = rejoined;
        s->flush = flush;
        s->idle = idle;
    }
    return status;
}

/*
 * The source at the top has nothing to go out, and nothing comes. How long that goes on decides. 1: something has changed;
 * 0: the merge has to wait for it.
 */
static int hold_up(chron_merge *m, chron__source *s)
{
    const int has_some = chron__source_front(s) != NULL;
    const uint64_t idle_ns = m->options.idle_ns;
    uint64_t limit = has_some && s->lateness_ns < idle_ns ? s->lateness_ns : idle_ns;
    uint64_t now = chron__monotonic_ns();

    if (!s->dry_ns)
        s->dry_ns = now;
    if (now - s->dry_ns < limit) {
        m->wake_ns = limit < UINT64_MAX - s->dry_ns ? s->dry_ns + limit : UINT64_MAX;
        return 0;
    }
    if (has_some) {
        s->flush = 1;
        m->heap[0] = contender_of(s);
        sink(m, 0);
    } else {
        s->idle = 1;
        m->idle[m->idle_count++] = s->index;
        remove_at(m, 0);
    }
    return 1;
}

/* Ask the one at the top until it is known what it comes with, or that another one comes first. 1 as hold_up(). */
static int ask_top(chron_merge *m)
{
    chron__source *s = m->sources[m->heap[0].index];
    int status = ask(m, s);

    if (status < 0)
        return chron__merge_blame(m, s, status);
    if (status == 0 && !s->ended)
        return hold_up(m, s);
    if (s->ended && !chron__source_front(s)) {
        remove_at(m, 0);
        return 1;
    }
    m->heap[0] = contender_of(s);
    sink(m, 0);
    return 1;
}

int chron__merge_ask_idle(chron_merge *m)
{
    uint64_t now = chron__monotonic_ns();

    if (m->heap_count && now - m->looked_ns < IDLE_LOOK_NS)
        return 0;
    m->looked_ns = now;
    for (size_t i = 0; i < m->idle_count;) {
        chron__source *s = m->sources[m->idle[i]];
        int status = ask(m, s);

        if (status < 0)
            return chron__merge_blame(m, s, status);
        if (status == 0 && !s->ended) {
            i++;
            continue;
        }
        m->idle[i] = m->idle[--m->idle_count];
        if (!s->ended)
            chron__merge_join(m, s);
    }
    return 0;
}

int chron__merge_settle(chron_merge *m)
{
    int status = 1;

    m->wake_ns = 0;
    while (m->heap_count && !m->heap[0].is_ready) {
        status = ask_top(m);
        if (status <= 0)
            return status;
    }
    return m->heap_count != 0;
}

/* --------------------------------------------------------------------------------------- handing out */

/* What a call that hands out begins with. */
static int begin(chron_merge *m, size_t count)
{
    m->failed = -1;
    if (m->missing && !(m->options.flags & CHRON_MERGE_MISSING)) {
        uint32_t i = 0;

        while (m->sources[i]->reader || m->sources[i]->stored.from == CHRON_SEQ_NONE)
            i++;
        return chron__fail(CHRON_EINVAL,
                           "%s belongs to this merge by its stored position, and was not added: add it, or say that "
                           "sources may be missing",
                           m->sources[i]->path);
    }
    m->begun = 1;
    chron__holds_free(&m->spent);
    m->handed_count = 0;
    m->reached_before = m->reached;
    if (m->name && count > m->handed_room) {
        chron__handed *handed = realloc(m->handed, count * sizeof *handed);

        if (!handed)
            return chron__fail(CHRON_ENOMEM, "no memory for %zu records at once: ask for fewer", count);
        m->handed = handed;
        m->handed_room = count;
    }
    return m->idle_count ? chron__merge_ask_idle(m) : 0;
}

/* Take the record at the top, which is ready. */
static void hand_out(chron_merge *m, chron__source *s, chron_merged *out)
{
    const chron__entry e = chron__source_take(s);
    const uint64_t place = chron__place_of(&e);

    out->record = (chron_view){.seq = e.seq,
                               .timestamp_ns = e.timestamp_ns,
                               .payload = e.payload,
                               .length = e.length,
                               .type_id = e.type_id,
                               .flags = e.flags};
    out->source = s->index;
    out->late = e.timestamp_ns < (m->options.order == CHRON_MERGE_APPEND ? s->rejoined : place);
    CHRON__ASSERT(place >= m->reached);
    m->reached = place;
    if (m->name)
        m->handed[m->handed_count++] =
            (chron__handed){.seq = e.seq, .promise = e.promise, .place = place, .source = s->index};
    s->told.records++;
    s->told.late += out->late;
    chron__hold_drop(s, e.hold);
    m->heap[0] = contender_of(s);
    /* What was fetched is at hand: looking at it now saves a turn of the heap. A failure is met by who asks next. */
    while (!m->heap[0].is_ready && chron__source_has_fetched(s) && !s->flush && chron__source_read(s) > 0)
        m->heap[0] = contender_of(s);
    if (!m->heap[0].is_ready && s->ended && !chron__source_front(s))
        remove_at(m, 0);
    else
        sink(m, 0);
}

static int64_t next_batch(chron_merge *m, chron_merged *out, size_t count)
{
    size_t n = 0;
    int status = begin(m, count);

    while (status >= 0 && n < count) {
        status = chron__merge_settle(m);
        if (status <= 0)
            break;
        hand_out(m, m->sources[m->heap[0].index], &out[n++]);
    }
    if (status < 0 && n == 0)
        return status;
    m->failed = -1; /* the next call tells */
    return (int64_t)n;
}

int64_t chron_merge_next_batch(chron_merge *m, chron_merged *out, size_t count)
{
    int status = chron__merge_enter(m);

    if (status < 0)
        return status;
    return out ? next_batch(m, out, count) : chron__fail(CHRON_EINVAL, "there is no room to fill");
}

/* Where in the columns record n comes. */
static void put(chron_columns *c, size_t n, const chron_view *v)
{
    if (c->seq)
        c->seq[n] = v->seq;
    if (c->timestamp_ns)
        c->timestamp_ns[n] = v->timestamp_ns;
    if (c->offset)
        c->offset[n] = c->payload_bytes;
    if (c->length)
        c->length[n] = v->length;
    if (c->type_id)
        c->type_id[n] = v->type_id;
    if (c->flags)
        c->flags[n] = v->flags;
    if (v->length)
        memcpy((uint8_t *)c->copy + c->payload_bytes, v->payload, v->length);
    c->payload_bytes += v->length;
    if (v->length < c->length_min)
        c->length_min = v->length;
    if (v->length > c->length_max)
        c->length_max = v->length;
}

static int64_t next_columns(chron_merge *m, chron_columns *c, uint32_t *source, uint8_t *late, size_t count)
{
    size_t n = 0;
    int status = begin(m, count);

    c->payload_bytes = 0;
    c->length_min = UINT32_MAX;
    c->length_max = 0;
    while (status >= 0 && n < count) {
        chron_merged one;
        chron__source *s;
        const chron__entry *front;

        status = chron__merge_settle(m);
        if (status <= 0)
            break;
        s = m->sources[m->heap[0].index];
        front = chron__source_front(s);
        if (front->length > c->bytes_max - c->payload_bytes) {
            if (n > 0)
                break;
            c->length_max = front->length;
            return chron__fail(CHRON_EBUFFER, "the payload has %u bytes, the limit is %llu", (unsigned)front->length,
                               (unsigned long long)c->bytes_max);
        }
        hand_out(m, s, &one);
        put(c, n, &one.record);
        if (source)
            source[n] = one.source;
        if (late)
            late[n] = (uint8_t)one.late;
        n++;
    }
    if (status < 0 && n == 0)
        return status;
    m->failed = -1;
    return (int64_t)n;
}

/* The copies are made: was all of it there? A segment that went away reads as zeros, and is what is still held. */
static int check_copies(chron_merge *m)
{
    if (!chron_guard_faulted(NULL, 0))
        return 0;
    for (uint32_t i = 0; i < m->source_count; i++) {
        const chron__hold *hold = m->sources[i]->hold;

        if (hold && chron_segment_faulted(hold->segment))
            return chron__merge_blame(m, m->sources[i], chron__fail_fault("a segment", ""));
    }
    for (const chron__hold *hold = m->spent; hold; hold = hold->next_spent)
        if (chron_segment_faulted(hold->segment))
            return chron__fail_fault("a segment", ". Open the merge again: it goes on at the stored position");
    return 0;
}

int64_t chron_merge_next_columns(chron_merge *m, chron_columns *columns, uint32_t *source, uint8_t *late, size_t count)
{
    chron_columns own;
    chron_columns *c;
    int64_t n = chron__merge_enter(m);
    int status;

    if (n < 0)
        return n;
    c = chron__struct_use("chron_columns", columns, &own, sizeof own);
    if (!c)
        return -CHRON_EINVAL;
    if (c->reserved || !c->copy)
        return chron__fail(CHRON_EINVAL, "columns of a merge need `copy`, and reserved has to be 0");
    n = next_columns(m, c, source, late, count);
    if (c != columns)
        chron__struct_give(c, sizeof *c, columns);
    status = n > 0 ? check_copies(m) : 0;
    return status < 0 ? status : n;
}

int chron_merge_ended(const chron_merge *m)
{
    if (!m || m->heap_count || m->idle_count)
        return 0;
    for (uint32_t i = 0; i < m->source_count; i++)
        if (m->sources[i]->reader)
            return 1;
    return !chron__merge_is_live(m); /* with none left a live one waits for others to be added */
}
