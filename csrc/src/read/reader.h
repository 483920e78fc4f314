/* SPDX-License-Identifier: MIT */
/*
 * reader.h - the inside of a chron_reader. open.c opens and closes it, next.c and columns.c read, wait.c waits, seek.c
 * moves, attach.c finds segments, commit.c stores the position. One thread at a time. A reader writes to nothing but its
 * position file and the doorbell.
 */
#ifndef CHRON_READER_H
#define CHRON_READER_H

#include "base/assert.h"
#include "base/error.h"
#include "base/prefetch.h"
#include "format/doorbell.h"
#include "format/position.h"
#include "format/segment.h"

struct chron_reader {
    /* What every read touches. */
    chron__seg *seg;      /* the segment of the position; NULL: not there yet, or not looked for */
    const uint8_t *base;  /* of its mapping */
    uint64_t size;        /* of the segment, bytes */
    uint64_t offset;      /* of the record at the position */
    uint64_t next_seq;    /* the position */
    uint64_t visible;     /* with durable_only: the durable mark as last seen; else CHRON_SEQ_NONE */
    uint32_t epoch;       /* of the record before */
    uint32_t last_crc;    /* of the record before, if has_last */
    uint64_t last_offset; /* and where it is, in `seg`; 0: in another segment */
    uint64_t eager_from;  /* the offset from which on memory is asked for ahead: see chron__reader_ask_ahead */
    int has_last;
    struct {
        uint64_t from; /* seq of the first record that is left of the last peek */
        size_t count;  /* how many are left: 0 if something else has moved the reader */
        uint64_t last_offset, end_offset;
        uint64_t payload_bytes;
        uint32_t last_crc, epoch; /* of the last of them */
    } peeked;
    uint32_t empty_looks;   /* at the tail, since this segment was entered */
    chron__slot_value mark; /* of queue.meta, as last seen: durable mark, and the end after a clean close */
    uint64_t writer_epoch;  /* of the writer under which the position was last known to be in the log */
    uint64_t looked_ns;     /* wall clock: when it last looked whether names still lead to what it maps, */
    uint64_t bell_ns;       /* the same of the doorbell */
    uint64_t looked_at;     /* and how many records it had read by then */
    uint32_t fork_count;
    uint32_t checked;
    chron__a32 closed; /* [BUSY] by shut: then `busy` stays taken for good */
    chron__a32 busy;   /* [BUSY] */
    chron_reader_stats stats;

    /* Everything else. */
    chron__queue q;
    chron_reader_options options; /* name is not kept: it is the caller's */
    chron__doorbell bell;
    chron__position position; /* fd is -1 without a name */
};

/* What every public function begins and ends with. 0, or EINVAL, EFORKED, EBUSY. */
static inline int chron__reader_enter(chron_reader *r)
{
    if (__builtin_expect(!r, 0))
        return chron__fail(CHRON_EINVAL, "the reader is NULL");
    if (__builtin_expect(r->fork_count != chron__get32(&chron__fork_count), 0))
        return chron__fail(CHRON_EFORKED, "this reader was opened before a fork, in the parent process: open a new one "
                                          "here (the parent's goes on working there)");
    if (r->checked && __builtin_expect(chron__take32(&r->busy) != 0, 0)) /* [BUSY] with chron__reader_leave */
        return chron__fail_busy("reader", chron__get_acquire32(&r->closed),
                                "give each thread its own handle, or take a lock around it");
    return 0;
}

static inline void chron__reader_leave(chron_reader *r)
{
    if (r->checked)
        chron__set_release32(&r->busy, 0); /* [BUSY] with chron__reader_enter */
}

/* open.c: chron_reader_open() on another table of system calls, for tests. */
int chron__reader_open_with(const chron__io *io, const char *path, const chron_reader_options *options,
                            chron_reader **out);

/* The record at the position is damaged, or its mapping is. */
int chron__reader_damaged(const chron_reader *r, const char *why);
/* May this reader see record `seq`, if it is there? Not if it wants durable ones only, and the mark is below. */
static inline int chron__reader_is_visible(chron_reader *r, uint64_t seq)
{
    if (__builtin_expect(seq < r->visible, 1))
        return 1;
    if (!(r->options.flags & CHRON_DURABLE_ONLY))
        return 0;
    chron__queue_refresh_state(&r->q, &r->mark);
    r->visible = r->mark.durable_next;
    return seq < r->visible;
}

/*
 * All seqs below this were in the log once, whatever can be read of it, as far as segment i of `bases` goes: a next one is
 * there only if its are. For -1: of the whole log.
 */
static inline uint64_t chron__reader_known(chron_reader *r, const chron__bases *bases, int64_t i)
{
    if (i >= 0 && (size_t)i + 1u < bases->count)
        return bases->at[i + 1];
    chron__queue_refresh_state(&r->q, &r->mark);
    return chron__known_end(&r->mark);
}

#define CHRON__FAR_BEHIND 4096u /* bytes read without having met the tail */

/*
 * The record at `offset` takes `bytes`: ask for as much of what comes 2 KiB behind it. Reading is bound by waiting for
 * memory, since processors do not look ahead beyond the end of a page. A reader that is near the tail asks for nothing: it
 * would take from the writer what that is about to write.
 */
CHRON__PREFETCH chron__reader_ask_ahead(const uint8_t *base, uint64_t offset, uint64_t eager_from, uint64_t bytes)
{
    if (__builtin_expect(offset >= eager_from, 1))
        chron__prefetch(base + offset + CHRON__AHEAD, bytes < CHRON__AHEAD_MAX ? bytes : CHRON__AHEAD_MAX);
}

/* *rec has been consumed. */
static inline void chron__reader_advance(chron_reader *r, const chron__rec *rec)
{
    CHRON__ASSERT(chron__rec_seq(rec) == r->next_seq && chron__rec_epoch(rec) >= r->epoch);
    CHRON__ASSERT(rec->payload == r->base + r->offset + CHRON__RECORD_HEADER);
    r->last_crc = rec->crc;
    r->last_offset = r->offset;
    r->has_last = 1;
    r->epoch = chron__rec_epoch(rec);
    r->offset += chron__rec_bytes(rec);
    r->next_seq++;
    CHRON__ASSERT(r->offset <= r->size - CHRON__RECORD_HEADER); /* the position lies within its segment */
    r->stats.records++;
    r->stats.payload_bytes += rec->length;
}

static inline void chron__reader_view(const chron__rec *rec, const void *payload, chron_view *out)
{
    CHRON__ASSERT(chron__rec_type(rec) != CHRON__TYPE_OURS); /* END is nobody's record */
    out->seq = chron__rec_seq(rec);
    out->timestamp_ns = chron__rec_timestamp(rec);
    out->payload = payload;
    out->length = rec->length;
    out->type_id = chron__rec_type(rec);
    out->flags = (uint8_t)(chron__rec_flags(rec) & CHRON__USER_FLAGS);
}

#endif
