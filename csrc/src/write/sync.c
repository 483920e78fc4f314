/* SPDX-License-Identifier: MIT */
/*
 * sync.c - durability: putting records on disk, and saying so only afterwards.
 *
 * The order in chron__writer_sync is the promise: older segments, then the current one's header and records, then the
 * directory that names them; only then durable_next moves on, in memory and in queue.meta. The first sync that fails
 * poisons the writer: Linux reports a lost page once, and answers the next fsync with success. Whatever else may fail on the
 * way (no descriptor left, no permission) does not: it passes when its cause does.
 *
 * What this writer wrote is synced through descriptors that were open when it did (backlog.h). What was there before, above
 * the mark, is proven besides (prove.h).
 *
 * Invariants: durable_next <= next_seq, and neither it nor unsynced_base ever falls; what lies below the mark was on disk
 * before the mark moved; after `sync_lost` no sync of this writer answers success.
 *
 * queue.meta itself is put on disk when a writer opens and closes, and when the mark passes a segment; not at each sync: an
 * older mark on disk only makes recovery check more than it had to.
 */
#include "write/sync.h"

#include <errno.h>
#include <inttypes.h>

#include "base/assert.h"
#include "base/error.h"
#include "format/bell.h"
#include "format/identity.h"
#include "queue/anew.h"
#include "write/prove.h"
#include "write/shared.h"

#define SYNC_PATIENCE 12u /* so many times as long as for a turn: a disk may be slow */

/* A sync has failed: what the disk holds is not known any more. */
static int lost(chron_writer *w, int status, const char *file, const char *what)
{
    w->sync_lost = 1;
    return chron__fail_sys(status, file, "cannot put %s on disk", what);
}

int chron__writer_store_state(chron_writer *w, int on_disk)
{
    unsigned raise;

    CHRON__ASSERT(w->shared || w->writer_lock.map || w->writer_lock.fd >= 0); /* nobody else writes queue.meta */
    w->state.time_ns = chron__clock_ns(1);
    raise = w->state.generation == w->state_on_disk ? CHRON__SLOTS_TURN : CHRON__SLOTS_OVER;
    chron__state_store(w->q.meta.base, &w->state, &w->place, raise);
    if (chron__map_faulted(&w->q.meta)) {
        w->sync_lost = 1;
        return chron__fail_fault(CHRON__FILE_META, "");
    }
    return on_disk ? chron__writer_sync_state(w) : 0;
}

int chron__writer_sync_state(chron_writer *w)
{
    int status = w->q.io->sync_map(w->q.io, w->q.meta_fd, &w->q.meta, 0, CHRON__PAGE);

    if (status < 0)
        return lost(w, status, CHRON__FILE_META, "queue.meta");
    w->state_on_disk = w->state.generation;
    w->mark_on_disk = w->state.durable_next;
    return 0;
}

/* ----------------------------------------------------------------------------------- older segments */

/* The descriptor that was kept for it, now the caller's; -1: none was. */
static int take_owed(chron_writer *w, uint64_t base_seq)
{
    int fd = -1;

    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < w->backlog.count; i++) {
        if (w->backlog.at[i].base_seq != base_seq)
            continue;
        fd = w->backlog.at[i].fd;
        w->backlog.count--;
        memmove(&w->backlog.at[i], &w->backlog.at[i + 1u], (w->backlog.count - i) * sizeof w->backlog.at[0]);
        break;
    }
    pthread_mutex_unlock(&w->lock);
    return fd;
}

static int sync_owed(chron_writer *w, int fd, const char *name)
{
    int status = w->q.io->sync_file(w->q.io, fd);

    w->q.io->close_file(w->q.io, fd);
    return status < 0 ? lost(w, status, name, name) : 0;
}

/* Not if retention deletes it meanwhile: the name would come back. */
static int write_anew(chron_writer *w, const chron__seg *seg, const char *name)
{
    int status;

    pthread_mutex_lock(&w->clean_lock);
    status = w->q.io->same_file(w->q.io, seg->fd, w->q.dir, name);
    if (status == 0)
        status = -ENOENT;
    if (status > 0)
        status = chron__write_anew(&w->q, seg, w->options.mode);
    if (status == 0)
        chron__set32(&w->dir_dirty, 1); /* put on disk before the mark moves */
    pthread_mutex_unlock(&w->clean_lock);
    return status;
}

/* Nothing is lost by that: it is what the next sync does again. */
static int unproven(int status, const char *name)
{
    return chron__fail_sys(status, name, "cannot make sure that %s is on the device", name);
}

/* One that was written before this writer came, or too long ago: nobody has heard of all that failed. */
static int sync_unheard(chron_writer *w, uint64_t base_seq, const char *name)
{
    chron__seg *seg;
    int status = chron__seg_open(&w->q, base_seq, CHRON__SEG_WRITE | CHRON__SEG_UNCHECKED, &seg);

    if (status < 0)
        return status == -CHRON_EGONE ? 0 : status; /* retention has deleted it: there is nothing to keep */
    status = w->q.io->sync_file(w->q.io, seg->fd);
    if (status < 0) {
        chron__seg_release(seg);
        return lost(w, status, name, name);
    }
    status = chron__prove(&w->q, seg, 0, seg->size);
    if (status == 0)
        status = write_anew(w, seg, name);
    chron__seg_release(seg);
    if (status == -ENOENT)
        return 0;
    return status < 0 ? unproven(status, name) : 0;
}

static int sync_sealed(chron_writer *w, uint64_t base_seq)
{
    char name[CHRON__NAME_BYTES];
    int fd = take_owed(w, base_seq);

    chron__segment_name(base_seq, name);
    return fd >= 0 ? sync_owed(w, fd, name) : sync_unheard(w, base_seq, name);
}

/* Segments from unsynced_base on that lie before `end_base`. */
static int sync_older(chron_writer *w, uint64_t end_base)
{
    chron__bases bases;
    int status;

    if (w->unsynced_base >= end_base)
        return 0;
    status = chron__queue_list(&w->q, &bases);
    if (status < 0)
        return status;
    for (size_t i = 0; status == 0 && i < bases.count && bases.at[i] < end_base; i++) {
        if (bases.at[i] < w->unsynced_base)
            continue;
        status = sync_sealed(w, bases.at[i]);
        if (status == 0)
            w->unsynced_base = i + 1u < bases.count ? bases.at[i + 1u] : end_base;
    }
    chron__bases_free(&bases);
    if (status == 0)
        w->unsynced_base = end_base;
    return status;
}

/* ------------------------------------------------------------------------------------- the current one */

/*
 * Is what was in the current segment before this writer came on the device? If not it has to be left, and to be written
 * anew, which is for the owner to begin (flush.c).
 */
static int prove_inherited(chron_writer *w, chron__seg *seg, const char *name)
{
    int status = chron__prove(&w->q, seg, 0, w->inherited_end);

    if (status == -ENOENT) /* the owner has left it, and retention has deleted it: there is nothing to keep */
        status = 1;
    if (status > 0) {
        pthread_mutex_lock(&w->lock);
        w->inherited_end = 0;
        pthread_mutex_unlock(&w->lock);
        return 0;
    }
    if (status < 0)
        return unproven(status, name);
    pthread_mutex_lock(&w->lock);
    w->roll_wanted = 1;
    pthread_mutex_unlock(&w->lock);
    return chron__at(chron__fail(CHRON_EIO,
                                 "the device does not hold all that was appended to %s before this writer opened "
                                 "the queue: it is written anew when the next segment begins",
                                 name),
                     name, 0, seg->base_seq);
}

/* Up to `tail`: header and index once, records from where the last sync ended. */
static int sync_current(chron_writer *w, chron__seg *seg, uint64_t tail)
{
    const chron__io *io = w->q.io;
    char name[CHRON__NAME_BYTES];
    uint64_t from;
    int status = 0;

    chron__segment_name(seg->base_seq, name);
    if (w->synced_base != seg->base_seq || w->synced_offset == 0) {
        status = io->sync_map(io, seg->fd, &seg->map, 0, seg->data_offset);
        w->synced_offset = 0;
    }
    from = w->synced_offset ? w->synced_offset : seg->data_offset;
    if (status >= 0 && tail > from)
        status = io->sync_map(io, seg->fd, &seg->map, from, tail - from);
    if (status < 0)
        return lost(w, status, name, name);
    if (chron__map_faulted(&seg->map)) {
        w->sync_lost = 1;
        return chron__seg_fail_fault(seg, "");
    }
    if (w->inherited_base == seg->base_seq && w->inherited_end > 0) {
        status = prove_inherited(w, seg, name);
        if (status < 0)
            return status;
    }
    CHRON__ASSERT(tail >= w->synced_offset && tail >= seg->data_offset && tail <= seg->size);
    w->synced_base = seg->base_seq;
    w->synced_offset = tail;
    return 0;
}

static int sync_directory(chron_writer *w)
{
    int status;

    if (w->shared) { /* looked at behind the head: a roll that it shows is counted */
        w->shared->dir = chron__load_acquire_le32(chron__word(w, CHRON__S_DIR));           /* [HEAD] */
        if (w->shared->dir != chron__load_relaxed_le32(chron__word(w, CHRON__S_DIR_DONE))) /* [HEAD] */
            chron__set32(&w->dir_dirty, 1);
    }
    if (!chron__get32(&w->dir_dirty))
        return 0;
    chron__set32(&w->dir_dirty, 0); /* before the sync: a roll meanwhile sets it again */
    status = w->q.io->sync_dir(w->q.io, w->q.dir);
    return status < 0 ? lost(w, status, "", "the queue's directory") : 0;
}

int chron__writer_check_sync(chron_writer *w)
{
    if (chron__get32(&w->poisoned))
        return chron__writer_fail_poisoned(w);
    if (w->q.fs & CHRON__FS_VOLATILE)
        return chron__fail(CHRON_ENOTDURABLE, "the queue lies on a file system in memory, which keeps nothing over a "
                                              "loss of power: use a disk, or durability none");
    return 0;
}

/* Was the queue removed, and this writer goes on with files that nobody will ever find? */
int chron__writer_check_place(chron_writer *w, const chron__seg *seg)
{
    const chron__io *io = w->q.io;

    if (!w->counts_links || (io->links(io, w->q.meta_fd) != 0 && (!seg || io->links(io, seg->fd) != 0)))
        return 0;
    return chron__fail(CHRON_EREMOVED,
                       "the queue was removed while this writer had it open: what is appended is in files "
                       "that have no name any more. Close the writer");
}

/* The mark moves on. queue.meta goes to disk when the mark there lies in front of a segment that is complete on disk. */
static int move_mark(chron_writer *w, uint64_t next_seq)
{
    int on_disk = w->unsynced_base > w->mark_on_disk;
    int status = 0;

    if (next_seq > chron__get64(&w->durable_next)) {
        w->state.durable_next = next_seq;
        status = chron__writer_store_state(w, on_disk);
    } else if (on_disk) {
        status = chron__writer_sync_state(w);
    }
    if (status < 0)
        return status;
    CHRON__ASSERT(w->shared || next_seq <= chron__get64(&w->next_seq));
    if (next_seq > chron__get64(&w->durable_next)) {
        CHRON__ASSERT(w->state.durable_next == next_seq); /* in queue.meta before anybody hears of it */
        chron__set64(&w->durable_next, next_seq);
    }
    return 0;
}

/* Where the log of several writers ends now, and its segment. */
static int look_at_head(chron_writer *w, chron__seg **seg, uint64_t *next_seq, uint64_t *tail)
{
    chron__head head;

    chron__head_snapshot(w->q.meta.base, &head);
    pthread_mutex_lock(&w->lock);
    *seg = w->seg->base_seq == head.base ? chron__seg_retain(w->seg) : NULL;
    pthread_mutex_unlock(&w->lock);
    *next_seq = head.next_seq;
    *tail = head.tail;
    return *seg ? 0 : chron__shared_open_head(w, head.base, seg);
}

/* The same as sync_what. */
static int sync_shared(chron_writer *w, int sealed_only)
{
    chron__seg *seg;
    uint64_t next_seq;
    uint64_t tail;
    int status = look_at_head(w, &seg, &next_seq, &tail);

    if (status < 0)
        return status;
    status = chron__writer_check_place(w, seg);
    if (status == 0)
        status = sync_older(w, seg->base_seq);
    if (status == 0 && !sealed_only)
        status = sync_current(w, seg, tail);
    if (status == 0)
        status = sync_directory(w);
    if (sealed_only)
        next_seq = seg->base_seq;
    chron__seg_release(seg);
    return status < 0 ? status : move_mark(w, next_seq);
}

/* With sync_lock held: everything, or (sealed_before > 0) what was sealed before that time. */
static int sync_what(chron_writer *w, uint64_t sealed_before)
{
    chron__seg *seg;
    uint64_t next_seq;
    uint64_t tail;
    int status;

    if (w->shared)
        return sync_shared(w, sealed_before != 0);
    pthread_mutex_lock(&w->lock);
    seg = chron__seg_retain(w->seg);
    next_seq = chron__get_acquire64(&w->next_seq); /* [TAIL] with chron__finish in append.h */
    tail = chron__get64(&w->tail);
    for (size_t i = 0; sealed_before > 0; i++) {
        next_seq = i < w->backlog.count ? w->backlog.at[i].base_seq : seg->base_seq;
        if (i == w->backlog.count || w->backlog.at[i].sealed_ns >= sealed_before)
            break;
    }
    w->syncing_next = sealed_before ? 0 : next_seq;
    pthread_mutex_unlock(&w->lock);
    status = chron__writer_check_place(w, seg);
    if (status == 0)
        status = sync_older(w, sealed_before ? next_seq : seg->base_seq);
    if (status == 0 && !sealed_before)
        status = sync_current(w, seg, tail);
    if (status == 0)
        status = sync_directory(w);
    chron__seg_release(seg);
    return status < 0 ? status : move_mark(w, next_seq);
}

/* With sync_lock held. A failure is remembered for the owner, who may not be the one who hears of it here. */
static int sync_and_tell(chron_writer *w, uint64_t sealed_before)
{
    int status = chron__writer_check_sync(w);

    CHRON__ASSERT_LOCKED(&w->sync_lock);
    if (status < 0)
        return status;
    status = sync_what(w, sealed_before);
    if (status < 0 && w->sync_lost) {
        chron__error()->code = CHRON_EIO; /* whatever it was: ENOSPC from an append would say "not appended" */
        pthread_mutex_lock(&w->lock);
        w->failure = *chron_last_error();
        pthread_mutex_unlock(&w->lock);
        chron__set32(&w->poisoned, 1); /* [STOP] read by chron__writer_ready in append.h */
        if (w->shared)
            chron__shared_poison(w); /* before the word is given back */
        return -CHRON_EIO;
    }
    if (status == 0 && !sealed_before)
        chron__add64(&w->syncs, 1); /* [COUNT] */
    return status;
}

/* ------------------------------------------------------------------------------- of several writers */

/* A syncer died: what it was told of failed writes, nobody else is told again. So all above the mark is to be proven. */
void chron__sync_doubt(chron_writer *w)
{
    chron__head head;

    chron__head_snapshot(w->q.meta.base, &head);
    chron__store_relaxed_le64(chron__word(w, CHRON__C_UNPROVEN), head.base);     /* [HEAD] under the syncer's word */
    chron__store_relaxed_le64(chron__word(w, CHRON__C_UNPROVEN_END), head.tail); /* [HEAD] */
    chron__writer_forgive(w, UINT64_MAX);
    CHRON__STEP("sync: in doubt");
}

/* What the syncer before knew. */
static int take_knowledge(chron_writer *w)
{
    const uint8_t *meta = w->q.meta.base;
    uint64_t durable =
        chron__load_relaxed_le64(meta + CHRON__S_DURABLE); /* [HEAD] under the syncer's word, as all here */

    if (!chron__queue_state(&w->q, &w->state))
        return chron__at(chron__fail(CHRON_ECORRUPT, "both copies of the writer's state in queue.meta are damaged"),
                         CHRON__FILE_META, CHRON__SLOT_A, CHRON_SEQ_NONE);
    if (w->state.durable_next > durable)
        durable = w->state.durable_next; /* it died between the two stores */
    chron__set64(&w->durable_next, durable);
    w->unsynced_base = chron__load_relaxed_le64(meta + CHRON__S_UNSYNCED); /* [HEAD] */
    w->synced_base = chron__load_relaxed_le64(meta + CHRON__S_BASE);       /* [HEAD] */
    w->synced_offset = chron__load_relaxed_le64(meta + CHRON__S_OFFSET);   /* [HEAD] */
    w->state_on_disk = chron__load_relaxed_le64(meta + CHRON__S_STATE);    /* [HEAD] */
    w->mark_on_disk = chron__load_relaxed_le64(meta + CHRON__S_MARK);      /* [HEAD] */
    pthread_mutex_lock(&w->lock);
    w->inherited_base = chron__load_relaxed_le64(meta + CHRON__C_UNPROVEN);    /* [HEAD] */
    w->inherited_end = chron__load_relaxed_le64(meta + CHRON__C_UNPROVEN_END); /* [HEAD] */
    pthread_mutex_unlock(&w->lock);
    return 0;
}

/* What the next one has to know. The mark last: then all that it stands for is said. */
static void leave_knowledge(chron_writer *w, int status)
{
    uint8_t *meta = w->q.meta.base;

    if (status == 0)
        chron__store_relaxed_le32(meta + CHRON__S_DIR_DONE, w->shared->dir);   /* [HEAD] as above */
    chron__store_relaxed_le64(meta + CHRON__S_UNSYNCED, w->unsynced_base);     /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__S_OFFSET, 0);                      /* [HEAD] not beside another base */
    chron__store_relaxed_le64(meta + CHRON__S_BASE, w->synced_base);           /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__S_OFFSET, w->synced_offset);       /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__S_STATE, w->state_on_disk);        /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__S_MARK, w->mark_on_disk);          /* [HEAD] */
    chron__store_relaxed_le64(meta + CHRON__C_UNPROVEN_END, w->inherited_end); /* [HEAD] */
    CHRON__STEP("sync: knowledge stored");
    chron__store_relaxed_le64(meta + CHRON__S_DURABLE, chron__get64(&w->durable_next)); /* [HEAD] */
}

/*
 * One of several writers syncs for all: whoever finds another one at it waits, and then what it wanted is mostly done. That is
 * group commit.
 */
static int sync_by_turns(chron_writer *w, uint64_t sealed_before)
{
    struct chron__shared *s = w->shared;
    uint8_t *word = chron__word(w, CHRON__S_SYNCER);
    uint32_t owner = 0;
    chron__head head;
    int status;

    chron__head_snapshot(w->q.meta.base, &head);
    status = chron__turn_take(&s->m, word, s->timeout_ns * SYNC_PATIENCE, &owner);
    if (status < 0)
        return chron__turn_fail(w, status, owner, "the sync");
    CHRON__STEP("sync: begun");
    if (status == CHRON__TURN_INHERITED)
        chron__sync_doubt(w);
    if (chron__load_acquire_le32(chron__word(w, CHRON__O_POISON)) ==
        s->ready)                      /* [HEAD] stored before the word is given back */
        chron__set32(&w->poisoned, 1); /* [STOP] */
    status = take_knowledge(w);
    if (status == 0 &&
        (sealed_before || chron__get64(&w->durable_next) < head.next_seq || chron__get32(&w->poisoned))) { /* [STOP] */
        status = sync_and_tell(w, sealed_before);
        CHRON__STEP("sync: done");
        leave_knowledge(w, status);
    }
    chron__turn_give(word);
    return status;
}

static int sync_now(chron_writer *w, uint64_t sealed_before)
{
    chron_bell *bell;
    int status;

    pthread_mutex_lock(&w->sync_lock);
    status = w->shared ? sync_by_turns(w, sealed_before) : sync_and_tell(w, sealed_before);
    pthread_mutex_lock(&w->lock);
    w->syncing_next = 0;
    bell = w->sync_bell;
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_unlock(&w->sync_lock);
    chron__bell_signal(bell); /* also after a failure: who waits has to hear of it */
    if (status == 0)
        (void)chron__doorbell_ring(&w->bell); /* readers of durable records wait for this */
    return status;
}

int chron__writer_sync(chron_writer *w)
{
    return sync_now(w, 0);
}

int chron__writer_sync_sealed(chron_writer *w, uint64_t before_ns)
{
    return sync_now(w, before_ns);
}

void chron__writer_owe(chron_writer *w, const chron__seg *seg)
{
    chron__owed one = {.base_seq = seg->base_seq, .sealed_ns = chron__monotonic_ns()};
    int dropped = -1;
    int inherited;

    if (w->q.fs & CHRON__FS_VOLATILE)
        return; /* nothing will ever be synced here */
    pthread_mutex_lock(&w->lock);
    inherited = seg->base_seq == w->inherited_base && w->inherited_end > 0;
    pthread_mutex_unlock(&w->lock);
    if (w->shared) /* a guess is enough: what has no descriptor is proven */
        inherited |= chron__load_relaxed_le64(chron__word(w, CHRON__C_UNPROVEN)) == seg->base_seq; /* [HEAD] */
    if (inherited)
        return; /* there is more in it than what this open file can tell of */
    one.fd = w->q.io->copy_fd(w->q.io, seg->fd);
    if (one.fd < 0)
        return; /* then it is proven, when it comes to that */
    pthread_mutex_lock(&w->lock);
    if (w->backlog.count == w->backlog.limit) {
        dropped = w->backlog.at[0].fd;
        memmove(&w->backlog.at[0], &w->backlog.at[1], (w->backlog.limit - 1u) * sizeof one);
        w->backlog.count--;
    }
    w->backlog.at[w->backlog.count++] = one;
    pthread_mutex_unlock(&w->lock);
    if (dropped >= 0)
        w->q.io->close_file(w->q.io, dropped);
}

/* Descriptors of segments that are deleted keep their room on the disk: give them up. */
void chron__writer_forgive(chron_writer *w, uint64_t oldest_base)
{
    int fds[CHRON__BACKLOG_MAX];
    size_t count = 0;

    pthread_mutex_lock(&w->lock);
    while (count < w->backlog.count && w->backlog.at[count].base_seq < oldest_base) {
        fds[count] = w->backlog.at[count].fd;
        count++;
    }
    w->backlog.count -= count;
    memmove(&w->backlog.at[0], &w->backlog.at[count], w->backlog.count * sizeof w->backlog.at[0]);
    pthread_mutex_unlock(&w->lock);
    for (size_t i = 0; i < count; i++)
        w->q.io->close_file(w->q.io, fds[i]);
}

static int writer_bell(chron_writer *w, chron_bell **out)
{
    if (!out)
        return chron__fail(CHRON_EINVAL, "there is no place to store the bell");
    *out = NULL;
    if (!w->sync_bell) {
        chron_bell *b = chron__bell_new();

        if (!b)
            return -CHRON_ENOMEM;
        pthread_mutex_lock(&w->lock);
        w->sync_bell = b;
        pthread_mutex_unlock(&w->lock);
    }
    *out = chron__bell_retain(w->sync_bell);
    return 0;
}

int chron_writer_bell(chron_writer *w, chron_bell **out)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = writer_bell(w, out);
    chron__writer_leave(w);
    return status;
}
