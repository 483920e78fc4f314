/* SPDX-License-Identifier: MIT */
/* shared.c - see shared.h. */
#include "format/shared.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int chron__shared_valid(const uint8_t *meta, const chron__slot_value *state)
{
    uint32_t ready = chron__load_acquire_le32(meta + CHRON__O_READY); /* [HEAD] stored last by a joining */

    return ready != 0 && !(state->flags & CHRON__SLOT_CLEAN) &&
           chron__load_acquire_le32(meta + CHRON__O_END) == (uint32_t)state->epoch; /* [HEAD] */
}

int64_t chron__shared_pid(const chron__io *io, int fd, uint8_t *meta)
{
    for (uint32_t slot = 0; slot < CHRON__SLOT_COUNT; slot++)
        if (io->byte_held(io, fd, CHRON__TURN_BYTES + slot) == 1)
            return (int64_t)chron__load_acquire_le32(meta + CHRON__SLOT_TABLE + slot * CHRON__TURN_ENTRY +
                                                     4u); /* [TURN] */
    return 0;
}

void chron__shared_name(uint32_t n, char *out)
{
    (void)snprintf(out, CHRON__NAME_BYTES, "next.%" PRIu32 ".tmp", n);
}

int chron__shared_is_name(const char *name)
{
    uint32_t n = 0;
    char same[CHRON__NAME_BYTES];

    if (sscanf(name, "next.%" SCNu32 ".tmp", &n) != 1)
        return 0;
    chron__shared_name(n, same);
    return strcmp(name, same) == 0;
}
