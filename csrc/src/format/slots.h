/* SPDX-License-Identifier: MIT */
/*
 * slots.h - a small record that one process rewrites in place and others read, in queue.meta and in
 * position files. Two slots take turns; each has a CRC. Killed in the middle of a store, or read in the
 * middle of one, the other slot still holds the value before.
 *
 * Turns protect from the death of the process. A loss of power may leave both torn, each at another moment, unless one of
 * them was put on disk before the other is touched: so who knows which one is on disk leaves that alone, and writes over the
 * newer one, until that is on disk as well. Then a store that is cut off leaves the value that was last put on disk.
 */
#ifndef CHRON_SLOTS_H
#define CHRON_SLOTS_H

#include <stdint.h>

/* Fields as in chron__slot. Two words mean something else in queue.meta than in a position. */
typedef struct chron__slot_value {
    uint64_t generation;
    uint64_t next_seq;
    union {
        uint64_t segment_base; /* position */
        uint64_t durable_next; /* queue.meta */
    };
    union {
        uint64_t offset; /* position */
        uint64_t epoch;  /* queue.meta */
    };
    uint64_t time_ns;
    uint64_t boot_ns; /* position, as `boot` */
    uint32_t fingerprint;
    uint32_t flags;
    uint32_t boot;
} chron__slot_value;

/* The newest valid slot of the file mapped at `base`: 1, or 0 if neither is valid (then *out is zeroed). */
int chron__slots_load(const uint8_t *base, chron__slot_value *out);

/* The same, when *value is what an earlier call gave (zeros at first): two loads if nothing was stored since. */
void chron__slots_refresh(const uint8_t *base, chron__slot_value *value);

/* How far the next store raises the generation: 1, into the other slot; 2, over the newest one. */
#define CHRON__SLOTS_TURN 1u
#define CHRON__SLOTS_OVER 2u

/* Store *value with a generation that is `raise` higher, also in *value. One thread of one process only. */
void chron__slots_store(uint8_t *base, chron__slot_value *value, unsigned raise);

#endif
