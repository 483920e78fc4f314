/* SPDX-License-Identifier: MIT */
/*
 * fuzz_queue.c - any bytes in any file of a queue. An input is a list of patches (file, offset, bytes) to a small
 * queue with two segments and a reader; with the lowest bit of its first byte set, the CRCs of headers, slots, the
 * seal and the records are made right again afterwards, so that half of the inputs get past the front door. What
 * is done with the queue then: exercise.h.
 */
#define _GNU_SOURCE
#include "exercise.h"

#define FILES 5
#define PATCHES_MAX 64

typedef struct pristine {
    char name[80];
    size_t size;
    uint8_t bytes[FILE_MAX];
    uint8_t now[FILE_MAX];
    int changed;
} pristine;

static pristine files[FILES];

static void keep(size_t index, const char *name)
{
    (void)snprintf(files[index].name, sizeof files[index].name, "%s", name);
    files[index].size = read_file(name, files[index].bytes);
}

static void make_and_keep(void)
{
    chron_segment_info segments[2] = {{.struct_size = sizeof *segments}};
    char name[80];

    make_queue();
    CHECK_EQ(chron_queue_segments(path, segments, 2), 2);
    (void)snprintf(name, sizeof name, "%020llu.seg", (unsigned long long)segments[1].base_seq);
    keep(0, "queue.meta");
    keep(1, "doorbell");
    keep(2, SEGMENT_0);
    keep(3, name);
    keep(4, "readers/me.pos");
}

static void repair_crcs(pristine *file)
{
    uint8_t *b = file->now;

    chron__write_le32(b + 124, chron_crc32c(0, b, 124));
    if (file->size == CHRON__PAGE) {
        chron__write_le32(b + 512 + 60, chron_crc32c(0, b + 512, 60));
        chron__write_le32(b + 1024 + 60, chron_crc32c(0, b + 1024, 60));
        return;
    }
    chron__write_le32(b + 128 + 60, chron_crc32c(0, b + 132, 56));
    repair_records(b, file->size, 8192);
}

/* Patches of 4 bytes of head (file, offset, length) and their bytes. */
static void apply(const uint8_t *data, size_t size)
{
    int repair = size > 0 && (data[0] & 1);
    size_t at = 1;

    for (int n = 0; n < PATCHES_MAX && at + 4 <= size; n++) {
        pristine *file = &files[data[at] % FILES];
        size_t offset = ((size_t)data[at + 1] | (size_t)data[at + 2] << 8) % file->size;
        size_t length = data[at + 3];

        at += 4;
        if (length > size - at)
            length = size - at;
        if (length > file->size - offset)
            length = file->size - offset;
        memcpy(file->now + offset, data + at, length);
        file->changed = 1;
        at += length;
    }
    limit_segment_size(files[0].now);
    for (int i = 0; i < FILES; i++)
        if (files[i].changed && repair)
            repair_crcs(&files[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!files[0].size)
        make_and_keep();
    remove_files();
    for (int i = 0; i < FILES; i++) {
        memcpy(files[i].now, files[i].bytes, files[i].size);
        files[i].changed = 0;
    }
    apply(data, size);
    for (int i = 0; i < FILES; i++)
        write_file(files[i].name, files[i].now, files[i].size);
    exercise();
    return 0;
}
