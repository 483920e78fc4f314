/* SPDX-License-Identifier: MIT */
/*
 * group.h - groups/<name>.grp: which of a group's workers has which job, and how far all is done. Shared by the processes of
 * the group, each of which holds a lock on a byte of its own (format/turn.h).
 *
 * A job is a record; what is known of it stands in one cell, as one word. The word says which lap through the cells it is of:
 * one of an older lap says nothing of this job, so that it is new; one of a newer lap says that the floor had passed this job.
 * Every change is one compare-and-swap from the value that was judged, with the turn or without: an owner may acknowledge
 * between a look at its cell and one at its lock. So any process may die anywhere, and nothing has to be repaired but hints.
 */
#ifndef CHRON_GROUP_FILE_H
#define CHRON_GROUP_FILE_H

#include "base/assert.h"
#include "format/position.h"
#include "format/turn.h"

#define CHRON__CELL_COUNT_MAX 0xFFFu
#define CHRON__CELL_OWNER_MASK 0x7FFFFFFFu
#define CHRON__CELL_LAP_MASK 0x3FFFFu

typedef struct chron__group_file {
    int dir; /* descriptor of groups/ */
    int fd;
    chron__map map;
    chron__lock held; /* membership, once it was admitted */
    int lock_fd;      /* before: what the locks are taken through; -1 */
    chron__members members;
    uint32_t window;
    uint32_t flags;
    int is_first; /* nobody else was a member at the opening */
    int is_new;   /* the file was made by this opening */
    int names_synced;
} chron__group_file;

/* What a group is made with; ignored where there is one, but that `flags` must be its. */
typedef struct chron__group_birth {
    const char *name;
    uint32_t window;
    uint32_t flags;
    unsigned mode;
    int create;
} chron__group_birth;

/*
 * Open, or make, the file, and keep others from joining. If is_first, the caller puts it in order now; then, in every case,
 * chron__group_admit or chron__group_close. ENOQUEUE (there is no such group), ECORRUPT, EFORMAT, ENOTSUP, EHELD.
 */
int chron__group_open(const chron__queue *q, const chron__group_birth *birth, chron__group_file *out);
/* Become a member, and let others join. EHELD: all places are taken. */
int chron__group_admit(const chron__queue *q, chron__group_file *file, const char *name);
/* Take back what this opening has made, before it was admitted. */
void chron__group_unlink(const chron__queue *q, chron__group_file *file, const char *name);
void chron__group_close(const chron__queue *q, chron__group_file *file);
/* In a forked child: give back what is the child's own. */
void chron__group_forget(const chron__queue *q, chron__group_file *file);
/* Put it on disk, and its name. */
int chron__group_sync(const chron__queue *q, chron__group_file *file);
/* Map one to look at it: no lock, nothing is changed. */
int chron__group_look(const chron__queue *q, const char *name, chron__group_file *out);
/* Remove one that has no members, and its position. EHELD if it has. */
int chron__group_remove(const chron__queue *q, const char *name);

/* The names of all groups there are: `each` is called for each; a nonzero result ends the walk. */
int chron__groups_list(const chron__queue *q, int (*each)(void *context, const char *name), void *context);

/* ---------------------------------------------------------------------------------------------- cells */

static inline uint8_t *chron__group_cell(const chron__group_file *file, uint64_t seq)
{
    return file->map.base + CHRON__GROUP_CELLS + (size_t)(seq & (file->window - 1u)) * sizeof(chron__cell);
}

static inline uint64_t chron__cell_lap(const chron__group_file *file, uint64_t seq)
{
    return (seq / file->window) & CHRON__CELL_LAP_MASK;
}

static inline uint32_t chron__cell_state(uint64_t word)
{
    return (uint32_t)(word & 7u);
}

static inline uint32_t chron__cell_count(uint64_t word)
{
    return (uint32_t)(word >> 3 & CHRON__CELL_COUNT_MAX);
}

/* A turn word: who has the job. */
static inline uint32_t chron__cell_owner(uint64_t word)
{
    return (uint32_t)(word >> 15) & CHRON__CELL_OWNER_MASK;
}

static inline uint64_t chron__cell_word(const chron__group_file *file, uint64_t seq, uint32_t state, uint32_t count,
                                        uint32_t owner)
{
    CHRON__ASSERT(state <= CHRON__CELL_DONE && count <= CHRON__CELL_COUNT_MAX && owner <= CHRON__CELL_OWNER_MASK);
    return state | (uint64_t)count << 3 | (uint64_t)owner << 15 | chron__cell_lap(file, seq) << 46;
}

static inline uint64_t chron__cell_load(const chron__group_file *file, uint64_t seq)
{
    return chron__load_acquire_le64(chron__group_cell(file, seq)); /* [CELL] with chron__cell_swap */
}

/* Is the word about this job? Else it says nothing of it: the job is new. */
static inline int chron__cell_is_of(const chron__group_file *file, uint64_t seq, uint64_t word)
{
    return word >> 46 == chron__cell_lap(file, seq) && chron__cell_state(word) != CHRON__CELL_NEW;
}

/* What the word says of this job. 7, which nobody stores, counts as READY: it is damage, and then the job is not lost. */
static inline uint32_t chron__cell_state_of(const chron__group_file *file, uint64_t seq, uint64_t word)
{
    if (!chron__cell_is_of(file, seq, word))
        return CHRON__CELL_NEW;
    return chron__cell_state(word) > CHRON__CELL_DONE ? CHRON__CELL_READY : chron__cell_state(word);
}

/* 1 if nobody was faster. */
static inline int chron__cell_swap(const chron__group_file *file, uint64_t seq, uint64_t seen, uint64_t word)
{
    return chron__cas_le64(chron__group_cell(file, seq), seen, word); /* [CELL] with chron__cell_load */
}

static inline uint64_t chron__cell_arg(const chron__group_file *file, uint64_t seq)
{
    return chron__load_acquire_le64(chron__group_cell(file, seq) + offsetof(chron__cell, arg)); /* [CELL] */
}

static inline void chron__cell_set_arg(const chron__group_file *file, uint64_t seq, uint64_t arg)
{
    chron__store_release_le64(chron__group_cell(file, seq) + offsetof(chron__cell, arg), arg); /* [CELL] */
}

static inline uint32_t chron__cell_field(const chron__group_file *file, uint64_t seq, size_t field)
{
    return chron__load_relaxed_le32(chron__group_cell(file, seq) + field); /* [CELL] */
}

static inline void chron__cell_set_field(const chron__group_file *file, uint64_t seq, size_t field, uint32_t value)
{
    chron__store_relaxed_le32(chron__group_cell(file, seq) + field, value); /* [CELL] */
}

/* ---------------------------------------------------------------------------------------------- words */

static inline uint64_t chron__group_word(const chron__group_file *file, size_t at)
{
    return chron__load_acquire_le64(file->map.base + at); /* [HINT] with chron__group_set_word */
}

static inline void chron__group_set_word(const chron__group_file *file, size_t at, uint64_t value)
{
    chron__store_release_le64(file->map.base + at, value); /* [HINT] with chron__group_word */
}

/* Let a time, or a seq, be this one if that is less. */
void chron__group_lower_word(const chron__group_file *file, size_t at, uint64_t value);

#endif
