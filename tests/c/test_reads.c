/* SPDX-License-Identifier: MIT */
/* test_reads.c - every way to read in C stops at a damaged record, stays there, and goes on behind it when told to. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "records.h"
#include "temporary.h"

#define RECORDS 30u
#define DAMAGED 17u
#define DATA_OFFSET 8192u
#define RECORD_BYTES 128u /* 32 of header, 96 of payload */

static char path[TEMPORARY_BYTES];

static void make_queue(void)
{
    uint8_t payload[RECORD_BYTES - 32u];
    char file[TEMPORARY_BYTES + 32];
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;
    int fd;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    for (uint64_t seq = 0; seq < RECORDS; seq++) {
        memset(payload, (int)seq, sizeof payload);
        CHECK_EQ(chron_writer_append_at(w, payload, sizeof payload, 1, 2, seq), (int64_t)seq);
    }
    CHECK_EQ(chron_writer_close(w), 0);
    (void)snprintf(file, sizeof file, "%s/00000000000000000000.seg", path);
    fd = open(file, O_WRONLY);
    CHECK_EQ(pwrite(fd, "?", 1, DATA_OFFSET + DAMAGED * RECORD_BYTES + 100), 1);
    close(fd);
}

static int by_next(chron_reader *r, chron_view *views)
{
    return chron_reader_next(r, views);
}

static int by_copy(chron_reader *r, chron_view *views)
{
    static uint8_t buffer[RECORD_BYTES];

    return chron_reader_next_copy(r, buffer, sizeof buffer, views);
}

static int by_batch(chron_reader *r, chron_view *views)
{
    return (int)chron_reader_next_batch(r, views, RECORDS);
}

static int by_columns(chron_reader *r, chron_view *views)
{
    static uint64_t seqs[RECORDS];
    static uint64_t offsets[RECORDS];
    chron_columns columns = {.struct_size = sizeof columns, .seq = seqs, .offset = offsets};
    chron_segment *segment;
    int count = (int)chron_reader_peek_columns(r, &columns, RECORDS, &segment);

    for (int i = 0; i < count; i++) {
        views[i].seq = seqs[i];
        views[i].payload = (const uint8_t *)chron_segment_bytes(segment) + offsets[i];
    }
    if (count > 0)
        CHECK_EQ(chron_reader_advance(r, (size_t)count), 0);
    chron_segment_release(segment); /* the reader has it mapped as well */
    return count;
}

static void read_all(int (*read_some)(chron_reader *r, chron_view *views))
{
    chron_view views[RECORDS];
    chron_reader *r;
    uint64_t expected = 0;
    int count;

    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    while ((count = read_some(r, views)) != 0) {
        if (count < 0) {
            CHECK_EQ(expected, DAMAGED);
            for (int again = 0; again < 3; again++)
                CHECK_EQ(read_some(r, views), -CHRON_ECORRUPT);
            CHECK_EQ(chron_last_error()->seq, DAMAGED);
            CHECK_EQ(chron_reader_position(r), DAMAGED);
            CHECK_EQ(chron_reader_skip_damaged(r), 1);
            expected++;
            continue;
        }
        for (int i = 0; i < count; i++, expected++) {
            CHECK_EQ(views[i].seq, expected);
            CHECK_EQ(*(const uint8_t *)views[i].payload, expected);
            CHECK(expected != DAMAGED);
        }
    }
    CHECK_EQ(expected, RECORDS);
    CHECK_EQ(chron_reader_close(r), 0);
}

static void test_next(void)
{
    read_all(by_next);
}

static void test_next_copy(void)
{
    read_all(by_copy);
}

static void test_next_batch(void)
{
    read_all(by_batch);
}

static void test_columns(void)
{
    read_all(by_columns);
}

int main(void)
{
    make_queue();
    RUN(test_next);
    RUN(test_next_copy);
    RUN(test_next_batch);
    RUN(test_columns);
    temporary_remove(path);
    return 0;
}
