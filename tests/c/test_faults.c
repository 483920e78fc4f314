/* SPDX-License-Identifier: MIT */
/*
 * test_faults.c - every system call fails once: the n-th call of the writer's table (chron__io) answers ENOSPC, EIO
 * or EACCES, for n = 1, 2, ... until a run meets no fault. Whatever the writer then says, it must not crash or leak
 * (the test runs under AddressSanitizer), what it acknowledged must be there, and the next writer must open.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "io_calls.h"
#include "records.h"
#include "temporary.h"
#include "write/writer.h"

#define OPERATIONS 80

static uint64_t calls;
static uint64_t fail_at;
static int fail_with;
static const char *failed_call;

static int fails(const char *name)
{
    if (++calls != fail_at)
        return 0;
    failed_call = name;
    return 1;
}

/* One wrapper a call: `name` with its parameters as declared and as passed. */
#define WRAP(name, parameters, ...)                                           \
    static int faulty_##name parameters                                       \
    {                                                                         \
        return fails(#name) ? -fail_with : chron__io_posix.name(__VA_ARGS__); \
    }

IO_CALLS_THAT_CHANGE(WRAP)
IO_CALLS_THAT_LOOK(WRAP)

static int64_t faulty_read_at(const chron__io *io, int fd, void *buffer, size_t bytes, uint64_t offset)
{
    return fails("read_at") ? -fail_with : chron__io_posix.read_at(io, fd, buffer, bytes, offset);
}

static int64_t faulty_write_at(const chron__io *io, int fd, const void *buffer, size_t bytes, uint64_t offset)
{
    return fails("write_at") ? -fail_with : chron__io_posix.write_at(io, fd, buffer, bytes, offset);
}

static int64_t faulty_next_data(const chron__io *io, int fd, uint64_t offset)
{
    return fails("next_data") ? -fail_with : chron__io_posix.next_data(io, fd, offset);
}

#define USE(name, ...) io.name = faulty_##name;

static chron__io faulty_io(void)
{
    chron__io io = chron__io_posix;

    IO_CALLS_THAT_CHANGE(USE)
    IO_CALLS_THAT_LOOK(USE)
    io.read_at = faulty_read_at;
    io.write_at = faulty_write_at;
    io.next_data = faulty_next_data;
    return io;
}

static void check_error(int64_t status)
{
    CHECK(status < 0);
    CHECK_EQ(chron_last_error()->code, -status);
    CHECK(strlen(chron_last_error()->text) > 10);
}

/* Appends that go on after a failure, as a patient user would. *durable: promised to be on disk. */
static void work(chron_writer *w, uint64_t *durable)
{
    static uint8_t payload[RECORD_PAYLOAD_MAX];
    int poisoned = 0;

    for (int i = 0; i < OPERATIONS; i++) {
        uint64_t seq = chron_writer_next_seq(w);
        int64_t status = chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq);

        if (status < 0) {
            check_error(status);
            if (!poisoned)
                CHECK_EQ(chron_writer_next_seq(w), seq);
        }
        if (i % 20 == 19) {
            int synced = chron_writer_sync(w);

            if (synced < 0) {
                check_error(synced);
                poisoned = chron__get32(&w->poisoned) != 0; /* if it was a sync that failed, and nothing else */
            } else {
                CHECK_EQ(poisoned, 0); /* after a failed sync there is no success any more */
            }
        }
        if (i % 30 == 29 && (status = chron_writer_cleanup(w, NULL, NULL, 0)) < 0)
            check_error(status);
        *durable = chron_writer_durable_seq(w) + 1u;
    }
}

static void plant_torn_tail(const char *path)
{
    char name[TEMPORARY_BYTES + 32];
    int fd;

    (void)snprintf(name, sizeof name, "%s/00000000000000000000.seg", path);
    fd = open(name, O_WRONLY);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, "torn", 4, CHRON_SEGMENT_SIZE_MIN - 64), 4);
    close(fd);
}

/* A queue of one segment that has to be recovered. */
static void prepare(const char *path, const chron_writer_options *options)
{
    chron_writer *w;

    CHECK_EQ(chron_writer_open(path, options, &w), 0);
    for (uint64_t seq = 0; seq < 10; seq++) {
        uint8_t payload[RECORD_PAYLOAD_MAX];

        CHECK_EQ(chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq), (int64_t)seq);
    }
    CHECK_EQ(chron_writer_close(w), 0);
    plant_torn_tail(path);
}

/* 1: a fault was met. */
static int one_run(uint64_t at, int with, int on_existing)
{
    char path[TEMPORARY_BYTES];
    chron__io io = faulty_io();
    chron_writer_options options = {.struct_size = sizeof options};
    chron_verify_summary summary = {.struct_size = sizeof summary};
    chron_writer *w = NULL;
    uint64_t end = on_existing ? 10 : 0;
    uint64_t durable = 0;
    int status;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    if (on_existing)
        prepare(path, &options);
    calls = 0;
    fail_at = at;
    fail_with = with;
    failed_call = "";
    status = chron__writer_open_with(&io, path, &options, &w);
    if (status < 0) {
        CHECK(w == NULL);
        check_error(status);
    } else {
        work(w, &durable);
        end = chron_writer_next_seq(w);
        (void)chron_writer_close(w);
    }
    status = chron_writer_open(path, &options, &w);
    if (status < 0)
        fprintf(stderr, "call %llu, %s: %s\n", (unsigned long long)at, failed_call, chron_last_error()->text);
    CHECK_EQ(status, 0);
    CHECK(chron_writer_next_seq(w) >= end);
    CHECK(chron_writer_next_seq(w) >= durable);
    end = chron_writer_next_seq(w);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(records_check(path, end), end);
    CHECK_EQ(chron_queue_verify(path, NULL, NULL, &summary), 0);
    CHECK_EQ(summary.problems, 0u);
    temporary_remove(path);
    return calls >= at;
}

static int on_a_network(const chron__io *io, int fd)
{
    (void)io;
    (void)fd;
    return CHRON__FS_NETWORK;
}

static void test_network_file_systems_are_refused(void)
{
    char path[TEMPORARY_BYTES];
    chron__io io = chron__io_posix;
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    temporary_directory(path);
    io.fs_kind = on_a_network;
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), -CHRON_ENETFS);
    options.flags = CHRON_ALLOW_NETFS;
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static int place_elsewhere(const chron__io *io, int fd, chron__place *out)
{
    int status = chron__io_posix.place(io, fd, out);

    out->boot[0] ^= 0xFF;
    return status;
}

static int no_list(const chron__io *io, int dir, int (*visit)(void *context, const char *name), void *context)
{
    (void)io;
    (void)dir;
    (void)visit;
    (void)context;
    return -EACCES;
}

static int disk_full(const chron__io *io, int fd, const chron__map *map, uint64_t offset, uint64_t bytes)
{
    (void)io;
    (void)fd;
    (void)map;
    (void)offset;
    (void)bytes;
    return -ENOSPC;
}

/* "No space" says of an append that nothing was appended, and that it may be tried again: not so if its sync failed. */
static void test_a_failed_sync_is_an_input_output_error(void)
{
    char path[TEMPORARY_BYTES];
    chron__io io = chron__io_posix;
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.durability = CHRON_DURABILITY_ALWAYS;
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    io.sync_map = disk_full;
    CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), -CHRON_EUNSYNCED);
    CHECK_EQ(chron_last_error()->code, CHRON_EUNSYNCED);
    CHECK_EQ(chron_last_error()->sys_errno, ENOSPC);
    CHECK_EQ(chron_last_error()->seq, 0u);
    CHECK_EQ(chron_last_error()->appended, 1u);
    CHECK_EQ(chron_writer_next_seq(w), 1);
    CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), -CHRON_EPOISONED);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* The disk cannot deliver the pages of one segment: they fault, and the guard makes zeros of them. */
static ino_t unreadable;

static int map_unreadable(const chron__io *io, int fd, size_t bytes, int flags, chron__map *out)
{
    char name[] = "/var/tmp/chron-test-XXXXXX";
    struct stat st;
    int status;
    int other;

    CHECK_EQ(fstat(fd, &st), 0);
    if (st.st_ino != unreadable)
        return chron__io_posix.map(io, fd, bytes, flags, out);
    other = mkstemp(name);
    CHECK_EQ(unlink(name), 0);
    CHECK_EQ(ftruncate(other, (off_t)bytes), 0);
    status = chron__io_posix.map(io, other, bytes, flags, out);
    CHECK_EQ(ftruncate(other, 0), 0);
    close(other);
    return status;
}

/* Nor is it a damaged one, to whoever opens it: it may well be readable again later. */
static void expect_unreadable(const chron__io *io, const char *path, uint64_t base_seq)
{
    chron__queue q;
    chron__seg *seg;

    CHECK_EQ(chron__queue_open(&q, io, path, 0), 0);
    CHECK_EQ(chron__seg_open(&q, base_seq, 0, &seg), -CHRON_EIO);
    CHECK_EQ(chron__seg_open(&q, base_seq, CHRON__SEG_HEADLESS, &seg), -CHRON_EIO);
    chron__queue_close(&q);
}

static void test_an_unreadable_segment_is_no_torn_end(void)
{
    chron_segment_info segments[8] = {{.struct_size = sizeof *segments}};
    char path[TEMPORARY_BYTES];
    char name[TEMPORARY_BYTES + 40];
    chron__io io = chron__io_posix;
    chron_writer_options options = {.struct_size = sizeof options, .segment_size = CHRON_SEGMENT_SIZE_MIN};
    uint8_t payload[RECORD_PAYLOAD_MAX];
    struct stat st;
    chron_writer *w;

    temporary_directory(path);
    CHECK_EQ(chron_guard_install(), 0);
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    for (uint64_t seq = 0; seq < 300; seq++)
        CHECK_EQ(chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq), (int64_t)seq);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK(chron_queue_segments(path, segments, 8) >= 3);
    io.map = map_unreadable;
    io.place = place_elsewhere; /* so that all of it has to be read */
    for (int i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "%s/%020llu.seg", path, (unsigned long long)segments[i].base_seq);
        CHECK_EQ(stat(name, &st), 0);
        unreadable = st.st_ino;
        expect_unreadable(&io, path, segments[i].base_seq);
        CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), -CHRON_EIO);
        options.flags = CHRON_TORN_CUT;
        CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), -CHRON_EIO);
    }
    unreadable = 0;
    options.flags = 0;
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    CHECK_EQ(chron_writer_next_seq(w), 300u);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(records_check(path, 300), 300u);
    temporary_remove(path);
}

/* Whatever else fails on the way to the disk passes when its cause does. */
static void test_only_a_failed_sync_poisons(void)
{
    char path[TEMPORARY_BYTES];
    chron__io io = chron__io_posix;
    chron_writer_options options = {.struct_size = sizeof options, .segment_size = CHRON_SEGMENT_SIZE_MIN};
    uint8_t payload[RECORD_PAYLOAD_MAX];
    chron_writer *w;

    temporary_directory(path);
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    for (uint64_t seq = 0; seq < 300; seq++)
        CHECK_EQ(chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq), (int64_t)seq);
    io.list = no_list;
    CHECK_EQ(chron_writer_sync(w), -CHRON_EACCESS);
    CHECK_EQ(chron_writer_durable_seq(w), CHRON_SEQ_NONE);
    CHECK_EQ(chron_writer_append_at(w, payload, record_fill(300, payload), 1, 2, 300), 300);
    io.list = chron__io_posix.list;
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(chron_writer_durable_seq(w), 300u);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* The sync that failed was in the background: who closes without having been told of it is told then, and once. */
static void test_who_closes_is_told(void)
{
    char path[TEMPORARY_BYTES];
    chron__io io = chron__io_posix;
    const chron_writer_options options = {.struct_size = sizeof options,
                                          .segment_size = CHRON_SEGMENT_SIZE_MIN,
                                          .flags = CHRON_KEEPER,
                                          .durability = CHRON_DURABILITY_INTERVAL,
                                          .durability_n = 1};
    chron_writer *w;

    for (int is_told = 0; is_told < 2; is_told++) {
        temporary_directory(path);
        io.sync_map = chron__io_posix.sync_map;
        CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
        io.sync_map = disk_full;
        CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), 0);
        while (!chron__get32(&w->poisoned))
            (void)chron__sleep_ns(1000000);
        if (is_told)
            CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), -CHRON_EPOISONED);
        CHECK_EQ(chron_writer_close(w), is_told ? 0 : -CHRON_EPOISONED);
        temporary_remove(path);
    }
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void fail_everywhere(int with, int on_existing)
{
    uint64_t at = 1;
    int before = open_descriptors();

    while (one_run(at, with, on_existing))
        at++;
    CHECK(at > 60);
    CHECK_EQ(open_descriptors(), before);
}

static void test_no_space(void)
{
    fail_everywhere(ENOSPC, 0);
}

static void test_input_output_errors(void)
{
    fail_everywhere(EIO, 0);
}

static void test_no_access_to_an_existing_queue(void)
{
    fail_everywhere(EACCES, 1);
}

static void test_errors_in_recovery(void)
{
    fail_everywhere(EIO, 1);
}

int main(void)
{
    RUN(test_no_space);
    RUN(test_input_output_errors);
    RUN(test_no_access_to_an_existing_queue);
    RUN(test_errors_in_recovery);
    RUN(test_network_file_systems_are_refused);
    RUN(test_a_failed_sync_is_an_input_output_error);
    RUN(test_an_unreadable_segment_is_no_torn_end);
    RUN(test_only_a_failed_sync_poisons);
    RUN(test_who_closes_is_told);
    return 0;
}
