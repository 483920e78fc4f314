/* SPDX-License-Identifier: MIT */
/*
 * hole.c - judging by evidence (docs/FORMAT.md, "Opening").
 *
 * After the death of a process, in the same boot and place, the page cache holds every store that was made: a record with a
 * commit word is whole, and only what the writer had announced may be unfinished. So whatever else does not check out
 * was altered afterwards: damage.
 *
 * A disk that lost its power holds, of each sector of 512 bytes, what it was before or what was written (or, if it was being
 * written just then, anything). A record can only be torn where one of its sectors was not written: that is zero, or
 * garbage, and in both cases holds no other good record. Whatever is not like that is damage, on any boot; and so is
 * everything below the durable mark.
 */
#include "queue/hole.h"

#include "base/assert.h"
#include "base/error.h"
#include "format/position.h"

#define SECTOR 512u

int chron__hole_open_flags(const chron__wish *wish)
{
    return CHRON__SEG_KEEP | CHRON__SEG_HEADLESS | (wish->repair ? CHRON__SEG_SALVAGE : 0);
}

/* ------------------------------------------------------------------------------------- torn, or not */

/* Is there a whole record that begins in [from, to)? */
static int holds_record(const chron__hole *h, uint64_t from, uint64_t to)
{
    const chron__seg *seg = h->seg;

    for (uint64_t at = from; at < to && at <= seg->size - CHRON__RECORD_HEADER; at += CHRON__ALIGN) {
        chron__rec rec;

        if (chron__rec_load(seg->map.base, seg->size, at, &rec) == CHRON__REC_DATA && chron__rec_seq(&rec) > h->seq &&
            chron__rec_seq(&rec) - h->seq <= (at - h->offset) / CHRON__ALIGN && chron__rec_crc_ok(&rec, rec.payload))
            return 1;
    }
    return 0;
}

/* May a loss of power have left the bad record at the hole? */
static int may_be_torn(const chron__hole *h)
{
    const chron__seg *seg = h->seg;
    uint64_t end = h->offset + CHRON__RECORD_HEADER;
    chron__rec rec;

    /* How far it reaches, if its length can be believed at all. */
    if (chron__rec_load(seg->map.base, seg->size, h->offset, &rec) == CHRON__REC_DATA)
        end = h->offset + chron__rec_bytes(&rec);
    for (uint64_t sector = h->offset / SECTOR * SECTOR; sector < end; sector += SECTOR) {
        /* A sector that begins before the record holds (the end of) the good one in front. */
        if (sector < h->offset && h->offset > seg->data_offset)
            continue;
        if (!holds_record(h, sector > h->offset ? sector : h->offset + CHRON__ALIGN, sector + SECTOR))
            return 1;
    }
    return 0;
}

int chron__hole_is_damage(const chron__log *log, const chron__hole *h)
{
    int torn;

    if (log->wish->whence == CHRON__FROM_HERE || h->seq < log->wish->state.durable_next)
        return 1;
    if (h->kind != CHRON__HOLE_RECORD)
        return 0;
    torn = may_be_torn(h);
    return chron__map_faulted(&h->seg->map) ? chron__seg_fail_fault(h->seg, "") : !torn;
}

/* ------------------------------------------------------------------------------------------- behind */

static void note_behind(chron__behind *out, const chron__seg *seg, uint64_t seq, uint64_t offset)
{
    if (out->records++ > 0)
        return;
    out->seq = seq;
    out->base_seq = seg->base_seq;
    out->offset = offset;
}

/* Whole records from `offset` on, the first of which may have any seq above `seq`. */
static void count_records(const chron__seg *seg, uint64_t offset, uint64_t seq, uint32_t epoch, chron__behind *out)
{
    chron__resync search = {.seg = seg, .limit = chron__seg_end_of_data(seg, offset), .offset = offset, .seq = seq};
    chron__rec rec;

    while (chron__seg_resync(&search, search.offset, search.seq))
        if (chron__rec_load(seg->map.base, seg->size, search.offset, &rec) == CHRON__REC_DATA &&
            chron__rec_epoch(&rec) >= epoch)
            note_behind(out, seg, search.seq, search.offset);
}

/* A later segment, whole or in pieces. */
static void count_segment(const chron__seg *seg, uint32_t epoch, chron__behind *out)
{
    chron__walk walk = {.offset = seg->data_offset, .next_seq = seg->base_seq, .epoch = epoch};
    enum chron__walk_stop stop;
    chron__rec rec;

    for (;;) {
        uint64_t offset = walk.offset;

        if (!chron__seg_step(seg, &walk, 1, &rec, &stop))
            break;
        note_behind(out, seg, walk.next_seq - 1u, offset);
    }
    if (stop != CHRON__STOP_END && walk.offset <= seg->size - CHRON__RECORD_HEADER)
        count_records(seg, walk.offset, walk.next_seq, walk.epoch, out);
}

int chron__hole_look_behind(const chron__log *log, const chron__hole *h, chron__behind *out)
{
    size_t i = h->kind == CHRON__HOLE_MISSING ? h->i : h->i + 1u;

    memset(out, 0, sizeof *out);
    if (h->seg && h->kind != CHRON__HOLE_MISSING && h->offset <= h->seg->size - CHRON__RECORD_HEADER)
        count_records(h->seg, h->offset, h->seq, h->epoch, out);
    for (; i < log->bases->count; i++) {
        chron__seg *seg;
        int status;

        if (log->bases->at[i] < h->seq)
            continue; /* what it may hold was in front */
        status = chron__seg_open(log->q, log->bases->at[i], chron__hole_open_flags(log->wish), &seg);
        if (status == -CHRON_ECORRUPT)
            continue; /* cut short */
        if (status < 0)
            return status;
        count_segment(seg, h->epoch, out);
        status = chron__map_faulted(&seg->map) ? chron__seg_fail_fault(seg, "") : 0;
        chron__seg_release(seg);
        if (status < 0)
            return status;
    }
    return h->seg && chron__map_faulted(&h->seg->map) ? chron__seg_fail_fault(h->seg, "") : 0;
}

/* --------------------------------------------------------------------------- in the same boot and place */

/* Has a reader read the record `seq`, with this CRC? */
static int was_read(const chron__registered_list *readers, uint64_t seq, uint32_t crc)
{
    for (size_t i = 0; i < readers->count; i++) {
        const chron__registered *one = &readers->at[i];

        if (!one->damaged && one->value.next_seq == seq + 1u && (one->value.flags & CHRON__SLOT_FINGERPRINT) &&
            one->value.fingerprint == crc)
            return 1;
    }
    return 0;
}

/* Has a reader committed past the hole since the machine was started, having read what it commits? */
static int was_passed(const chron__registered_list *readers, uint64_t seq)
{
    for (size_t i = 0; i < readers->count; i++) {
        const chron__registered *one = &readers->at[i];

        if (!one->damaged && !one->headless && one->value.next_seq > seq && one->value.boot == chron__boot_tag() &&
            (one->value.flags & CHRON__SLOT_FINGERPRINT)) /* not one that was undone */
            return 1;
    }
    return 0;
}

/*
 * Is there an index entry behind the hole? They are stored after what they lead to can be seen. If nothing stands there now,
 * it counts only if no single flipped bit has made it: of an entry that was right, in the block of the hole, or of none.
 */
static int is_indexed(const chron__hole *h)
{
    const chron__seg *seg = h->seg;
    const uint64_t first = chron__seg_block_of(seg, h->offset);

    for (uint64_t block = first; block < chron__seg_blocks(seg); block++) {
        uint64_t offset = chron__seg_index_get(seg, block);
        int is_entry = block > first && (offset & (offset - 1u)) != 0;

        /* [PUBLISH] with chron__rec_publish, of a writer that is dead */
        if (offset > h->offset && (is_entry || chron__load_acquire_le32(seg->map.base + offset) != 0))
            return 1;
    }
    return 0;
}

int chron__hole_is_proven(const chron__log *log, const chron__hole *h, uint64_t intent)
{
    chron__resync search = {.seg = h->seg, .offset = h->offset, .seq = h->seq};
    chron__registered_list readers;
    int proven = is_indexed(h);
    int status;

    CHRON__ASSERT(log->wish->whence == CHRON__FROM_HERE);
    if (proven)
        return 1;
    status = chron__registered_load(log->q, &readers);
    if (status < 0)
        return status;
    proven = was_passed(&readers, h->seq);
    /* What was announced may be there in part: a batch without its first commit word. Behind it nothing may. */
    search.limit = chron__seg_end_of_data(h->seg, h->offset);
    while (!proven && chron__seg_resync(&search, search.offset, search.seq)) {
        chron__rec rec;

        proven = chron__rec_load(h->seg->map.base, h->seg->size, search.offset, &rec) == CHRON__REC_DATA &&
                 (search.offset >= intent || was_read(&readers, search.seq, rec.crc));
    }
    chron__registered_free(&readers);
    return proven;
}
