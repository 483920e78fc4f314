/* SPDX-License-Identifier: MIT */
/*
 * add.c - sources of a merge: adding one, where it begins and ends, and taking it out.
 *
 * Invariant: a source is known by the uuid of its queue. Its index, which decides between equal places, is the one that the
 * stored position gave it.
 */
#include "merge/merge.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/struct.h"

static chron__source *find(const chron_merge *m, const uint8_t *uuid)
{
    for (uint32_t i = 0; i < m->source_count; i++)
        if (memcmp(m->sources[i]->uuid, uuid, sizeof m->sources[i]->uuid) == 0)
            return m->sources[i];
    return NULL;
}

/* A source's queue, before it is one. */
typedef struct newcomer {
    const char *path;
    chron_merge_source how;
    chron_queue_info info;
    chron_reader *reader;
    uint64_t end; /* what can be read of it now goes up to here */
} newcomer;

static int look(const chron_merge *m, newcomer *n)
{
    const chron__source *same;
    int status;

    n->info.struct_size = sizeof n->info;
    status = chron_queue_info_get(n->path, &n->info);
    if (status < 0)
        return status;
    n->end = n->info.next_seq;
    if (m->options.flags & CHRON_DURABLE_ONLY)
        n->end = n->info.durable_seq + 1u; /* of none it is 0 */
    same = find(m, n->info.uuid);
    if (same && same->reader)
        return chron__fail(CHRON_EINVAL, "%s is a source of this merge already, as %s, or is a copy of it", n->path,
                           same->path);
    if (!chron__merge_is_live(m) && n->how.has_stop && n->how.stop > n->end)
        return chron__fail(CHRON_EINVAL, "%s ends at seq %" PRIu64 ": it cannot be read up to %" PRIu64, n->path,
                           n->end, n->how.stop);
    return 0;
}

static int open_reader(const chron_merge *m, newcomer *n)
{
    const chron_reader_options options = {.struct_size = sizeof options,
                                          .flags = m->options.flags & (CHRON_ALLOW_NETFS | CHRON_DURABLE_ONLY),
                                          .name = m->name,
                                          .start = n->how.start,
                                          .on_gap = m->options.on_gap,
                                          .wait = CHRON_WAIT_SLEEP,
                                          .start_value = n->how.start_value};

    return chron_reader_open(n->path, &options, &n->reader);
}

/* Where it goes on: at the stored position, or further, if the reader is (a loss of power has taken the position back). */
static int resume(chron__source *s, const newcomer *n)
{
    uint64_t committed = chron_reader_committed(n->reader);
    uint64_t from = s->stored.from;
    int status;

    if (committed != CHRON_SEQ_NONE && committed > from)
        from = committed;
    status = from == chron_reader_position(n->reader) ? 0 : chron_reader_seek(n->reader, from);
    if (status < 0)
        return status;
    s->done = malloc((s->stored.done_count + 1u) * sizeof *s->done);
    if (!s->done)
        return chron__fail(CHRON_ENOMEM, "no memory for the position of the merge");
    memcpy(s->done, s->stored.done, s->stored.done_count * sizeof *s->done);
    s->done_count = s->stored.done_count;
    s->promise = s->stored.promise;
    return 0;
}

/* Where it ends. */
static uint64_t stop_of(const chron_merge *m, const chron__source *s, const newcomer *n)
{
    if (n->how.has_stop)
        return n->how.stop;
    if (chron__merge_is_live(m))
        return CHRON_SEQ_NONE;
    return m->unfinished && s->stored.from != CHRON_SEQ_NONE && s->stop != CHRON_SEQ_NONE ? s->stop : n->end;
}

/* Its reader has a position of which the merge's one knows nothing. */
static int check_unknown(const chron_merge *m, const newcomer *n)
{
    if (!m->name || n->how.start != CHRON_START_RESUME || chron_reader_committed(n->reader) == CHRON_SEQ_NONE)
        return 0;
    return chron__fail(CHRON_EINVAL,
                       "%s has a position of %s, and %s knows nothing of it: give the home that the merge had (that is "
                       "readers/ of its first source, if there was none), another name, or another start",
                       n->path, m->name, m->store.file);
}

/* Fill in the source that the newcomer becomes; it takes over the reader. */
static int seat(chron_merge *m, chron__source *s, newcomer *n)
{
    char *path = chron__copy_text(n->path, strlen(n->path));
    int status = 0;

    s->chunk = path ? calloc(1, sizeof *s->chunk) : NULL;
    if (!s->chunk) {
        free(path);
        return chron__fail(CHRON_ENOMEM, "no memory for another source");
    }
    s->promise = m->reached;
    if (s->stored.from != CHRON_SEQ_NONE && n->how.start == CHRON_START_RESUME)
        status = resume(s, n);
    if (status < 0) {
        free(path);
        free(s->chunk);
        s->chunk = NULL;
        return status;
    }
    if (m->reached > s->promise)
        s->promise = m->reached;
    free(s->path);
    s->path = path;
    s->stop = stop_of(m, s, n);
    s->ended = s->flush = s->idle = 0;
    s->done_at = 0;
    m->missing -= s->stored.from != CHRON_SEQ_NONE && !s->dropped;
    s->dropped = 0;
    memcpy(s->uuid, n->info.uuid, sizeof s->uuid);
    s->reader = n->reader;
    (void)chron_reader_bell(s->reader, &s->bell); /* without one it is looked at now and then */
    chron__merge_join(m, s);
    return 0;
}

static int64_t add(chron_merge *m, newcomer *n)
{
    chron__source *s;
    int status = look(m, n);

    if (status == 0)
        status = open_reader(m, n);
    if (status == 0 && m->name && m->store.fd < 0)
        status = chron__merge_restore(m, n->path);
    if (status < 0)
        goto out;
    s = find(m, n->info.uuid);
    if (!s) {
        status = check_unknown(m, n);
        if (status == 0)
            status = chron__merge_new_source(m, n->path, &s);
    }
    if (status == 0)
        status = seat(m, s, n);
    if (status == 0)
        return s->index;
out:
    if (status < 0) {
        /* The failure is the caller's to see, not what closing may say. */
        const chron_error error = *chron_last_error();

        (void)chron_reader_close(n->reader);
        *chron__error() = error;
    }
    return status;
}

int64_t chron_merge_add(chron_merge *m, const char *path, const chron_merge_source *how)
{
    newcomer n = {.path = path, .reader = NULL};
    int status = chron__merge_enter(m);

    if (status < 0)
        return status;
    if (!path)
        return chron__fail(CHRON_EINVAL, "the path is NULL");
    m->failed = -1;
    if (m->begun && !chron__merge_is_live(m))
        return chron__fail(CHRON_EBUSY,
                           "records were read already: further sources would have come in between. Only a live "
                           "merge takes them at any time");
    status = how ? chron__struct_take("chron_merge_source", how, &n.how, sizeof n.how) : 0;
    if (status == 0 && (n.how.reserved || n.how.has_stop > 1u))
        status = chron__fail(CHRON_EINVAL, "has_stop is 0 or 1, and reserved 0");
    return status < 0 ? status : add(m, &n);
}

int chron_merge_drop(chron_merge *m, uint32_t source)
{
    int status = chron__merge_enter(m);
    chron__source *s;

    if (status < 0)
        return status;
    s = chron__merge_present(m, source);
    if (!s)
        return -CHRON_ERANGE;
    chron__merge_leave(m, source);
    chron__source_close(s);
    s->dropped = 1;
    s->idle = 0;
    return 0;
}

int64_t chron_merge_skip_damaged(chron_merge *m, uint32_t source)
{
    int status = chron__merge_enter(m);
    chron__source *s;
    int64_t skipped;

    if (status < 0)
        return status;
    s = chron__merge_present(m, source);
    if (!s)
        return -CHRON_ERANGE;
    skipped = chron_reader_skip_damaged(s->reader);
    return skipped < 0 ? chron__merge_blame(m, s, (int)skipped) : skipped;
}
