/* SPDX-License-Identifier: MIT */
/*
 * writer.h - the inside of a chron_writer. open.c opens and closes it, append.c and batch.c append, roll.c goes on to
 * the next segment, prepare.c makes that and pages ready, room.c makes room for it, sync.c puts records on disk,
 * keeper.c and syncer.c are the background threads.
 *
 * Threads: the owner's thread calls the public functions; the keeper's thread prepares and cleans up, the syncer's runs
 * chron__writer_sync and chron__writer_sync_sealed. What both touch is either atomic, or guarded by:
 *
 *   lock        seg, next, preparing, segments, retired, backlog, failure, sync_wanted, syncing_next, sync_bell, and the keeper's own state
 *   sync_lock   one sync at a time; the slots of queue.meta; unsynced_base, synced_*
 *   clean_lock  one cleanup at a time; memory
 *
 * Order: sync_lock, clean_lock, lock. Everything else belongs to the owner's thread.
 */
#ifndef CHRON_WRITER_H
#define CHRON_WRITER_H

#include <pthread.h>

#include "base/error.h"
#include "base/step.h"
#include "format/bell.h"
#include "format/doorbell.h"
#include "format/segment.h"
#include "platform/counter.h"
#include "queue/retention.h"
#include "write/backlog.h"

#define CHRON__REOPEN ". Close the writer and open the queue again" /* what a failure that poisons ends with */
#define CHRON__FILE_NEXT "next.tmp"                                 /* the prepared segment, until it gets its name */

struct chron_writer {
    /* What every append touches. */
    uint8_t *base;          /* of the current segment's mapping */
    chron__a64 tail;        /* [TAIL] offset of the next record */
    chron__a64 next_seq;    /* [TAIL] */
    uint64_t edge;          /* an append that would end behind this offset calls chron__writer_edge first */
    uint64_t next_block;    /* a record that starts at or behind this offset gets an index entry */
    uint64_t max_payload;   /* bytes */
    uint64_t payload_bytes; /* appended so far: stats */
    uint32_t epoch;         /* low word */
    uint32_t fork_count;    /* chron__fork_count when opened */
    chron__a32 *fault;      /* [FAULT] of the current mapping */
    int was_told;           /* the owner knows that it is poisoned */
    chron__a32 poisoned;    /* [STOP] a sync failed, or a mapping faulted: only close is left */
    chron__a32 busy;        /* [BUSY] */
    uint32_t checked;
    chron__a32 closed;      /* [BUSY] by shut: then `busy` stays taken for good */
    uint32_t clock;         /* CHRON_CLOCK_... */
    uint32_t sync_every;    /* records; 0: appends do not sync */
    uint32_t unsynced;      /* records since the last sync by append */
    uint64_t claimed;       /* bytes of room claimed behind tail, header included; 0: no claim */
    chron__tally tally;     /* of the current segment */
    chron__counter counter; /* with CHRON_CLOCK_COUNTER */
    chron__doorbell bell;

    /* Everything else. */
    chron__queue q;
    chron_writer_options options; /* retention is not kept: it is the caller's */
    chron_retention retention;
    chron__lock writer_lock;
    char line[CHRON__LOCK_LINE_BYTES]; /* of writer.lock, as it was before this opening */
    chron__lock meta_lock;             /* on queue.meta, in case somebody deletes writer.lock */
    chron__place place;                /* of queue.meta */
    void (*on_cancel)(void *opening);  /* while it is opened: what to do if the thread is cancelled */
    void *opening;
    int counts_links; /* this file system tells when a file was removed */
    chron_recovery recovery;
    struct chron__tell *tell; /* of a repair, while the writer opens: hears what is found; or NULL */
    uint64_t full_epoch;
    uint64_t first_seq;      /* of this handle */
    uint64_t limit_segments; /* back-pressure: 0 off */
    chron__a64 kept_bytes;   /* [COUNT] in quarantine/, on the disk */
    uint64_t kept_due_ns;    /* when to look again; 0: now (and clean_lock) */
    uint64_t rolls;
    uint64_t rolls_unprepared;
    uint64_t full_waits;
    uint64_t wakes;
    chron__a64 window;           /* [TOUCH] bytes ahead of the tail that are worth preparing */
    chron__a64 fill_ns;          /* [COUNT] how long the segment before took to fill; 0: not known */
    uint64_t entered_ns;         /* when the current one was begun, monotonic */
    uint64_t lead_max;           /* bytes in front of the tail that may be prewritten: they are dirty, in memory */
    chron__a64 touched_bytes;    /* [COUNT] */
    chron__a64 syncs;            /* [COUNT] */
    chron__a64 deleted_segments; /* [COUNT] */

    pthread_mutex_t lock;
    chron__seg *seg;     /* the current segment */
    chron__seg *next;    /* prepared, or NULL */
    int preparing;       /* the keeper is making one: a roll waits for it. 2: its file is there */
    int rolling;         /* the owner has taken, or is making, one: the keeper keeps its hands off next.tmp */
    uint32_t segments;   /* files that there are */
    chron__seg *retired; /* left by a roll, for the keeper to unmap */
    chron__backlog backlog;
    chron_error failure; /* of the sync that poisoned, for the owner */

    pthread_mutex_t sync_lock;
    chron__slot_value state; /* as last stored in queue.meta */
    uint64_t mark_on_disk;   /* its durable_next, as last put on disk */
    uint64_t
        state_on_disk; /* generation of the slot that is on disk for sure: not written over before another one is */
    int sync_lost;     /* a sync has failed */
    uint64_t unsynced_base;  /* segments below this are on disk, seal and all */
    uint64_t inherited_base; /* this segment was there when the writer opened, */
    uint64_t inherited_end; /* with records up to here that nobody has proven to be on the device; 0: none (and lock) */
    uint64_t synced_base;   /* segment that the next one is about */
    uint64_t synced_offset; /* pages below this are on disk */
    chron__a32 dir_dirty;   /* [TAIL] names may have changed since the directory was put on disk */
    uint64_t syncing_next;  /* what the sync that runs now will make durable; 0: none runs (with lock) */
    int roll_wanted;        /* the current segment is to be left, for the device has lost a part of it (with lock) */
    int sync_wanted;        /* somebody waits for a sync by the keeper (with lock) */
    chron_bell *sync_bell;  /* rung when a sync has ended; NULL until somebody asks for it (with lock) */
    chron__a64 durable_next; /* [COUNT] seqs below this survive a loss of power */

    pthread_mutex_t clean_lock;
    chron__retention_memory memory; /* with clean_lock */

    /* keeper.c */
    pthread_t keeper;
    pthread_cond_t keeper_wake; /* with lock: something to do, or stop */
    pthread_cond_t keeper_done; /* with lock: `preparing` has ended */
    int keeper_running;         /* owner's thread only */
    int keeper_wanted;          /* the same: one that could not be started is tried again at each roll */
    chron__a32 keeper_stop;     /* [STOP] */
    chron__a32 keeper_asleep;   /* [STOP] advice: a kick is worth its system call */

    /* syncer.c */
    pthread_t syncer;
    pthread_cond_t syncer_wake; /* with lock: something to do, or stop */
    int syncer_running;         /* owner's thread only */

    chron__a64 keeper_errors;     /* [COUNT] */
    chron__a32 keeper_last_error; /* [COUNT] */
};

/* What every public function begins and ends with. 0, or EINVAL, EFORKED, EBUSY. */
static inline int chron__writer_enter(chron_writer *w)
{
    if (__builtin_expect(!w, 0))
        return chron__fail(CHRON_EINVAL, "the writer is NULL");
    if (__builtin_expect(w->fork_count != chron__get32(&chron__fork_count), 0))
        return chron__fail(CHRON_EFORKED, "this writer was opened before a fork, in the parent process: open a new "
                                          "one here (the parent's goes on working there)");
    if (w->checked && __builtin_expect(chron__take32(&w->busy) != 0, 0)) /* [BUSY] with chron__writer_leave */
        return chron__fail_busy("writer", chron__get_acquire32(&w->closed),
                                "a queue has one, so take a lock around it");
    return 0;
}

static inline void chron__writer_leave(chron_writer *w)
{
    if (w->checked)
        chron__set_release32(&w->busy, 0); /* [BUSY] with chron__writer_enter */
}

/* open.c: chron_writer_open() on another table of system calls, for tests. */
int chron__writer_open_with(const chron__io *io, const char *path, const chron_writer_options *options,
                            chron_writer **out);
/* The same for a repair (CHRON_REPAIR): `tell` hears of all that is found, before anything is changed. */
int chron__writer_open_telling(const chron__io *io, const char *path, const chron_writer_options *options,
                               struct chron__tell *tell, chron_writer **out);

/* EPOISONED. */
int chron__writer_fail_poisoned(chron_writer *w) __attribute__((cold, noinline));
/* The pages under the current segment were replaced by zeros, and what went there is gone: poisons; EIO. */
int chron__writer_faulted(chron_writer *w) __attribute__((cold, noinline));
/* The sync that an append asked for has failed, and told why: EUNSYNCED. `count` records up to `seq` are in the log. */
int chron__writer_fail_unsynced(chron_writer *w, uint64_t seq, uint64_t count) __attribute__((cold, noinline));
/* Index entry for the record (or END) that starts at `offset`, if it is the first of its block. */
void chron__writer_note_block(chron_writer *w, uint64_t offset);
/* `change` more segment files than before (or less). Any thread. */
void chron__writer_count_segments(chron_writer *w, int32_t change);
/* Background work failed: it is counted, and tried again later. */
void chron__writer_note_failure(chron_writer *w, int status);
/* The writer went on: wake the keeper if it sleeps. */
void chron__writer_kick(chron_writer *w);

#endif
