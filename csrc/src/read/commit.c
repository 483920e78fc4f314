/* SPDX-License-Identifier: MIT */
/*
 * commit.c - storing the position: the only thing that a reader writes, but for the doorbell. The file is format/position.c's.
 */
#include "read/attach.h"

#include "base/assert.h"

static int commit(chron_reader *r, int sync)
{
    chron__slot_value *at = &r->position.value;
    uint32_t crc = 0;

    if (r->position.fd < 0)
        return chron__fail(CHRON_EREADONLY, "a reader without a name has no position to store: open it with a name");
    at->flags = chron__reader_fingerprint(r, &crc) ? CHRON__SLOT_FINGERPRINT : 0;
    at->fingerprint = crc;
    at->next_seq = r->next_seq;
    at->segment_base = r->seg ? r->seg->base_seq : 0;
    at->offset = r->offset;
    CHRON__ASSERT(!r->seg || (r->next_seq >= r->seg->base_seq && r->offset <= r->size));
    return chron__position_store(&r->q, &r->position, sync);
}

int chron_reader_commit(chron_reader *r, int sync)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = commit(r, sync);
    chron__reader_leave(r);
    return status;
}
