/* SPDX-License-Identifier: MIT */
/*
 * test_pages.c - zeros that are written ahead to the next segment's file: only where that pays, never to a file that has a
 * segment's name or is mapped, and nothing depends on them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "records.h"
#include "temporary.h"
#include "write/writer.h"

#define SEGMENT (2u * 1024 * 1024)

static char path[TEMPORARY_BYTES];
static chron__io io;
static chron__a64 written; /* bytes of zeros */
static chron__a32 fails;
static chron__a32 slow_ns;
static int kind = CHRON__FS_LARGE_PAGES;

static int fs_kind(const chron__io *self, int fd)
{
    (void)self;
    (void)fd;
    return kind;
}

/* Of all that is written to files of a segment's size: it must be next.tmp, and zeros. */
static int64_t write_at(const chron__io *self, int fd, const void *buffer, size_t bytes, uint64_t offset)
{
    char name[TEMPORARY_BYTES + 16];
    struct stat file;
    struct stat next;

    CHECK_EQ(fstat(fd, &file), 0);
    if (file.st_size == SEGMENT) {
        (void)snprintf(name, sizeof name, "%s/next.tmp", path);
        CHECK_EQ(stat(name, &next), 0);
        CHECK(file.st_ino == next.st_ino);
        CHECK(chron__is_zero(buffer, bytes));
        if (chron__get32(&slow_ns))
            (void)chron__sleep_ns(chron__get32(&slow_ns));
        if (chron__get32(&fails))
            return -ENOSPC;
        chron__add64(&written, bytes);
    }
    return chron__io_posix.write_at(self, fd, buffer, bytes, offset);
}

static chron_writer *open_writer(uint32_t durability)
{
    const chron_writer_options options = {.struct_size = sizeof options,
                                          .segment_size = SEGMENT,
                                          .flags = CHRON_KEEPER,
                                          .durability = durability,
                                          .durability_n = 1000000};
    chron_writer *w;

    temporary_directory(path);
    io = chron__io_posix;
    io.fs_kind = fs_kind;
    io.write_at = write_at;
    chron__set64(&written, 0);
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    return w;
}

/* So many segments, with pauses in which the keeper can get ahead. */
static void append(chron_writer *w, unsigned rolls, uint64_t pause_ns)
{
    static uint8_t payload[RECORD_PAYLOAD_MAX];
    chron_writer_stats stats = {.struct_size = sizeof stats};
    uint64_t goal;

    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    goal = stats.rolls + rolls;
    while (stats.rolls < goal) {
        uint64_t seq = chron_writer_next_seq(w);

        CHECK_EQ(chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq), (int64_t)seq);
        if (seq % 50 == 0 && pause_ns)
            (void)chron__sleep_ns(pause_ns);
        CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    }
}

static void close_and_check(chron_writer *w)
{
    chron_verify_summary summary = {.struct_size = sizeof summary};
    uint64_t count = chron_writer_next_seq(w);

    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(records_check(path, count), count);
    CHECK_EQ(chron_queue_verify(path, NULL, NULL, &summary), 0);
    CHECK_EQ(summary.problems, 0u);
    temporary_remove(path);
}

static void test_a_segment_is_prepared_as_a_whole(void)
{
    chron_writer *w = open_writer(CHRON_DURABILITY_NONE);

    append(w, 1, 100000);
    CHECK(chron__get64(&written) <= SEGMENT); /* how fast it fills was not known before */
    append(w, 3, 1000000);
    CHECK(chron__get64(&written) >= 2u * SEGMENT);
    CHECK(chron__get64(&written) % CHRON__ZERO_PIECE == 0);
    close_and_check(w);
}

/* A roll takes what is there, and the rest is prepared as ever. */
static void test_a_roll_does_not_wait_for_it(void)
{
    chron_writer *w = open_writer(CHRON_DURABILITY_NONE);
    chron_writer_stats stats = {.struct_size = sizeof stats};

    chron__set32(&slow_ns, 20000000);
    append(w, 6, 0);
    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    CHECK(stats.rolls_unprepared >= 2);
    CHECK(chron__get64(&written) > 0 && chron__get64(&written) < 4u * SEGMENT);
    chron__set32(&slow_ns, 0);
    close_and_check(w);
}

static void test_a_disk_that_is_full(void)
{
    chron_writer *w = open_writer(CHRON_DURABILITY_NONE);
    chron_writer_stats stats = {.struct_size = sizeof stats};

    chron__set32(&fails, 1);
    append(w, 4, 100000);
    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    CHECK(stats.keeper_errors > 0);
    CHECK_EQ(stats.keeper_last_error, CHRON_ENOSPC);
    chron__set32(&fails, 0);
    close_and_check(w);
}

static void test_only_where_it_pays(void)
{
    chron_writer *w = open_writer(CHRON_DURABILITY_BATCH); /* a sync would write whole large pages */

    append(w, 3, 100000);
    CHECK_EQ(chron__get64(&written), 0u);
    close_and_check(w);
    kind = 0; /* a file system that is not known */
    w = open_writer(CHRON_DURABILITY_NONE);
    append(w, 3, 100000);
    CHECK_EQ(chron__get64(&written), 0u);
    close_and_check(w);
    kind = CHRON__FS_LARGE_PAGES;
    w = open_writer(CHRON_DURABILITY_NONE);
    append(w, 1, 0);
    for (int i = 0; i < 3; i++) { /* a slow one: zeros would be on disk before the records */
        chron__set64(&w->fill_ns, 40000000000u);
        w->entered_ns = chron__monotonic_ns() - 40000000000u;
        append(w, 1, 0);
    }
    CHECK(chron__get64(&written) <= SEGMENT); /* the keeper may have begun in between */
    close_and_check(w);
}

int main(void)
{
    RUN(test_a_segment_is_prepared_as_a_whole);
    RUN(test_a_roll_does_not_wait_for_it);
    RUN(test_a_disk_that_is_full);
    RUN(test_only_where_it_pays);
    return 0;
}
