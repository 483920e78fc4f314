/* SPDX-License-Identifier: MIT */
/*
 * summary_file.c - summaries as files, types/<base_seq>.sum.
 *
 * Invariants:
 *  - A file counts only if its CRC is right, and it repeats the segment's seal and the CRC of its header: another segment's, an
 *    earlier state's or another queue's is as none.
 *  - No byte of it is used as a place before it was checked against the segment.
 *  - Nothing depends on its being kept: it is renamed into its place and never synced, and what a loss of power
 *    leaves of it has a wrong CRC.
 */
#include "format/summary_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "format/header.h"

#define NAME_BYTES 64u
#define FIELD(struct, field) (offsetof(struct, field))

static uint64_t file_bytes(uint64_t blocks, uint64_t types)
{
    return CHRON__SUMMARY_ENTRIES_AT + blocks * sizeof(chron__summary_entry) + (types * 2u + 3u) / 4u * 4u + 4u;
}

static void name_of(uint64_t base_seq, char *name)
{
    (void)snprintf(name, NAME_BYTES, CHRON__DIR_TYPES "/%020" PRIu64 ".sum", base_seq);
}

/* The same with another ending. */
static void temporary_of(const char *name, char *temporary)
{
    (void)snprintf(temporary, NAME_BYTES, "%.*s.tmp", (int)strlen(name) - 4, name);
}

/* What it has to begin with, from byte 128 on, to be this segment's. */
static void identify(const chron__seg *seg, uint8_t *head)
{
    memset(head, 0, sizeof(chron__summary_head));
    memcpy(head, seg->map.base + CHRON__SEAL_AT, sizeof(chron__seal));
    memcpy(head + FIELD(chron__summary_head, crc), seg->map.base + FIELD(chron__file_header, crc), 4);
}

/* ------------------------------------------------------------------------------------------- loading */

/* The whole file, or NULL. */
static uint8_t *read_whole(const chron__queue *q, const char *name, uint64_t most, size_t *bytes)
{
    uint8_t *file = NULL;
    uint64_t size = 0;
    int fd = q->io->open_file(q->io, q->dir, name, CHRON__OPEN_READ, 0);

    if (fd < 0)
        return NULL;
    if (q->io->file_size(q->io, fd, &size) == 0 && size >= file_bytes(0, 0) && size <= most)
        file = malloc((size_t)size);
    if (file && q->io->read_at(q->io, fd, file, (size_t)size, 0) != (int64_t)size) {
        free(file);
        file = NULL;
    }
    q->io->close_file(q->io, fd);
    *bytes = (size_t)size;
    return file;
}

/* Is it whole, and of this segment as it is now? */
static int is_of(const chron__queue *q, const chron__seg *seg, const uint8_t *file, size_t bytes)
{
    uint8_t head[sizeof(chron__summary_head)];
    const uint8_t *its = file + CHRON__SUMMARY_AT;
    chron__file_header header;

    identify(seg, head);
    return chron__header_decode(file, CHRON__MAGIC_SUMMARY, q->uuid, CHRON__DIR_TYPES, &header) == 0 &&
           header.base_seq == seg->base_seq && header.segment_size == seg->size &&
           memcmp(head, its, FIELD(chron__summary_head, blocks)) == 0 &&
           chron__read_le32(its + FIELD(chron__summary_head, blocks)) == chron__seg_blocks(seg) &&
           file_bytes(chron__seg_blocks(seg), chron__read_le32(its + FIELD(chron__summary_head, types))) == bytes &&
           chron__read_le32(file + bytes - 4u) == chron_crc32c(0, file, bytes - 4u);
}

/* Every place lies where it can, and they ascend. */
static int is_possible(const chron__seg *seg, const chron__summary *s, uint32_t types)
{
    uint64_t last_seq = seg->base_seq;
    uint32_t from = 0;

    for (uint64_t i = 0; i < s->block_count; i++) {
        const chron__block *at = &s->blocks[i];

        if (at->types < from || at->types > types)
            return 0;
        from = at->types;
        if (at->offset == 0)
            continue;
        if (at->offset < seg->data_offset || at->offset >= s->end_offset || chron__seg_block_of(seg, at->offset) != i ||
            at->seq < last_seq || at->seq >= s->end_seq)
            return 0;
        last_seq = at->seq;
    }
    return 1;
}

/* Steals nothing; NULL: no memory, or it says what cannot be. */
static chron__summary *decode(const chron__seg *seg, const uint8_t *file, const chron__seal_value *seal)
{
    uint32_t types = chron__read_le32(file + CHRON__SUMMARY_AT + FIELD(chron__summary_head, types));
    const uint8_t *at = file + CHRON__SUMMARY_ENTRIES_AT;
    chron__summary *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->block_count = chron__seg_blocks(seg);
    s->end_offset = seal->end_offset;
    s->end_seq = seal->last_seq + 1u;
    s->is_whole = 1;
    s->blocks = calloc(s->block_count + 1u, sizeof *s->blocks);
    s->types = malloc(types * sizeof *s->types + 1u);
    for (uint64_t i = 0; s->blocks && i < s->block_count; i++, at += sizeof(chron__summary_entry)) {
        s->blocks[i].seq = chron__read_le64(at);
        s->blocks[i].offset = (uint64_t)chron__read_le32(at + FIELD(chron__summary_entry, offset)) * CHRON__ALIGN;
        s->blocks[i].types = chron__read_le32(at + FIELD(chron__summary_entry, types));
    }
    for (uint32_t i = 0; s->blocks && s->types && i < types; i++)
        s->types[i] = chron__read_le16(at + i * 2u);
    if (s->blocks)
        s->blocks[s->block_count].types = types;
    if (s->blocks && s->types && is_possible(seg, s, types))
        return s;
    chron__summary_free(s);
    return NULL;
}

chron__summary *chron__summary_load(const chron__queue *q, const chron__seg *seg)
{
    chron_error before = *chron_last_error();
    chron__summary *s = NULL;
    chron__seal_value seal;
    char name[NAME_BYTES];
    uint8_t *file;
    size_t bytes;

    if (seg->headless || chron__seg_seal_load(seg, &seal) != 1 || seal.end_offset < seg->data_offset ||
        seal.end_offset > seg->size - CHRON__RECORD_HEADER || seal.end_offset % CHRON__ALIGN != 0) {
        *chron__error() = before;
        return NULL;
    }
    name_of(seg->base_seq, name);
    file = read_whole(q, name, file_bytes(chron__seg_blocks(seg), seg->size / CHRON__ALIGN * 2u), &bytes);
    if (file && is_of(q, seg, file, bytes) && !chron__map_faulted(&seg->map))
        s = decode(seg, file, &seal);
    free(file);
    *chron__error() = before; /* what is wrong with it is nobody's failure */
    return s;
}

/* ------------------------------------------------------------------------------------------- keeping */

static uint8_t *encode(const chron__queue *q, const chron__seg *seg, const chron__summary *s, size_t bytes)
{
    const chron__file_header header = {.stride = CHRON__STRIDE,
                                       .created_ns = chron__clock_ns(0),
                                       .segment_size = seg->size,
                                       .base_seq = seg->base_seq};
    uint32_t types = s->blocks[s->block_count].types;
    uint8_t *file = calloc(1, bytes);
    uint8_t *at;
    chron__file_header own = header;

    if (!file)
        return NULL;
    memcpy(own.magic, CHRON__MAGIC_SUMMARY, sizeof own.magic);
    memcpy(own.uuid, q->uuid, sizeof own.uuid);
    chron__header_encode(&own, file);
    at = file + CHRON__SUMMARY_AT;
    identify(seg, at);
    chron__write_le32(at + FIELD(chron__summary_head, blocks), (uint32_t)s->block_count);
    chron__write_le32(at + FIELD(chron__summary_head, types), types);
    at = file + CHRON__SUMMARY_ENTRIES_AT;
    for (uint64_t i = 0; i < s->block_count; i++, at += sizeof(chron__summary_entry)) {
        chron__write_le64(at, s->blocks[i].seq);
        chron__write_le32(at + FIELD(chron__summary_entry, offset), (uint32_t)(s->blocks[i].offset / CHRON__ALIGN));
        chron__write_le32(at + FIELD(chron__summary_entry, types), s->blocks[i].types);
    }
    for (uint32_t i = 0; i < types; i++, at += 2u)
        chron__write_le16(at, s->types[i]);
    chron__write_le32(file + bytes - 4u, chron_crc32c(0, file, bytes - 4u));
    return file;
}

/*
 * Two at a time may get in each other's way here: then a file comes to be that is not whole, or none, and is made anew one day.
 * 0 or -errno.
 */
static int put_file(const chron__queue *q, const char *name, const uint8_t *file, size_t bytes, unsigned mode)
{
    const chron__io *io = q->io;
    char temporary[NAME_BYTES];
    int64_t status;
    int fd;

    temporary_of(name, temporary);
    (void)io->unlink(io, q->dir, temporary);
    fd = io->open_file(io, q->dir, temporary, CHRON__OPEN_CREATE | CHRON__OPEN_EXCLUSIVE, mode);
    if (fd < 0)
        return fd;
    status = io->write_at(io, fd, file, bytes, 0);
    io->close_file(io, fd);
    if (status >= 0)
        status = io->rename(io, q->dir, temporary, q->dir, name);
    if (status < 0)
        (void)io->unlink(io, q->dir, temporary);
    return (int)status;
}

void chron__summary_store(const chron__queue *q, const chron__seg *seg, const chron__summary *s)
{
    const chron__io *io = q->io;
    char segment[CHRON__NAME_BYTES];
    char name[NAME_BYTES];
    chron__stat st;
    size_t bytes;
    uint8_t *file;

    chron__segment_name(seg->base_seq, segment);
    /* Somebody else's queue is not written to, though one could: what root leaves there its owner could not remove. */
    if (!s->is_whole || io->stat_name(io, q->dir, segment, &st) < 0 || !st.is_ours)
        return;
    bytes = (size_t)file_bytes(s->block_count, s->blocks[s->block_count].types);
    file = encode(q, seg, s, bytes);
    if (!file || chron__map_faulted(&seg->map)) {
        free(file);
        return;
    }
    name_of(seg->base_seq, name);
    (void)io->make_dir(io, q->dir, CHRON__DIR_TYPES, 0700u | st.mode | (st.mode & 0444u) >> 2);
    if (put_file(q, name, file, bytes, st.mode) == 0 && io->stat_name(io, q->dir, segment, &st) < 0)
        (void)io->unlink(io, q->dir, name); /* retention came in between */
    free(file);
}

chron__summary *chron__summary_get(const chron__queue *q, const chron__seg *seg)
{
    chron__summary *s = chron__summary_load(q, seg);
    chron__builder *b;
    int status;

    if (s)
        return s;
    b = malloc(sizeof *b);
    if (!b)
        return NULL;
    status = chron__builder_begin(b, seg);
    while (status == 0)
        status = chron__builder_step(b, seg->size);
    if (status == 1)
        s = chron__builder_take(b);
    if (s)
        chron__summary_store(q, seg, s);
    chron__builder_end(b);
    free(b);
    return s;
}

void chron__summaries_remove(const chron__queue *q, const uint64_t *bases, size_t count)
{
    int dir = q->io->open_dir(q->io, q->dir, CHRON__DIR_TYPES);

    if (dir < 0)
        return; /* nobody has made one */
    q->io->close_file(q->io, dir);
    for (size_t i = 0; i < count; i++) {
        char name[NAME_BYTES];
        char temporary[NAME_BYTES];

        name_of(bases[i], name);
        temporary_of(name, temporary);
        (void)q->io->unlink(q->io, q->dir, name);
        (void)q->io->unlink(q->io, q->dir, temporary); /* of a process that was killed */
    }
}
