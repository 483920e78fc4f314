/* SPDX-License-Identifier: MIT */
/* test_merge.c - merges in C: order, views that stay, positions, arguments; tests/test_merge.py has the rest. */
#define _GNU_SOURCE
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "temporary.h"

#define SOURCES 3u
#define RECORDS 2000u

static char paths[SOURCES][TEMPORARY_BYTES];

/* Source i has the timestamps i, i + 3, i + 6, ..., and over several segments. */
static void make_queues(void)
{
    chron_writer_options options = {.struct_size = sizeof options, .segment_size = CHRON_SEGMENT_SIZE_MIN};
    uint8_t payload[64] = {0};

    for (uint64_t i = 0; i < SOURCES; i++) {
        chron_writer *w;

        temporary_directory(paths[i]);
        CHECK_EQ(chron_writer_open(paths[i], &options, &w), 0);
        for (uint64_t n = 0; n < RECORDS; n++) {
            const uint64_t stamp = n * SOURCES + i;

            memcpy(payload, &stamp, sizeof stamp);
            CHECK_EQ(chron_writer_append_at(w, payload, sizeof payload, 1, 0, stamp), (int64_t)n);
        }
        CHECK_EQ(chron_writer_close(w), 0);
    }
}

static chron_merge *open_merge(const char *name, uint64_t lateness_ns)
{
    chron_merge_options options = {.struct_size = sizeof options, .name = name, .lateness_ns = lateness_ns};
    chron_merge *m;

    CHECK_EQ(chron_merge_open(&options, &m), 0);
    for (int64_t i = 0; i < (int64_t)SOURCES; i++)
        CHECK_EQ(chron_merge_add(m, paths[i], NULL), i);
    return m;
}

static void check_record(const chron_merged *one, uint64_t stamp)
{
    CHECK_EQ(one->record.timestamp_ns, stamp);
    CHECK_EQ(one->source, stamp % SOURCES);
    CHECK_EQ(one->record.seq, stamp / SOURCES);
    CHECK_EQ(one->late, 0u);
    CHECK(memcmp(one->record.payload, &stamp, sizeof stamp) == 0);
}

/* Views of a whole batch are good until the next one, over the ends of segments. */
static void test_views_stay_for_a_batch(void)
{
    static chron_merged batch[977];

    for (uint64_t lateness = 0; lateness <= 6000; lateness += 1500) {
        chron_merge *m = open_merge(NULL, lateness);
        uint64_t stamp = 0;
        int64_t n;

        while ((n = chron_merge_next_batch(m, batch, 977)) > 0)
            for (int64_t i = 0; i < n; i++)
                check_record(&batch[i], stamp++);
        CHECK_EQ(n, 0);
        CHECK_EQ(stamp, SOURCES * RECORDS);
        CHECK_EQ(chron_merge_ended(m), 1);
        CHECK_EQ(chron_merge_wait(m, -1), 1);
        chron_merge_close(m);
    }
}

/* The last `left` of a batch are not committed, for each number of them. */
static void test_a_commit_leaves_out_what_it_is_told(void)
{
    static chron_merged batch[100];
    uint64_t stamp = 0;

    for (size_t left = 0; left <= 100; left += 9) {
        chron_merge *m = open_merge("me", 50);

        CHECK_EQ(chron_merge_commit(m, 1, 0), -CHRON_EINVAL);
        CHECK_EQ(chron_merge_next_batch(m, batch, 100), 100);
        check_record(&batch[0], stamp);
        CHECK_EQ(chron_merge_commit(m, 101, 0), -CHRON_EINVAL);
        CHECK_EQ(chron_merge_commit(m, left, left % 2 == 0), 0);
        stamp += 100 - left;
        chron_merge_close(m);
    }
}

static void test_columns(void)
{
    static uint64_t seq[64], stamps[64];
    static uint8_t copy[64 * 64];
    static uint32_t source[64];
    chron_columns c = {.struct_size = sizeof c, .seq = seq, .timestamp_ns = stamps, .copy = copy, .bytes_max = 10};
    chron_merge *m = open_merge(NULL, 0);

    CHECK_EQ(chron_merge_next_columns(m, &c, source, NULL, 64), -CHRON_EBUFFER);
    CHECK_EQ(c.length_max, 64u);
    c.bytes_max = 5 * 64 + 63;
    CHECK_EQ(chron_merge_next_columns(m, &c, source, NULL, 64), 5);
    CHECK_EQ(stamps[4], 4u);
    CHECK_EQ(source[4], 1u);
    CHECK_EQ(c.payload_bytes, 5u * 64u);
    c.copy = NULL;
    CHECK_EQ(chron_merge_next_columns(m, &c, source, NULL, 64), -CHRON_EINVAL);
    chron_merge_close(m);
}

static void test_arguments(void)
{
    chron_merge_source how = {.struct_size = sizeof how, .has_stop = 1, .stop = RECORDS + 1};
    chron_merge_source_info info = {.struct_size = sizeof info};
    chron_merge_options options = {.struct_size = sizeof options, .order = CHRON_MERGE_APPEND, .lateness_ns = 1};
    chron_merged one;
    chron_merge *m;

    CHECK_EQ(chron_merge_open(&options, &m), -CHRON_EINVAL);
    CHECK(m == NULL);
    CHECK_EQ(chron_merge_open(NULL, &m), 0);
    CHECK_EQ(chron_merge_add(m, paths[0], &how), -CHRON_EINVAL);
    CHECK_EQ(chron_merge_add(m, "/nowhere", NULL), -CHRON_ENOQUEUE);
    CHECK_EQ(chron_merge_add(m, paths[0], NULL), 0);
    CHECK_EQ(chron_merge_add(m, paths[0], NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_merge_commit(m, 0, 0), -CHRON_EREADONLY);
    CHECK_EQ(chron_merge_drop(m, 1), -CHRON_ERANGE);
    CHECK_EQ(chron_merge_source_get(m, 1, &info), -CHRON_ERANGE);
    CHECK_EQ(chron_merge_next_batch(m, &one, 1), 1);
    CHECK_EQ(chron_merge_source_get(m, 0, &info), 0);
    CHECK_EQ(info.position, 1u);
    CHECK_EQ(info.stop, RECORDS);
    CHECK_EQ(chron_merge_add(m, paths[1], NULL), -CHRON_EBUSY);
    CHECK(chron_merge_path(m, 1) == NULL);
    CHECK_EQ(chron_merge_failed(m), -1);
    CHECK_EQ(chron_merge_drop(m, 0), 0);
    CHECK_EQ(chron_merge_next_batch(m, &one, 1), 0);
    chron_merge_close(m);
    chron_merge_close(NULL);
    CHECK_EQ(chron_merge_next_batch(NULL, &one, 1), -CHRON_EINVAL);
}

int main(void)
{
    make_queues();
    RUN(test_views_stay_for_a_batch);
    RUN(test_a_commit_leaves_out_what_it_is_told);
    RUN(test_columns);
    RUN(test_arguments);
    for (uint32_t i = 0; i < SOURCES; i++)
        temporary_remove(paths[i]);
    return 0;
}
