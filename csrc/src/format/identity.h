/* SPDX-License-Identifier: MIT */
/*
 * identity.h - what an opening may believe: where the queue lay when its state was stored last, and what its writer was
 * about to do then. Both stand in queue.meta (base/format.h).
 */
#ifndef CHRON_IDENTITY_H
#define CHRON_IDENTITY_H

#include "format/queue.h"

/* Where does a queue come from? */
enum chron__whence {
    CHRON__FROM_UNKNOWN, /* the state was stored by a library that does not say, or the system has no name for its boots */
    CHRON__FROM_COPY,    /* another file, or another disk: a copy, a snapshot, a device that came back */
    CHRON__FROM_BOOT,    /* this file, but the machine was started again since */
    CHRON__FROM_HERE,    /* this file, in this boot: the page cache has all that was ever stored */
};

/* As chron__slots_store() in queue.meta, and with it where that is. One thread of one process only. */
void chron__state_store(uint8_t *base, chron__slot_value *value, const chron__place *place, unsigned raise);

/* *value is what was loaded from the queue.meta mapped at `base`, and lies at `place` now. */
enum chron__whence chron__state_whence(const uint8_t *base, const chron__slot_value *value, const chron__place *place);

/* The writer's words; 1, or 0 if they are those of another epoch (then *out is zeroed). */
int chron__words_load(const uint8_t *base, uint64_t epoch, chron__words *out);
void chron__words_store(uint8_t *base, const chron__words *words);

/* One word of them. The owner's thread, but `segments` with the writer's lock. */
static inline void chron__word_store(uint8_t *base, size_t word, uint32_t value)
{
    chron__store_release_le32(base + CHRON__WORDS_AT + word, value); /* [INTENT] with chron__words_load */
}

/* The first segment there is. One thread at a time (clean_lock, or an opening). */
void chron__oldest_store(uint8_t *base, uint64_t base_seq);
/* What was said last, if all of it is there: 1. */
int chron__oldest_load(const uint8_t *base, uint64_t *base_seq);

/* Before anything is placed in front of `intent` (bytes): say so. Owner's thread. */
static inline void chron__intent_store(uint8_t *base, uint64_t intent)
{
    chron__word_store(base, offsetof(chron__words, intent), (uint32_t)(intent / CHRON__ALIGN));
}

/*
 * Several records, or one in the user's hands, are being placed from `offset` on, and none of it is published; 0: no more.
 * A single record that is appended needs no such word: nothing whole ever stands behind one. Owner's thread.
 */
static inline void chron__group_store(uint8_t *base, uint64_t offset)
{
    chron__word_store(base, offsetof(chron__words, group), (uint32_t)(offset / CHRON__ALIGN));
    chron__fence_signal(); /* [INTENT] nothing is placed before it: a process dies between two instructions */
}

/* What was said last. Owner's thread. */
static inline uint64_t chron__intent_of(const uint8_t *base)
{
    const uint8_t *at = base + CHRON__WORDS_AT + offsetof(chron__words, intent);

    return (uint64_t)chron__load_acquire_le32(at) * CHRON__ALIGN; /* [INTENT] its own */
}

#endif
