/* SPDX-License-Identifier: MIT */
/*
 * test_prove.c - a device that has lost what the page cache still shows, and that says so to nobody: the write-back failed
 * while no process had the file open, or another one was told. What was appended before a writer opened the queue counts as
 * durable only if the device holds it; if not, it is written anew.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "records.h"
#include "temporary.h"
#include "write/writer.h"

static char path[TEMPORARY_BYTES + 8];
static ino_t lost_inode; /* of the file of which the device holds nothing but zeros */
static int lost_fd = -1;
static int cannot_tell;         /* the device cannot be read past the page cache */
static int read_fails_with;     /* -errno of the next look at the device; 0: none */
static int allocate_fails_with; /* the same, of the next file that is made */
static uint64_t device_reads;
static uint64_t segment_size = CHRON_SEGMENT_SIZE_MIN;
static uint32_t durability;
static enum { STAYS, DELETED_BEFORE, DELETED_BEHIND } fate; /* retention deletes the segment while it is read back */
static chron__io io;

static ino_t inode_of(int dir, const char *name)
{
    struct stat st;

    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_ino : 0;
}

static int64_t read_device(const chron__io *self, int dir, const char *name, void *buffer, size_t bytes,
                           uint64_t offset)
{
    int64_t n;
    int fd;

    if (cannot_tell)
        return -ENOTSUP;
    if (read_fails_with) {
        n = read_fails_with;
        read_fails_with = 0;
        return n;
    }
    device_reads++;
    if (fate == DELETED_BEFORE)
        CHECK(unlinkat(dir, name, 0) == 0);
    fd = openat(dir, name, O_RDONLY);
    if (fd < 0) {
        fate = STAYS;
        return -ENOENT;
    }
    n = pread(fd, buffer, bytes, (off_t)offset);
    if (n > 0 && inode_of(dir, name) == lost_inode)
        memset(buffer, 0, (size_t)n);
    if (fate == DELETED_BEHIND)
        CHECK(unlinkat(dir, name, 0) == 0);
    fate = STAYS;
    close(fd);
    (void)self;
    return n;
}

static int allocate(const chron__io *self, int fd, uint64_t bytes)
{
    int status = allocate_fails_with;

    allocate_fails_with = 0;
    return status ? status : chron__io_posix.allocate(self, fd, bytes);
}

static int a_disk(const chron__io *self, int fd)
{
    (void)self;
    (void)fd;
    return 0;
}

static chron_writer *open_writer(uint32_t flags)
{
    const chron_writer_options options = {
        .struct_size = sizeof options, .segment_size = segment_size, .flags = flags, .durability = durability};
    chron_writer *w;

    io = chron__io_posix;
    io.read_device = read_device;
    io.allocate = allocate;
    io.fs_kind = a_disk;
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    return w;
}

static void append(chron_writer *w, uint64_t count)
{
    static uint8_t payload[RECORD_PAYLOAD_MAX];

    for (uint64_t i = 0; i < count; i++) {
        uint64_t seq = chron_writer_next_seq(w);

        CHECK_EQ(chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq), (int64_t)seq);
    }
}

/* A queue whose segment `index` the device has lost; returns how many records there are. */
static uint64_t lose(uint64_t count, size_t index)
{
    chron_segment_info segments[8] = {{.struct_size = sizeof *segments}};
    char name[TEMPORARY_BYTES + 40];
    chron_writer *w;

    temporary_directory(path);
    lost_inode = 0;
    cannot_tell = 0;
    w = open_writer(0);
    append(w, count);
    CHECK_EQ(chron_writer_close(w), 0); /* nothing was promised: no sync */
    CHECK(chron_queue_segments(path, segments, 8) > (int64_t)index);
    (void)snprintf(name, sizeof name, "%s/%020llu.seg", path, (unsigned long long)segments[index].base_seq);
    lost_inode = inode_of(AT_FDCWD, name);
    CHECK(lost_inode != 0);
    lost_fd = open(name, O_RDONLY); /* no new file gets its number meanwhile */
    return count;
}

static void check_all(uint64_t count)
{
    chron_verify_summary summary = {.struct_size = sizeof summary};

    CHECK_EQ(records_check(path, count), count);
    CHECK_EQ(chron_queue_verify(path, NULL, NULL, &summary), 0);
    CHECK_EQ(summary.problems, 0u);
    if (lost_fd >= 0)
        close(lost_fd);
    lost_fd = -1;
    temporary_remove(path);
}

static uint64_t oldest_base(void)
{
    chron_segment_info first = {.struct_size = sizeof first};

    CHECK(chron_queue_segments(path, &first, 1) > 0);
    return first.base_seq;
}

/* The file that was lost has another one in its place now. */
static void check_written_anew(void)
{
    chron_segment_info segments[8] = {{.struct_size = sizeof *segments}};
    int64_t count = chron_queue_segments(path, segments, 8);

    for (int64_t i = 0; i < count; i++) {
        char name[TEMPORARY_BYTES + 40];

        (void)snprintf(name, sizeof name, "%s/%020llu.seg", path, (unsigned long long)segments[i].base_seq);
        CHECK(inode_of(AT_FDCWD, name) != lost_inode);
    }
}

static void test_an_older_segment_is_written_anew(void)
{
    uint64_t count = lose(300, 0);
    chron_writer *w = open_writer(0);

    append(w, 1);
    CHECK_EQ(chron_writer_durable_seq(w), CHRON_SEQ_NONE);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(chron_writer_durable_seq(w), count);
    check_written_anew();
    CHECK_EQ(chron_writer_close(w), 0);
    check_all(count + 1u);
}

static void test_the_current_segment_is_left_and_written_anew(void)
{
    uint64_t count = lose(30, 0);
    chron_writer *w = open_writer(0);
    chron_writer_stats stats = {.struct_size = sizeof stats};

    append(w, 1);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(chron_writer_durable_seq(w), count);
    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    CHECK_EQ(stats.rolls, 1u);
    check_written_anew();
    append(w, 5);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    check_all(count + 6u);
}

/* The owner left the segment meanwhile, and nobody wants it any more: that is no loss, and the name does not come back. */
static void test_retention_deletes_it_meanwhile(void)
{
    uint64_t count = lose(30, 0);
    chron_writer *w = open_writer(0);

    fate = DELETED_BEFORE;
    append(w, 1);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(chron_writer_durable_seq(w), count);
    CHECK_EQ(chron_writer_close(w), 0);
    close(lost_fd);
    temporary_remove(path);

    count = lose(300, 0);
    w = open_writer(0);
    fate = DELETED_BEHIND;
    append(w, 1);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK(oldest_base() > 0);
    CHECK_EQ(chron_writer_close(w), 0);
    close(lost_fd);
    lost_fd = -1;
    temporary_remove(path);
}

/* The syncer finds out; only the owner can leave the segment, and does when it asks again. */
static void test_a_sync_in_the_background_finds_it(void)
{
    uint64_t count = lose(30, 0);
    chron_writer *w = open_writer(CHRON_KEEPER);

    append(w, 1);
    for (int i = 0; chron_writer_sync_request(w, count) == 0; i++) {
        CHECK(i < 2000);
        (void)chron__sleep_ns(5000000);
    }
    CHECK_EQ(chron_writer_durable_seq(w), count);
    check_written_anew();
    CHECK_EQ(chron_writer_close(w), 0);
    check_all(count + 1u);
}

/* A sync that began before the segment was left finds the same once more: the new one, which may be empty, is not left. */
static void test_only_the_lost_segment_is_left(void)
{
    uint64_t count = lose(30, 0);
    chron_writer *w = open_writer(0);
    chron_writer_stats stats = {.struct_size = sizeof stats};

    append(w, 1);
    CHECK_EQ(chron_writer_sync(w), 0);
    w->roll_wanted = 1;
    append(w, 1);
    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    CHECK_EQ(stats.rolls, 1u);
    CHECK_EQ(chron_writer_close(w), 0);
    check_all(count + 2u);
}

/* It appends, and asks for nothing: then the next look at the edge, once per 64 KiB, leaves it. */
static void test_a_sync_by_the_clock_finds_it(void)
{
    chron_writer_stats stats = {.struct_size = sizeof stats};
    chron_writer *w;
    uint64_t count;

    segment_size = 16u * CHRON_SEGMENT_SIZE_MIN;
    count = lose(30, 0);
    durability = CHRON_DURABILITY_INTERVAL;
    w = open_writer(CHRON_KEEPER);
    append(w, 1);
    for (int i = 0; stats.keeper_errors == 0; i++) {
        CHECK(i < 4000);
        (void)chron__sleep_ns(5000000);
        CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    }
    CHECK_EQ(stats.rolls, 0u);
    append(w, 200); /* a third of the segment */
    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    CHECK_EQ(stats.rolls, 1u);
    count += 201u;
    CHECK_EQ(chron_writer_close(w), 0);
    check_written_anew();
    check_all(count);
    segment_size = CHRON_SEGMENT_SIZE_MIN;
    durability = CHRON_DURABILITY_NONE;
}

static void test_a_device_that_cannot_be_asked(void)
{
    uint64_t count = lose(300, 0);
    chron_writer *w = open_writer(0);

    cannot_tell = 1;
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(chron_writer_durable_seq(w), count - 1u);
    check_written_anew();
    CHECK_EQ(chron_writer_close(w), 0);
    check_all(count);
}

/* No descriptor left, no room for a new file: nothing is known to be lost, and the next sync does it. */
static void test_what_passes_poisons_nothing(void)
{
    static const int reasons[] = {-EMFILE, -ENOMEM, -EIO};

    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        for (uint64_t count = 30; count <= 300; count += 270) {
            chron_writer *w;

            CHECK_EQ(lose(count, 0), count);
            w = open_writer(0);
            append(w, 1);
            read_fails_with = reasons[i];
            CHECK(chron_writer_sync(w) < 0);
            CHECK_EQ(read_fails_with, 0);
            CHECK_EQ(chron_writer_durable_seq(w), CHRON_SEQ_NONE);
            allocate_fails_with = -ENOSPC;
            CHECK(chron_writer_sync(w) < 0);
            CHECK_EQ(allocate_fails_with, 0);
            CHECK_EQ(chron_writer_durable_seq(w), CHRON_SEQ_NONE);
            append(w, 1);
            CHECK_EQ(chron_writer_sync(w), 0);
            CHECK_EQ(chron_writer_durable_seq(w), count + 1u);
            check_written_anew();
            CHECK_EQ(chron_writer_close(w), 0);
            check_all(count + 2u);
        }
    }
}

/* What this writer appends, and what was durable before, is not read back: the open file would have told. */
static void test_nothing_is_read_without_need(void)
{
    uint64_t count = lose(30, 0);
    chron_writer *w = open_writer(0);

    lost_inode = 0;
    CHECK_EQ(chron_writer_sync(w), 0);
    device_reads = 0;
    append(w, 500);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(device_reads, 0u);
    CHECK_EQ(chron_writer_close(w), 0);
    w = open_writer(0);
    append(w, 1);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(device_reads, 0u);
    CHECK_EQ(chron_writer_close(w), 0);
    check_all(count + 501u);
}

/* More sealed segments than descriptors are kept: the oldest are read back, and only they. */
static void test_more_than_the_backlog_holds(void)
{
    chron_writer *w;

    temporary_directory(path);
    lost_inode = 0;
    w = open_writer(0);
    device_reads = 0;
    append(w, 20000);
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK(device_reads > 0);
    CHECK_EQ(chron_writer_durable_seq(w), 19999u);
    CHECK_EQ(chron_writer_close(w), 0);
    check_all(20000);
}

int main(void)
{
    RUN(test_an_older_segment_is_written_anew);
    RUN(test_the_current_segment_is_left_and_written_anew);
    RUN(test_retention_deletes_it_meanwhile);
    RUN(test_a_sync_in_the_background_finds_it);
    RUN(test_only_the_lost_segment_is_left);
    RUN(test_a_sync_by_the_clock_finds_it);
    RUN(test_a_device_that_cannot_be_asked);
    RUN(test_what_passes_poisons_nothing);
    RUN(test_nothing_is_read_without_need);
    RUN(test_more_than_the_backlog_holds);
    return 0;
}
