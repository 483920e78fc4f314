/* SPDX-License-Identifier: MIT */
/* test_reading.c - the calls of the C API that read records which the Python package does not use: copies, batches. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "records.h"
#include "temporary.h"

#define RECORDS 300 /* some eight segments */
#define BATCH 50

static uint8_t buffer[RECORD_PAYLOAD_MAX];
static uint8_t expected[RECORD_PAYLOAD_MAX];

static chron_writer *fill(const char *path, uint64_t count)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    for (uint64_t seq = 0; seq < count; seq++)
        CHECK_EQ(chron_writer_append_at(w, buffer, record_fill(seq, buffer), 1, 2, seq), (int64_t)seq);
    return w;
}

static void check_view(const chron_view *v, uint64_t seq)
{
    CHECK_EQ(v->seq, seq);
    CHECK_EQ(v->timestamp_ns, seq);
    CHECK_EQ(v->type_id, 1);
    CHECK_EQ(v->flags, 2);
    CHECK_EQ(v->length, record_fill(seq, expected));
    CHECK(v->length == 0 || memcmp(v->payload, expected, v->length) == 0);
}

static void damage(const char *path, off_t offset)
{
    char name[TEMPORARY_BYTES + 32];
    uint8_t byte;
    int fd;

    (void)snprintf(name, sizeof name, "%s/00000000000000000000.seg", path);
    fd = open(name, O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, &byte, 1, offset), 1);
    byte ^= 0x40;
    CHECK_EQ(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

/* Where record `seq` of the first segment begins. */
static off_t offset_of(uint64_t seq)
{
    off_t offset = 8192;

    for (uint64_t i = 0; i < seq; i++)
        offset += (32 + record_fill(i, expected) + 31) / 32 * 32;
    return offset;
}

static void test_copies(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer *w;
    chron_reader *r;
    chron_view v;

    temporary_directory(path);
    w = fill(path, RECORDS);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    for (uint64_t seq = 0; seq < RECORDS; seq++) {
        uint32_t length = record_fill(seq, expected);

        if (length > 0) {
            CHECK_EQ(chron_reader_next_copy(r, buffer, length - 1u, &v), -CHRON_EBUFFER);
            CHECK_EQ(v.length, length);
            CHECK_EQ(chron_reader_position(r), seq); /* not moved */
        }
        memset(buffer, 0xEE, sizeof buffer);
        CHECK_EQ(chron_reader_next_copy(r, length ? buffer : NULL, length, &v), 1);
        if (length)
            CHECK(v.payload == buffer);
        check_view(&v, seq);
        if (length < sizeof buffer)
            CHECK_EQ(buffer[length], 0xEE);
    }
    CHECK_EQ(chron_reader_next_copy(r, buffer, sizeof buffer, &v), 0);
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* A length is believed, and told, only if the record is whole: somebody may allocate by it. */
static void test_copies_of_damaged_records(void)
{
    char path[TEMPORARY_BYTES];
    chron_reader *r;
    chron_view v;

    temporary_directory(path);
    CHECK_EQ(chron_writer_close(fill(path, 5)), 0);
    damage(path, offset_of(1) + 32); /* in the payload */
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    CHECK_EQ(chron_reader_next_copy(r, buffer, sizeof buffer, &v), 1);
    CHECK_EQ(chron_reader_next_copy(r, buffer, 0, &v), -CHRON_ECORRUPT);
    CHECK_EQ(chron_reader_next_copy(r, buffer, sizeof buffer, &v), -CHRON_ECORRUPT);
    CHECK_EQ(chron_reader_position(r), 1);
    CHECK_EQ(chron_reader_skip_damaged(r), 1);
    CHECK_EQ(chron_reader_next_copy(r, buffer, sizeof buffer, &v), 1);
    check_view(&v, 2);
    CHECK_EQ(chron_reader_close(r), 0);
    temporary_remove(path);
}

static void test_batches(void)
{
    static chron_view views[BATCH];
    char path[TEMPORARY_BYTES];
    chron_reader_stats stats = {.struct_size = sizeof stats};
    chron_writer_stats written = {.struct_size = sizeof written};
    chron_writer *w;
    chron_reader *r;
    uint64_t seq = 0;
    int64_t n;

    temporary_directory(path);
    w = fill(path, RECORDS);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    CHECK_EQ(chron_reader_next_batch(r, views, 0), 0);
    while ((n = chron_reader_next_batch(r, views, BATCH)) > 0) {
        CHECK(n <= BATCH);
        for (int64_t i = 0; i < n; i++)
            check_view(&views[i], seq++);
        CHECK_EQ(chron_reader_position(r), seq);
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(seq, RECORDS);
    CHECK_EQ(chron_reader_stats_get(r, &stats), 0);
    CHECK_EQ(stats.records, RECORDS);
    CHECK_EQ(chron_writer_stats_get(w, &written), 0);
    CHECK_EQ(stats.payload_bytes, written.payload_bytes);
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void test_a_batch_ends_before_damage(void)
{
    chron_view views[BATCH];
    char path[TEMPORARY_BYTES];
    chron_reader *r;

    temporary_directory(path);
    CHECK_EQ(chron_writer_close(fill(path, 10)), 0);
    damage(path, offset_of(4) + 16); /* a timestamp */
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    CHECK_EQ(chron_reader_next_batch(r, views, BATCH), 4);
    CHECK_EQ(chron_reader_next_batch(r, views, BATCH), -CHRON_ECORRUPT);
    CHECK_EQ(chron_last_error()->seq, 4);
    CHECK_EQ(chron_last_error()->offset, (uint64_t)offset_of(4));
    CHECK_EQ(chron_reader_skip_damaged(r), 1);
    CHECK_EQ(chron_reader_next_batch(r, views, BATCH), 5);
    check_view(&views[4], 9);
    CHECK_EQ(chron_reader_close(r), 0);
    temporary_remove(path);
}

static void test_a_batch_ends_at_the_durable_mark(void)
{
    chron_view views[BATCH];
    char path[TEMPORARY_BYTES];
    chron_reader_options options = {.struct_size = sizeof options};
    chron_writer *w;
    chron_reader *r;

    temporary_directory(path);
    w = fill(path, 6);
    CHECK_EQ(chron_writer_sync(w), 0);
    for (uint64_t seq = 6; seq < 9; seq++)
        CHECK_EQ(chron_writer_append_at(w, buffer, record_fill(seq, buffer), 1, 2, seq), (int64_t)seq);
    options.flags = CHRON_DURABLE_ONLY;
    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    CHECK_EQ(chron_reader_next_batch(r, views, BATCH), 6);
    CHECK_EQ(chron_reader_next_batch(r, views, BATCH), 0);
    CHECK_EQ(chron_reader_wait(r, 0), 0);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(chron_reader_wait(r, 0), 1);
    CHECK_EQ(chron_reader_next_batch(r, views, BATCH), 3);
    check_view(&views[2], 8);
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_copies);
    RUN(test_copies_of_damaged_records);
    RUN(test_batches);
    RUN(test_a_batch_ends_before_damage);
    RUN(test_a_batch_ends_at_the_durable_mark);
    return 0;
}
