/* SPDX-License-Identifier: MIT */
/*
 * shared.h - the words in queue.meta by which several writers take turns: where they lie, and the head, which says where the
 * log ends. They count only in the place and boot that the newest slot's identity names, and only if `end_epoch` is that slot's
 * epoch and `ready` is not 0. They never need to be on disk. docs/FORMAT.md has the table.
 *
 * The head has two states, one of which is valid: that of the parity of `commit`. A turn stores the other one whole, and then
 * commit + 1: that store is the commit point. So who dies leaves the state before or the one behind, and who looks
 * without having the turn (a sync) sees by a second look at `commit` whether what it read is whole.
 */
#ifndef CHRON_SHARED_H
#define CHRON_SHARED_H

#include "format/queue.h"
#include "base/step.h"
#include "format/turn.h"

#define CHRON__SHARED_AT 2048u /* in queue.meta; lines of 64 bytes */

/* Owner. */
#define CHRON__O_OWNER 2048u  /* turn word: who may append */
#define CHRON__O_READY 2052u  /* low word of the epoch that the first of these writers began with; 0: not initialised */
#define CHRON__O_EPOCH 2056u  /* low word of the epoch of what is appended */
#define CHRON__O_END 2060u    /* low word of the newest slot's epoch: up to here epochs are reserved, on disk */
#define CHRON__O_POISON 2064u /* = ready: a sync failed, or pages were lost; nobody goes on */

/* Head. */
#define CHRON__H_COMMIT 2112u
#define CHRON__H_INTENT \
    2116u /* 0; or in units of 32 bytes where what is being placed will end; or CHRON__INTENT_ROLL */
#define CHRON__H_TAIL(i) (2120u + 4u * (i))   /* in units of 32 bytes, and CHRON__TAIL_ORDERED */
#define CHRON__H_STATE(i) (2128u + 24u * (i)) /* u64 base, u64 next_seq, u64 last_ts */
#define CHRON__INTENT_ROLL UINT32_MAX
#define CHRON__TAIL_ORDERED 0x80000000u /* timestamps never went back in this segment */

/* The next segment. */
#define CHRON__P_PREPARER 2176u /* turn word: who may make it */
#define CHRON__P_READY 2180u    /* n: next.<n>.tmp is complete; 0: there is none */
#define CHRON__P_COUNT 2184u    /* n of the newest that was begun */

/* Sync. The u64 are changed under `syncer` only. */
#define CHRON__S_SYNCER 2240u   /* turn word */
#define CHRON__S_DIR 2244u      /* counts changes of names: rolls */
#define CHRON__S_DIR_DONE 2248u /* that the directory was synced at */
#define CHRON__S_DURABLE 2256u
#define CHRON__S_UNSYNCED 2264u /* base: segments below are on disk */
#define CHRON__S_BASE 2272u     /* segment that the next one is about */
#define CHRON__S_OFFSET 2280u   /* pages of it below are on disk */
#define CHRON__S_STATE 2288u    /* generation of the slot that is on disk */
#define CHRON__S_MARK 2296u     /* its durable_next */

/* Seldom. */
#define CHRON__C_JOINED 2304u /* next incarnation */
#define CHRON__C_LIMIT_BYTES 2312u
#define CHRON__C_LIMIT_SEGMENTS 2320u
#define CHRON__C_UNPROVEN 2328u     /* base: it holds records that nobody has proven to be on the device, */
#define CHRON__C_UNPROVEN_END 2336u /* up to this offset; 0: none */
#define CHRON__SLOT_TABLE 2368u
#define CHRON__SLOT_COUNT 108u

_Static_assert(CHRON__SLOT_TABLE + CHRON__SLOT_COUNT * CHRON__TURN_ENTRY == CHRON__PAGE, "format");

/* Bytes of writer.lock and queue.meta that are locked. */
#define CHRON__BYTE_WRITER 0u                       /* shared by those who take turns, else exclusive */
#define CHRON__BYTE_JOIN ((UINT64_C(1) << 40) - 1u) /* writer.lock: who joins, or leaves as the last */
#define CHRON__EPOCHS_RESERVED 65536u               /* by an opening, for repairs */

typedef struct chron__head {
    uint32_t commit;
    uint32_t intent;
    uint64_t base;
    uint64_t next_seq;
    uint64_t last_ts;
    uint64_t tail; /* bytes */
    int ordered;
} chron__head;

/* As far as `commit` tells: in the turn, or to be checked by chron__head_snapshot. */
static inline void chron__head_load(const uint8_t *meta, chron__head *h)
{
    uint32_t commit = chron__load_acquire_le32(meta + CHRON__H_COMMIT); /* [HEAD] with chron__head_store */
    const uint8_t *state = meta + CHRON__H_STATE(commit & 1u);
    uint32_t tail = chron__load_relaxed_le32(meta + CHRON__H_TAIL(commit & 1u)); /* [HEAD] */

    h->commit = commit;
    h->intent = chron__load_relaxed_le32(meta + CHRON__H_INTENT); /* [HEAD] */
    h->base = chron__load_relaxed_le64(state);                    /* [HEAD] */
    h->next_seq = chron__load_relaxed_le64(state + 8);            /* [HEAD] */
    h->last_ts = chron__load_relaxed_le64(state + 16);            /* [HEAD] */
    h->tail = (uint64_t)(tail & ~CHRON__TAIL_ORDERED) * CHRON__ALIGN;
    h->ordered = (tail & CHRON__TAIL_ORDERED) != 0;
}

/* The same without the turn. */
static inline void chron__head_snapshot(const uint8_t *meta, chron__head *h)
{
    do {
        chron__head_load(meta, h);
        chron__fence_acquire(); /* [HEAD] with the release fence of chron__head_store */
    } while (chron__load_relaxed_le32(meta + CHRON__H_COMMIT) != h->commit); /* [HEAD] */
}

/* The commit point of a turn. */
static inline void chron__head_store(uint8_t *meta, chron__head *h)
{
    const uint32_t commit = h->commit + 1u;
    uint8_t *state = meta + CHRON__H_STATE(commit & 1u);

    chron__fence_release();                    /* [HEAD] with chron__head_snapshot: the commit before is seen first */
    chron__store_relaxed_le64(state, h->base); /* [HEAD] */
    chron__store_relaxed_le64(state + 8, h->next_seq);           /* [HEAD] */
    chron__store_relaxed_le64(state + 16, h->last_ts);           /* [HEAD] */
    chron__store_relaxed_le32(meta + CHRON__H_TAIL(commit & 1u), /* [HEAD] */
                              (uint32_t)(h->tail / CHRON__ALIGN) | (h->ordered ? CHRON__TAIL_ORDERED : 0u));
    CHRON__STEP("turn: state stored");
    chron__store_release_le32(meta + CHRON__H_COMMIT, commit); /* [HEAD] with chron__head_load */
    h->commit = commit;
    CHRON__STEP("turn: committed");
}

/* Before anything is placed, and 0 when all is done. Owner of the turn. */
static inline void chron__head_intend(uint8_t *meta, uint32_t intent)
{
    chron__store_release_le32(meta + CHRON__H_INTENT, intent); /* [HEAD] with a repair */
    chron__fence_signal();                                     /* [HEAD] a process dies between two instructions */
}

/* Do the words count, beside this newest slot, which lies where it was stored? */
int chron__shared_valid(const uint8_t *meta, const chron__slot_value *state);

/* A pid that has the queue open as one of several writers; 0: none is known. `meta`: a descriptor of queue.meta, and its map. */
int64_t chron__shared_pid(const chron__io *io, int fd, uint8_t *meta);

/* "next.7.tmp"; `out` has CHRON__NAME_BYTES. */
void chron__shared_name(uint32_t n, char *out);
/* Is that such a name? */
int chron__shared_is_name(const char *name);

#endif
