/* SPDX-License-Identifier: MIT */
/*
 * commit.c - the position of a merge: what it is, how it is stored, and how it comes back.
 *
 * Invariants:
 *  - Of each source the position has the seq that all before were handed out of, and what was handed out beyond. With the promise
 *    that the source had there, reading on finds the same places, and so the same order.
 *  - The sources' readers follow the stored position: none is ever further. So what the position needs is kept by retention; and
 *    where a loss of power has taken a position back, what the readers say of theirs is true.
 */
#include "merge/merge.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"

#define SOURCE_BYTES 48u /* uuid, from, promise, stop, two counts */
#define PATH_MAX_BYTES 65536u

/* ------------------------------------------------------------------------------------- what it is */

static int by_seq(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a;
    uint64_t other = *(const uint64_t *)b;

    return (one > other) - (one < other);
}

/* All seqs that were read of a source, or handed out and are left out of this commit. Ascending. */
static uint64_t *pending_of(const chron_merge *m, const chron__source *s, size_t left, size_t count)
{
    uint64_t *seqs = malloc(count * sizeof *seqs);
    size_t n = 0;

    if (!seqs)
        return NULL;
    for (size_t i = 0; i < s->run_count; i++)
        seqs[n++] = s->run[(s->run_at + i) & (s->run_room - 1u)].seq;
    for (size_t i = 0; i < s->stray_count; i++)
        seqs[n++] = s->strays[i].seq;
    for (size_t i = m->handed_count - left; i < m->handed_count; i++)
        if (m->handed[i].source == s->index)
            seqs[n++] = m->handed[i].seq;
    CHRON__ASSERT(n == count);
    qsort(seqs, n, sizeof *seqs, by_seq);
    return seqs;
}

static void lower(chron__progress *at, uint64_t seq, uint64_t promise)
{
    if (seq < at->from) {
        at->from = seq;
        at->promise = promise;
    }
}

/* What lies between the pending ones, up to `next`, and what was done before beyond that. */
static int fill_done(const chron_merge *m, chron__source *s, size_t left, size_t count, uint64_t next)
{
    chron__progress *at = &s->next;
    const int is_whole = count == next - at->from;
    size_t room = (is_whole ? 0 : count + 1u) + (s->done_count - s->done_at);
    uint64_t seq = at->from;
    uint64_t *seqs;

    if (room == 0)
        return 0;
    at->done = malloc(room * sizeof *at->done);
    if (!at->done)
        return chron__fail(CHRON_ENOMEM, "no memory for the position of the merge");
    if (!is_whole) {
        seqs = pending_of(m, s, left, count);
        if (!seqs)
            return chron__fail(CHRON_ENOMEM, "no memory for the position of the merge");
        for (size_t i = 0; i < count; seq = seqs[i++] + 1u)
            if (seqs[i] > seq)
                at->done[at->done_count++] = (chron__range){seq, seqs[i]};
        if (next > seq)
            at->done[at->done_count++] = (chron__range){seq, next};
        free(seqs);
    }
    for (size_t i = s->done_at; i < s->done_count; i++)
        if (s->done[i].end > next)
            at->done[at->done_count++] =
                (chron__range){s->done[i].begin > next ? s->done[i].begin : next, s->done[i].end};
    return 0;
}

static int find_place(const chron_merge *m, chron__source *s, size_t left)
{
    uint64_t next = chron__source_next_seq(s);
    size_t count = s->run_count + s->stray_count + s->left_count;

    s->next = (chron__progress){.from = next, .promise = s->promise};
    if (s->run_count)
        lower(&s->next, s->run[s->run_at].seq, s->run[s->run_at].promise);
    for (size_t i = 0; i < s->stray_count; i++)
        lower(&s->next, s->strays[i].seq, s->strays[i].promise);
    if (s->left_count)
        lower(&s->next, s->left_seq, s->left_promise);
    return fill_done(m, s, left, count, next);
}

/* The places of all sources that are there, in their `next`. */
static int find_places(chron_merge *m, size_t left)
{
    int status = 0;

    for (uint32_t i = 0; i < m->source_count; i++)
        m->sources[i]->left_count = 0;
    for (size_t i = m->handed_count - left; i < m->handed_count; i++) {
        const chron__handed *h = &m->handed[i];
        chron__source *s = m->sources[h->source];

        if (s->left_count++ == 0 || h->seq < s->left_seq) {
            s->left_seq = h->seq;
            s->left_promise = h->promise;
        }
    }
    for (uint32_t i = 0; i < m->source_count && status == 0; i++)
        if (m->sources[i]->reader)
            status = find_place(m, m->sources[i], left);
    return status;
}

/* ------------------------------------------------------------------------------------- storing it */

static void encode_source(chron__bytes *b, const chron__source *s)
{
    const chron__progress *at = s->reader ? &s->next : &s->stored;
    static const uint8_t padding[8];
    size_t path_bytes = strlen(s->path);

    chron__bytes_put(b, s->uuid, sizeof s->uuid);
    chron__bytes_u64(b, at->from);
    chron__bytes_u64(b, at->promise);
    chron__bytes_u64(b, s->stop);
    chron__bytes_u32(b, (uint32_t)at->done_count);
    chron__bytes_u32(b, (uint32_t)path_bytes);
    for (size_t i = 0; i < at->done_count; i++) {
        chron__bytes_u64(b, at->done[i].begin);
        chron__bytes_u64(b, at->done[i].end);
    }
    chron__bytes_put(b, s->path, path_bytes);
    chron__bytes_put(b, padding, (8u - path_bytes % 8u) % 8u);
}

static void encode(chron_merge *m, size_t left)
{
    chron__bytes *b = &m->store.bytes;
    uint64_t reached = m->reached;

    if (left)
        reached = left < m->handed_count ? m->handed[m->handed_count - left - 1u].place : m->reached_before;
    b->count = 0;
    b->no_memory = 0;
    chron__bytes_u64(b, reached);
    chron__bytes_u64(b, m->options.lateness_ns);
    chron__bytes_u32(b, m->options.order);
    chron__bytes_u32(b, m->source_count);
    for (uint32_t i = 0; i < m->source_count; i++)
        encode_source(b, m->sources[i]);
}

/* The readers go where the stored position is. */
static int follow(chron_merge *m, int sync)
{
    for (uint32_t i = 0; i < m->source_count; i++) {
        chron__source *s = m->sources[i];
        int status;

        if (!s->reader || chron_reader_committed(s->reader) == s->stored.from)
            continue;
        status = chron_reader_commit_upto(s->reader, s->stored.from, sync);
        if (status < 0)
            return chron__merge_blame(m, s, status);
    }
    return 0;
}

int chron_merge_commit(chron_merge *m, size_t left, int sync)
{
    int status = chron__merge_enter(m);

    if (status < 0)
        return status;
    m->failed = -1;
    if (!m->name || m->store.fd < 0)
        return m->name ? 0 : chron__fail(CHRON_EREADONLY, "a merge without a name has no position to store");
    if (left > m->handed_count)
        return chron__fail(CHRON_EINVAL, "%zu records were not in the last batch, which had %zu", left,
                           m->handed_count);
    status = find_places(m, left);
    if (status == 0) {
        encode(m, left);
        status = chron__store_write(&m->store, sync);
    }
    for (uint32_t i = 0; i < m->source_count; i++) {
        chron__source *s = m->sources[i];
        chron__progress *unused = status == 0 ? &s->stored : &s->next;

        if (!s->reader)
            continue;
        free(unused->done);
        if (status == 0)
            s->stored = s->next;
        s->next = (chron__progress){.done = NULL};
    }
    return status < 0 ? status : follow(m, sync);
}

/* ------------------------------------------------------------------------------------- its return */

static int is_damaged(const chron_merge *m)
{
    return chron__fail(CHRON_ECORRUPT,
                       "%s has a CRC that matches, and makes no sense: remove it, and open the merge with a "
                       "start other than resume",
                       m->store.file);
}

/* One source, from `at` on. Returns where it ends; 0: it makes no sense, or negative: a status. */
static int64_t restore_source(chron_merge *m, const chron__bytes *b, size_t at)
{
    const uint8_t *from = b->at + at;
    chron__source *s;
    uint64_t last;
    size_t done_count;
    size_t path_bytes;
    char *path;
    int status;

    if (b->count - at < SOURCE_BYTES)
        return 0;
    done_count = chron__read_le32(from + 40);
    path_bytes = chron__read_le32(from + 44);
    at += SOURCE_BYTES;
    if (done_count > (b->count - at) / 16u || path_bytes > PATH_MAX_BYTES ||
        path_bytes + 7u > b->count - at - 16u * done_count + 7u)
        return 0;
    path = chron__copy_text((const char *)from + SOURCE_BYTES + 16u * done_count, path_bytes);
    status = path ? chron__merge_new_source(m, path, &s) : chron__fail(CHRON_ENOMEM, "no memory for a path");
    free(path);
    if (status < 0)
        return status;
    memcpy(s->uuid, from, sizeof s->uuid);
    s->stored.from = chron__read_le64(from + 16);
    s->stored.promise = chron__read_le64(from + 24);
    s->stop = chron__read_le64(from + 32);
    s->stored.done = malloc((done_count + 1u) * sizeof *s->stored.done);
    if (!s->stored.done)
        return chron__fail(CHRON_ENOMEM, "no memory for the position of the merge");
    last = s->stored.from;
    for (size_t i = 0; i < done_count; i++) {
        chron__range *r = &s->stored.done[i];

        r->begin = chron__read_le64(from + SOURCE_BYTES + 16u * i);
        r->end = chron__read_le64(from + SOURCE_BYTES + 16u * i + 8u);
        if (r->begin < last || r->end <= r->begin)
            return 0;
        last = r->end;
    }
    s->stored.done_count = done_count;
    m->missing += s->stored.from != CHRON_SEQ_NONE;
    m->unfinished |= s->stop != CHRON_SEQ_NONE && s->stored.from < s->stop;
    return (int64_t)(at + 16u * done_count + (path_bytes + 7u) / 8u * 8u);
}

static int restore(chron_merge *m, const chron__bytes *b)
{
    size_t at = 24;
    uint32_t count;

    if (b->count == 0) /* nothing was ever stored */
        return 0;
    if (b->count < at)
        return is_damaged(m);
    if (chron__read_le64(b->at + 8) != m->options.lateness_ns || chron__read_le32(b->at + 16) != m->options.order)
        return chron__fail(
            CHRON_EINVAL,
            "%s is the position of a merge with %s and a lateness of %llu ns: only with these does it go "
            "on in the same order",
            m->store.file, chron__read_le32(b->at + 16) ? "order append" : "order timestamp",
            (unsigned long long)chron__read_le64(b->at + 8));
    m->reached = chron__read_le64(b->at);
    count = chron__read_le32(b->at + 20);
    for (uint32_t i = 0; i < count; i++) {
        int64_t end = restore_source(m, b, at);

        if (end < 0)
            return (int)end;
        if (end == 0 || (size_t)end > b->count)
            return is_damaged(m);
        at = (size_t)end;
    }
    return 0;
}

int chron__merge_restore(chron_merge *m, const char *first_path)
{
    char *home = m->home;
    int status;

    if (!home) {
        home = malloc(strlen(first_path) + sizeof "/" CHRON__DIR_READERS);
        if (!home)
            return chron__fail(CHRON_ENOMEM, "no memory for a path");
        memcpy(home, first_path, strlen(first_path));
        memcpy(home + strlen(first_path), "/" CHRON__DIR_READERS, sizeof "/" CHRON__DIR_READERS);
    }
    status = chron__store_open(&m->store, home, m->name);
    if (status == 0)
        status = restore(m, &m->store.bytes);
    if (home != m->home)
        free(home);
    if (status < 0) {
        chron__store_close(&m->store, 0);
        chron__merge_forget_sources(m);
    }
    return status;
}
