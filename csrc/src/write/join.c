/* SPDX-License-Identifier: MIT */
/*
 * join.c - see join.h. Locks, in the order in which they are taken:
 *
 *   writer.lock, byte 2^40 - 1     whoever joins, or leaves as the last: one at a time
 *   writer.lock, byte 0            shared by those who take turns; exclusive for another writer, and for a recovery
 *   queue.meta, byte 0             the same, because people delete lock files
 *   queue.meta, byte 2^40 + slot   exclusive: whether this one lives
 *
 * Invariants:
 *  - Nobody but who has both bytes 0 exclusively recovers, or stores the words anew; `ready` is stored last.
 *  - Words are believed under a shared byte 0 only, and only if they fit the newest slot, which lies where it was stored.
 *  - A newcomer looks at all turn words before it lets others join: what its predecessor in its slot held is its own to mend.
 *  - No descriptor that holds a lock is open when a fork may come: the gate keeps forks out until mappings hold them.
 */
#define _POSIX_C_SOURCE 200809L /* threads */

#include "write/join.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/step.h"
#include "format/identity.h"
#include "write/lock.h"
#include "write/mend.h"
#include "write/sync.h"
#include "write/takeover.h"

#define RETRY_NS 2000000u
#define TURN_TIMEOUT_NS UINT64_C(5000000000)

/* What an attempt has open. */
typedef struct attempt {
    int join;  /* writer.lock: the join byte */
    int lock;  /* writer.lock: byte 0 */
    int meta;  /* queue.meta: byte 0, and the slot */
    int first; /* both bytes 0 are exclusive */
} attempt;

enum outcome {
    JOINED,
    SOMEBODY_JOINS = 1, /* or leaves: soon over */
    SOMEBODY_WRITES,    /* who takes no turns */
};

static void close_one(const chron_writer *w, int *fd)
{
    if (*fd >= 0)
        w->q.io->close_file(w->q.io, *fd);
    *fd = -1;
}

static void close_all(const chron_writer *w, attempt *a)
{
    close_one(w, &a->meta);
    close_one(w, &a->lock);
    close_one(w, &a->join);
}

static int open_lock_file(chron_writer *w, int *made)
{
    const chron__io *io = w->q.io;
    int fd = io->open_file(io, w->q.dir, CHRON__FILE_LOCK, CHRON__OPEN_WRITE, 0);

    *made |= fd == -ENOENT;
    return fd == -ENOENT ? io->open_file(io, w->q.dir, CHRON__FILE_LOCK, CHRON__OPEN_CREATE, w->options.mode) : fd;
}

static int fail_lock(const char *path, int status)
{
    if (status == -ENOTSUP)
        return chron__fail(
            CHRON_ENOTSUP,
            "several writers need locks that a fork does not share, and this system or the file system of "
            "%s (an overlay?) has none: use a volume of ext4, xfs or tmpfs, or open it without sharing",
            path);
    if (status == -ENOENT)
        return chron__fail(CHRON_EREMOVED, "the directory %s was removed while it was being opened", path);
    return chron__fail_sys(status, CHRON__FILE_LOCK, "cannot take a writer's lock of %s", path);
}

/* The join byte, and byte 0 of writer.lock. */
static int take_lock_file(chron_writer *w, attempt *a, int *made)
{
    const chron__io *io = w->q.io;
    int status;

    a->join = open_lock_file(w, made);
    a->lock = a->join < 0 ? a->join : open_lock_file(w, made);
    if (a->lock < 0)
        return a->lock;
    status = io->lock_byte(io, a->join, CHRON__BYTE_JOIN, CHRON__BYTE_OURS);
    if (status == -EAGAIN)
        return io->byte_held(io, a->lock, CHRON__BYTE_JOIN) == 0 ? SOMEBODY_WRITES : SOMEBODY_JOINS;
    if (status < 0)
        return status;
    /* Who locks a file whose name is gone has locked nothing. */
    if (io->same_file(io, a->join, w->q.dir, CHRON__FILE_LOCK) != 1 ||
        io->same_file(io, a->lock, w->q.dir, CHRON__FILE_LOCK) != 1)
        return SOMEBODY_JOINS;
    status = io->lock_byte(io, a->lock, CHRON__BYTE_WRITER, CHRON__BYTE_OURS);
    a->first = status == 0;
    if (status == -EAGAIN)
        status = io->lock_byte(io, a->lock, CHRON__BYTE_WRITER, CHRON__BYTE_SHARED);
    return status == -EAGAIN ? SOMEBODY_WRITES : status;
}

static int take_meta(chron_writer *w, attempt *a)
{
    const chron__io *io = w->q.io;
    int status;

    a->meta = io->open_file(io, w->q.dir, CHRON__FILE_META, CHRON__OPEN_WRITE, 0);
    if (a->meta < 0)
        return a->meta;
    status = io->lock_byte(io, a->meta, CHRON__BYTE_WRITER, a->first ? CHRON__BYTE_OURS : CHRON__BYTE_SHARED);
    return status == -EAGAIN ? SOMEBODY_WRITES : status;
}

/* ------------------------------------------------------------------------------------------- the words */

static int remember(chron_writer *w)
{
    struct chron__shared *s = w->shared;

    s->m = (chron__members){.io = w->q.io, .fd = w->q.meta_fd, .slots = CHRON__SLOT_COUNT};
    s->m.table = chron__word(w, CHRON__SLOT_TABLE);
    s->m.next_incarnation = chron__word(w, CHRON__C_JOINED);
    return 0;
}

/* Of the log as it is after a recovery. `ready` last. */
static void store_words(chron_writer *w)
{
    uint8_t *meta = w->q.meta.base;
    chron__head h = {.base = w->seg->base_seq, .next_seq = chron__get64(&w->next_seq), .tail = chron__get64(&w->tail)};

    chron__store_release_le32(meta + CHRON__O_READY, 0); /* [HEAD] */
    memset(meta + CHRON__O_OWNER, 0, CHRON__C_JOINED - CHRON__O_OWNER);
    h.last_ts = w->tally.last_ts;
    h.ordered = !w->tally.goes_back;
    chron__head_store(meta, &h);
    chron__store_release_le32(meta + CHRON__O_EPOCH, w->epoch);               /* [HEAD] */
    chron__store_release_le32(meta + CHRON__O_END, (uint32_t)w->state.epoch); /* [HEAD] */
    chron__store_relaxed_le32(meta + CHRON__S_DIR, 1);                        /* [HEAD] the directory is to be synced */
    chron__store_relaxed_le64(meta + CHRON__S_DURABLE, chron__get64(&w->durable_next)); /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__S_UNSYNCED, w->unsynced_base);              /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__S_STATE, w->state_on_disk);                 /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__S_MARK, w->mark_on_disk);                   /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__C_LIMIT_BYTES, w->options.max_bytes);       /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__C_LIMIT_SEGMENTS, w->options.max_segments); /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__C_UNPROVEN, w->inherited_base);             /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__C_UNPROVEN_END, w->inherited_end);          /* [HEAD] */
    CHRON__STEP("join: words stored");
    chron__store_release_le32(meta + CHRON__O_READY, w->epoch); /* [HEAD] with who joins later */
    CHRON__STEP("join: ready");
}

static int check_words(const chron_writer *w)
{
    const uint8_t *meta = w->q.meta.base;
    uint64_t bytes = chron__load_relaxed_le64(meta + CHRON__C_LIMIT_BYTES);       /* [HEAD] */
    uint64_t segments = chron__load_relaxed_le64(meta + CHRON__C_LIMIT_SEGMENTS); /* [HEAD] */
    uint32_t ready = chron__load_acquire_le32(meta + CHRON__O_READY);             /* [HEAD] with store_words */

    if (chron__load_acquire_le32(meta + CHRON__O_POISON) == ready) /* [HEAD] */
        return SOMEBODY_WRITES;
    if (bytes != w->options.max_bytes || segments != w->options.max_segments)
        return chron__fail(CHRON_EINVAL,
                           "the other writers of this queue have max_bytes %" PRIu64 " and max_segments %" PRIu64
                           " (0: none): back-pressure is the same for all of them",
                           bytes, segments);
    return 0;
}

/* ---------------------------------------------------------------------------------------- the first one */

static int begin(chron_writer *w, const char *path, attempt *a, chron__born *born)
{
    int status = 0;

    if (w->options.flags & CHRON_REPAIR)
        status = chron__birth_again(w, path);
    if (status == 0 && !chron__birth_was(&w->q)) {
        status = w->check_limits(w, w->options.segment_size); /* before a queue is made for nothing */
        if (status == 0)
            status = chron__birth(w, path, born);
    }
    if (status == 0)
        status = take_meta(w, a);
    if (status > 0)
        return status;
    if (status == 0)
        status = chron__lock_open_meta(w);
    if (status == 0)
        status = w->check_limits(w, w->q.segment_size);
    if (status == 0)
        status = chron__take_over(w, w->path_for_errors, born, CHRON__EPOCHS_RESERVED);
    if (status == 0)
        store_words(w);
    return status;
}

/* ---------------------------------------------------------------------------------------- those who come later */

/* 0 with the segment open; SOMEBODY_JOINS: the words do not count (yet). */
static int come(chron_writer *w, const char *path, attempt *a, chron__born *born)
{
    chron__head head;
    int status = take_meta(w, a);

    (void)path;
    if (status == -ENOENT)
        return SOMEBODY_JOINS;
    if (status != 0)
        return status;
    status = chron__lock_open_meta(w);
    if (status < 0)
        return status;
    if (!chron__shared_valid(w->q.meta.base, &w->state) ||
        chron__state_whence(w->q.meta.base, &w->state, &w->place) != CHRON__FROM_HERE)
        return SOMEBODY_JOINS;
    status = check_words(w);
    if (status == 0)
        status = w->check_limits(w, w->q.segment_size);
    if (status == 0)
        status = chron__birth_complete(w, born);
    if (status != 0)
        return status;
    chron__head_snapshot(w->q.meta.base, &head);
    status = chron__seg_open(&w->q, head.base, CHRON__SEG_WRITE, &w->seg);
    if (status == -CHRON_EGONE)
        return SOMEBODY_JOINS; /* they have rolled, and deleted it */
    if (status < 0)
        return status;
    chron__set64(&w->next_seq, head.next_seq);
    chron__set64(&w->tail, head.tail);
    w->first_seq = head.next_seq;
    w->recovery.clean = 1;
    w->recovery.next_seq = head.next_seq;
    return 0;
}

/* --------------------------------------------------------------------------------------------- a slot */

/* What a predecessor in this slot held, when it died. */
static int inherit(chron_writer *w)
{
    struct chron__shared *s = w->shared;
    int status = 0;

    if (chron__turn_inherit(&s->m, chron__word(w, CHRON__O_OWNER))) {
        chron__head_load(w->q.meta.base, &s->head);
        status = s->head.intent ? chron__mend(w) : 0;
        chron__turn_give(chron__word(w, CHRON__O_OWNER));
    }
    if (chron__turn_inherit(&s->m, chron__word(w, CHRON__S_SYNCER))) {
        chron__sync_doubt(w);
        chron__turn_give(chron__word(w, CHRON__S_SYNCER));
    }
    if (chron__turn_inherit(&s->m, chron__word(w, CHRON__P_PREPARER)))
        chron__turn_give(chron__word(w, CHRON__P_PREPARER));
    return status;
}

static int take_slot(chron_writer *w, attempt *a)
{
    const chron__io *io = w->q.io;
    struct chron__shared *s = w->shared;
    int status = chron__turn_join(&s->m, a->meta);

    if (status == -EAGAIN)
        return chron__fail(CHRON_EWRITER, "%u writers take turns at this queue: there is no room for another one",
                           (unsigned)CHRON__SLOT_COUNT);
    if (status == 0 && a->first)
        status = io->lock_byte(io, a->lock, CHRON__BYTE_WRITER, CHRON__BYTE_SHARED);
    if (status == 0 && a->first)
        status = io->lock_byte(io, a->meta, CHRON__BYTE_WRITER, CHRON__BYTE_SHARED);
    CHRON__STEP("join: shared");
    if (status == 0) {
        status = io->hold(io, a->lock, a->join, &w->writer_lock);
        a->lock = -1;
    }
    if (status == 0) {
        status = io->hold(io, a->meta, w->q.meta_fd, &w->meta_lock);
        a->meta = -1;
    }
    if (status < 0)
        return fail_lock(w->path_for_errors, status);
    CHRON__STEP("join: held");
    s->ready = chron__load_acquire_le32(chron__word(w, CHRON__O_READY)); /* [HEAD] with store_words */
    w->epoch = chron__load_acquire_le32(chron__word(w, CHRON__O_EPOCH)); /* [HEAD] */
    w->full_epoch = w->epoch;
    w->recovery.epoch = w->epoch;
    return inherit(w);
}

/* ------------------------------------------------------------------------------------------- all of it */

static int try_to_join(chron_writer *w, const char *path, attempt *a, chron__born *born)
{
    int status = take_lock_file(w, a, &born->lock);

    if (status < 0)
        return fail_lock(path, status);
    if (status > 0)
        return status;
    status = a->first ? begin(w, path, a, born) : come(w, path, a, born);
    if (status == 0)
        status = remember(w);
    if (status == 0)
        status = take_slot(w, a);
    if (status == 0)
        status = chron__lock_write_line(w);
    if (status == 0)
        chron__set32(&w->dir_dirty, 0);
    return status;
}

/* Undo what an attempt opened, so that the next one begins as the first. */
static void forget_attempt(chron_writer *w)
{
    chron__seg_release(w->seg);
    w->seg = NULL;
    if (w->q.meta.base)
        w->q.io->unmap(w->q.io, &w->q.meta);
    close_one(w, &w->q.meta_fd);
    w->shared->m.me = 0;
}

static int attempt_once(chron_writer *w, const char *path, chron__born *born)
{
    attempt a = {.join = -1, .lock = -1, .meta = -1};
    int status;

    chron__fork_shut();
    status = try_to_join(w, path, &a, born);
    close_all(w, &a);
    chron__fork_open();
    return status;
}

static int new_shared(chron_writer *w, const char *path)
{
    struct chron__shared *s = calloc(1, sizeof *s);

    if (!s)
        return chron__fail(CHRON_ENOMEM, "no memory for a writer");
    pthread_mutex_init(&s->prep_lock, NULL);
    s->timeout_ns = w->options.turn_timeout_ns > 0 ? (uint64_t)w->options.turn_timeout_ns : TURN_TIMEOUT_NS;
    w->shared = s;
    w->path_for_errors = path;
    return 0;
}

int chron__join(chron_writer *w, const char *path, chron__born *born)
{
    const uint64_t start = chron__monotonic_ns();
    int status = w->shared ? 0 : new_shared(w, path);

    while (status == 0) {
        uint64_t passed;
        uint64_t limit;

        status = attempt_once(w, path, born);
        if (status <= 0)
            break;
        passed = chron__monotonic_ns() - start;
        limit = w->options.lock_wait_ns < 0 ? UINT64_MAX : (uint64_t)w->options.lock_wait_ns;
        if (status == SOMEBODY_JOINS && limit < w->shared->timeout_ns)
            limit = w->shared->timeout_ns;
        forget_attempt(w);
        if (passed >= limit)
            return chron__lock_fail_held(&w->q, path);
        chron__cancel_point(w->on_cancel, w->opening);
        if (chron__sleep_ns(RETRY_NS) < 0)
            return chron__fail(CHRON_EINTR, "interrupted while waiting for the writer's lock of %s", path);
        status = 0;
    }
    return status;
}

/* ---------------------------------------------------------------------------------------------- leaving */

/* Alone, with all locks: is there anything to mend? And then it is as after any proper close. */
static int say_clean(chron_writer *w)
{
    struct chron__shared *s = w->shared;
    uint8_t *meta = w->q.meta.base;
    uint32_t n = chron__load_acquire_le32(meta + CHRON__P_READY); /* [TURN] nobody else is here */
    char name[CHRON__NAME_BYTES];
    int status = 0;

    if (!chron__queue_state(&w->q, &w->state) || !chron__shared_valid(meta, &w->state) ||
        chron__load_acquire_le32(meta + CHRON__O_READY) != s->ready || /* [HEAD] */
        chron__load_acquire_le32(meta + CHRON__O_POISON) == s->ready)  /* [HEAD] */
        return 0;
    chron__head_load(meta, &s->head);
    if (s->head.intent)
        status = chron__mend(w);
    if (status < 0)
        return status;
    chron__shared_name(n, name);
    if (n)
        (void)w->q.io->unlink(w->q.io, w->q.dir, name);
    w->state.epoch =
        chron__load_acquire_le32(meta + CHRON__O_EPOCH); /* [HEAD] what was reserved for repairs was not used */
    w->state.durable_next = chron__load_relaxed_le64(meta + CHRON__S_DURABLE); /* [HEAD] */
    w->state.next_seq = s->head.next_seq;
    w->state.flags |= CHRON__SLOT_CLEAN;
    w->state_on_disk = chron__load_relaxed_le64(meta + CHRON__S_STATE); /* [HEAD] */
    status = chron__writer_store_state(w, w->options.durability != CHRON_DURABILITY_NONE);
    CHRON__STEP("leave: clean");
    return status;
}

int chron__leave(chron_writer *w)
{
    attempt a = {.join = -1, .lock = -1, .meta = -1};
    int unused = 0;
    int status = 0;

    if (!w->meta_lock.map)
        return 0;
    CHRON__STEP("leave: begun");
    chron__lock_release(w);
    CHRON__STEP("leave: slot given up");
    w->shared->m.me = 0;
    chron__fork_shut();
    if (take_lock_file(w, &a, &unused) == 0 && a.first && take_meta(w, &a) == 0)
        status = say_clean(w);
    close_all(w, &a);
    chron__fork_open();
    return status;
}

void chron__shared_free(chron_writer *w)
{
    if (!w->shared)
        return;
    chron__seg_release(w->shared->next);
    chron__seg_release(w->shared->left);
    pthread_mutex_destroy(&w->shared->prep_lock);
    free(w->shared->stage);
    free(w->shared);
    w->shared = NULL;
}
