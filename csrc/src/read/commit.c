/* SPDX-License-Identifier: MIT */
/*
 * commit.c - storing the position: the only thing that a reader writes, but for the doorbell. The file is format/position.c's.
 */
#include "read/attach.h"

#include <inttypes.h>

#include "base/assert.h"

static int store(chron_reader *r, chron__slot_value at, int sync)
{
    CHRON__ASSERT(at.next_seq >= at.segment_base);
    at.generation = r->position.value.generation;
    r->position.value = at;
    return chron__position_store(&r->q, &r->position, sync);
}

static int commit(chron_reader *r, int sync)
{
    chron__slot_value at = {.next_seq = r->next_seq, .offset = r->offset};

    if (r->position.fd < 0)
        return chron__fail(CHRON_EREADONLY, "a reader without a name has no position to store: open it with a name");
    if (chron__reader_fingerprint(r, &at.fingerprint))
        at.flags = CHRON__SLOT_FINGERPRINT;
    if (r->seg)
        at.segment_base = r->seg->base_seq;
    CHRON__ASSERT(!r->seg || r->offset <= r->size);
    return store(r, at, sync);
}

/* Where the position lies, and what stands before it, if that can be had: else there is nothing to compare with. */
static void describe(chron_reader *r, chron__slot_value *at)
{
    chron__seg *seg;
    uint64_t offset;
    chron__rec rec;

    if (chron__reader_find_before(r, at->next_seq, &seg, &offset, &rec) <= 0)
        return;
    at->segment_base = seg->base_seq;
    if (chron__rec_seq(&rec) + 1u == at->next_seq) {
        at->offset = offset + chron__rec_bytes(&rec);
        at->fingerprint = rec.crc;
        at->flags = CHRON__SLOT_FINGERPRINT;
    }
    chron__seg_release(seg);
}

static int commit_upto(chron_reader *r, uint64_t upto, int sync)
{
    const uint64_t committed = r->position.value.next_seq;
    chron__slot_value at = {.next_seq = upto};

    if (upto == r->next_seq || r->position.fd < 0)
        return commit(r, sync);
    if (upto > r->next_seq || (committed <= r->next_seq && upto < committed))
        return chron__fail(CHRON_EINVAL,
                           "cannot commit up to %" PRIu64 ": the reader is at %" PRIu64
                           ", and has committed up to %" PRIu64,
                           upto, r->next_seq, committed == CHRON_SEQ_NONE ? 0 : committed);
    describe(r, &at);
    return store(r, at, sync);
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

int chron_reader_commit_upto(chron_reader *r, uint64_t upto, int sync)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = commit_upto(r, upto, sync);
    chron__reader_leave(r);
    return status;
}
