/* SPDX-License-Identifier: MIT */
/*
 * test_names.c - what is said to be on disk has its name there, too: which directories are synced, and when, seen through
 * a table of system calls of the test's own. Whether the queue's directory is, shows in test_power.c.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "read/reader.h"
#include "temporary.h"
#include "write/writer.h"

static ino_t synced[16]; /* directories that were put on disk */
static size_t synced_count;

static int sync_dir(const chron__io *io, int dir)
{
    struct stat st;

    (void)io;
    CHECK_EQ(fstat(dir, &st), 0);
    CHECK(synced_count < sizeof synced / sizeof *synced);
    synced[synced_count++] = st.st_ino;
    return 0;
}

static int was_synced(const char *directory)
{
    struct stat st;

    CHECK_EQ(stat(directory, &st), 0);
    for (size_t i = 0; i < synced_count; i++)
        if (synced[i] == st.st_ino)
            return 1;
    return 0;
}

/* A commit that is to survive a loss of power needs the file's name on disk, too, however many went before it. */
static void test_a_synced_commit_puts_the_names_on_disk(void)
{
    char path[TEMPORARY_BYTES];
    char readers[TEMPORARY_BYTES + 16];
    chron__io io = chron__io_posix;
    chron_writer_options writer_options = {.struct_size = sizeof writer_options};
    chron_reader_options options = {.struct_size = sizeof options};
    chron_writer *w;
    chron_reader *r;

    temporary_directory(path);
    (void)snprintf(readers, sizeof readers, "%s/readers", path);
    writer_options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &writer_options, &w), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    options.name = "me";
    io.sync_dir = sync_dir;
    for (int life = 0; life < 2; life++) { /* the one that made the file may have died without a sync */
        CHECK_EQ(chron__reader_open_with(&io, path, &options, &r), 0);
        synced_count = 0;
        for (int i = 0; i < 5; i++)
            CHECK_EQ(chron_reader_commit(r, 0), 0);
        CHECK_EQ(synced_count, 0);
        CHECK_EQ(chron_reader_commit(r, 1), 0);
        CHECK(was_synced(readers) && was_synced(path));
        synced_count = 0;
        CHECK_EQ(chron_reader_commit(r, 1), 0);
        CHECK_EQ(synced_count, 0); /* once is enough */
        CHECK_EQ(chron_reader_close(r), 0);
    }
    temporary_remove(path);
}

static int rename_meta(const chron__io *io, int from_dir, const char *from, int to_dir, const char *to)
{
    struct stat st;

    if (strcmp(to, CHRON__FILE_META) == 0) {
        CHECK_EQ(fstatat(to_dir, "..", &st, 0), 0);
        CHECK(synced_count == 1 && synced[0] == st.st_ino);
    }
    return chron__io_posix.rename(io, from_dir, from, to_dir, to);
}

/* Before queue.meta makes it a queue: then nothing can be durable in a directory that is not there after a crash. */
static void test_the_queues_own_name_is_on_disk(void)
{
    char path[TEMPORARY_BYTES];
    chron__io io = chron__io_posix;
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    io.sync_dir = sync_dir;
    io.rename = rename_meta;
    synced_count = 0;
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    synced_count = 0;
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0); /* once is enough: no second queue.meta */
    CHECK_EQ(synced_count, 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_the_queues_own_name_is_on_disk);
    RUN(test_a_synced_commit_puts_the_names_on_disk);
    return 0;
}
