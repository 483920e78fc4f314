/* SPDX-License-Identifier: MIT */
/*
 * locate.c - walking the records of a segment, and finding one by seq or time through the block index.
 *
 * The index is advice: an entry counts only if a record header that is possible there stands behind it,
 * and where there is no such entry the walk begins further in front. A walk always ends: each step goes
 * on by at least 32 bytes and stops at the first record that is not the one that must follow.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/assert.h"
#include "base/error.h"
#include "format/identity.h"
#include "format/segment.h"

#define VAIN_MAX 16u      /* segments' worth of bytes that a search behind damage sums up in vain; then it gets picky */
#define VAIN_LENGTH 1024u /* bytes: candidates that it still looks at then */
#define END_TRIES 100     /* the writer may roll between a listing and the look at its last segment, but not for ever */

uint64_t chron__seg_index_raw(const chron__seg *seg, uint64_t block)
{
    const uint8_t *entry = seg->map.base + CHRON__INDEX_AT + block * 4u;
    /* [INDEX] with chron__seg_index_set */
    return (uint64_t)chron__load_acquire_le32(entry) * CHRON__ALIGN;
}

uint64_t chron__seg_index_get(const chron__seg *seg, uint64_t block)
{
    uint64_t offset = chron__seg_index_raw(seg, block);
    uint64_t from = seg->data_offset + block * CHRON__STRIDE;

    if (offset < from || offset >= from + CHRON__STRIDE || offset > seg->size - CHRON__RECORD_HEADER)
        return 0;
    CHRON__ASSERT(chron__seg_block_of(seg, offset) == block);
    return offset;
}

void chron__seg_index_set(chron__seg *seg, uint64_t block, uint64_t offset)
{
    CHRON__ASSERT(offset == 0 || (offset % CHRON__ALIGN == 0 && chron__seg_block_of(seg, offset) == block));
    /* [INDEX] with chron__seg_index_get */
    chron__store_release_le32(seg->map.base + CHRON__INDEX_AT + block * 4u, (uint32_t)(offset / CHRON__ALIGN));
}

static int broken(chron__walk *walk, enum chron__walk_stop *stop, const char *why)
{
    walk->why = why;
    *stop = CHRON__STOP_BROKEN;
    return 0;
}

int chron__seg_step(const chron__seg *seg, chron__walk *walk, int check_crc, chron__rec *rec,
                    enum chron__walk_stop *stop)
{
    enum chron__rec_state state;

    if (walk->offset > seg->size - CHRON__RECORD_HEADER)
        return broken(walk, stop, "the records run over the end of the segment");
    state = chron__rec_load(seg->map.base, seg->size, walk->offset, rec);
    if (state == CHRON__REC_NONE) {
        *stop = CHRON__STOP_NONE;
        return 0;
    }
    if (state == CHRON__REC_BROKEN)
        return broken(walk, stop, "its length is impossible");
    if (__builtin_expect(chron__rec_seq(rec) != walk->next_seq || chron__rec_epoch(rec) < walk->epoch, 0) &&
        chron__seg_is_stale(seg, rec)) {
        *stop = CHRON__STOP_NONE;
        return 0;
    }
    if (chron__rec_seq(rec) != walk->next_seq)
        return broken(walk, stop, "another seq stands in its place");
    if (chron__rec_epoch(rec) < walk->epoch)
        return broken(walk, stop, "it is a remnant of an earlier epoch");
    if ((check_crc || state == CHRON__REC_END) && !chron__rec_crc_ok(rec, rec->payload))
        return broken(walk, stop, "its CRC does not match");
    if (state == CHRON__REC_END) {
        walk->end_seq = chron__rec_seq(rec);
        *stop = CHRON__STOP_END;
        return 0;
    }
    walk->epoch = chron__rec_epoch(rec);
    walk->next_seq++;
    walk->offset += chron__rec_bytes(rec);
    CHRON__ASSERT(walk->offset % CHRON__ALIGN == 0 && walk->offset <= seg->size - CHRON__RECORD_HEADER);
    return 1;
}

/* May this record stand there? Each one before it takes 32 bytes at least. */
static int is_possible(const chron__seg *seg, const chron__rec *rec, uint64_t offset)
{
    return chron__rec_seq(rec) >= seg->base_seq &&
           chron__rec_seq(rec) - seg->base_seq <= (offset - seg->data_offset) / CHRON__ALIGN;
}

/* Is there, at a block's index entry, a header that could be a record of this segment? */
static int probe(const chron__seg *seg, uint64_t block, chron__rec *rec, uint64_t *offset)
{
    enum chron__rec_state state;

    *offset = chron__seg_index_get(seg, block);
    if (*offset == 0)
        return 0;
    state = chron__rec_load(seg->map.base, seg->size, *offset, rec);
    if (state != CHRON__REC_DATA && state != CHRON__REC_END)
        return 0;
    return is_possible(seg, rec, *offset);
}

/* What a search compares: seqs, or timestamps. */
static int is_before(const chron__rec *rec, uint64_t key, int by_time)
{
    if (!by_time)
        return chron__rec_seq(rec) <= key;
    return chron__rec_type(rec) != CHRON__TYPE_OURS && chron__rec_timestamp(rec) < key; /* END has no time */
}

/*
 * Set *walk to where a walk to `key` can begin: the last index entry that lies before it (and whose
 * record's CRC is right), or the beginning of the segment. Entries must ascend in `key`.
 */
static void start_near(const chron__seg *seg, uint64_t key, int by_time, chron__walk *walk)
{
    uint64_t low = 0; /* blocks below `low` that have an entry lie before key */
    uint64_t high = chron__seg_blocks(seg);
    uint64_t vain = 0; /* bytes summed up, of entries that lead to no record */
    chron__rec rec;
    uint64_t offset;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2u;
        uint64_t block = middle;
        int known;

        while (!(known = probe(seg, block, &rec, &offset)) && block > low)
            block--;
        if (known && !is_before(&rec, key, by_time))
            high = block;
        else
            low = middle + 1u; /* what is known up to `middle` lies before */
    }
    while (high > 0) {
        high--;
        if (!probe(seg, high, &rec, &offset) || !is_before(&rec, key, by_time))
            continue;
        if (!chron__rec_crc_ok(&rec, rec.payload)) {
            vain += rec.length;
            if (vain > VAIN_MAX * seg->size)
                break;
            continue;
        }
        CHRON__ASSERT(offset >= seg->data_offset && chron__rec_seq(&rec) >= seg->base_seq);
        walk->offset = offset;
        walk->next_seq = chron__rec_seq(&rec);
        return;
    }
    walk->offset = seg->data_offset;
    walk->next_seq = seg->base_seq;
}

static int damaged(const chron__seg *seg, const chron__walk *walk)
{
    char name[CHRON__NAME_BYTES];

    chron__segment_name(seg->base_seq, name);
    return chron__at(chron__fail(CHRON_ECORRUPT, "record %" PRIu64 " in %s at offset %" PRIu64 " is damaged: %s",
                                 walk->next_seq, name, walk->offset, walk->why),
                     name, walk->offset, walk->next_seq);
}

uint64_t chron__known_end(const chron__slot_value *state)
{
    return state->flags & CHRON__SLOT_CLEAN ? state->next_seq : state->durable_next;
}

/*
 * The walk has stopped at what is no record. Is it in the way, rather than where the records end? A zero commit word is,
 * if the seal or `known` says that there was a record.
 */
static int is_obstacle(const chron__seg *seg, chron__walk *walk, enum chron__walk_stop stop, uint64_t known)
{
    chron__seal_value seal;
    int sealed;

    if (stop != CHRON__STOP_NONE)
        return stop == CHRON__STOP_BROKEN;
    sealed = chron__seg_seal_load(seg, &seal);
    walk->why = "it was erased";
    return walk->next_seq < known || sealed == 1;
}

int chron__seg_find(const chron__seg *seg, uint64_t seq, uint64_t known, uint64_t *offset, uint64_t *found_seq)
{
    chron__walk walk = {0};
    enum chron__walk_stop stop;
    chron__rec rec;
    chron__resync beyond = {.seg = seg, .limit = seg->size};

    start_near(seg, seq, 0, &walk);
    while (walk.next_seq < seq) {
        if (chron__seg_step(seg, &walk, 0, &rec, &stop))
            continue;
        if (!is_obstacle(seg, &walk, stop, known))
            break;
        if (!chron__seg_resync(&beyond, walk.offset, walk.next_seq) || beyond.seq > seq) {
            *offset = walk.offset;
            *found_seq = walk.next_seq;
            return damaged(seg, &walk);
        }
        CHRON__ASSERT(beyond.offset > walk.offset && beyond.seq > walk.next_seq);
        walk = (chron__walk){.offset = beyond.offset, .next_seq = beyond.seq};
    }
    CHRON__ASSERT(walk.next_seq >= seg->base_seq && walk.next_seq <= seq);
    *offset = walk.offset;
    *found_seq = walk.next_seq;
    return 0;
}

int chron__seg_find_before(const chron__seg *seg, uint64_t seq, uint64_t *offset, chron__rec *rec)
{
    chron__resync beyond = {.seg = seg, .limit = seg->size};
    uint64_t found_seq;

    if (seq > seg->base_seq && chron__seg_find(seg, seq - 1u, 0, offset, &found_seq) == 0 && found_seq + 1u == seq &&
        *offset <= seg->size - CHRON__RECORD_HEADER &&
        chron__rec_load(seg->map.base, seg->size, *offset, rec) == CHRON__REC_DATA && chron__rec_seq(rec) + 1u == seq &&
        chron__rec_crc_ok(rec, rec->payload))
        return 1;
    while (seq > seg->base_seq) {
        chron__walk walk = {0};
        enum chron__walk_stop stop;
        uint64_t first;
        int found = 0;

        start_near(seg, seq - 1u, 0, &walk);
        first = walk.next_seq;
        while (walk.next_seq < seq) {
            uint64_t at = walk.offset;
            chron__rec next;

            if (chron__seg_step(seg, &walk, 1, &next, &stop)) {
                *offset = at;
                *rec = next;
                found = 1;
                continue;
            }
            if (stop == CHRON__STOP_END || !chron__seg_resync(&beyond, walk.offset, walk.next_seq))
                break;
            walk = (chron__walk){.offset = beyond.offset, .next_seq = beyond.seq};
        }
        if (found)
            return 1;
        CHRON__ASSERT(first < seq);
        seq = first;
    }
    return 0;
}

/* Where the records of the newest segment end; behind a damaged one, if nothing that can be read follows it. */
static int end_of(const chron__seg *seg, uint64_t known, uint64_t *next_seq)
{
    chron__rec rec;
    uint64_t offset;

    /* What is not there, or cannot be read, begins where the log ends: the next writer decides about it. */
    (void)chron__seg_find(seg, CHRON_SEQ_NONE, known, &offset, next_seq);
    if (chron__map_faulted(&seg->map))
        return chron__seg_fail_fault(seg, "");
    return offset <= seg->size - CHRON__RECORD_HEADER &&
           chron__rec_load(seg->map.base, seg->size, offset, &rec) == CHRON__REC_END && !chron__seg_is_stale(seg, &rec);
}

/*
 * The segment that a living writer says it appends to. Only its low word is told: the rest is that of what is `near`, or else no
 * file bears the name. 1; 0: look at the directory.
 */
static int told_base(const chron__queue *q, uint64_t near, chron__words *words, uint64_t *base_seq)
{
    chron__slot_value state;

    if (!chron__queue_state(q, &state) || !chron__words_load(q->meta.base, state.epoch, words) ||
        chron__queue_writer_alive(q) != 1)
        return 0;
    *base_seq = (near & ~(uint64_t)UINT32_MAX) | words->base;
    if (*base_seq < near && near - *base_seq > UINT32_MAX / 2u)
        *base_seq += (uint64_t)UINT32_MAX + 1u;
    return 1;
}

static int open_told(const chron__queue *q, chron__seg *held, uint64_t known, chron__seg **out)
{
    uint64_t near = held && held->base_seq > known ? held->base_seq : known;
    chron__words words;
    uint64_t base_seq;

    if (!told_base(q, near, &words, &base_seq))
        return 0;
    if (held && held->base_seq == base_seq)
        *out = chron__seg_retain(held);
    return *out || chron__seg_open(q, base_seq, 0, out) == 0;
}

int chron__queue_told(const chron__queue *q, chron__told *out)
{
    char name[CHRON__NAME_BYTES];
    chron__slot_value state;
    chron__words words;
    chron__stat there;
    uint64_t near;

    memset(out, 0, sizeof *out);
    if (!q->meta.base || !chron__oldest_load(q->meta.base, &out->oldest))
        return 0;
    (void)chron__queue_state(q, &state);
    near = chron__known_end(&state) > out->oldest ? chron__known_end(&state) : out->oldest;
    if (!told_base(q, near, &words, &out->active) || out->active < out->oldest)
        return 0;
    out->segments = words.segments;
    chron__segment_name(out->oldest, name);
    /* Somebody else than the writer may have deleted it. */
    return words.segments > 0 && q->io->stat_name(q->io, q->dir, name, &there) == 0;
}

int chron__log_end(const chron__queue *q, chron__seg *held, uint64_t *next_seq)
{
    int status = 1;

    for (int tries = 0; status == 1 && tries < END_TRIES; tries++) {
        chron__slot_value state;
        chron__bases bases;
        chron__seg *seg = NULL;
        uint64_t last = 0;

        *next_seq = 0;
        (void)chron__queue_state(q, &state);
        status = 0;
        if (tries > 0 || !open_told(q, held, chron__known_end(&state), &seg)) {
            status = chron__queue_list(q, &bases);
            if (status < 0 || bases.count == 0)
                return status;
            last = bases.at[bases.count - 1u];
            chron__bases_free(&bases);
            if (held && held->base_seq == last)
                seg = chron__seg_retain(held);
            else
                status = chron__seg_open(q, last, CHRON__SEG_HEADLESS, &seg);
        }
        if (status == 0)
            status = end_of(seg, chron__known_end(&state), next_seq); /* 1: a roll came in between: look again */
        else if (status == -CHRON_EGONE)
            status = 1;
        else if (status == -CHRON_ECORRUPT) { /* nothing in it can be read */
            *next_seq = last;
            status = 0;
        }
        chron__seg_release(seg);
        if (*next_seq < chron__known_end(&state))
            *next_seq = chron__known_end(&state);
    }
    return status < 0 ? status : 0;
}

int chron__seg_find_time(const chron__seg *seg, uint64_t timestamp_ns, uint64_t known, uint64_t *offset,
                         uint64_t *found_seq)
{
    chron__walk walk = {.offset = seg->data_offset, .next_seq = seg->base_seq};
    chron__resync beyond = {.seg = seg, .limit = seg->size};
    chron__seal_value seal;

    /* Only a seal knows whether timestamps ascend; without it every header is looked at. */
    if (chron__seg_seal_load(seg, &seal) == 1 && (seal.flags & CHRON__SEAL_MONOTONE))
        start_near(seg, timestamp_ns, 1, &walk);
    for (;;) {
        chron__walk here = walk;
        enum chron__walk_stop stop;
        chron__rec rec;

        if (chron__seg_step(seg, &walk, 0, &rec, &stop)) {
            if (chron__rec_timestamp(&rec) < timestamp_ns)
                continue;
            *offset = here.offset;
            *found_seq = here.next_seq;
            if (chron__rec_crc_ok(&rec, rec.payload))
                return 1;
        } else if (!is_obstacle(seg, &here, stop, known)) {
            return 0;
        }
        if (!chron__seg_resync(&beyond, here.offset, here.next_seq))
            return 0;
        walk = (chron__walk){.offset = beyond.offset, .next_seq = beyond.seq};
    }
}

/*
 * Bytes can be made up so that each looks like the beginning of a long record. To sum up every one of those would take
 * hours; so behind VAIN_MAX segments' worth of vain attempts only short candidates are looked at.
 */
int chron__seg_resync(chron__resync *search, uint64_t offset, uint64_t seq)
{
    const chron__seg *seg = search->seg;

    for (uint64_t at = offset + CHRON__ALIGN; at + CHRON__RECORD_HEADER <= search->limit; at += CHRON__ALIGN) {
        enum chron__rec_state state;
        chron__rec rec;
        uint64_t this_seq;

        state = chron__rec_load(seg->map.base, seg->size, at, &rec);
        if (state == CHRON__REC_NONE || state == CHRON__REC_BROKEN)
            continue;
        this_seq = chron__rec_seq(&rec);
        /* Cheap before dear: a seq that fits is rare in garbage, so few CRCs of garbage are computed. */
        if (this_seq <= seq || this_seq - seq > (at - offset) / CHRON__ALIGN)
            continue;
        if (rec.length > VAIN_LENGTH && search->spent > VAIN_MAX * seg->size)
            continue;
        if (!chron__rec_crc_ok(&rec, rec.payload)) {
            search->spent += rec.length;
            continue;
        }
        CHRON__ASSERT(at > offset && at % CHRON__ALIGN == 0 && this_seq > seq);
        search->offset = at;
        search->seq = this_seq;
        return 1;
    }
    return 0;
}

uint32_t chron__seg_highest_epoch(const chron__seg *seg)
{
    uint64_t end = chron__seg_end_of_data(seg, seg->data_offset);
    uint64_t spent = 0;
    uint32_t highest = 0;
    chron__rec rec;

    for (uint64_t at = seg->data_offset; at + CHRON__RECORD_HEADER <= end;) {
        enum chron__rec_state state = chron__rec_load(seg->map.base, seg->size, at, &rec);
        uint64_t bytes = CHRON__ALIGN;

        if ((state == CHRON__REC_DATA || state == CHRON__REC_END) && is_possible(seg, &rec, at) &&
            (rec.length <= VAIN_LENGTH || spent <= VAIN_MAX * seg->size)) {
            if (!chron__rec_crc_ok(&rec, rec.payload)) {
                spent += rec.length;
            } else {
                bytes = state == CHRON__REC_DATA ? chron__rec_bytes(&rec) : bytes;
                highest = chron__rec_epoch(&rec) > highest ? chron__rec_epoch(&rec) : highest;
            }
        }
        at += bytes;
    }
    return highest;
}

int chron__is_zero(const uint8_t *bytes, size_t count)
{
    uint64_t any = 0;

    for (size_t i = 0; i + 8u <= count; i += 8u)
        any |= chron__read_le64(bytes + i);
    for (size_t i = count & ~(size_t)7; i < count; i++)
        any |= bytes[i];
    return any == 0;
}

uint64_t chron__seg_end_of_data(const chron__seg *seg, uint64_t from)
{
    uint64_t end = from;

    for (uint64_t at = from; at < seg->size;) {
        int64_t data = seg->fd >= 0 ? seg->io->next_data(seg->io, seg->fd, at) : -ENOSYS;
        uint64_t stop;

        if (data > (int64_t)at)
            at = (uint64_t)data;
        if (at >= seg->size)
            break;
        stop = (at / CHRON__PAGE + 1u) * CHRON__PAGE;
        if (stop > seg->size) /* a remnant */
            stop = seg->size;
        if (!chron__is_zero(seg->map.base + at, (size_t)(stop - at)))
            end = stop;
        at = stop;
    }
    return end;
}
