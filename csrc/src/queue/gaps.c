/* SPDX-License-Identifier: MIT */
/*
 * gaps.c - see gaps.h. The file is the 128 bytes that every file begins with, then 64 bytes a gap, each with a CRC of its
 * own. It is small, and always written whole, under another name, and renamed.
 */
#include "queue/gaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/step.h"
#include "format/header.h"

#define TEMPORARY CHRON__FILE_GAPS ".tmp"
#define ENTRY_BYTES (sizeof(chron__gap_entry))
#define ENTRY_CRC_BYTES (offsetof(chron__gap_entry, crc))

void chron__gaps_free(chron__gaps *gaps)
{
    free(gaps->at);
    memset(gaps, 0, sizeof *gaps);
}

const chron__gap *chron__gaps_find(const chron__gaps *gaps, uint64_t seq)
{
    for (size_t i = 0; i < gaps->count; i++)
        if (seq >= gaps->at[i].seq && seq < gaps->at[i].seq_end)
            return &gaps->at[i];
    return NULL;
}

uint64_t chron__gaps_over(const chron__gaps *gaps, const chron__bases *bases, uint64_t seq)
{
    const chron__gap *gap = chron__gaps_find(gaps, seq);

    if (!gap || gap->base_seq != gap->seq_end || (bases->count && bases->at[bases->count - 1u] >= gap->base_seq))
        return seq;
    return gap->seq_end;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = ((const chron__gap *)a)->seq;
    uint64_t y = ((const chron__gap *)b)->seq;

    return (x > y) - (x < y);
}

/* Sort, and join those that touch: of two, the later one says where the log goes on. */
static void tidy(chron__gaps *gaps)
{
    size_t kept = 0;

    if (gaps->count)
        qsort(gaps->at, gaps->count, sizeof *gaps->at, compare);
    for (size_t i = 0; i < gaps->count; i++) {
        chron__gap *last = kept ? &gaps->at[kept - 1u] : NULL;
        uint64_t seq = last ? last->seq : 0;

        if (!last || gaps->at[i].seq > last->seq_end) {
            gaps->at[kept++] = gaps->at[i];
        } else if (gaps->at[i].seq_end > last->seq_end) {
            *last = gaps->at[i];
            last->seq = seq;
        }
    }
    gaps->count = kept;
}

static int append(chron__gaps *gaps, const chron__gap *gap)
{
    if (gaps->count == gaps->capacity) {
        size_t capacity = gaps->capacity ? gaps->capacity * 2u : 16u;
        chron__gap *at = realloc(gaps->at, capacity * sizeof *at);

        if (!at)
            return chron__fail(CHRON_ENOMEM, "no memory for a list of gaps");
        gaps->at = at;
        gaps->capacity = capacity;
    }
    gaps->at[gaps->count++] = *gap;
    return 0;
}

int chron__gaps_add(chron__gaps *gaps, const chron__gap *gap)
{
    int status;

    CHRON__ASSERT(gap->seq < gap->seq_end && gap->base_seq <= gap->seq_end);
    if (gaps->count >= CHRON__GAPS_MAX)
        return chron__fail(CHRON_EINVAL, "there are %u gaps in this log already: copy what can be read to a new queue",
                           CHRON__GAPS_MAX);
    status = append(gaps, gap);
    if (status == 0)
        tidy(gaps);
    return status;
}

/* ------------------------------------------------------------------------------------------- the file */

static int decode(const uint8_t *entry, chron__gap *out)
{
    if (chron__read_le32(entry + ENTRY_CRC_BYTES) != chron_crc32c(0, entry, ENTRY_CRC_BYTES))
        return 0;
    out->seq = chron__read_le64(entry + offsetof(chron__gap_entry, seq));
    out->seq_end = chron__read_le64(entry + offsetof(chron__gap_entry, seq_end));
    out->base_seq = chron__read_le64(entry + offsetof(chron__gap_entry, base_seq));
    out->offset = chron__read_le64(entry + offsetof(chron__gap_entry, offset));
    out->accepted_ns = chron__read_le64(entry + offsetof(chron__gap_entry, accepted_ns));
    return out->seq < out->seq_end && out->base_seq <= out->seq_end && out->offset % CHRON__ALIGN == 0;
}

static int read_entries(const chron__queue *q, int fd, chron__gaps *out)
{
    uint8_t entry[ENTRY_BYTES];
    uint64_t at = sizeof(chron__file_header);
    chron__gap gap;

    for (size_t i = 0; i < CHRON__GAPS_MAX; i++, at += sizeof entry) {
        int64_t n = q->io->read_at(q->io, fd, entry, sizeof entry, at);
        int status = 0;

        if (n < 0)
            return chron__fail_sys((int)n, CHRON__FILE_GAPS, "cannot read the gaps that were accepted");
        if (n < (int64_t)sizeof entry)
            return 0;
        if (decode(entry, &gap))
            status = append(out, &gap);
        if (status < 0)
            return status;
    }
    return 0;
}

/* `damaged` will do, but not that of another queue. */
static int check_header(const chron__queue *q, int fd, int damaged)
{
    uint8_t bytes[sizeof(chron__file_header)] = {0};
    chron__file_header header;
    int64_t n = q->io->read_at(q->io, fd, bytes, sizeof bytes, 0);

    if (n < 0)
        return chron__fail_sys((int)n, CHRON__FILE_GAPS, "cannot read the list of accepted gaps");
    if (damaged && !chron__header_is_whole(bytes))
        return 0;
    return chron__header_decode(bytes, CHRON__MAGIC_GAPS, q->uuid, CHRON__FILE_GAPS, &header);
}

static int load(const chron__queue *q, int damaged, chron__gaps *out)
{
    int status;
    int fd = q->io->open_file(q->io, q->dir, CHRON__FILE_GAPS, CHRON__OPEN_READ, 0);

    memset(out, 0, sizeof *out);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return chron__fail_sys(fd, CHRON__FILE_GAPS, "cannot open the list of accepted gaps");
    status = check_header(q, fd, damaged);
    if (status == 0)
        status = read_entries(q, fd, out);
    q->io->close_file(q->io, fd);
    if (status == 0)
        tidy(out);
    return status;
}

int chron__gaps_load(const chron__queue *q, chron__gaps *out)
{
    return load(q, 0, out);
}

int chron__gaps_salvage(const chron__queue *q, chron__gaps *out)
{
    int status = load(q, 1, out);

    return status == -CHRON_ECORRUPT ? 0 : status;
}

void chron__gaps_forget(chron__gaps *gaps, uint64_t seq)
{
    size_t kept = 0;

    for (size_t i = 0; i < gaps->count; i++)
        if (gaps->at[i].seq_end >= seq)
            gaps->at[kept++] = gaps->at[i];
    gaps->count = kept;
}

static int write_file(const chron__queue *q, int fd, const chron__gaps *gaps)
{
    chron__file_header header = {.created_ns = chron__clock_ns(0)};
    size_t bytes = sizeof header + gaps->count * ENTRY_BYTES;
    uint8_t *image = calloc(1, bytes);
    int64_t status;

    if (!image)
        return -ENOMEM;
    memcpy(header.magic, CHRON__MAGIC_GAPS, sizeof header.magic);
    memcpy(header.uuid, q->uuid, sizeof header.uuid);
    chron__header_encode(&header, image);
    for (size_t i = 0; i < gaps->count; i++) {
        uint8_t *entry = image + sizeof header + i * ENTRY_BYTES;

        chron__write_le64(entry + offsetof(chron__gap_entry, seq), gaps->at[i].seq);
        chron__write_le64(entry + offsetof(chron__gap_entry, seq_end), gaps->at[i].seq_end);
        chron__write_le64(entry + offsetof(chron__gap_entry, base_seq), gaps->at[i].base_seq);
        chron__write_le64(entry + offsetof(chron__gap_entry, offset), gaps->at[i].offset);
        chron__write_le64(entry + offsetof(chron__gap_entry, accepted_ns), gaps->at[i].accepted_ns);
        chron__write_le32(entry + ENTRY_CRC_BYTES, chron_crc32c(0, entry, ENTRY_CRC_BYTES));
    }
    status = q->io->write_at(q->io, fd, image, bytes, 0);
    free(image);
    return status < 0 ? (int)status : q->io->sync_file(q->io, fd);
}

int chron__gaps_save(const chron__queue *q, const chron__gaps *gaps, unsigned mode)
{
    const chron__io *io = q->io;
    int status;
    int fd;

    (void)io->unlink(io, q->dir, TEMPORARY);
    fd = io->open_file(io, q->dir, TEMPORARY, CHRON__OPEN_CREATE | CHRON__OPEN_EXCLUSIVE, mode);
    if (fd < 0)
        return chron__fail_sys(fd, TEMPORARY, "cannot write down the gaps that are accepted");
    status = write_file(q, fd, gaps);
    io->close_file(io, fd);
    CHRON__STEP("gaps: written");
    if (status >= 0)
        status = io->rename(io, q->dir, TEMPORARY, q->dir, CHRON__FILE_GAPS);
    if (status >= 0)
        status = io->sync_dir(io, q->dir);
    CHRON__STEP("gaps: named");
    if (status < 0) {
        (void)io->unlink(io, q->dir, TEMPORARY);
        return chron__fail_sys(status, CHRON__FILE_GAPS, "cannot write down the gaps that are accepted");
    }
    return 0;
}
