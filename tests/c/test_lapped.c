/* SPDX-License-Identifier: MIT */
/* test_lapped.c - a writer whose limits delete as fast as it writes goes on in the middle of a reader's move. */
#define _GNU_SOURCE
#include <string.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "read/reader.h"
#include "small_writer.h"
#include "temporary.h"

#define MOMENTS 12 /* files that a move looks at, at most, and some more */

static char path[TEMPORARY_BYTES];
static chron_writer *writer;
static int lists;
static int left; /* files of segments that are opened until the writer goes on; negative: it has */

/* So far that nothing is left of what was there. */
static void go_on(void)
{
    static const uint8_t payload[30000];

    for (int i = 0; i < 9; i++)
        CHECK(chron_writer_append(writer, payload, sizeof payload, 0, 0) >= 0);
}

static int open_file(const chron__io *self, int dir, const char *name, int flags, unsigned mode)
{
    (void)self;
    if (strstr(name, ".seg") && left-- == 0)
        go_on();
    return chron__io_posix.open_file(&chron__io_posix, dir, name, flags, mode);
}

static void open_writer(void)
{
    chron_retention limits = {.struct_size = sizeof limits, .max_segments = 1, .automatic = 1};
    chron_writer_options options = {.struct_size = sizeof options, .retention = &limits};

    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &writer), 0);
    go_on();
}

static void test_the_end_moves_while_it_is_looked_for(void)
{
    chron__io io = chron__io_posix;
    int moved = 0;

    io.open_file = open_file;
    for (int moment = 0; moment < MOMENTS; moment++) {
        chron_reader_options options = {.struct_size = sizeof options};
        chron_reader *r;

        left = -1;
        CHECK_EQ(chron__reader_open_with(&io, path, &options, &r), 0);
        go_on(); /* where it stands is gone: the end is looked for in other files */
        left = moment;
        CHECK_EQ(chron_reader_seek_latest(r), 0);
        moved += left < 0;
        CHECK_EQ(chron_reader_close(r), 0);
        left = moment;
        options.start = CHRON_START_LATEST;
        CHECK_EQ(chron__reader_open_with(&io, path, &options, &r), 0);
        CHECK_EQ(chron_reader_close(r), 0);
    }
    CHECK(moved >= 2 && moved < MOMENTS); /* all its moments were tried */
}

static int list(const chron__io *self, int dir, int (*visit)(void *context, const char *name), void *context)
{
    lists++;
    return chron__io_posix.list(self, dir, visit, context);
}

/* A living writer says which segment it appends to: how many there are does not matter. Nobody else is believed. */
static void test_the_lag_is_told_without_a_look_at_the_directory(void)
{
    chron_reader_options options = {.struct_size = sizeof options, .start = CHRON_START_LATEST};
    chron__io io = chron__io_posix;
    chron_reader *r;
    uint64_t begin;
    uint64_t end;

    left = -1;
    io.list = list;
    CHECK_EQ(chron__reader_open_with(&io, path, &options, &r), 0);
    begin = chron_reader_position(r);
    lists = 0;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(chron_reader_lag(r), (int64_t)(chron_writer_next_seq(writer) - begin));
        go_on();
    }
    CHECK_EQ(lists, 0);
    end = chron_writer_next_seq(writer);
    CHECK_EQ(chron_writer_close(writer), 0);
    CHECK_EQ(chron_reader_lag(r), (int64_t)(end - begin));
    CHECK(lists > 0);
    CHECK_EQ(chron_reader_close(r), 0);
    open_writer();
}

static void open_and_look(const chron__io *io, chron_reader_options *options, uint64_t wanted, int commits)
{
    chron_reader *r;
    chron_view v;

    CHECK_EQ(chron__reader_open_with(io, path, options, &r), 0);
    CHECK_EQ(chron_reader_position(r), wanted);
    CHECK_EQ(chron_reader_next(r, &v), wanted < chron_writer_next_seq(writer));
    if (commits)
        CHECK_EQ(chron_reader_commit(r, 0), 0);
    CHECK_EQ(chron_reader_close(r), 0);
}

/* At either end, and where it was; and what it says is what the directory says. */
static void test_a_reader_begins_without_a_look_at_the_directory(void)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = "r"};
    chron__io io = chron__io_posix;
    chron_queue_info info = {.struct_size = sizeof info};
    uint64_t oldest;

    left = -1;
    go_on();
    io.list = list;
    lists = 0;
    CHECK_EQ(chron_queue_info_get(path, &info), 0);
    oldest = info.oldest_seq;
    CHECK(oldest > 0 && info.segments == 1);
    open_and_look(&io, &options, oldest, 1);
    open_and_look(&io, &options, oldest + 1u, 0);
    options.name = NULL;
    options.start = CHRON_START_EARLIEST;
    open_and_look(&io, &options, oldest, 0);
    options.start = CHRON_START_LATEST;
    open_and_look(&io, &options, chron_writer_next_seq(writer), 0);
    CHECK_EQ(lists, 0);
    CHECK_EQ(chron_writer_close(writer), 0);
    CHECK_EQ(chron_queue_info_get(path, &info), 0);
    CHECK_EQ(info.oldest_seq, oldest);
    CHECK_EQ(info.segments, 1);
    open_writer();
}

int main(void)
{
    temporary_directory(path);
    open_writer();
    RUN(test_the_end_moves_while_it_is_looked_for);
    RUN(test_the_lag_is_told_without_a_look_at_the_directory);
    RUN(test_a_reader_begins_without_a_look_at_the_directory);
    CHECK_EQ(chron_writer_close(writer), 0);
    temporary_remove(path);
    return 0;
}
