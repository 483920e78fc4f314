/* SPDX-License-Identifier: MIT */
/*
 * turn.h - a turn word: who of several processes may change a shared file now. It lies in the mapped file, and so does a table
 * of those who may take it. The kernel tells who is alive: each member holds a lock on a byte of its own of that file.
 *
 * Word, u32, native byte order: 0 free; else WAITERS (bit 31), incarnation (bits 10 to 30, never 0), slot (bits 0 to 9). A
 * slot is a place in the table, and the byte CHRON__TURN_BYTES + slot; an incarnation is who sits there, and is never used
 * twice in a row of two million. Words do not outlive a boot, nor a copy of their file: who maps the file has to know that first.
 *
 * Table, 16 bytes a slot: incarnation u32 (0: never used), pid u32, joined u64 (wall clock, ns; for people).
 *
 * A file may have several such words with one table. All of this is for one thread of a member at a time; different words
 * may be used by different threads.
 */
#ifndef CHRON_TURN_H
#define CHRON_TURN_H

#include "base/error.h"
#include "platform/platform.h"

#define CHRON__TURN_WAITERS 0x80000000u
#define CHRON__TURN_SLOT_BITS 10u
#define CHRON__TURN_SLOT_MASK 0x3FFu
#define CHRON__TURN_SLOTS_MAX 1024u
#define CHRON__TURN_BYTES (UINT64_C(1) << 40) /* the lock of slot 0 */
#define CHRON__TURN_ENTRY 16u                 /* bytes of the table for a slot */

/* The members of one file. */
typedef struct chron__members {
    const chron__io *io;
    int fd;                    /* of the file, to ask about locks: nothing is ever locked through it */
    uint32_t slots;            /* how many the table has */
    uint8_t *table;            /* mapped */
    uint8_t *next_incarnation; /* u32, mapped: counts the joinings */
    uint32_t me;               /* this member's word, without WAITERS; 0: not joined */
} chron__members;

/* Who is that? */
typedef struct chron__member {
    int64_t pid;
    uint64_t joined_ns;
    int state; /* chron__process_state() */
} chron__member;

/*
 * Take a free slot: its byte is locked through `fd` (the same file, opened once more, for writing), which the caller keeps from
 * then on, best by io->hold. Sets m->me. 0; -EAGAIN: all are taken; -ENOTSUP; or what the system says. Afterwards the caller
 * has to look, with chron__turn_inherit, at every word that its predecessor in this slot may have left.
 */
int chron__turn_join(chron__members *m, int fd);

/* Is its owner gone? 1 or 0, or -errno. Asking costs a system call (0.3 us) unless the slot was given to somebody else. */
int chron__turn_is_dead(const chron__members *m, uint32_t word);
/* What the table says of a word's owner; zeros if it says nothing. */
void chron__turn_owner(const chron__members *m, uint32_t word, chron__member *out);

/* How a turn was taken. */
#define CHRON__TURN_CLEAN 0
#define CHRON__TURN_INHERITED 1 /* from somebody who died in it, or this thread left it by a jump: repair first */

/* If the word is free it is taken. */
static inline int chron__turn_try(const chron__members *m, uint8_t *word)
{
    return chron__cas_acquire32(word, 0, m->me); /* [TURN] with chron__turn_give, of whoever had it before */
}

/*
 * Wait for a turn: spins, then sleeps in slices, and asks the kernel about the owner at the end of each. CLEAN or INHERITED, with
 * the turn; -ETIMEDOUT when a living owner has kept it all the time (*owner is its word), -EINTR, or what asking
 * for locks met.
 */
int chron__turn_wait(const chron__members *m, uint8_t *word, uint64_t timeout_ns, uint32_t *owner);

static inline int chron__turn_take(const chron__members *m, uint8_t *word, uint64_t timeout_ns, uint32_t *owner)
{
    return __builtin_expect(chron__turn_try(m, word), 1) ? CHRON__TURN_CLEAN
                                                         : chron__turn_wait(m, word, timeout_ns, owner);
}

/*
 * After a joining: if the word is that of a member who was in this slot before, it is taken: nobody else can tell that it is
 * dead. 1: it is ours, repair first; 0: it is not.
 */
int chron__turn_inherit(const chron__members *m, uint8_t *word);

/* One of those who sleep. */
void chron__turn_wake(uint8_t *word) __attribute__((cold));

/* Give it back. A full fence, where the machine's exchange is one. */
static inline void chron__turn_give(uint8_t *word)
{
    if (__builtin_expect(chron__exchange_release32(word, 0) & CHRON__TURN_WAITERS, 0)) /* [TURN] with the takers */
        chron__turn_wake(word);
}

/* For people: "process 42, which is stopped". */
void chron__turn_describe(const chron__members *m, uint32_t word, char *text, size_t bytes);

#endif
