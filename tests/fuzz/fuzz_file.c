/* SPDX-License-Identifier: MIT */
/*
 * fuzz_file.c - any bytes as one file of an otherwise good queue: FUZZ_SEGMENT, FUZZ_POSITION or FUZZ_META says which.
 * An input is the file without its gaps: the first 128 bytes, then either two slots, or the seal, 64 bytes of index, and
 * records from there on. The queue's uuid is put into it, and a segment is named by its own base_seq, so that files of
 * other queues (tests/fuzz/seeds.py: the golden ones) serve as inputs. On half of its inputs the mutator makes all CRCs
 * right, so that they get past the front door. What is done with the queue then: exercise.h.
 */
#define _GNU_SOURCE
#include "exercise.h"

#define HEADER_BYTES 128u
#define HEADER_CRC 124u
#define UUID_AT 24u
#define UUID_BYTES 16u
#define BASE_SEQ_AT 56u
#define PART_BYTES 64u /* a slot, the seal, or what is fuzzed of the index */
#define PART_CRC 60u
#define SEAL_CRC_FROM 4u
#define RECORDS_AT (HEADER_BYTES + 2u * PART_BYTES)
#define DATA_OFFSET 8192u

#if defined(FUZZ_SEGMENT)
#define FILE_NAME SEGMENT_0
#elif defined(FUZZ_POSITION)
#define FILE_NAME "readers/me.pos"
#else
#define FILE_NAME "queue.meta"
#endif

typedef struct kept {
    char name[80];
    uint8_t bytes[FILE_MAX];
    size_t size;
} kept;

static kept others[4]; /* of the queue, but for the file that is fuzzed */
static size_t other_count;
static uint8_t uuid[UUID_BYTES];

static void keep(const char *name)
{
    if (strcmp(name, FILE_NAME) == 0)
        return;
    (void)snprintf(others[other_count].name, sizeof others->name, "%s", name);
    others[other_count].size = read_file(name, others[other_count].bytes);
    other_count++;
}

static void make_and_keep(void)
{
    static uint8_t meta[FILE_MAX];

    make_queue();
    keep("queue.meta");
    keep("readers/me.pos");
#if !defined(FUZZ_SEGMENT)
    chron_segment_info segments[2] = {{.struct_size = sizeof *segments}};
    char name[80];

    keep(SEGMENT_0);
    CHECK_EQ(chron_queue_segments(path, segments, 2), 2);
    (void)snprintf(name, sizeof name, "%020llu.seg", (unsigned long long)segments[1].base_seq);
    keep(name);
#endif
    (void)read_file("queue.meta", meta);
    memcpy(uuid, meta + UUID_AT, UUID_BYTES);
}

#ifndef FUZZ_REPLAY
static void repair(uint8_t *data, size_t size)
{
    if (size >= HEADER_BYTES)
        chron__write_le32(data + HEADER_CRC, chron_crc32c(0, data, HEADER_CRC));
    if (size < RECORDS_AT)
        return;
#if defined(FUZZ_SEGMENT)
    uint8_t *seal = data + HEADER_BYTES;

    chron__write_le32(seal + PART_CRC, chron_crc32c(0, seal + SEAL_CRC_FROM, PART_CRC - SEAL_CRC_FROM));
    repair_records(data, size, RECORDS_AT);
#else
    for (uint8_t *slot = data + HEADER_BYTES; slot < data + RECORDS_AT; slot += PART_BYTES)
        chron__write_le32(slot + PART_CRC, chron_crc32c(0, slot, PART_CRC));
#endif
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, max_size);
    if (seed & 1u)
        repair(data, size);
    return size;
}
#endif

/* The header belongs to our queue; its CRC stays as right or wrong as it was. */
static void adopt(uint8_t *header)
{
    int good = chron__read_le32(header + HEADER_CRC) == chron_crc32c(0, header, HEADER_CRC);

    memcpy(header + UUID_AT, uuid, UUID_BYTES);
    limit_segment_size(header);
    if (good)
        chron__write_le32(header + HEADER_CRC, chron_crc32c(0, header, HEADER_CRC));
}

/* Copy what there is of [from, from + bytes) of the input. */
static void place(uint8_t *to, const uint8_t *data, size_t size, size_t from, size_t bytes)
{
    if (from < size)
        memcpy(to, data + from, bytes < size - from ? bytes : size - from);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[FILE_MAX];
    char name[80] = FILE_NAME;

    if (!other_count)
        make_and_keep();
    remove_files();
    for (size_t i = 0; i < other_count; i++)
        write_file(others[i].name, others[i].bytes, others[i].size);
    memset(file, 0, sizeof file);
    place(file, data, size, 0, HEADER_BYTES);
    adopt(file);
#if defined(FUZZ_SEGMENT)
    uint64_t base_seq = chron__read_le64(file + BASE_SEQ_AT);

    place(file + HEADER_BYTES, data, size, HEADER_BYTES, PART_BYTES);
    place(file + CHRON__PAGE, data, size, HEADER_BYTES + PART_BYTES, PART_BYTES);
    place(file + DATA_OFFSET, data, size, RECORDS_AT, FILE_MAX - DATA_OFFSET);
    if (base_seq < (uint64_t)INT64_MAX)
        (void)snprintf(name, sizeof name, "%020llu.seg", (unsigned long long)base_seq);
    write_file(name, file, FILE_MAX);
#else
    place(file + 512, data, size, HEADER_BYTES, PART_BYTES);
    place(file + 1024, data, size, HEADER_BYTES + PART_BYTES, PART_BYTES);
    write_file(name, file, CHRON__PAGE);
#endif
    exercise();
    return 0;
}
