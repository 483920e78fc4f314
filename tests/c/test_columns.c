/* SPDX-License-Identifier: MIT */
/*
 * test_columns.c - batches in and out. Memory that changes while it is read: the steps of step.h are where another
 * thread strikes, so each race happens at the same place every time, and AddressSanitizer watches. Peek and advance,
 * with what goes wrong in the middle. Views into a segment of several GiB.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "check.h"
#include "chronicle.h"
#include "read/reader.h"
#include "base/step.h"
#include "temporary.h"

#define SEGMENT_BYTES 65536u
#define COUNT 8u
#define BYTES 64u /* of each payload, in order */

static uint64_t offsets[COUNT + 1];
static uint32_t short_offsets[COUNT + 1];
static uint16_t types[COUNT];
static uint64_t stamps[COUNT];
static uint8_t data[COUNT * BYTES];
static char path[TEMPORARY_BYTES];
static chron_writer *w;

static chron_source source_of(uint32_t offset_size)
{
    for (uint32_t i = 0; i <= COUNT; i++) {
        offsets[i] = i * BYTES;
        short_offsets[i] = i * BYTES;
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        types[i] = 7;
        stamps[i] = i;
        memset(data + i * BYTES, (int)i, BYTES);
    }
    return (chron_source){
        .struct_size = sizeof(chron_source),
        .bytes = data,
        .bytes_size = sizeof data,
        .offsets = offset_size == 4 ? (const void *)short_offsets : offsets,
        .offset_size = offset_size,
        .timestamps = stamps,
        .type_ids = types,
    };
}

static void begin(void)
{
    chron_writer_options options = {.struct_size = sizeof options};

    temporary_directory(path);
    options.segment_size = SEGMENT_BYTES;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
}

/* The queue is in order and holds so many records; what stands behind them is zero, or recovery would cut it. */
static void end(uint64_t records)
{
    chron_verify_summary summary = {.struct_size = sizeof summary};
    chron_recovery recovery = {.struct_size = sizeof recovery};

    chron__on_step = NULL;
    CHECK_EQ(chron_writer_next_seq(w), records);
    CHECK_EQ(chron_queue_verify(path, NULL, NULL, &summary), 0);
    CHECK_EQ(summary.problems, 0);
    CHECK_EQ(summary.records, records);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(chron_writer_open(path, NULL, &w), 0);
    CHECK_EQ(chron_writer_recovery_get(w, &recovery), 0);
    CHECK_EQ(recovery.cut_bytes, 0);
    CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), (int64_t)records);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* ------------------------------------------------------------------------- memory that changes */

static const char *strike_at; /* name of the step */
static int strikes;           /* the strike comes with this visit of it */
static void (*strike)(void);

static void on_step(const char *name)
{
    if (strcmp(name, strike_at) == 0 && --strikes == 0)
        strike();
}

static void arm(const char *step, int visit, void (*what)(void))
{
    strike_at = step;
    strikes = visit;
    strike = what;
    chron__on_step = on_step;
}

static void offset_far_away(void)
{
    offsets[5] = UINT64_MAX - 5u;
    short_offsets[5] = UINT32_MAX - 5u;
}

static void offset_back(void)
{
    offsets[5] = 3;
    short_offsets[5] = 3;
}

static void beyond_the_buffer(void) /* and of the same lengths as before */
{
    for (uint32_t i = 4; i <= COUNT; i++) {
        offsets[i] += UINT64_C(1) << 40;
        short_offsets[i] += 1u << 30;
    }
}

static void longer(void) /* and still in order, within the buffer */
{
    offsets[4] = short_offsets[4] = 0;
    for (uint32_t i = 5; i < COUNT; i++)
        offsets[i] = short_offsets[i] = COUNT * BYTES;
}

static void shorter(void)
{
    for (uint32_t i = 4; i <= COUNT; i++)
        offsets[i] = short_offsets[i] = 3 * BYTES;
}

static void reserved_type(void)
{
    types[4] = 0xFFFF;
}

static void first_is_shorter(void)
{
    offsets[1] = short_offsets[1] = 1;
}

/* Records 0 to 3 are there, then the offsets of record 4 make no sense: an error, and those before it stay. */
static void check_each(uint32_t offset_size, void (*what)(void), int64_t before)
{
    chron_source s = source_of(offset_size);

    begin();
    arm("record: published", 4, what);
    CHECK_EQ(chron_writer_append_source(w, &s, 0, COUNT), before);
    CHECK_EQ(chron_writer_append_source(w, &s, (size_t)before, COUNT), -CHRON_EINVAL);
    end((uint64_t)before);
}

static void test_each_record_of_a_source_that_changes(void)
{
    check_each(8, offset_far_away, 4);
    check_each(4, offset_far_away, 4);
    check_each(8, beyond_the_buffer, 4);
    check_each(4, beyond_the_buffer, 4);
    check_each(8, offset_back, 4);
    check_each(4, offset_back, 4);
    check_each(8, reserved_type, 4);
}

static void check_whole(uint32_t offset_size, void (*what)(void))
{
    chron_source s = source_of(offset_size);

    begin();
    CHECK_EQ(chron_writer_append(w, "before", 6, 0, 0), 0);
    arm("batch: record placed", 4, what);
    CHECK_EQ(chron_writer_append_source_whole(w, &s, 0, COUNT), -CHRON_EINVAL);
    end(1);
}

static void test_a_whole_batch_that_changes_is_taken_back(void)
{
    check_whole(8, offset_far_away);
    check_whole(4, offset_far_away);
    check_whole(8, beyond_the_buffer);
    check_whole(4, beyond_the_buffer);
    check_whole(8, offset_back);
    check_whole(8, longer);
    check_whole(4, longer);
    check_whole(8, shorter);
    check_whole(4, reserved_type);
}

/* The first record's length is needed once more, for its commit word, when all else is in place. */
static void test_the_commit_word_is_what_was_placed(void)
{
    chron_source s = source_of(8);

    begin();
    arm("batch: record placed", COUNT, first_is_shorter);
    CHECK_EQ(chron_writer_append_source_whole(w, &s, 0, COUNT), 0);
    end(COUNT);
}

/* A batch over several blocks, whose offsets change before the index is written: entries lead to records, or are none. */
static uint64_t many_offsets[601];

static void all_offsets_change(void)
{
    for (size_t i = 1; i < 601; i++)
        many_offsets[i] = i;
}

static void test_the_index_of_a_batch_that_changes(void)
{
    static uint8_t bytes[600 * 300];
    chron_source s = {
        .struct_size = sizeof s, .bytes = bytes, .bytes_size = sizeof bytes, .offsets = many_offsets, .offset_size = 8};
    chron_writer_options options = {.struct_size = sizeof options};

    for (size_t i = 0; i < 601; i++)
        many_offsets[i] = i * 300;
    temporary_directory(path);
    options.segment_size = 4 * SEGMENT_BYTES;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    arm("record: published", 1, all_offsets_change);
    CHECK_EQ(chron_writer_append_source_whole(w, &s, 0, 600), 0);
    end(600);
}

static void test_bad_sources_append_nothing(void)
{
    chron_source s = source_of(8);

    begin();
    CHECK_EQ(chron_writer_append_source(w, NULL, 0, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_append_source(w, &s, 2, 1), -CHRON_EINVAL);
    s.bytes_size--;
    CHECK_EQ(chron_writer_append_source(w, &s, 0, COUNT), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_append_source_whole(w, &s, 0, COUNT), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_append_source(w, &s, 0, 0), 0);
    s = source_of(3);
    CHECK_EQ(chron_writer_append_source(w, &s, 0, COUNT), -CHRON_EINVAL);
    s = source_of(8);
    s.bytes = NULL;
    CHECK_EQ(chron_writer_append_source(w, &s, 0, COUNT), -CHRON_EINVAL);
    s.bytes_size = 0;
    memset(offsets, 0, sizeof offsets);
    CHECK_EQ(chron_writer_append_source(w, &s, 0, COUNT), COUNT); /* empty payloads need no bytes */
    s = source_of(8);
    s.offsets = NULL;
    s.row_bytes = BYTES + 1u;
    CHECK_EQ(chron_writer_append_source(w, &s, 0, COUNT), -CHRON_EINVAL);
    s.row_bytes = BYTES;
    s.timestamps_signed = 1;
    stamps[7] = (uint64_t)-1;
    CHECK_EQ(chron_writer_append_source(w, &s, 0, COUNT), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_append_source(w, &s, 0, COUNT - 1u), COUNT - 1);
    end(2u * COUNT - 1u);
}

/* ------------------------------------------------------------------------------ peek and advance */

static void fill(uint32_t count)
{
    begin();
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQ(chron_writer_append_at(w, data, i % BYTES, (uint16_t)i, (uint8_t)i, i), i);
}

static void test_advance_over_parts_of_a_peek(void)
{
    static uint64_t seqs[100];
    chron_columns c = {.struct_size = sizeof c, .seq = seqs};
    chron_reader_stats stats = {.struct_size = sizeof stats};
    chron_segment *segment;
    chron_reader *r;
    chron_view v;

    fill(100);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    CHECK_EQ(chron_reader_peek_columns(r, NULL, 1, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_peek_columns(r, &c, 0, &segment), 0);
    CHECK(segment == NULL);
    CHECK_EQ(chron_reader_advance(r, 0), 0);
    CHECK_EQ(chron_reader_advance(r, 1), -CHRON_EINVAL); /* nothing was peeked at */
    CHECK_EQ(chron_reader_peek_columns(r, &c, 100, &segment), 100);
    CHECK_EQ(chron_reader_advance(r, 101), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_advance(r, 30), 0);
    CHECK_EQ(chron_reader_position(r), 30);
    CHECK_EQ(chron_reader_advance(r, 71), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_advance(r, 70), 0);
    CHECK_EQ(chron_reader_advance(r, 1), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_stats_get(r, &stats), 0);
    CHECK_EQ(stats.records, 100);
    CHECK_EQ(stats.payload_bytes, 63 * 64 / 2 + 35 * 36 / 2);
    CHECK_EQ(chron_reader_seek(r, 50), 0);
    CHECK_EQ(chron_reader_advance(r, 1), -CHRON_EINVAL); /* of another position */
    CHECK_EQ(chron_reader_peek_columns(r, &c, 5, NULL), 5);
    CHECK_EQ(seqs[4], 54);
    CHECK_EQ(chron_reader_next(r, &v), 1);
    CHECK_EQ(chron_reader_advance(r, 1), -CHRON_EINVAL); /* something else has moved it */
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_segment_size(segment), SEGMENT_BYTES);
    CHECK(memcmp(chron_segment_bytes(segment), "CHRONSEG", 8) == 0); /* after the reader */
    CHECK_EQ(chron_segment_faulted(segment), 0);
    chron_segment_release(segment);
    end(100);
}

static void test_copies_stay_within_bytes_max(void)
{
    static uint8_t copy[200];
    static uint32_t lengths[100];
    chron_columns c = {.struct_size = sizeof c, .length = lengths, .copy = copy};
    chron_reader *r;

    fill(100);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    for (uint64_t room = 0; room < sizeof copy; room++) {
        int64_t n;

        c.bytes_max = room;
        memset(copy, 0xEE, sizeof copy);
        CHECK_EQ(chron_reader_seek(r, 10), 0);
        n = chron_reader_peek_columns(r, &c, 100, NULL);
        if (room < 10) {
            CHECK_EQ(n, -CHRON_EBUFFER);
            CHECK_EQ(c.length_max, 10);
        } else {
            CHECK(n > 0);
            CHECK(c.payload_bytes <= room);
            CHECK(c.payload_bytes + 10u + (uint64_t)n > room); /* the next one would not have fitted */
            CHECK_EQ(lengths[n - 1], 9 + n);
        }
        for (uint64_t i = room; i < sizeof copy; i++)
            CHECK_EQ(copy[i], 0xEE);
    }
    CHECK_EQ(chron_reader_close(r), 0);
    end(100);
}

/* ------------------------------------------------------------------------------------ large segments */

/* A segment of 5 GiB of which nothing but the payloads' pages is touched. */
static void test_views_beyond_a_gib(void)
{
    const uint64_t gib = UINT64_C(1) << 30;
    const uint64_t from = 4128;
    const uint64_t offset[] = {
        from, from + 64u, from + gib - 32u, from + gib, from + 3u * gib + 32u, from + 4u * gib - 32u};
    const uint32_t length[] = {13, 12, 100, 20, 0, 4000000};
    const uint32_t buffer[] = {0, 0, 0, 1, 0, 3};
    const uint32_t place[] = {0, 0, (uint32_t)gib - 32u, 0, 0, (uint32_t)gib - 32u};
    uint8_t views[6][16];
    chron__seg seg = {.size = 5u * gib};
    uint8_t *base = mmap(NULL, seg.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);

    CHECK(base != MAP_FAILED);
    seg.map.base = base;
    for (size_t i = 0; i < 6; i++)
        memcpy(base + offset[i], "payload bytes", length[i] < 13 ? length[i] : 13);
    chron_segment_binary_views((const chron_segment *)&seg, from, offset, length, 6, views);
    for (size_t i = 0; i < 6; i++) {
        uint32_t words[4];

        memcpy(words, views[i], sizeof words);
        CHECK_EQ(words[0], length[i]);
        if (length[i] <= 12) {
            CHECK(memcmp(views[i] + 4, "payload bytes\0\0", length[i]) == 0);
            for (size_t j = 4 + length[i]; j < 16; j++)
                CHECK_EQ(views[i][j], 0);
            continue;
        }
        CHECK(memcmp(views[i] + 4, "payl", 4) == 0);
        CHECK_EQ(words[2], buffer[i]);
        CHECK_EQ(words[3], place[i]);
    }
    CHECK_EQ(munmap(base, seg.size), 0);
}

int main(void)
{
    RUN(test_each_record_of_a_source_that_changes);
    RUN(test_a_whole_batch_that_changes_is_taken_back);
    RUN(test_the_commit_word_is_what_was_placed);
    RUN(test_the_index_of_a_batch_that_changes);
    RUN(test_bad_sources_append_nothing);
    RUN(test_advance_over_parts_of_a_peek);
    RUN(test_copies_stay_within_bytes_max);
    RUN(test_views_beyond_a_gib);
    return 0;
}
