/* SPDX-License-Identifier: MIT */
/*
 * verify.c - check a whole queue: the files around the log here, the log in verify_segment.c. Reads only, keeps no
 * lock, allocates nothing that grows with the log.
 *
 * Order matters beside a live writer: what refers to records (durable mark, positions) is read before the
 * records are, so that they can only have become more since.
 */
#include "queue/verify_segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/struct.h"
#include "format/header.h"
#include "format/identity.h"
#include "queue/kept.h"
#include "queue/rebuild.h"

#define LIST_TRIES 100 /* a writer may delete and roll while we read, but not for ever */

/* ------------------------------------------------------------------------------------- files around */

static int ends_with(const char *name, const char *suffix)
{
    size_t length = strlen(name);
    size_t end = strlen(suffix);

    return length > end && strcmp(name + length - end, suffix) == 0;
}

/* Does a file hold a segment of this queue, under a name that is no segment's? */
static int holds_segment(const chron__verify *v, const char *name, uint64_t *base_seq)
{
    uint8_t bytes[sizeof(chron__file_header)] = {0};
    chron__file_header header;

    if (chron__read_file(v->q.io, v->q.dir, name, bytes, sizeof bytes) < (int64_t)sizeof bytes ||
        chron__header_decode(bytes, CHRON__MAGIC_SEGMENT, v->q.uuid, name, &header) < 0)
        return 0;
    *base_seq = header.base_seq;
    return 1;
}

static int visit_file(void *context, const char *name)
{
    static const char *const known[] = {CHRON__FILE_META,   CHRON__FILE_DOORBELL,  CHRON__FILE_LOCK, CHRON__FILE_GAPS,
                                        CHRON__DIR_READERS, CHRON__DIR_QUARANTINE, CHRON__DIR_TYPES, CHRON__DIR_SCHEMA};
    chron__verify *v = context;
    uint64_t base_seq;

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i]) == 0)
            return 0;
    if (chron__segment_name_parse(name, &base_seq) || ends_with(name, ".tmp"))
        return 0;
    if (holds_segment(v, name, &base_seq))
        chron__verify_note(v, CHRON_NOTE_FOREIGN, name, base_seq, CHRON_SEQ_NONE,
                           "%s holds a segment of this queue that begins with seq %" PRIu64
                           ", under a name that is no segment's",
                           name, base_seq);
    else
        chron__verify_note(v, CHRON_NOTE_FOREIGN, name, CHRON_SEQ_NONE, CHRON_SEQ_NONE, "%s is not the queue's", name);
    return v->to.stopped;
}

static int visit_reader(void *context, const char *name)
{
    chron__verify *v = context;
    char stem[CHRON__NAME_BYTES] = "";
    char path[sizeof CHRON__DIR_READERS + 256u];
    size_t length = strlen(name);
    size_t suffix = ends_with(name, ".pos") ? 4u : ends_with(name, ".merge") ? 6u : 0;

    if (suffix && length <= CHRON_READER_NAME_MAX + suffix) {
        memcpy(stem, name, length - suffix);
        if (chron__reader_name_check(stem) == 0)
            return 0;
    }
    (void)snprintf(path, sizeof path, CHRON__DIR_READERS "/%s", name);
    chron__verify_note(v, CHRON_NOTE_FOREIGN, path, CHRON_SEQ_NONE, CHRON_SEQ_NONE, "%s is no reader's position", path);
    return v->to.stopped;
}

static void check_names(chron__verify *v)
{
    const chron__io *io = v->q.io;
    int dir;

    if (io->list(io, v->q.dir, visit_file, v) < 0)
        chron__verify_problem(v, CHRON_PROBLEM_FILE, "", 0, CHRON_SEQ_NONE, CHRON_SEQ_NONE,
                              "the queue's directory cannot be listed");
    dir = io->open_dir(io, v->q.dir, CHRON__DIR_READERS);
    if (dir < 0)
        return;
    (void)io->list(io, dir, visit_reader, v);
    io->close_file(io, dir);
}

static void check_doorbell(chron__verify *v)
{
    uint8_t page[CHRON__PAGE] = {0};
    chron__file_header header;
    int64_t n = chron__read_file(v->q.io, v->q.dir, CHRON__FILE_DOORBELL, page, sizeof page);

    if (n < (int64_t)sizeof page)
        chron__verify_problem(
            v, CHRON_PROBLEM_DOORBELL, CHRON__FILE_DOORBELL, 0, CHRON_SEQ_NONE, CHRON_SEQ_NONE,
            "the doorbell is missing or cut short: readers poll until the next writer makes a new one");
    else if (chron__header_decode(page, CHRON__MAGIC_DOORBELL, v->q.uuid, CHRON__FILE_DOORBELL, &header) < 0)
        chron__verify_failure(v, CHRON_PROBLEM_DOORBELL, CHRON__FILE_DOORBELL, CHRON_SEQ_NONE, CHRON_SEQ_NONE);
}

/* --------------------------------------------------------------------------------------- positions */

/* CRC of record `seq`: 1; 0 if it cannot be had. */
static int crc_of(chron__verify *v, const chron__bases *bases, uint64_t seq, uint32_t *crc)
{
    int64_t i = chron__bases_find(bases, seq);
    chron__seg *seg;
    chron__rec rec;
    uint64_t offset;
    uint64_t found_seq;
    int known = 0;

    if (i < 0 || chron__seg_open(&v->q, bases->at[i], 0, &seg) < 0)
        return 0;
    if (chron__seg_find(seg, seq, 0, &offset, &found_seq) == 0 && found_seq == seq &&
        offset <= seg->size - CHRON__RECORD_HEADER &&
        chron__rec_load(seg->map.base, seg->size, offset, &rec) == CHRON__REC_DATA &&
        chron__rec_crc_ok(&rec, rec.payload) && !chron__map_faulted(&seg->map)) {
        *crc = rec.crc;
        known = 1;
    }
    chron__seg_release(seg);
    return known;
}

/* Who looks may lack the permission: that is no fault of the position. */
static void tell_unreadable(chron__verify *v, const chron__registered *one, const char *file)
{
    char why[CHRON__REASON_BYTES];

    chron__registered_reason(one, why, sizeof why);
    if (one->why == -EACCES || one->why == -EPERM)
        chron__verify_note(v, CHRON_NOTE_UNREADABLE, file, CHRON_SEQ_NONE, CHRON_SEQ_NONE,
                           "the position of reader %s was not checked: %s", one->name, why);
    else
        chron__verify_problem(v, CHRON_PROBLEM_POSITION, file, 0, CHRON_SEQ_NONE, CHRON_SEQ_NONE,
                              "the position of reader %s cannot be read: %s", one->name, why);
}

static void check_position(chron__verify *v, const chron__bases *bases, const chron__registered *one)
{
    char file[sizeof CHRON__DIR_READERS + CHRON__POSITION_NAME_BYTES];
    uint64_t at = one->value.next_seq;
    uint32_t crc;

    (void)snprintf(file, sizeof file, CHRON__DIR_READERS "/%s.pos", one->name);
    v->summary->readers++;
    if (one->headless)
        chron__verify_problem(
            v, CHRON_PROBLEM_POSITION, file, 0, CHRON_SEQ_NONE, CHRON_SEQ_NONE,
            "the header of the position of reader %s is damaged: the reader puts it right when it opens", one->name);
    if (one->damaged)
        tell_unreadable(v, one, file);
    else if (at == CHRON_SEQ_NONE)
        return;
    else if (one->value.flags & CHRON__SLOT_UNDONE)
        chron__verify_problem(v, CHRON_PROBLEM_POSITION, file, CHRON__SLOT_A, one->value.segment_base, at,
                              "reader %s committed up to seq %" PRIu64
                              ", but a loss of power undid records from %" PRIu64 " on",
                              one->name, at, one->value.segment_base);
    else if (at > v->next_seq && !v->end_unknown)
        chron__verify_problem(v, CHRON_PROBLEM_POSITION, file, CHRON__SLOT_A, v->next_seq, at,
                              "reader %s committed up to "
                              "seq %" PRIu64 ", but the log ends before %" PRIu64,
                              one->name, at, v->next_seq);
    else if (at > 0 && (one->value.flags & CHRON__SLOT_FINGERPRINT) && crc_of(v, bases, at - 1u, &crc) &&
             crc != one->value.fingerprint)
        chron__verify_problem(v, CHRON_PROBLEM_POSITION, file, CHRON__SLOT_A, at - 1u, at,
                              "record %" PRIu64 " is not the "
                              "one that reader %s had read when it committed: history was rewritten",
                              at - 1u, one->name);
}

/* --------------------------------------------------------------------------------------- the queue */

static void check_state(chron__verify *v)
{
    uint64_t promised = v->state.durable_next;

    if (!v->q.meta.base)
        return; /* that was told */
    if (!v->state.generation) {
        chron__verify_problem(v, CHRON_PROBLEM_META, CHRON__FILE_META, CHRON__SLOT_A, CHRON_SEQ_NONE, CHRON_SEQ_NONE,
                              "both copies of the writer's state in queue.meta are damaged");
        return;
    }
    if (!v->alive && (v->state.flags & CHRON__SLOT_CLEAN) && v->state.next_seq > promised)
        promised = v->state.next_seq;
    if (promised > v->next_seq && !v->end_unknown && !v->to.stopped)
        chron__verify_problem(v, CHRON_PROBLEM_RECORD, CHRON__FILE_META, CHRON__SLOT_A, v->next_seq, promised,
                              "queue.meta tells of records up to seq %" PRIu64 ", but the log ends before %" PRIu64,
                              promised - 1u, v->next_seq);
}

/* Is it known that no segment was ever made? The words may be those of the opening before: they are stored after the state. */
static int is_newborn(const chron__verify *v)
{
    const chron__io *io = v->q.io;
    const uint8_t *meta = v->q.meta.base;
    chron__words words;
    chron__place place;
    int fd = io->open_file(io, v->q.dir, CHRON__FILE_META, CHRON__OPEN_READ, 0);
    int known = fd >= 0 && io->place(io, fd, &place) == 0;

    if (fd >= 0)
        io->close_file(io, fd);
    if (!known || chron__state_whence(meta, &v->state, &place) != CHRON__FROM_HERE)
        return 0;
    return (chron__words_load(meta, v->state.epoch, &words) || chron__words_load(meta, v->state.epoch - 1u, &words)) &&
           words.segments == 0;
}

/* No segment, nobody writes, and no repair has accepted that. */
static void check_empty(chron__verify *v)
{
    if (v->state.epoch == 0 || is_newborn(v))
        return;
    chron__verify_problem(
        v, CHRON_PROBLEM_CHAIN, "", 0, 0, CHRON_SEQ_NONE,
        "there is no segment, though the queue was opened for writing: they were deleted, or a loss of "
        "power took them");
}

/* All segments. Again, if retention went past all that were listed: the positions are of before the list. */
static int check_log(chron__verify *v, chron__bases *bases)
{
    for (int tries = 0; tries < LIST_TRIES; tries++) {
        int status = chron__queue_list(&v->q, bases);

        if (status < 0)
            return status;
        for (size_t i = 0; i < bases->count && !v->to.stopped; i++)
            chron__verify_segment(v, bases->at[i], i + 1u < bases->count ? bases->at[i + 1u] : CHRON_SEQ_NONE,
                                  i + 2u < bases->count);
        if (v->begun || bases->count == 0 || v->to.stopped)
            break;
        chron__bases_free(bases);
    }
    if (!v->begun)
        v->next_seq = 0;
    v->next_seq = chron__gaps_over(&v->gaps, bases, v->next_seq);
    if (!v->begun)
        v->summary->oldest_seq = v->next_seq;
    v->summary->next_seq = v->next_seq;
    if (bases->count == 0 && v->next_seq == 0 && !v->alive && v->q.meta.base)
        check_empty(v);
    return 0;
}

/* Those that retention has not passed yet. */
static void tell_gaps(chron__verify *v)
{
    for (size_t i = 0; i < v->gaps.count && !v->to.stopped; i++) {
        const chron__gap *gap = &v->gaps.at[i];

        if (gap->seq_end < v->summary->oldest_seq)
            continue;
        v->summary->gaps++;
        v->summary->gap_records += gap->seq_end - gap->seq;
        chron__verify_note(v, CHRON_NOTE_GAP, CHRON__FILE_GAPS, gap->seq, gap->seq_end,
                           "records %" PRIu64 " to %" PRIu64 " are gone, and were accepted as gone", gap->seq,
                           gap->seq_end - 1u);
    }
}

static void tell_kept(chron__verify *v)
{
    chron__kept_list list;

    if (chron__kept_load(&v->q, &list) < 0) {
        chron__verify_failure(v, CHRON_NOTE_UNREADABLE, CHRON__DIR_QUARANTINE, CHRON_SEQ_NONE, CHRON_SEQ_NONE);
        return;
    }
    for (size_t i = 0; i < list.count && !v->to.stopped; i++) {
        char what[160];
        char path[sizeof CHRON__DIR_QUARANTINE + sizeof list.at[i].name];

        (void)snprintf(path, sizeof path, CHRON__DIR_QUARANTINE "/%s", list.at[i].name);
        chron__kept_describe(&list.at[i], what, sizeof what);
        chron__verify_note(v, CHRON_NOTE_QUARANTINE, path, list.at[i].seq, CHRON_SEQ_NONE, "%s: %s", path, what);
    }
    chron__kept_free(&list);
}

static int check_queue(chron__verify *v)
{
    chron__bases bases = {0};
    int status;

    (void)chron__queue_state(&v->q, &v->state);
    v->epoch = 1; /* the first there is */
    if (chron__gaps_load(&v->q, &v->gaps) < 0)
        chron__verify_failure(v, CHRON_PROBLEM_FILE, CHRON__FILE_GAPS, CHRON_SEQ_NONE, CHRON_SEQ_NONE);
    status = chron__registered_load(&v->q, &v->readers);
    if (status == 0)
        status = check_log(v, &bases);
    if (status < 0)
        return status;
    tell_gaps(v);
    check_state(v);
    for (size_t i = 0; i < v->readers.count && !v->to.stopped; i++)
        check_position(v, &bases, &v->readers.at[i]);
    chron__bases_free(&bases);
    if (!v->to.stopped)
        check_doorbell(v);
    if (!v->to.stopped)
        check_names(v);
    if (!v->to.stopped)
        tell_kept(v);
    return v->to.stopped ? chron__fail(CHRON_EINTR, "the verification was stopped by its caller") : 0;
}

/*
 * queue.meta; without it the geometry is taken from any segment. 1: the queue can be looked at; 0: nothing else can be judged;
 * or a failure.
 */
static int open_meta(chron__verify *v, const char *path)
{
    int status = chron__queue_open_meta(&v->q, path, 0);
    chron__remains r;

    if (status == 0)
        return 1;
    if (status != -CHRON_ECORRUPT && status != -CHRON_ENOQUEUE)
        return status;
    if (v->q.meta.base)
        v->q.io->unmap(v->q.io, &v->q.meta);
    status = chron__remains_look(&v->q, path, &r);
    if (status < 0 && status != -CHRON_ECORRUPT)
        return status;
    if (status < 0)
        chron__verify_failure(v, CHRON_PROBLEM_META, CHRON__FILE_META, CHRON_SEQ_NONE, CHRON_SEQ_NONE);
    else
        chron__verify_problem(v, CHRON_PROBLEM_META, CHRON__FILE_META, 0, CHRON_SEQ_NONE, CHRON_SEQ_NONE,
                              "queue.meta %s: no writer opens this queue before it was repaired",
                              r.why ? r.why : "is damaged");
    return status == 0;
}

int chron_queue_verify(const char *path, chron_problem_fn report, void *context, chron_verify_summary *summary)
{
    chron_verify_summary found = {0};
    chron__verify v = {.to = {.report = report, .context = context}, .summary = &found};
    int status = summary ? chron__struct_check("chron_verify_summary", summary) : 0;

    if (status == 0 && !path)
        status = chron__fail(CHRON_EINVAL, "the path is NULL");
    if (status < 0)
        return status;
    status = chron__queue_open_dir(&v.q, &chron__io_posix, path, CHRON_ALLOW_NETFS);
    if (status == 0)
        status = open_meta(&v, path);
    if (status > 0) {
        v.alive = chron__queue_writer_alive(&v.q);
        status = v.alive < 0 ? v.alive : check_queue(&v);
    }
    if (summary)
        chron__struct_give(&found, sizeof found, summary);
    chron__registered_free(&v.readers);
    chron__gaps_free(&v.gaps);
    chron__queue_close(&v.q);
    return status;
}
