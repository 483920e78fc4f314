/* SPDX-License-Identifier: MIT */
/*
 * identity.c - see identity.h.
 *
 * The identity of a slot is stored before the slot. Killed in between, it stands beside the older one of the two, whose
 * generation it has not, and the newest slot keeps its own.
 */
#include "format/identity.h"

#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/step.h"

#define IDENTITY_CRC_BYTES (offsetof(chron__identity, crc))

static size_t slot_of(uint64_t generation)
{
    return generation % 2u ? CHRON__SLOT_A : CHRON__SLOT_B;
}

static void identity_store(uint8_t *at, uint64_t generation, const chron__place *place)
{
    uint8_t copy[sizeof(chron__identity)] = {0};

    memcpy(copy, place->boot, sizeof place->boot);
    chron__write_le64(copy + offsetof(chron__identity, device), place->device);
    chron__write_le64(copy + offsetof(chron__identity, inode), place->inode);
    chron__write_le64(copy + offsetof(chron__identity, birth_ns), place->birth_ns);
    chron__write_le64(copy + offsetof(chron__identity, disk_seq), place->disk_seq);
    chron__write_le64(copy + offsetof(chron__identity, generation), generation);
    chron__write_le32(copy + IDENTITY_CRC_BYTES, chron_crc32c(0, copy, IDENTITY_CRC_BYTES));
    for (size_t i = 0; i < sizeof copy; i += 4u) /* [SLOT] only the next writer reads it */
        chron__store_relaxed_le32(at + i, chron__read_le32(copy + i));
}

void chron__state_store(uint8_t *base, chron__slot_value *value, const chron__place *place, unsigned raise)
{
    uint64_t generation = value->generation + raise;

    identity_store(base + slot_of(generation) + CHRON__IDENTITY_BEHIND, generation, place);
    CHRON__STEP("state: identity stored");
    chron__slots_store(base, value, raise);
    CHRON__ASSERT(value->generation == generation);
}

static int is_known(const uint8_t *boot)
{
    static const uint8_t unknown[16];

    return memcmp(boot, unknown, sizeof unknown) != 0;
}

enum chron__whence chron__state_whence(const uint8_t *base, const chron__slot_value *value, const chron__place *place)
{
    const uint8_t *at = base + slot_of(value->generation) + CHRON__IDENTITY_BEHIND;
    uint8_t copy[sizeof(chron__identity)];

    for (size_t i = 0; i < sizeof copy; i += 4u) /* [SLOT] with identity_store, of a writer before */
        chron__write_le32(copy + i, chron__load_relaxed_le32(at + i));
    if (chron__read_le32(copy + IDENTITY_CRC_BYTES) != chron_crc32c(0, copy, IDENTITY_CRC_BYTES) ||
        chron__read_le64(copy + offsetof(chron__identity, generation)) != value->generation)
        return CHRON__FROM_UNKNOWN;
    if (chron__read_le64(copy + offsetof(chron__identity, inode)) != place->inode ||
        chron__read_le64(copy + offsetof(chron__identity, birth_ns)) != place->birth_ns)
        return CHRON__FROM_COPY;
    if (!is_known(place->boot) || !is_known(copy))
        return CHRON__FROM_UNKNOWN;
    if (memcmp(copy, place->boot, sizeof place->boot) != 0)
        return CHRON__FROM_BOOT; /* the device's number and place in the count may well be others then */
    if (chron__read_le64(copy + offsetof(chron__identity, device)) != place->device ||
        chron__read_le64(copy + offsetof(chron__identity, disk_seq)) != place->disk_seq)
        return CHRON__FROM_COPY;
    return CHRON__FROM_HERE;
}

#define OLDEST_CHECK 0x4F4C4453u /* so that zeros are no value */

void chron__oldest_store(uint8_t *base, uint64_t base_seq)
{
    const uint32_t low = (uint32_t)base_seq;
    const uint32_t high = (uint32_t)(base_seq >> 32);

    chron__word_store(base, offsetof(chron__words, oldest), low);
    chron__word_store(base, offsetof(chron__words, oldest_high), high);
    chron__word_store(base, offsetof(chron__words, oldest_check), low ^ high * 3u ^ OLDEST_CHECK);
}

int chron__oldest_load(const uint8_t *base, uint64_t *base_seq)
{
    const uint8_t *at = base + CHRON__WORDS_AT;
    /* [INTENT] with chron__oldest_store, of a writer that may be at it: the third word fits no other two */
    const uint32_t low = chron__load_acquire_le32(at + offsetof(chron__words, oldest));
    const uint32_t high = chron__load_acquire_le32(at + offsetof(chron__words, oldest_high));   /* [INTENT] */
    const uint32_t check = chron__load_acquire_le32(at + offsetof(chron__words, oldest_check)); /* [INTENT] */

    *base_seq = (uint64_t)high << 32 | low;
    return check == (low ^ high * 3u ^ OLDEST_CHECK);
}

int chron__words_load(const uint8_t *base, uint64_t epoch, chron__words *out)
{
    const uint8_t *at = base + CHRON__WORDS_AT;

    /* [INTENT] with chron__intent_store and chron__words_store, of a writer that is dead: what it stored is there */
    out->epoch = chron__load_acquire_le32(at);
    out->base = chron__load_acquire_le32(at + offsetof(chron__words, base));         /* [INTENT] */
    out->intent = chron__load_acquire_le32(at + offsetof(chron__words, intent));     /* [INTENT] */
    out->segments = chron__load_acquire_le32(at + offsetof(chron__words, segments)); /* [INTENT] */
    out->group = chron__load_acquire_le32(at + offsetof(chron__words, group));       /* [INTENT] */
    if (out->epoch == (uint32_t)epoch)
        return 1;
    memset(out, 0, sizeof *out);
    return 0;
}

void chron__words_store(uint8_t *base, const chron__words *words)
{
    uint8_t *at = base + CHRON__WORDS_AT;

    /* [INTENT] with chron__words_load. The epoch last: the others are no use without it. */
    chron__store_release_le32(at + offsetof(chron__words, base), words->base);
    chron__store_release_le32(at + offsetof(chron__words, intent), words->intent);     /* [INTENT] */
    chron__store_release_le32(at + offsetof(chron__words, segments), words->segments); /* [INTENT] */
    chron__store_release_le32(at + offsetof(chron__words, group), words->group);       /* [INTENT] */
    chron__store_release_le32(at, words->epoch);                                       /* [INTENT] */
}
