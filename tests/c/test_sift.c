/* SPDX-License-Identifier: MIT */
/*
 * test_sift.c - reading some types only, by the C API: each call by itself, with peeks that are moved over in pieces; what
 * options are refused; a summary that is taken away in between; snapshots.
 */
#define _GNU_SOURCE
#include "check.h"
#include "chronicle.h"
#include "temporary.h"

#define SEGMENT_BYTES 262144u
#define COUNT 12000u
#define RARE 5u

static char path[TEMPORARY_BYTES];

/* Every 3000 records 40 in which each second one is RARE. */
static int is_rare(uint64_t seq)
{
    return seq % 3000u < 40u && seq % 2u == 0;
}

static void fill(void)
{
    chron_writer_options options = {.struct_size = sizeof options, .segment_size = SEGMENT_BYTES};
    uint8_t payload[100] = {0};
    chron_writer *w;

    temporary_directory(path);
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    for (uint64_t seq = 0; seq < COUNT; seq++)
        if (seq == 7001)
            CHECK_EQ(chron_writer_snapshot(w, payload, 3, RARE, 9, 1), seq);
        else
            CHECK_EQ(chron_writer_append(w, payload, (size_t)(seq % 100u), is_rare(seq) ? RARE : 1, 0), seq);
    CHECK_EQ(chron_writer_close(w), 0);
}

static int is_wanted(uint64_t seq)
{
    return is_rare(seq) || seq == 7001;
}

static chron_reader *reader_of(uint32_t start)
{
    static const uint16_t types[] = {RARE, RARE, 77};
    chron_reader_options options = {.struct_size = sizeof options, .start = start, .types = types, .type_count = 3};
    chron_reader *r;

    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    return r;
}

static uint64_t next_wanted(uint64_t seq)
{
    while (seq < COUNT && !is_wanted(seq))
        seq++;
    return seq;
}

static void test_next(void)
{
    for (int round = 0; round < 2; round++) { /* without summaries, and with them */
        chron_reader *r = reader_of(CHRON_START_EARLIEST);
        chron_reader_stats stats = {.struct_size = sizeof stats};
        uint64_t seq = next_wanted(0);
        uint8_t buffer[100];
        chron_view views[7];
        int64_t n;

        CHECK_EQ(chron_reader_wait(r, 0), 1);
        CHECK_EQ(chron_reader_next_copy(r, buffer, sizeof buffer, views), 1);
        CHECK_EQ(views[0].seq, seq);
        seq = next_wanted(seq + 1);
        while ((n = chron_reader_next_batch(r, views, 7)) > 0)
            for (int64_t i = 0; i < n; i++) {
                CHECK_EQ(views[i].seq, seq);
                CHECK_EQ(views[i].type_id, RARE);
                seq = next_wanted(seq + 1);
            }
        CHECK_EQ(n, 0);
        CHECK_EQ(seq, COUNT);
        CHECK_EQ(chron_reader_position(r), COUNT);
        CHECK_EQ(chron_reader_stats_get(r, &stats), 0);
        CHECK_EQ(stats.records + stats.filtered, COUNT);
        CHECK(stats.unread > COUNT / 4);
        CHECK_EQ(chron_reader_close(r), 0);
    }
}

/* Moved over in pieces of `step`, and peeked at anew whether all was moved over or not. */
static void test_peek_and_advance(void)
{
    for (size_t step = 1; step < 9; step++) {
        chron_reader *r = reader_of(CHRON_START_EARLIEST);
        uint64_t seqs[16];
        chron_columns c = {.struct_size = sizeof c, .seq = seqs};
        uint64_t seq = next_wanted(0);
        int64_t n;

        while ((n = chron_reader_peek_columns(r, &c, 16, NULL)) > 0) {
            int64_t left = step % 2 ? n : n - n / 4;

            for (int64_t i = 0; i < left; i++, seq = next_wanted(seq + 1))
                CHECK_EQ(seqs[i], seq);
            while (left > 0) {
                size_t piece = (size_t)left < step ? (size_t)left : step;

                CHECK_EQ(chron_reader_advance(r, piece), 0);
                left -= (int64_t)piece;
            }
        }
        CHECK_EQ(n, 0);
        CHECK_EQ(seq, COUNT);
        CHECK_EQ(chron_reader_advance(r, 1), -CHRON_EINVAL);
        CHECK_EQ(chron_reader_close(r), 0);
    }
}

static void test_back(void)
{
    chron_reader *r = reader_of(CHRON_START_LATEST);
    uint64_t seq = COUNT;
    chron_view view;
    int status;

    for (;;) {
        do
            seq--;
        while (seq > 0 && !is_wanted(seq));
        while ((status = chron_reader_sift(r, 1)) == CHRON_NOT_READY)
            continue;
        CHECK_EQ(status, 1);
        CHECK_EQ(chron_reader_position(r), seq + 1);
        CHECK_EQ(chron_reader_previous(r, &view), 1);
        CHECK_EQ(view.seq, seq);
        if (seq == 0)
            break;
    }
    CHECK_EQ(chron_reader_sift(r, 1), 0);
    CHECK_EQ(chron_reader_previous(r, &view), 0);
    CHECK_EQ(chron_reader_sift(r, 0), 1);
    CHECK_EQ(chron_reader_close(r), 0);
}

static void test_snapshot(void)
{
    chron_reader_options options = {.struct_size = sizeof options, .start = CHRON_START_SNAPSHOT};
    chron_reader *r = reader_of(CHRON_START_SNAPSHOT);
    chron_view view;

    CHECK_EQ(chron_reader_next(r, &view), 1);
    CHECK_EQ(view.seq, 7001);
    CHECK_EQ(view.flags, 9); /* the library's bit is not the user's */
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    CHECK_EQ(chron_reader_position(r), 7001);
    CHECK_EQ(chron_reader_sift(r, 0), 1);
    CHECK_EQ(chron_reader_sift(r, 1), 1);
    CHECK_EQ(chron_reader_position(r), 7001); /* without types it only tells */
    CHECK_EQ(chron_reader_close(r), 0);
}

static void test_options(void)
{
    static const uint16_t reserved[] = {1, 0xFFFF};
    chron_reader_options options = {.struct_size = sizeof options, .type_count = 1};
    chron_reader *r;

    CHECK_EQ(chron_reader_open(path, &options, &r), -CHRON_EINVAL);
    options.types = reserved;
    options.type_count = 2;
    CHECK_EQ(chron_reader_open(path, &options, &r), -CHRON_EINVAL);
    options.type_count = UINT64_MAX;
    CHECK_EQ(chron_reader_open(path, &options, &r), -CHRON_EINVAL);
    options.type_count = 0; /* all of them */
    options.start = 6;
    CHECK_EQ(chron_reader_open(path, &options, &r), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_sift(NULL, 0), -CHRON_EINVAL);
}

int main(void)
{
    fill();
    RUN(test_next);
    RUN(test_peek_and_advance);
    RUN(test_back);
    RUN(test_snapshot);
    RUN(test_options);
    temporary_remove(path);
    return 0;
}
