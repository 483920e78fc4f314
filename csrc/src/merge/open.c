/* SPDX-License-Identifier: MIT */
/*
 * open.c - opening and closing a merge, and what it says of its sources.
 */
#include "merge/merge.h"

#include <stdlib.h>
#include <string.h>

#include "base/struct.h"

#define ROOM_MIN 8u

static int check_options(const chron_merge_options *o)
{
    const uint32_t known = CHRON_MERGE_LIVE | CHRON_MERGE_MISSING | CHRON_ALLOW_NETFS | CHRON_DURABLE_ONLY;

    if (o->flags & ~known)
        return chron__fail(CHRON_EINVAL, "unknown flags 0x%x", (unsigned)(o->flags & ~known));
    if (o->order > CHRON_MERGE_APPEND)
        return chron__fail(CHRON_EINVAL, "order %u does not exist", (unsigned)o->order);
    if (o->order == CHRON_MERGE_APPEND && o->lateness_ns)
        return chron__fail(CHRON_EINVAL,
                           "a lateness is for CHRON_MERGE_TIMESTAMP: in order of appending nothing is sorted in");
    if (o->on_gap > CHRON_GAP_LATEST)
        return chron__fail(CHRON_EINVAL, "on_gap %u does not exist", (unsigned)o->on_gap);
    if (o->home && !o->name)
        return chron__fail(CHRON_EINVAL, "a home is for the stored position of a merge that has a name");
    return 0;
}

static int take_names(chron_merge *m)
{
    const chron_merge_options *o = &m->options;

    m->name = o->name ? chron__copy_text(o->name, strlen(o->name)) : NULL;
    m->home = o->home ? chron__copy_text(o->home, strlen(o->home)) : NULL;
    if ((o->name && !m->name) || (o->home && !m->home))
        return chron__fail(CHRON_ENOMEM, "no memory for a merge");
    m->options.name = NULL;
    m->options.home = NULL;
    return 0;
}

/* The name becomes a file's, before any reader is opened who would look at it. */
static int check_name(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t length = name ? strlen(name) : 1;

    if (!name || (length >= 1 && length <= CHRON_READER_NAME_MAX && name[0] != '.' && strspn(name, allowed) == length))
        return 0;
    return chron__fail(
        CHRON_EINVAL,
        "\"%.80s\" cannot be a merge's name: use 1 to %d of A-Z a-z 0-9 . _ - and do not begin with a dot", name,
        CHRON_READER_NAME_MAX);
}

int chron_merge_open(const chron_merge_options *options, chron_merge **out)
{
    chron_merge *m;
    int status;

    if (!out)
        return chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    *out = NULL;
    chron__fork_watch();
    m = calloc(1, sizeof *m);
    if (!m)
        return chron__fail(CHRON_ENOMEM, "no memory for a merge");
    m->fork_count = chron__get32(&chron__fork_count);
    m->failed = -1;
    m->store = (chron__store){.dir = -1, .fd = -1, .lock = {.fd = -1}};
    status = options ? chron__struct_take("chron_merge_options", options, &m->options, sizeof m->options) : 0;
    if (status == 0)
        status = check_options(&m->options);
    if (status == 0)
        status = check_name(m->options.name);
    if (status == 0)
        status = take_names(m);
    if (status == 0)
        status = chron_bell_new(&m->bell);
    if (status < 0) {
        chron_merge_close(m);
        return status;
    }
    *out = m;
    return 0;
}

static int grow(chron_merge *m)
{
    uint32_t room = m->source_room ? 2u * m->source_room : ROOM_MIN;
    chron__source **sources;
    chron__contender *heap;
    uint32_t *idle;

    if (m->source_count == CHRON__SOURCES_MAX)
        return chron__fail(CHRON_EFULL, "a merge has %u sources at most", CHRON__SOURCES_MAX);
    sources = realloc(m->sources, room * sizeof *sources);
    if (sources)
        m->sources = sources;
    heap = realloc(m->heap, room * sizeof *heap);
    if (heap)
        m->heap = heap;
    idle = realloc(m->idle, room * sizeof *idle);
    if (idle)
        m->idle = idle;
    if (!sources || !heap || !idle)
        return chron__fail(CHRON_ENOMEM, "no memory for so many sources");
    m->source_room = room;
    return 0;
}

int chron__merge_new_source(chron_merge *m, const char *path, chron__source **out)
{
    int status = m->source_count == m->source_room ? grow(m) : 0;
    chron__source *s;

    if (status < 0)
        return status;
    s = calloc(1, sizeof *s);
    if (s)
        s->path = chron__copy_text(path, strlen(path));
    if (!s || !s->path) {
        free(s);
        return chron__fail(CHRON_ENOMEM, "no memory for another source");
    }
    s->index = m->source_count;
    s->lateness_ns = m->options.lateness_ns;
    s->stored.from = CHRON_SEQ_NONE;
    s->stop = CHRON_SEQ_NONE;
    s->spent = &m->spent;
    m->sources[m->source_count++] = s;
    *out = s;
    return 0;
}

void chron__merge_forget_sources(chron_merge *m)
{
    for (uint32_t i = 0; i < m->source_count; i++) {
        chron__source *s = m->sources[i];

        chron__source_close(s);
        free(s->stored.done);
        free(s->path);
        free(s);
    }
    m->source_count = 0;
    m->missing = 0;
    m->unfinished = 0;
    m->reached = 0;
}

void chron_merge_close(chron_merge *m)
{
    if (!m)
        return;
    chron__merge_forget_sources(m); /* their readers know whether they are those of a parent */
    chron__holds_free(&m->spent);
    chron__store_close(&m->store, m->fork_count != chron__get32(&chron__fork_count));
    chron_bell_release(m->bell);
    free(m->sources);
    free(m->heap);
    free(m->idle);
    free(m->handed);
    free(m->name);
    free(m->home);
    free(m);
}

/* ----------------------------------------------------------------------------------- of itself */

int64_t chron_merge_failed(const chron_merge *m)
{
    return m ? m->failed : -1;
}

uint32_t chron_merge_sources(const chron_merge *m)
{
    return m ? m->source_count : 0;
}

const char *chron_merge_path(const chron_merge *m, uint32_t source)
{
    return m && source < m->source_count ? m->sources[source]->path : NULL;
}

static int fail_source(const chron_merge *m, uint32_t source)
{
    return chron__fail(CHRON_ERANGE, "there is no source %u in this merge, which has %u", (unsigned)source,
                       (unsigned)m->source_count);
}

chron__source *chron__merge_present(const chron_merge *m, uint32_t index)
{
    if (index < m->source_count && m->sources[index]->reader)
        return m->sources[index];
    (void)fail_source(m, index);
    return NULL;
}

/* All below this was handed out. */
static uint64_t position_of(const chron__source *s)
{
    uint64_t at;

    if (!s->reader)
        return s->stored.from;
    at = chron__source_next_seq(s);
    if (s->run_count && s->run[s->run_at].seq < at)
        at = s->run[s->run_at].seq;
    for (size_t i = 0; i < s->stray_count; i++)
        if (s->strays[i].seq < at)
            at = s->strays[i].seq;
    return at;
}

int chron_merge_source_get(const chron_merge *m, uint32_t source, chron_merge_source_info *out)
{
    int status =
        m ? chron__struct_check("chron_merge_source_info", out) : chron__fail(CHRON_EINVAL, "the merge is NULL");
    chron_reader_stats stats = {.struct_size = sizeof stats};
    chron_merge_source_info told;
    const chron__source *s;

    if (status < 0)
        return status;
    if (source >= m->source_count)
        return fail_source(m, source);
    s = m->sources[source];
    told = s->told;
    told.present = s->reader != NULL;
    told.ended = (uint32_t)(s->reader && s->ended);
    told.idle = (uint32_t)s->idle;
    told.position = position_of(s);
    told.stop = s->stop;
    if (s->reader && chron_reader_stats_get(s->reader, &stats) == 0)
        told.skipped = stats.skipped;
    chron__struct_give(&told, sizeof told, out);
    return 0;
}
