/* SPDX-License-Identifier: MIT */
/*
 * format.h - file format, version 1, as C. docs/FORMAT.md is the normative text; this is its image.
 *
 * All words are little-endian. The structs below are never dereferenced through the mapping: they give
 * names and offsets (checked by the assertions); access goes through endian.h and atomics.h.
 *
 *   <queue>/queue.meta             geometry (written once), writer state in two slots
 *   <queue>/doorbell               two futex words
 *   <queue>/writer.lock            the kernel's lock, and a line for people
 *   <queue>/%020u.seg              a segment, named by the seq of its first record
 *   <queue>/readers/<name>.pos     a reader's committed position, in two slots
 *   <queue>/readers/<name>.merge   the position of a merge, if it lies in this queue
 *   <queue>/groups/<name>.grp      a group of workers: who has which job
 *   <queue>/gaps                   seqs that are gone and accepted as gone, if there are any
 *   <queue>/quarantine/            what recovery cut off
 *   <queue>/types/%020u.sum        which types begin in each block of a sealed segment; advice
 *   <queue>/schema/                what payloads mean; not the library's
 *   <queue>/ *.tmp                 being prepared
 */
#ifndef CHRON_FORMAT_H
#define CHRON_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define CHRON__PAGE 4096u /* size of every header, and of the small files */
#define CHRON__ALIGN 32u  /* records start on multiples of this */
#define CHRON__RECORD_HEADER 32u
#define CHRON__STRIDE 65536u     /* bytes of data area per block index entry */
#define CHRON__TYPE_OURS 0xFFFFu /* type_id of END */
#define CHRON__COMPAT_KNOWN 0u   /* no flags yet: unknown compat flags are ignored ... */
#define CHRON__INCOMPAT_FENCE 1u /* ... unknown incompat flags refuse the file. Doorbell: there is a word `fence` */
#define CHRON__INCOMPAT_REUSE 1u /* queue.meta, segment: who maps a segment shares it, for its file may be used again */

#define CHRON__MAGIC_META "CHRONQUE"
#define CHRON__MAGIC_SEGMENT "CHRONSEG"
#define CHRON__MAGIC_POSITION "CHRONPOS"
#define CHRON__MAGIC_DOORBELL "CHRONBEL"
#define CHRON__MAGIC_MERGE "CHRONMRG"
#define CHRON__MAGIC_GAPS "CHRONGAP"
#define CHRON__MAGIC_CUT "CHRONCUT"
#define CHRON__MAGIC_GROUP "CHRONGRP"
#define CHRON__MAGIC_SUMMARY "CHRONSUM"

#define CHRON__FILE_META "queue.meta"
#define CHRON__FILE_DOORBELL "doorbell"
#define CHRON__FILE_LOCK "writer.lock"
#define CHRON__LOCK_LINE_BYTES 256u
#define CHRON__FILE_GAPS "gaps"
#define CHRON__DIR_READERS "readers"
#define CHRON__DIR_GROUPS "groups"
#define CHRON__DIR_QUARANTINE "quarantine"
#define CHRON__DIR_TYPES "types"
#define CHRON__DIR_SCHEMA "schema"

/* The first 128 bytes of every file of ours. The CRC is over bytes 0 to 123. */
typedef struct chron__file_header {
    char magic[8];
    uint32_t version; /* 1 */
    uint32_t compat;
    uint32_t incompat;
    uint32_t stride;  /* segment and queue.meta: CHRON__STRIDE */
    uint8_t uuid[16]; /* the queue's */
    uint64_t created_ns;
    uint64_t segment_size; /* segment and queue.meta: bytes */
    uint64_t base_seq;     /* segment: seq of its first record */
    uint64_t prev_base;    /* segment: base_seq of the one before, CHRON_SEQ_NONE for the first */
    uint64_t data_offset;  /* segment: where the records begin */
    uint64_t epoch;        /* segment: epoch of the writer that made it */
    uint8_t reserved[36];  /* 0 */
    uint32_t crc;
} chron__file_header;

_Static_assert(offsetof(chron__file_header, version) == 8, "format");
_Static_assert(offsetof(chron__file_header, compat) == 12, "format");
_Static_assert(offsetof(chron__file_header, incompat) == 16, "format");
_Static_assert(offsetof(chron__file_header, stride) == 20, "format");
_Static_assert(offsetof(chron__file_header, uuid) == 24, "format");
_Static_assert(offsetof(chron__file_header, created_ns) == 40, "format");
_Static_assert(offsetof(chron__file_header, segment_size) == 48, "format");
_Static_assert(offsetof(chron__file_header, base_seq) == 56, "format");
_Static_assert(offsetof(chron__file_header, prev_base) == 64, "format");
_Static_assert(offsetof(chron__file_header, data_offset) == 72, "format");
_Static_assert(offsetof(chron__file_header, epoch) == 80, "format");
_Static_assert(offsetof(chron__file_header, reserved) == 88, "format");
_Static_assert(offsetof(chron__file_header, crc) == 124, "format");
_Static_assert(sizeof(chron__file_header) == 128, "format");

/* A segment's seal, at byte 128. Written once, at the roll; state last. CRC over bytes 4 to 59. */
typedef struct chron__seal {
    uint32_t state;      /* atomic: 0 open, 1 sealed */
    uint32_t flags;      /* CHRON__SEAL_... */
    uint64_t records;    /* without END */
    uint64_t end_offset; /* of END */
    uint64_t last_seq;   /* of the last record; base_seq - 1 if there is none */
    uint64_t first_ts;   /* timestamp of the first and of the last record; 0 if there is none */
    uint64_t last_ts;
    uint64_t sealed_ns; /* wall clock, when the seal was written */
    uint32_t reserved;
    uint32_t crc;
} chron__seal;

#define CHRON__SEAL_AT 128u
#define CHRON__SEAL_OPEN 0u
#define CHRON__SEAL_SEALED 1u
#define CHRON__SEAL_MONOTONE 1u /* flag: timestamps never go back within the segment */

_Static_assert(offsetof(chron__seal, flags) == 4, "format");
_Static_assert(offsetof(chron__seal, records) == 8, "format");
_Static_assert(offsetof(chron__seal, end_offset) == 16, "format");
_Static_assert(offsetof(chron__seal, last_seq) == 24, "format");
_Static_assert(offsetof(chron__seal, first_ts) == 32, "format");
_Static_assert(offsetof(chron__seal, last_ts) == 40, "format");
_Static_assert(offsetof(chron__seal, sealed_ns) == 48, "format");
_Static_assert(offsetof(chron__seal, reserved) == 56, "format");
_Static_assert(offsetof(chron__seal, crc) == 60, "format");
_Static_assert(sizeof(chron__seal) == 64, "format");

/*
 * Behind the seal, at byte 192: when it was written by a clock that nobody can set. It belongs to the seal whose sealed_ns it
 * repeats. CRC over bytes 0 to 19.
 */
typedef struct chron__seal_clock {
    uint64_t sealed_ns;
    uint64_t boot_ns; /* since the boot */
    uint32_t boot;    /* which boot */
    uint32_t crc;
} chron__seal_clock;

#define CHRON__SEAL_CLOCK_AT 192u
#define CHRON__SEAL_END 216u /* what has to be read of a file to decode its seal */

_Static_assert(offsetof(chron__seal_clock, boot_ns) == 8, "format");
_Static_assert(offsetof(chron__seal_clock, boot) == 16, "format");
_Static_assert(offsetof(chron__seal_clock, crc) == 20, "format");
_Static_assert(sizeof(chron__seal_clock) == 24, "format");
_Static_assert(CHRON__SEAL_END == CHRON__SEAL_CLOCK_AT + sizeof(chron__seal_clock), "format");

#define CHRON__INDEX_AT 4096u /* u32 per CHRON__STRIDE of segment_size, padded to a multiple of 4096 */

typedef struct chron__record_header {
    uint32_t commit; /* atomic: 0, or payload length + 1 */
    uint32_t crc;    /* over commit, bytes 8 to 31, payload */
    uint64_t seq;
    uint64_t timestamp_ns;
    uint16_t type_id;
    uint16_t flags; /* low byte: the user's; high byte: ours, CHRON__RECORD_SNAPSHOT */
    uint32_t epoch; /* low word */
} chron__record_header;

#define CHRON__RECORD_SNAPSHOT 0x0200u /* flag: the record is a state that reading may begin with */

_Static_assert(offsetof(chron__record_header, crc) == 4, "format");
_Static_assert(offsetof(chron__record_header, seq) == 8, "format");
_Static_assert(offsetof(chron__record_header, timestamp_ns) == 16, "format");
_Static_assert(offsetof(chron__record_header, type_id) == 24, "format");
_Static_assert(offsetof(chron__record_header, flags) == 26, "format");
_Static_assert(offsetof(chron__record_header, epoch) == 28, "format");
_Static_assert(sizeof(chron__record_header) == CHRON__RECORD_HEADER, "format");

/* For those who write it in words of 8 bytes, and sum it up: all from SEQ on is in the CRC, behind the commit word. */
#define CHRON__RECORD_CRC offsetof(chron__record_header, crc)
#define CHRON__RECORD_SEQ offsetof(chron__record_header, seq)
#define CHRON__RECORD_TIME offsetof(chron__record_header, timestamp_ns)
#define CHRON__RECORD_WORD offsetof(chron__record_header, type_id) /* type_id, flags and epoch */

/*
 * Two slots, at bytes 512 and 1024 of queue.meta and of a position file: 64 bytes each. The newer valid
 * one wins (generation, modulo 2^64); a change writes the other one. CRC over bytes 0 to 59.
 */
typedef struct chron__slot {
    uint64_t generation;   /* from 1 */
    uint64_t next_seq;     /* position: seq to read next, CHRON_SEQ_NONE: none yet. meta: at a clean close */
    uint64_t segment_base; /* position: the segment where that is. meta: durable_next */
    uint64_t offset;       /* position: and the offset in it. meta: epoch */
    uint64_t time_ns;      /* when this slot was written */
    uint64_t boot_ns;      /* position: that, since the boot */
    uint32_t fingerprint;  /* position: CRC of the last record consumed */
    uint32_t flags;        /* CHRON__SLOT_... */
    uint32_t boot;         /* position: which boot; 0: not known */
    uint32_t crc;
} chron__slot;

#define CHRON__SLOT_A 512u
#define CHRON__SLOT_B 1024u
#define CHRON__SLOT_FINGERPRINT 1u /* position: fingerprint is set */
#define CHRON__SLOT_CLEAN 2u       /* meta: the writer closed properly */
#define CHRON__SLOT_UNDONE 4u      /* position: it lies in what a loss of power undid, from seq segment_base on */

_Static_assert(offsetof(chron__slot, next_seq) == 8, "format");
_Static_assert(offsetof(chron__slot, segment_base) == 16, "format");
_Static_assert(offsetof(chron__slot, offset) == 24, "format");
_Static_assert(offsetof(chron__slot, time_ns) == 32, "format");
_Static_assert(offsetof(chron__slot, boot_ns) == 40, "format");
_Static_assert(offsetof(chron__slot, fingerprint) == 48, "format");
_Static_assert(offsetof(chron__slot, flags) == 52, "format");
_Static_assert(offsetof(chron__slot, boot) == 56, "format");
_Static_assert(offsetof(chron__slot, crc) == 60, "format");
_Static_assert(sizeof(chron__slot) == 64, "format");

/*
 * queue.meta, 64 bytes behind each slot: where the queue lay when the slot was stored. It counts if its generation is the
 * slot's, so it does not when a writer that knows nothing of it has stored the slot. CRC over bytes 0 to 59.
 */
typedef struct chron__identity {
    uint8_t boot[16]; /* the kernel's name for that boot; zeros: unknown */
    uint64_t device;  /* st_dev and st_ino of queue.meta */
    uint64_t inode;
    uint64_t birth_ns;   /* when the file was made; 0: unknown */
    uint64_t disk_seq;   /* of the disk, on Linux; 0: unknown */
    uint64_t generation; /* of the slot in front */
    uint32_t reserved;
    uint32_t crc;
} chron__identity;

#define CHRON__IDENTITY_BEHIND 64u /* bytes from the slot */

_Static_assert(offsetof(chron__identity, device) == 16, "format");
_Static_assert(offsetof(chron__identity, inode) == 24, "format");
_Static_assert(offsetof(chron__identity, birth_ns) == 32, "format");
_Static_assert(offsetof(chron__identity, disk_seq) == 40, "format");
_Static_assert(offsetof(chron__identity, generation) == 48, "format");
_Static_assert(offsetof(chron__identity, reserved) == 56, "format");
_Static_assert(offsetof(chron__identity, crc) == 60, "format");
_Static_assert(sizeof(chron__identity) == 64, "format");

/*
 * queue.meta, what the writer is about to do: words that count as long as the place is the same, and `epoch` the one of
 * the newest slot. They never need to be on disk.
 */
#define CHRON__WORDS_AT 1536u
typedef struct chron__words {
    uint32_t epoch;    /* low word of the writer's */
    uint32_t base;     /* low word of the base_seq of the segment that it appends to */
    uint32_t intent;   /* nothing at or behind this offset of it (in units of 32 bytes) was ever touched */
    uint32_t segments; /* segment files that there are */
    uint32_t
        group; /* where the batch or claim begins (in the same units) that is not published yet; 0: there is none */
    uint32_t oldest;       /* base_seq of the first segment there is, low and */
    uint32_t oldest_high;  /* high word; for readers */
    uint32_t oldest_check; /* of both: another one, and they are being stored, or never were */
} chron__words;

_Static_assert(offsetof(chron__words, base) == 4, "format");
_Static_assert(offsetof(chron__words, intent) == 8, "format");
_Static_assert(offsetof(chron__words, segments) == 12, "format");
_Static_assert(offsetof(chron__words, group) == 16, "format");
_Static_assert(offsetof(chron__words, oldest) == 20, "format");
_Static_assert(offsetof(chron__words, oldest_high) == 24, "format");
_Static_assert(offsetof(chron__words, oldest_check) == 28, "format");

/* In `gaps`, one after the other behind the file header: seqs that are gone. CRC over bytes 0 to 59. */
typedef struct chron__gap_entry {
    uint64_t seq;      /* first one that is missing */
    uint64_t seq_end;  /* first one that is there again */
    uint64_t base_seq; /* segment that the log goes on in */
    uint64_t offset;   /* of that record in it; 0: where its records begin */
    uint64_t accepted_ns;
    uint64_t reserved;
    uint64_t reserved2;
    uint32_t reserved3;
    uint32_t crc;
} chron__gap_entry;

_Static_assert(offsetof(chron__gap_entry, seq_end) == 8, "format");
_Static_assert(offsetof(chron__gap_entry, base_seq) == 16, "format");
_Static_assert(offsetof(chron__gap_entry, offset) == 24, "format");
_Static_assert(offsetof(chron__gap_entry, accepted_ns) == 32, "format");
_Static_assert(offsetof(chron__gap_entry, crc) == 60, "format");
_Static_assert(sizeof(chron__gap_entry) == 64, "format");

/*
 * A .cut file in quarantine/: the file header (base_seq and data_offset say where the bytes stood, segment_size how many they
 * are, epoch of the opening that cut them), this at byte 128, and the bytes from byte 4096 on. CRC over bytes 0 to 27.
 */
typedef struct chron__cut {
    uint64_t seq;       /* that stood there, or should have */
    uint64_t first_seq; /* of the whole records in it; CHRON_SEQ_NONE: there is none */
    uint64_t records;   /* how many those are */
    uint32_t reserved;
    uint32_t crc;
} chron__cut;

#define CHRON__CUT_AT 128u

_Static_assert(offsetof(chron__cut, first_seq) == 8, "format");
_Static_assert(offsetof(chron__cut, records) == 16, "format");
_Static_assert(offsetof(chron__cut, crc) == 28, "format");

/*
 * types/<base_seq>.sum: the file header, this at byte 128, an entry for each block, the types, zeros up to a multiple of 4, and
 * a CRC over all that.
 */
typedef struct chron__summary_head {
    uint8_t seal[64];  /* of the segment, as it stood there */
    uint32_t crc;      /* of the segment's file header */
    uint32_t blocks;   /* entries */
    uint32_t types;    /* in the list */
    uint32_t reserved; /* 0 */
} chron__summary_head;

typedef struct chron__summary_entry {
    uint64_t seq;    /* of the first record that begins in the block; CHRON_SEQ_NONE: none does */
    uint32_t offset; /* of that, in units of 32 bytes; 0: none does */
    uint32_t types;  /* index of the block's first type in the list; those of the next block follow its own */
} chron__summary_entry;

#define CHRON__SUMMARY_AT 128u
#define CHRON__SUMMARY_ENTRIES_AT (CHRON__SUMMARY_AT + sizeof(chron__summary_head))

_Static_assert(offsetof(chron__summary_head, crc) == 64, "format");
_Static_assert(offsetof(chron__summary_head, blocks) == 68, "format");
_Static_assert(offsetof(chron__summary_head, types) == 72, "format");
_Static_assert(sizeof(chron__summary_head) == 80, "format");
_Static_assert(offsetof(chron__summary_entry, offset) == 8, "format");
_Static_assert(offsetof(chron__summary_entry, types) == 12, "format");
_Static_assert(sizeof(chron__summary_entry) == 16, "format");

/*
 * A group's file: file header, what never changes (below) at byte 128, two slots (next_seq: the floor, below which all is done;
 * epoch: the highest that any record of a cell has had), words at 1536 that do not outlive the boot, the members' table at
 * 4096, and a window of cells, one for each job from the floor on: that of record `seq` is cell seq % window. CRC over bytes
 * 0 to 11.
 */
typedef struct chron__group_shape {
    uint32_t window; /* cells, a power of two */
    uint32_t flags;  /* CHRON__GROUP_KEYED */
    uint32_t reserved;
    uint32_t crc;
} chron__group_shape;

#define CHRON__GROUP_SHAPE_AT 128u
#define CHRON__GROUP_KEYED 1u /* jobs of one key are handed out in order, one at a time */
#define CHRON__GROUP_WINDOW_MIN 64u
#define CHRON__GROUP_WINDOW_MAX 16777216u

_Static_assert(offsetof(chron__group_shape, crc) == 12, "format");
_Static_assert(sizeof(chron__group_shape) == 16, "format");

/* Words of a group, in native byte order: all of them can be found out anew. */
#define CHRON__GROUP_TURN 1536u        /* u32, a turn word (format/turn.h) */
#define CHRON__GROUP_INCARNATION 1540u /* u32: counts the joinings */
#define CHRON__GROUP_NEXT 1600u        /* u64: no job at or behind this was ever handed out */
#define CHRON__GROUP_READY 1664u       /* u64: below it no job is ready; CHRON_SEQ_NONE: none is, as far as is known */
#define CHRON__GROUP_LEASE 1728u       /* u64: when the first lease ends, CLOCK_MONOTONIC */
#define CHRON__GROUP_DUE 1736u         /* u64: when the first delayed job is due, wall clock */
#define CHRON__GROUP_SCANNED 1744u     /* u64: when all cells were looked at last, CLOCK_MONOTONIC */

#define CHRON__GROUP_TABLE 4096u
#define CHRON__GROUP_SLOTS 1024u
#define CHRON__GROUP_CELLS 20480u

/*
 * A cell. `word`, from the lowest bit on: state (3), count (12), slot (10) and incarnation (21) of the owner, lap (18): seq /
 * window. Every change of it is one compare-and-swap, and the value is the receipt of who has the job.
 */
typedef struct chron__cell {
    uint64_t word;
    uint64_t
        arg; /* RUNNING: when the lease ends (CLOCK_MONOTONIC, 0: never); DELAYED: not before (wall clock); DEADING: the
                     dead queue's next_seq before the letter was appended */
    uint32_t key; /* a hash of the job's key */
    uint32_t aux; /* RUNNING: since when, tenths of a second of CLOCK_MONOTONIC; DEADING: why */
} chron__cell;

_Static_assert(offsetof(chron__cell, arg) == 8, "format");
_Static_assert(offsetof(chron__cell, key) == 16, "format");
_Static_assert(offsetof(chron__cell, aux) == 20, "format");
_Static_assert(sizeof(chron__cell) == 24, "format");

enum chron__cell_state {
    CHRON__CELL_NEW,      /* nobody ever had it */
    CHRON__CELL_READY,    /* it was given back */
    CHRON__CELL_RESERVED, /* its owner is about to start it */
    CHRON__CELL_RUNNING,
    CHRON__CELL_DELAYED,
    CHRON__CELL_DEADING, /* its owner hands it over to the dead queue */
    CHRON__CELL_DONE,
};

/* Doorbell: file header, then two futex words on cache lines of their own, in native byte order. */
#define CHRON__BELL_NOTIFY 256u
#define CHRON__BELL_WAITING 512u
#define CHRON__BELL_FENCE 768u

/* Bytes that a record with this payload takes in a segment. */
static inline uint64_t chron__record_bytes(uint64_t payload_bytes)
{
    return (CHRON__RECORD_HEADER + payload_bytes + (CHRON__ALIGN - 1u)) & ~(uint64_t)(CHRON__ALIGN - 1u);
}

/* Where the records of a segment of this size begin. */
static inline uint64_t chron__data_offset(uint64_t segment_size)
{
    uint64_t index_bytes = segment_size / CHRON__STRIDE * 4u;
    return CHRON__INDEX_AT + ((index_bytes + CHRON__PAGE - 1u) & ~(uint64_t)(CHRON__PAGE - 1u));
}

#endif
