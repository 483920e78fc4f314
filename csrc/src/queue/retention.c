/* SPDX-License-Identifier: MIT */
/*
 * retention.c - deleting segments. Only sealed ones, oldest first, and the first one that is kept keeps all
 * behind it: a log never gets a hole.
 *
 * Two reasons to delete: every registered reader that counts has committed past the segment, or a limit asks
 * for it. Two passes: fates are decided first, from one look at the directory and the position files, and
 * carried out then. A reader that registers in between has, at worst, no record before the oldest that is
 * left: it is told so by CHRON_EGONE.
 *
 * How old something is: see format/moment.h. A stamp that lies in the future counts as now: as the time of the next
 * segment that has a better one, or of this process.
 *
 * A writer cleans up at each roll, or once a second. It does no work then for each segment that stays (chron__front: a seal
 * tells where the next segment begins), and waits for the disk only if something goes.
 *
 * Nothing is mapped: a header and a seal are in the first page of each file.
 */
#include "queue/retention.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/header.h"
#include "format/moment.h"
#include "format/position.h"
#include "format/segment.h"
#include "format/summary_file.h"
#include "queue/kept.h"
#include "queue/newest.h"
#include "queue/rebuild.h"

#define NS_PER_MS 1000000u
#define LATER_MAX 64u /* segments that are asked how old they are, instead of one that cannot tell */

typedef struct look {
    const chron__queue *q;
    const chron__cleaning *cleaning;
    const chron_retention *limits;
    chron__bases bases; /* in front of the end: not all of them, if cleaning->front is used */
    chron__registered_list readers;
    const chron__registered *slowest; /* of those that count; NULL: none */
    const chron__registered *damaged; /* one of those that count and whose position cannot be read; NULL: none */
    uint64_t end_seq;                 /* seq behind the last record */
    uint64_t active_base;             /* base_seq of the last segment */
    uint64_t snapshot_base; /* base_seq of the first that is kept for a snapshot; CHRON_SEQ_NONE: there is none */
    chron__moment now;
    size_t left; /* segments, of which those that were decided to go are taken off */
    const chron__front *front;
} look;

/* What the first page of a segment says, or else what follows from the one behind it. */
typedef struct summary {
    int sealed;
    chron__moment at;  /* when */
    uint64_t next_seq; /* behind it */
} summary;

static int read_page(const look *l, uint64_t base_seq, char *name, uint8_t *page)
{
    chron__segment_name(base_seq, name);
    return chron__read_file(l->q->io, l->q->dir, name, page, CHRON__PAGE) == CHRON__PAGE;
}

/* When segment `base_seq` was made, which was when the one before it was left; now, if it does not tell. */
static chron__moment made_at(const look *l, uint64_t base_seq)
{
    uint8_t page[CHRON__PAGE];
    char name[CHRON__NAME_BYTES];
    chron__file_header header;

    if (!read_page(l, base_seq, name, page) ||
        chron__header_decode(page, CHRON__MAGIC_SEGMENT, l->q->uuid, name, &header) < 0)
        return l->now;
    return (chron__moment){.clock_ns = header.created_ns};
}

/*
 * A segment that is not the last. A seal is advice: where it cannot be believed, the segment was left all the same, if the
 * next one is there. Only the one before the last may be about to get its seal.
 */
static void summarize(const look *l, uint64_t base_seq, summary *out)
{
    uint8_t page[CHRON__PAGE];
    char name[CHRON__NAME_BYTES];
    chron__seal_value seal;
    int sealed = read_page(l, base_seq, name, page) ? chron__seal_decode(page, base_seq, &seal) : -1;
    size_t next = (size_t)(chron__bases_find(&l->bases, base_seq) + 1);

    memset(out, 0, sizeof *out);
    if (sealed == 1) {
        *out = (summary){.sealed = 1, .at = seal.sealed, .next_seq = seal.last_seq + 1u};
    } else if (!l->front && next < l->bases.count && (sealed < 0 || next + 1u < l->bases.count)) {
        *out = (summary){.sealed = 1, .at = made_at(l, l->bases.at[next]), .next_seq = l->bases.at[next]};
    }
}

/* How long ago was segment i sealed? That of `sum`, which is sealed. */
static uint64_t age_ns(const look *l, size_t i, const summary *sum)
{
    summary later = *sum;
    uint64_t age = 0;

    /* Those behind it are younger. */
    for (size_t tries = 0; tries < LATER_MAX && later.sealed; tries++) {
        if (chron__moment_age(&later.at, &l->now, &age))
            return age;
        if (++i < l->bases.count)
            summarize(l, l->bases.at[i], &later);
        else if (l->front && later.next_seq != l->active_base)
            summarize(l, later.next_seq, &later);
        else
            break;
    }
    return chron__running_ns();
}

static int is_ignored(const look *l, const chron__registered *one)
{
    const chron_retention *limits = l->limits;
    const chron__moment at = {.clock_ns = one->value.time_ns, .boot_ns = one->value.boot_ns, .boot = one->value.boot};
    uint64_t from = chron__registered_passed(one);
    uint64_t silent_ns;

    if (!chron__moment_age(&at, &l->now, &silent_ns))
        silent_ns = chron__running_ns();
    if (limits->reader_ttl_ms && !one->alive && at.clock_ns != 0 && silent_ns / NS_PER_MS >= limits->reader_ttl_ms)
        return 1;
    return limits->max_reader_lag && l->end_seq > from && l->end_seq - from > limits->max_reader_lag;
}

/* Who counts, and who of them holds the most. */
static void weigh_readers(look *l, chron_cleanup *out)
{
    l->slowest = l->damaged = NULL;
    out->readers = out->readers_ignored = 0;
    for (size_t i = 0; i < l->readers.count; i++) {
        const chron__registered *one = &l->readers.at[i];

        out->readers++;
        if (is_ignored(l, one)) {
            out->readers_ignored++;
        } else if (one->damaged) {
            l->damaged = one; /* holds everything: nobody knows how far it came */
        } else if (!l->slowest || chron__registered_passed(one) < chron__registered_passed(l->slowest)) {
            l->slowest = one;
        }
    }
}

/* Does a limit ask for the deletion of the oldest segment that is left? A CHRON_GONE_... reason, or -1. */
static int over_limit(const look *l, const chron_segment_fate *fate)
{
    const chron_retention *limits = l->limits;

    if (limits->max_segments && l->left > limits->max_segments)
        return CHRON_GONE_SEGMENTS;
    if (limits->max_bytes && l->left > limits->max_bytes / l->q->segment_size)
        return CHRON_GONE_BYTES;
    if (limits->max_age_ms && fate->age_ms >= limits->max_age_ms)
        return CHRON_GONE_AGE;
    return -1;
}

static void decide(const look *l, size_t i, const summary *sum, chron_segment_fate *fate)
{
    int reason;

    fate->age_ms = age_ns(l, i, sum) / NS_PER_MS;
    fate->clock_ms = (int64_t)(l->now.clock_ns - sum->at.clock_ns) / NS_PER_MS - (int64_t)fate->age_ms;
    reason = over_limit(l, fate);
    if (fate->base_seq >= l->snapshot_base) {
        fate->reason = CHRON_KEPT_SNAPSHOT;
    } else if (reason >= 0) {
        fate->reason = (uint32_t)reason;
    } else if (l->damaged) {
        fate->reason = CHRON_KEPT_DAMAGED;
        fate->sys_errno = chron__registered_errno(l->damaged);
        (void)snprintf(fate->reader, sizeof fate->reader, "%s", l->damaged->name);
    } else if (l->readers.count == 0) {
        fate->reason = CHRON_KEPT_NO_READERS;
    } else if (l->slowest && chron__registered_passed(l->slowest) < fate->next_seq) {
        fate->reason = CHRON_KEPT_READER;
        (void)snprintf(fate->reader, sizeof fate->reader, "%s", l->slowest->name);
    } else {
        CHRON__ASSERT(!l->slowest || chron__registered_passed(l->slowest) >= fate->next_seq);
        fate->reason = CHRON_GONE_CONSUMED; /* by all that count: the others are ignored by a limit */
    }
}

/* Fate of segment i, without regard to those in front. */
static void examine(const look *l, size_t i, chron_segment_fate *fate)
{
    summary sum;

    memset(fate, 0, sizeof *fate);
    fate->base_seq = l->bases.at[i];
    fate->next_seq = l->end_seq;
    fate->bytes = l->q->segment_size;
    fate->reason = CHRON_KEPT_ACTIVE;
    if (fate->base_seq == l->active_base)
        return;
    summarize(l, fate->base_seq, &sum);
    if (i + 1u < l->bases.count)
        fate->next_seq = l->bases.at[i + 1u];
    else if (sum.sealed)
        fate->next_seq = sum.next_seq;
    if (sum.sealed)
        decide(l, i, &sum, fate);
}

static int goes(const chron_segment_fate *fate)
{
    return fate->reason >= CHRON_GONE_CONSUMED && fate->reason <= CHRON_GONE_AGE;
}

static int delete_segment(const look *l, uint64_t base_seq)
{
    char name[CHRON__NAME_BYTES];
    int status;

    chron__segment_name(base_seq, name);
    CHRON__STEP("retention: before unlink");
    if (l->cleaning->take && l->cleaning->take(l->cleaning->context, base_seq, name))
        return 0;
    status = l->q->io->unlink(l->q->io, l->q->dir, name);
    if (status == -ENOENT)
        return 0;
    return status < 0 ? chron__fail_sys(status, name, "cannot delete %s", name) : 0;
}

/* Readers whose committed position lies before what is left, with records in between. */
static uint64_t count_behind(const look *l, uint64_t first_deleted, uint64_t oldest)
{
    uint64_t behind = 0;

    for (size_t i = 0; i < l->readers.count; i++) {
        const chron__registered *one = &l->readers.at[i];

        if (!one->damaged && chron__registered_passed(one) < oldest && oldest > first_deleted)
            behind++;
    }
    return behind;
}

/* All of them; `gone` becomes the number of those that go, which are the first ones. */
static void decide_all(look *l, const chron__array *fates, size_t *gone)
{
    for (size_t i = 0; i < l->bases.count; i++) {
        chron_segment_fate fate;

        examine(l, i, &fate);
        if (goes(&fate) && *gone < i)
            fate.reason = CHRON_KEPT_EARLIER;
        if (goes(&fate)) {
            (*gone)++;
            l->left--;
        }
        if (fates)
            chron__array_put(fates, i, &fate, sizeof fate);
    }
}

/*
 * Those in front that go, and the first that stays. 0; or -ENOENT if the segments are not what the seals say: then a look
 * at the directory is needed.
 */
static int decide_front(look *l, size_t *gone)
{
    chron_segment_fate fate;
    int status;

    for (;;) {
        examine(l, *gone, &fate);
        if (fate.next_seq <= fate.base_seq) /* a seal that tells of no records: none was written like that */
            return fate.base_seq == l->active_base ? 0 : -ENOENT;
        if (!goes(&fate)) /* what is not sealed, and not the last, is damaged, missing, or kept for another reason */
            return fate.reason == CHRON_KEPT_ACTIVE && fate.base_seq != l->active_base ? -ENOENT : 0;
        status = chron__bases_add(&l->bases, fate.next_seq);
        if (status < 0)
            return status;
        (*gone)++;
        l->left--;
    }
}

static int is_known_safe(const chron__retention_memory *memory, const chron__registered *one, uint64_t oldest)
{
    for (size_t i = 0; memory && i < memory->count; i++)
        if (strcmp(memory->safe[i].name, one->name) == 0)
            return memory->safe[i].generation <= one->value.generation && memory->safe[i].next_seq >= oldest;
    return 0;
}

/* Remember it, where there is room; else it is synced once more, the next time. */
static void note_safe(chron__retention_memory *memory, const chron__registered *one)
{
    size_t i = 0;

    if (!memory)
        return;
    while (i < memory->count && strcmp(memory->safe[i].name, one->name) != 0)
        i++;
    if (i == memory->count) {
        chron__safe *at = realloc(memory->safe, (i + 1u) * sizeof *at);

        if (!at)
            return;
        memory->safe = at;
        memory->count++;
        (void)snprintf(at[i].name, sizeof at[i].name, "%s", one->name);
    }
    memory->safe[i].generation = one->value.generation;
    memory->safe[i].next_seq = chron__registered_passed(one);
}

/*
 * Segments below `oldest` are about to go. Positions behind them have to be on disk before, so that no loss of power puts a
 * reader back to what is not there any more.
 */
static int sync_positions(const look *l, uint64_t oldest)
{
    int status = 0;

    for (size_t i = 0; status == 0 && i < l->readers.count; i++) {
        const chron__registered *one = &l->readers.at[i];

        if (one->damaged || chron__registered_passed(one) < oldest || is_known_safe(l->cleaning->memory, one, oldest))
            continue;
        status = chron__registered_sync(l->q, one->name);
        if (status == 0)
            note_safe(l->cleaning->memory, one);
    }
    return status;
}

static int carry_out(const look *l, size_t gone, chron_cleanup *out)
{
    int status = l->cleaning->sync_positions ? sync_positions(l, l->bases.at[gone]) : 0;
    int synced;

    for (size_t i = 0; status == 0 && i < gone; i++) {
        CHRON__ASSERT(l->bases.at[i] < l->bases.at[i + 1u]); /* oldest first, never the one that is appended to */
        status = delete_segment(l, l->bases.at[i]);
        if (status == 0) {
            out->deleted_segments++;
            out->oldest_seq = l->bases.at[i + 1u];
        }
    }
    if (out->deleted_segments > 0)
        chron__summaries_remove(l->q, l->bases.at, (size_t)out->deleted_segments);
    if (out->deleted_segments == 0 || l->q->fs & CHRON__FS_VOLATILE)
        return status;
    synced = l->q->io->sync_dir(l->q->io, l->q->dir);
    if (synced < 0 && status == 0)
        status = chron__fail_sys(synced, "", "cannot put the deletion of segments on disk");
    return status;
}

/* Carry out, or only tell, that the first `gone` segments go. */
static int finish(look *l, size_t gone, chron_cleanup *out)
{
    int status = 0;

    out->oldest_seq = l->bases.at[0];
    if (l->cleaning->delete_too && gone > 0) {
        status = carry_out(l, gone, out);
    } else if (gone > 0) {
        out->deleted_segments = gone;
        out->oldest_seq = l->bases.at[gone];
    }
    out->deleted_bytes = out->deleted_segments * l->q->segment_size;
    out->segments = status < 0 ? out->deleted_segments : l->left + gone;
    out->readers_behind = count_behind(l, l->bases.at[0], out->oldest_seq);
    if (l->cleaning->memory) {
        l->cleaning->memory->oldest_base = out->oldest_seq;
        l->cleaning->memory->known = status == 0;
    }
    return status;
}

/* As the writer knows its segments. 1: *gone is decided; 0: the directory has to be looked at; or a failure. */
static int try_front(look *l, chron_cleanup *out, size_t *gone)
{
    const chron__cleaning *c = l->cleaning;
    int status;

    if (!c->front || !c->memory || !c->memory->known || l->limits->keep_snapshot)
        return 0;
    l->front = c->front;
    l->end_seq = c->front->next_seq;
    l->active_base = c->front->active_base;
    l->left = c->front->segments;
    weigh_readers(l, out);
    status = chron__bases_add(&l->bases, c->memory->oldest_base);
    if (status == 0)
        status = decide_front(l, gone);
    if (status == 0)
        return 1;
    chron__bases_free(&l->bases);
    l->front = NULL;
    *gone = 0;
    return status == -ENOENT ? 0 : chron__fail_sys(status, "", "cannot list the queue's segments");
}

/* What was searched before is not searched again: sealed segments get no new records. */
static int find_snapshot(look *l)
{
    chron__retention_memory *memory = l->cleaning->memory;
    const uint64_t searched = memory ? memory->searched_base : 0;
    int status = chron__newest_snapshot(l->q, &l->bases, searched, &l->snapshot_base);

    if (status < 0)
        return status;
    if (status == 0)
        l->snapshot_base = searched ? memory->snapshot_base : CHRON_SEQ_NONE;
    if (memory) {
        memory->snapshot_base = l->snapshot_base;
        memory->searched_base = l->active_base;
    }
    return 0;
}

static int list_all(look *l, const chron__array *fates, chron_cleanup *out, size_t *gone)
{
    int status = chron__queue_list(l->q, &l->bases);

    if (status < 0 || l->bases.count == 0)
        return status;
    l->left = l->bases.count;
    l->active_base = l->bases.at[l->bases.count - 1u];
    status = chron__log_end(l->q, NULL, &l->end_seq);
    if (status == 0 && l->limits->keep_snapshot)
        status = find_snapshot(l);
    weigh_readers(l, out);
    if (status == 0)
        decide_all(l, fates, gone);
    return status;
}

int chron__retention_apply(const chron__queue *q, const chron__cleaning *cleaning, chron_cleanup *out,
                           const chron__array *fates)
{
    look l = {.q = q, .cleaning = cleaning, .limits = cleaning->limits, .snapshot_base = CHRON_SEQ_NONE};
    size_t gone = 0;
    int status;

    memset(out, 0, sizeof *out);
    chron__moment_now(&l.now);
    /* Positions first: what they allowed a moment ago they still allow when the segments are looked at. */
    status = chron__registered_load(q, &l.readers);
    if (status == 0)
        status = try_front(&l, out, &gone);
    if (status == 0)
        status = list_all(&l, fates, out, &gone);
    if (status >= 0 && l.bases.count)
        status = finish(&l, gone, out);
    chron__bases_free(&l.bases);
    chron__registered_free(&l.readers);
    return status < 0 ? status : 0;
}

void chron__retention_forget(chron__retention_memory *memory)
{
    free(memory->safe);
    memset(memory, 0, sizeof *memory);
}

int chron__cleanup_check(const chron_cleanup *out, chron_segment_fate *fates, size_t capacity, chron__array *array)
{
    int status = out ? chron__struct_check("chron_cleanup", out) : 0;

    return status < 0 ? status : chron__array_take("chron_segment_fate", fates, fates ? capacity : 0, array);
}

static int plan_all(const chron__queue *q, const chron_retention *retention, chron_cleanup *out,
                    const chron__array *fates)
{
    const chron__kept_limits kept = chron__kept_limits_of(q, retention, 0);
    chron_retention limits = *retention;
    const chron__cleaning cleaning = {.limits = &limits};
    chron_cleanup quarantine = {0};
    int status = chron__kept_trim(q, &kept, 0, &quarantine);

    if (status < 0)
        return status;
    chron__kept_count(&limits, quarantine.quarantine_bytes);
    status = chron__retention_apply(q, &cleaning, out, fates);
    chron__kept_report(&quarantine, out);
    return status;
}

int chron_queue_cleanup_plan(const char *path, const chron_retention *retention, chron_cleanup *out,
                             chron_segment_fate *fates, size_t capacity)
{
    chron_retention limits = {0};
    chron_cleanup plan = {0};
    chron__array array;
    chron__queue q;
    int status = path ? 0 : chron__fail(CHRON_EINVAL, "the path is NULL");

    if (status == 0 && retention)
        status = chron__struct_take("chron_retention", retention, &limits, sizeof limits);
    if (status == 0)
        status = chron__cleanup_check(out, fates, capacity, &array);
    if (status < 0)
        return status;
    status = chron__remains_open(&q, &chron__io_posix, path, CHRON_ALLOW_NETFS);
    if (status == 0)
        status = plan_all(&q, &limits, &plan, &array);
    if (out)
        chron__struct_give(&plan, sizeof plan, out);
    chron__queue_close(&q);
    return status;
}
