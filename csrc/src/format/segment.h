/* SPDX-License-Identifier: MIT */
/*
 * segment.h - one segment file, mapped: create, open and check, seal, walk, find.
 *
 * A chron__seg is counted by references, because the writer's keeper, and a reader's views, may use a
 * mapping for longer than the handle stays in that segment.
 */
#ifndef CHRON_SEGMENT_H
#define CHRON_SEGMENT_H

#include "format/moment.h"
#include "format/queue.h"
#include "format/record.h"

typedef struct chron__seg {
    const chron__io *io;
    chron__map map;
    int fd;                /* if it was kept, else -1 */
    int headless;          /* see CHRON__SEG_HEADLESS */
    int is_remnant;        /* see CHRON__SEG_SALVAGE */
    int was_used;          /* it may hold, after a loss of power, what its file held as another segment */
    chron__a32 references; /* [REFS] */
    uint64_t base_seq;
    uint64_t prev_base;
    uint64_t size; /* bytes; less than the queue's segments have if it is a remnant */
    uint64_t data_offset;
    uint64_t created_ns;
    uint64_t epoch;
    chron__a64 touched; /* [TOUCH] writer: pages below this offset have been prepared, or are being */
    uint64_t zeroed;    /* of a new file: bytes that chron__seg_zero() has written; of an old one: chron__seg_wipe() */
    int is_old;         /* it was another segment before: all of it has to be wiped */
} chron__seg;

/* The seal, decoded. */
typedef struct chron__seal_value {
    uint32_t flags;
    uint64_t records;
    uint64_t end_offset;
    uint64_t last_seq;
    uint64_t first_ts;
    uint64_t last_ts;
    chron__moment sealed;
} chron__seal_value;

/* What is known of a segment's records, kept up to date by the writer for the seal. */
typedef struct chron__tally {
    uint64_t records;
    uint64_t first_ts;
    uint64_t last_ts;
    int goes_back; /* some timestamp was below the one before */
} chron__tally;

static inline void chron__tally_add(chron__tally *tally, uint64_t timestamp_ns)
{
    if (__builtin_expect(tally->records++ == 0, 0))
        tally->first_ts = timestamp_ns;
    if (__builtin_expect(timestamp_ns < tally->last_ts, 0))
        tally->goes_back = 1;
    tally->last_ts = timestamp_ns;
}

#define CHRON__ZERO_PIECE (256u * 1024) /* written at once by chron__seg_zero() */

/* flags of chron__seg_open */
#define CHRON__SEG_WRITE 1     /* map for writing, and keep the descriptor */
#define CHRON__SEG_KEEP 2      /* keep the descriptor */
#define CHRON__SEG_HEADLESS 4  /* a damaged header will do: `headless` is set then, prev_base and epoch are not known */
#define CHRON__SEG_UNCHECKED 8 /* only its bytes matter: the header is not looked at */
/*
 * For reading, by a repair: a file that is too short or too long will do, and pages that cannot be read count as zeros.
 * `is_remnant` is set then. ECORRUPT if nothing can be had.
 */
#define CHRON__SEG_SALVAGE 16

/*
 * Open `<base_seq>.seg` of the queue and check its header against name and queue. *out has one reference.
 * ENOENT is answered as -CHRON_EGONE.
 */
int chron__seg_open(const chron__queue *q, uint64_t base_seq, int flags, chron__seg **out);

/* Make a new file under the name `temporary`, allocated, not mapped. No header yet. */
int chron__seg_create(const chron__queue *q, const char *temporary, unsigned mode, chron__seg **out);

/* Open and map a file that somebody else has made so. It stays whatever happens. */
int chron__seg_open_made(const chron__queue *q, const char *temporary, chron__seg **out);

/*
 * Write zeros to the next CHRON__ZERO_PIECE bytes: the page cache takes them as pages as large as this, which cost a fraction of
 * small ones. Only as long as it is not mapped. On failure it is gone, and its file.
 */
int chron__seg_zero(const chron__queue *q, chron__seg *seg, const char *temporary);
/* Map it for writing. On failure it is gone, and its file. */
int chron__seg_map(const chron__queue *q, chron__seg *seg, const char *temporary);

/* A file that was a segment, and has lost that name to `temporary`: open, not mapped. */
int chron__seg_adopt(const chron__queue *q, const char *temporary, chron__seg **out);
/*
 * Zeros in the next `bytes` of it, or in all that is left; mapped, if it was not. Only if it is owned (chron__io.own), and the
 * loss of its name is on disk. On failure it is gone, and its file.
 */
int chron__seg_wipe(const chron__queue *q, chron__seg *seg, const char *temporary, uint64_t bytes);
/* Is it mapped, and all of it zero? Then it can get its header. */
static inline int chron__seg_is_ready(const chron__seg *seg)
{
    return seg->map.base && (!seg->is_old || seg->zeroed == seg->size);
}
/* Give up its memory, and unlink its file. Returns status. */
int chron__seg_discard(const chron__queue *q, chron__seg *seg, const char *temporary, int status);

/* Give it its header: it becomes the segment that begins with base_seq. Not yet renamed. */
void chron__seg_write_header(const chron__queue *q, chron__seg *seg, uint64_t base_seq, uint64_t prev_base,
                             uint64_t epoch, uint64_t created_ns);

chron__seg *chron__seg_retain(chron__seg *seg);
void chron__seg_release(chron__seg *seg); /* NULL is allowed */
/* In a forked child: free the memory, leave mapping and descriptor alone. */
void chron__seg_forget(chron__seg *seg);

/* 1 sealed, with *out filled; 0 open; -CHRON_ECORRUPT if the seal is damaged. */
int chron__seg_seal_load(const chron__seg *seg, chron__seal_value *out);
/* The same from the first CHRON__SEAL_END bytes of a file that is not mapped. */
int chron__seal_decode(const uint8_t *page, uint64_t base_seq, chron__seal_value *out);
/* Sealed now. */
void chron__seg_seal_store(chron__seg *seg, const chron__tally *tally, uint64_t end_offset);
void chron__seg_unseal(chron__seg *seg);

/*
 * Is this record one of another segment, which the file was before? After a loss of power those may be there where zeros, or
 * what came after them, did not reach the disk: they count as zeros. Reads the payload.
 */
int chron__seg_is_stale(const chron__seg *seg, const chron__rec *rec);

/* Its mapping has faulted: EIO. `then` as for chron__fail_fault(). */
int chron__seg_fail_fault(const chron__seg *seg, const char *then) __attribute__((cold));

/* ------------------------------------------------------------------------------- block index */

static inline uint64_t chron__seg_blocks(const chron__seg *seg)
{
    return (seg->size - seg->data_offset + CHRON__STRIDE - 1u) / CHRON__STRIDE;
}

static inline uint64_t chron__seg_block_of(const chron__seg *seg, uint64_t offset)
{
    return (offset - seg->data_offset) / CHRON__STRIDE;
}

/* Offset of the first record header in the block, 0 for none; checked only for lying in the block. */
uint64_t chron__seg_index_get(const chron__seg *seg, uint64_t block);
/* As it stands there, also if no record can begin at that offset. */
uint64_t chron__seg_index_raw(const chron__seg *seg, uint64_t block);
void chron__seg_index_set(chron__seg *seg, uint64_t block, uint64_t offset);

/* ---------------------------------------------------------------------------- walking, finding */

/* Why a walk stopped. */
enum chron__walk_stop {
    CHRON__STOP_NONE,   /* commit word 0: nothing here (yet) */
    CHRON__STOP_END,    /* an END record, that says next_seq */
    CHRON__STOP_BROKEN, /* not a record, or not the one that must follow; or an END that says another seq */
};

/* A cursor over one segment. Set offset, next_seq, epoch (0) and go. */
typedef struct chron__walk {
    uint64_t offset;   /* of the next record */
    uint64_t next_seq; /* that it must have */
    uint32_t epoch;    /* that it must at least have */
    uint64_t end_seq;  /* STOP_END: what END says */
    const char *why;   /* STOP_BROKEN: in words */
} chron__walk;

/*
 * The record at the cursor, which moves on. 1: *rec is it. 0: *stop says why not, and the cursor stays.
 * check_crc: also read the payload and check the CRC. END's CRC is always checked.
 */
int chron__seg_step(const chron__seg *seg, chron__walk *walk, int check_crc, chron__rec *rec,
                    enum chron__walk_stop *stop);

/*
 * Find where `seq` is, or, if it is not there, where the segment's records end (END, or a zero commit
 * word, unless all below `known` were there). *offset and *found_seq say which. By the block index, then at most a
 * block of headers. Damage on the way is passed over. 0, or -CHRON_ECORRUPT if `seq` lies in the damage: then *offset
 * and *found_seq say where that begins. CHRON_SEQ_NONE finds the end. Whether the mapping has faulted is the caller's
 * to ask.
 */
int chron__seg_find(const chron__seg *seg, uint64_t seq, uint64_t known, uint64_t *offset, uint64_t *found_seq);

/* The last whole record, CRC checked, before `seq`: 1, or 0 if there is none in this segment. */
int chron__seg_find_before(const chron__seg *seg, uint64_t seq, uint64_t *offset, chron__rec *rec);

/* The first whole record, in order, whose timestamp is not below `timestamp_ns`: 1, or 0. `known`: as above. */
int chron__seg_find_time(const chron__seg *seg, uint64_t timestamp_ns, uint64_t known, uint64_t *offset,
                         uint64_t *found_seq);

/* What the state in queue.meta says: all seqs below were in the log. */
uint64_t chron__known_end(const chron__slot_value *state);

/*
 * The first seq of the queue that does not exist yet; 0 in a queue without segments. Damage at the end counts as
 * records if queue.meta says that they were there, else the log ends before it. `held`: a segment that is open already,
 * or NULL.
 */
int chron__log_end(const chron__queue *q, chron__seg *held, uint64_t *next_seq);

/*
 * What a living writer says of its segments: the first, that it appends to (of both the base_seq), and how many there are. 1; 0:
 * there is none, or it does not say: then the directory has to be looked at. Whoever is told may find the first deleted since.
 */
typedef struct chron__told {
    uint64_t oldest;
    uint64_t active;
    uint64_t segments;
} chron__told;
int chron__queue_told(const chron__queue *q, chron__told *out);

/* The highest epoch that any whole record in the segment has, remnants included; 0 if there is none. Reads all of it. */
uint32_t chron__seg_highest_epoch(const chron__seg *seg);

int chron__is_zero(const uint8_t *bytes, size_t count);
/* Where a page ends behind which all is zero, from offset `from` on; `from` if all is. Holes are not read, if fd is kept. */
uint64_t chron__seg_end_of_data(const chron__seg *seg, uint64_t from);

/* A search for whole records behind damage; it may go on at the next damage. */
typedef struct chron__resync {
    const chron__seg *seg;
    uint64_t limit;  /* look no further */
    uint64_t spent;  /* bytes summed up in vain so far; 0 to begin with */
    uint64_t offset; /* of what was found, */
    uint64_t seq;    /* and its seq */
} chron__resync;

/*
 * Behind damage at `offset`: the next offset with a whole record (or END), CRC checked, whose seq is
 * above `seq` and possible there. 1 with *search filled; 0 if there is none.
 */
int chron__seg_resync(chron__resync *search, uint64_t offset, uint64_t seq);

#endif
