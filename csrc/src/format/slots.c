/* SPDX-License-Identifier: MIT */
/*
 * slots.c - the two-slot record. Invariants: generations of a file rise with each store, by one or two; odd ones live in
 * slot A, even ones in slot B; a store touches one slot alone, and never the one that its caller has to keep.
 */
#include "format/slots.h"

#include "chronicle.h"
#include "base/assert.h"
#include "base/atomics.h"
#include "base/format.h"
#include "base/step.h"

#define SLOT_WORDS (sizeof(chron__slot) / 4u)
#define SLOT_CRC_BYTES (offsetof(chron__slot, crc))

/* A reader may meet both slots in the middle of being written, if it is descheduled in between. */
#define LOAD_TRIES 64

static int load_one(const uint8_t *slot, chron__slot_value *out)
{
    uint8_t copy[sizeof(chron__slot)];

    for (size_t i = 0; i < SLOT_WORDS; i++) /* [SLOT] with chron__slots_store */
        chron__write_le32(copy + 4u * i, chron__load_relaxed_le32(slot + 4u * i));
    /* [SLOT] with chron__slots_store: what the slot tells of, records that are durable or were the last, is visible now */
    chron__fence_acquire();
    if (chron__read_le32(copy + offsetof(chron__slot, crc)) != chron_crc32c(0, copy, SLOT_CRC_BYTES))
        return 0;
    out->generation = chron__read_le64(copy + offsetof(chron__slot, generation));
    out->next_seq = chron__read_le64(copy + offsetof(chron__slot, next_seq));
    out->segment_base = chron__read_le64(copy + offsetof(chron__slot, segment_base));
    out->offset = chron__read_le64(copy + offsetof(chron__slot, offset));
    out->time_ns = chron__read_le64(copy + offsetof(chron__slot, time_ns));
    out->boot_ns = chron__read_le64(copy + offsetof(chron__slot, boot_ns));
    out->fingerprint = chron__read_le32(copy + offsetof(chron__slot, fingerprint));
    out->flags = chron__read_le32(copy + offsetof(chron__slot, flags));
    out->boot = chron__read_le32(copy + offsetof(chron__slot, boot));
    return 1;
}

int chron__slots_load(const uint8_t *base, chron__slot_value *out)
{
    for (int i = 0; i < LOAD_TRIES; i++) {
        chron__slot_value a;
        chron__slot_value b;
        int has_a = load_one(base + CHRON__SLOT_A, &a);
        int has_b = load_one(base + CHRON__SLOT_B, &b);

        if (has_a && (!has_b || (int64_t)(a.generation - b.generation) > 0)) {
            *out = a;
            return 1;
        }
        if (has_b) {
            *out = b;
            return 1;
        }
        chron__fence_seq_cst(); /* [SLOT] with nobody's: only that the next look is a new one */
    }
    memset(out, 0, sizeof *out);
    return 0;
}

void chron__slots_refresh(const uint8_t *base, chron__slot_value *value)
{
    /* The low words of both generations tell which slot is newer. [SLOT] with chron__slots_store */
    uint32_t a = chron__load_relaxed_le32(base + CHRON__SLOT_A);
    uint32_t b = chron__load_relaxed_le32(base + CHRON__SLOT_B); /* [SLOT] */
    uint32_t newest = (int32_t)(a - b) > 0 ? a : b;
    chron__slot_value now;

    if (value->generation != 0 && (uint32_t)value->generation == newest)
        return;
    /* While the newest is being written, this gives one before, and the next call looks again. It never goes back. */
    if (chron__slots_load(base, &now) && (int64_t)(now.generation - value->generation) > 0)
        *value = now;
}

void chron__slots_store(uint8_t *base, chron__slot_value *value, unsigned raise)
{
    uint8_t copy[sizeof(chron__slot)] = {0};
    uint8_t *slot;

#ifdef CHRON_TESTING
    chron__slot_value newest;

    CHRON__ASSERT(!chron__slots_load(base, &newest) || newest.generation <= value->generation); /* it never falls */
#endif
    CHRON__ASSERT(raise == CHRON__SLOTS_TURN || raise == CHRON__SLOTS_OVER);
    value->generation += raise;
    slot = base + (value->generation % 2u ? CHRON__SLOT_A : CHRON__SLOT_B);
    chron__write_le64(copy + offsetof(chron__slot, generation), value->generation);
    chron__write_le64(copy + offsetof(chron__slot, next_seq), value->next_seq);
    chron__write_le64(copy + offsetof(chron__slot, segment_base), value->segment_base);
    chron__write_le64(copy + offsetof(chron__slot, offset), value->offset);
    chron__write_le64(copy + offsetof(chron__slot, time_ns), value->time_ns);
    chron__write_le64(copy + offsetof(chron__slot, boot_ns), value->boot_ns);
    chron__write_le32(copy + offsetof(chron__slot, fingerprint), value->fingerprint);
    chron__write_le32(copy + offsetof(chron__slot, flags), value->flags);
    chron__write_le32(copy + offsetof(chron__slot, boot), value->boot);
    chron__write_le32(copy + offsetof(chron__slot, crc), chron_crc32c(0, copy, SLOT_CRC_BYTES));
    chron__fence_release(); /* [SLOT] with load_one: nobody sees the slot who does not see what it tells of */
    for (size_t i = 0; i < SLOT_WORDS; i++) { /* [SLOT] with load_one */
        chron__store_relaxed_le32(slot + 4u * i, chron__read_le32(copy + 4u * i));
        CHRON__STEP("slot: word stored");
    }
}
