/* SPDX-License-Identifier: MIT */
/*
 * reader.c - what all of read/ shares: telling of damage; and what a reader says of itself.
 *
 * Invariants of a chron_reader, between two calls:
 *  - With a segment, next_seq lies at or behind its base_seq, and offset is where the record next_seq begins, or will:
 *    aligned, at or behind data_offset. Without one, next_seq alone says where it stands, and the next call attaches.
 *  - next_seq falls only by a seek or a rewind; what was given out once is not given out again.
 *  - The position file says at most next_seq, and its generation only rises.
 *  - A mapping that was handed out (views) is referenced by who holds it, not by the reader's place.
 */
#include "read/reader.h"

#include <inttypes.h>

#include "base/struct.h"

int chron__reader_damaged(const chron_reader *r, const char *why)
{
    char name[CHRON__NAME_BYTES];

    if (chron__map_faulted(&r->seg->map))
        return chron__seg_fail_fault(r->seg, "");
    chron__segment_name(r->seg->base_seq, name);
    return chron__at(chron__fail(CHRON_ECORRUPT,
                                 "record %" PRIu64 " in %s at offset %" PRIu64 " is damaged: %s. Skip it "
                                 "to read on; if no writer has opened the queue since a crash, opening one may mend it",
                                 r->next_seq, name, r->offset, why),
                     name, r->offset, r->next_seq);
}

/* ----------------------------------------------------------------------------------- of itself */

uint64_t chron_reader_position(const chron_reader *r)
{
    return r ? r->next_seq : 0;
}

uint64_t chron_reader_committed(const chron_reader *r)
{
    return r && r->position.fd >= 0 ? r->position.value.next_seq : CHRON_SEQ_NONE;
}

int chron_reader_writer_alive(chron_reader *r)
{
    int status = chron__reader_enter(r);

    if (status < 0)
        return status;
    status = chron__queue_writer_alive(&r->q);
    chron__reader_leave(r);
    return status;
}

int chron_reader_stats_get(const chron_reader *r, chron_reader_stats *out)
{
    int status = r ? chron__struct_check("chron_reader_stats", out) : chron__fail(CHRON_EINVAL, "the reader is NULL");

    if (status == 0)
        chron__struct_give(&r->stats, sizeof r->stats, out);
    return status;
}
