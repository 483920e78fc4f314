/* SPDX-License-Identifier: MIT */
/*
 * test_order.c - the order of system calls that a loss of power must not overtake. A table of system calls (chron__io)
 * passes everything on and writes down each call that puts something on disk, or that names or removes a file; the tests
 * look at what comes before what. What test_power.c cannot show, since there a disk that lies is one of many.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "records.h"
#include "temporary.h"
#include "write/writer.h"

#define CALLS_MAX 400
#define CALL_BYTES 160
#define FIRST "00000000000000000000.seg"

static char calls[CALLS_MAX][CALL_BYTES]; /* "call name", names relative to the queue */
static size_t call_count;
static char path[TEMPORARY_BYTES];

static void note(const char *call, const char *name)
{
    CHECK(call_count < CALLS_MAX);
    (void)snprintf(calls[call_count++], CALL_BYTES, "%s %.100s", call, name);
}

/* What `fd` is, within the queue; "." is the queue itself, ".." the directory that it lies in. */
static void note_fd(const char *call, int fd)
{
    char link[32];
    char name[2 * TEMPORARY_BYTES] = {0};
    size_t queue = strlen(path);

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    CHECK(readlink(link, name, sizeof name - 1u) > 0);
    if (strncmp(name, path, queue) != 0) {
        CHECK(strncmp(path, name, strlen(name)) == 0);
        note(call, "..");
        return;
    }
    note(call, name[queue] ? name + queue + 1 : ".");
}

static int sync_map(const chron__io *self, int fd, const chron__map *map, uint64_t offset, uint64_t bytes)
{
    note_fd("sync", fd);
    return chron__io_posix.sync_map(self, fd, map, offset, bytes);
}

static int sync_file(const chron__io *self, int fd)
{
    note_fd("sync", fd);
    return chron__io_posix.sync_file(self, fd);
}

static int sync_dir(const chron__io *self, int dir)
{
    note_fd("sync", dir);
    return chron__io_posix.sync_dir(self, dir);
}

static int rename_file(const chron__io *self, int from_dir, const char *from, int to_dir, const char *to)
{
    note("rename", to);
    return chron__io_posix.rename(self, from_dir, from, to_dir, to);
}

static int rename_new(const chron__io *self, int dir, const char *from, const char *to)
{
    note("rename", to);
    return chron__io_posix.rename_new(self, dir, from, to);
}

static int unlink_file(const chron__io *self, int dir, const char *name)
{
    note("unlink", name);
    return chron__io_posix.unlink(self, dir, name);
}

static int64_t write_at(const chron__io *self, int fd, const void *buffer, size_t bytes, uint64_t offset)
{
    note_fd("write", fd);
    return chron__io_posix.write_at(self, fd, buffer, bytes, offset);
}

static uint64_t looks; /* into files, and through directories */

static int64_t read_at(const chron__io *self, int fd, void *buffer, size_t bytes, uint64_t offset)
{
    looks++;
    return chron__io_posix.read_at(self, fd, buffer, bytes, offset);
}

static int list(const chron__io *self, int dir, int (*visit)(void *context, const char *name), void *context)
{
    looks++;
    return chron__io_posix.list(self, dir, visit, context);
}

static int a_disk(const chron__io *self, int fd) /* also where $TMPDIR lies in memory */
{
    (void)self;
    (void)fd;
    return 0;
}

static const chron__io *noting_io(void)
{
    static chron__io io;

    io = chron__io_posix;
    io.sync_map = sync_map;
    io.sync_file = sync_file;
    io.sync_dir = sync_dir;
    io.rename = rename_file;
    io.rename_new = rename_new;
    io.unlink = unlink_file;
    io.write_at = write_at;
    io.read_at = read_at;
    io.list = list;
    io.fs_kind = a_disk;
    return &io;
}

/* The first call from `from` on that begins like this; it is there. */
static size_t find(const char *begin, size_t from)
{
    for (size_t i = from; i < call_count; i++)
        if (strncmp(calls[i], begin, strlen(begin)) == 0)
            return i;
    for (size_t i = 0; i < call_count; i++)
        fprintf(stderr, "%3zu %s\n", i, calls[i]);
    fprintf(stderr, "after call %zu there is no \"%s\"\n", from, begin);
    exit(1);
}

static chron_writer *open_writer(void)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.durability = CHRON_DURABILITY_BATCH;
    options.durability_n = 1000000; /* syncs only when told to */
    CHECK_EQ(chron__writer_open_with(noting_io(), path, &options, &w), 0);
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

static void test_a_sync_over_a_roll(void)
{
    chron_writer *w = open_writer();
    size_t at;

    append(w, 100);
    call_count = 0;
    CHECK_EQ(chron_writer_sync(w), 0);
    at = find("sync " FIRST, 0); /* older segments, then the current one's header and records, then the names */
    at = find("sync 0000000000000000", at + 1u);
    at = find("sync .", at + 1u);
    at = find("sync queue.meta", at + 1u); /* the mark has passed a segment: the next opening need not read that one */
    CHECK_EQ(at, call_count - 1u);
    CHECK_EQ(chron_writer_close(w), 0);
}

static void test_positions_before_deletions(void)
{
    chron_writer *w = open_writer();
    chron_reader_options options = {.struct_size = sizeof options};
    chron_reader *r;
    size_t position;
    size_t first;

    options.name = "me";
    options.start = CHRON_START_LATEST;
    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    CHECK_EQ(chron_reader_commit(r, 0), 0);
    CHECK_EQ(chron_reader_close(r), 0);
    call_count = 0;
    CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
    position = find("sync readers/me.pos", 0);
    first = find("unlink ", 0);
    CHECK(position < first);
    CHECK_STR(calls[first], "unlink " FIRST);
    for (size_t i = first + 1u; strncmp(calls[i], "unlink", 6) == 0; i++)
        CHECK(strcmp(calls[i - 1u], calls[i]) < 0); /* oldest first */
    CHECK_EQ(find("sync .", first), call_count - 1u);
    CHECK_EQ(chron_writer_close(w), 0);
}

static void commit_at(const char *name, uint64_t seq)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = name, .start = CHRON_START_SEQ};
    chron_reader *r;

    options.start_value = seq;
    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    CHECK_EQ(chron_reader_commit(r, 0), 0);
    CHECK_EQ(chron_reader_close(r), 0);
}

static size_t count_calls(const char *begin)
{
    size_t count = 0;

    for (size_t i = 0; i < call_count; i++)
        count += strncmp(calls[i], begin, strlen(begin)) == 0;
    return count;
}

/* Only those that free something, and that are not there yet: an idle queue has the disk do nothing. */
static void test_positions_are_synced_once(void)
{
    chron_segment_info segments[64] = {{.struct_size = sizeof *segments}};
    chron_writer *w = open_writer();

    append(w, 300);
    CHECK(chron_queue_segments(path, segments, 64) >= 4);
    commit_at("fast", chron_writer_next_seq(w));
    commit_at("me", segments[1].base_seq);
    call_count = 0;
    CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
    CHECK_EQ(count_calls("sync readers/"), 2);
    CHECK_EQ(count_calls("unlink"), 1);
    call_count = 0;
    CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
    CHECK_EQ(call_count, 0);
    commit_at("fast", segments[3].base_seq); /* it was further, so its new position need not be on disk */
    commit_at("me", segments[3].base_seq);
    CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
    CHECK_EQ(count_calls("sync readers/fast.pos"), 0);
    CHECK_EQ(count_calls("sync readers/me.pos"), 1);
    CHECK_EQ(count_calls("unlink"), 2);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(chron_queue_reader_remove(path, "fast"), 0);
}

/* A reader that was removed and registered anew has another file. */
static void test_a_new_file_under_an_old_name(void)
{
    chron_segment_info segments[64] = {{.struct_size = sizeof *segments}};
    chron_writer *w = open_writer();

    append(w, 300);
    CHECK(chron_queue_segments(path, segments, 64) >= 4);
    commit_at("slow", segments[1].base_seq);
    for (int i = 0; i < 10; i++) /* many generations */
        commit_at("me", chron_writer_next_seq(w));
    CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
    CHECK_EQ(chron_queue_reader_remove(path, "me"), 0);
    commit_at("me", segments[3].base_seq);
    commit_at("slow", segments[3].base_seq);
    call_count = 0;
    CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
    CHECK_EQ(count_calls("unlink"), 2);
    CHECK_EQ(count_calls("sync readers/me.pos"), 1);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(chron_queue_reader_remove(path, "slow"), 0);
}

/* Looks of a cleanup at each of the next `count` rolls, all together. */
static uint64_t looks_of_rolls(chron_writer *w, int count)
{
    static uint8_t payload[50000]; /* one a segment */

    looks = 0;
    for (int i = 0; i < count; i++) {
        CHECK(chron_writer_append(w, payload, sizeof payload, 1, 2) >= 0);
        call_count = 0;
    }
    return looks;
}

static void test_a_roll_is_not_dearer_where_many_segments_stay(void)
{
    chron_retention retention = {.struct_size = sizeof retention, .automatic = 1, .max_segments = 80};
    chron_writer_options options = {.struct_size = sizeof options, .retention = &retention};
    chron_segment_info segments[2] = {{.struct_size = sizeof *segments}};
    chron_cleanup plan = {.struct_size = sizeof plan};
    char other[TEMPORARY_BYTES];
    char gone[TEMPORARY_BYTES + CHRON__NAME_BYTES];
    char file[CHRON__NAME_BYTES];
    uint64_t few;
    chron_writer *w;

    memcpy(other, path, sizeof other);
    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron__writer_open_with(noting_io(), path, &options, &w), 0);
    (void)looks_of_rolls(w, 10); /* the first one looks at the directory */
    few = looks_of_rolls(w, 10);
    (void)looks_of_rolls(w, 40);
    CHECK_EQ(looks_of_rolls(w, 10), few);
    (void)looks_of_rolls(w, 20);
    CHECK_EQ(looks_of_rolls(w, 10), few + 10u); /* each one deletes a segment, and looks at one more */
    CHECK_EQ(chron_queue_segments(path, segments, 2), 80);
    CHECK_EQ(chron_queue_cleanup_plan(path, &retention, &plan, NULL, 0), 0);
    CHECK_EQ(plan.deleted_segments, 0);
    /* Somebody deletes one by hand: it is noticed, and the directory looked at. */
    CHECK_EQ(chron_queue_segments(path, segments, 1), 80);
    chron__segment_name(segments[0].base_seq, file);
    (void)snprintf(gone, sizeof gone, "%s/%s", path, file);
    CHECK_EQ(unlink(gone), 0);
    (void)looks_of_rolls(w, 10);
    CHECK(chron_queue_segments(path, segments, 1) <= 80);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
    memcpy(path, other, sizeof other);
}

/* A record behind the end, as after a loss of power. */
static void plant_torn_tail(void)
{
    static const uint8_t unknown[sizeof(chron__identity)];
    chron_segment_info segments[16] = {{.struct_size = sizeof *segments}};
    char file[TEMPORARY_BYTES + 32];
    int count = (int)chron_queue_segments(path, segments, 16);
    int fd;

    CHECK(count > 0 && count < 16);
    (void)snprintf(file, sizeof file, "%s/%020llu.seg", path, (unsigned long long)segments[count - 1].base_seq);
    fd = open(file, O_WRONLY);
    CHECK_EQ(pwrite(fd, "torn", 4, (off_t)segments[count - 1].used_bytes + 40), 4);
    close(fd);
    /* Where the queue lay when its state was stored is not known then. */
    (void)snprintf(file, sizeof file, "%s/queue.meta", path);
    fd = open(file, O_WRONLY);
    for (off_t slot = CHRON__SLOT_A; slot <= CHRON__SLOT_B; slot += CHRON__SLOT_B - CHRON__SLOT_A)
        CHECK_EQ(pwrite(fd, unknown, sizeof unknown, slot + CHRON__IDENTITY_BEHIND), (ssize_t)sizeof unknown);
    close(fd);
}

static void test_the_copy_before_the_zeros(void)
{
    chron_writer *w = open_writer();
    chron_recovery recovery = {.struct_size = sizeof recovery};
    size_t at;

    append(w, 3);
    CHECK_EQ(chron_writer_close(w), 0);
    plant_torn_tail();
    call_count = 0;
    w = open_writer();
    CHECK_EQ(chron_writer_recovery_get(w, &recovery), 0);
    CHECK(recovery.quarantined && recovery.cut_bytes > 0);
    at = find("write quarantine/", 0);
    at = find("sync quarantine/", at);
    at = find("sync quarantine", at + 1u); /* its name */
    CHECK_STR(calls[at], "sync quarantine");
    at = find("sync 0000", at);        /* the zeros */
    (void)find("sync queue.meta", at); /* the new epoch, before anything is appended */
    CHECK_EQ(chron_writer_close(w), 0);
}

/* What a repair gives up is written down, for good, before anything else is changed. */
static void test_gaps_before_everything(void)
{
    const chron_writer_options options = {
        .struct_size = sizeof options, .segment_size = CHRON_SEGMENT_SIZE_MIN, .flags = CHRON_REPAIR};
    chron_writer *w = open_writer();
    chron_segment_info segments[16] = {{.struct_size = sizeof *segments}};
    char file[TEMPORARY_BYTES + 32];
    int64_t count;
    size_t at;
    int fd;

    append(w, 20);
    CHECK_EQ(chron_writer_close(w), 0);
    count = chron_queue_segments(path, segments, 16);
    (void)snprintf(file, sizeof file, "%s/%020llu.seg", path, (unsigned long long)segments[count - 1].base_seq);
    fd = open(file, O_WRONLY);
    CHECK_EQ(pwrite(fd, "?", 1, 2 * CHRON__PAGE + 4), 1); /* in the CRC of its first record */
    close(fd);
    call_count = 0;
    CHECK_EQ(chron__writer_open_with(noting_io(), path, &options, &w), 0);
    at = find("write gaps.tmp", 0);
    CHECK_STR(calls[at - 2u], "write writer.lock"); /* and what a cut off one may have left goes */
    at = find("sync gaps.tmp", at);
    at = find("rename gaps", at);
    at = find("sync .", at);
    CHECK(find("sync queue.meta", 0) > at);
    CHECK_EQ(chron_writer_close(w), 0);
}

static void test_a_new_queue_names_its_meta_last(void)
{
    size_t meta;

    call_count = 0;
    CHECK_EQ(chron_writer_close(open_writer()), 0);
    meta = find("rename queue.meta", 0);
    CHECK(find("sync queue.meta", 0) < meta);
    (void)find("sync .", meta);
    (void)find("sync queue.meta", meta); /* the first epoch */
}

int main(void)
{
    temporary_directory(path);
    RUN(test_a_new_queue_names_its_meta_last);
    RUN(test_a_sync_over_a_roll);
    RUN(test_positions_before_deletions);
    RUN(test_positions_are_synced_once);
    RUN(test_a_new_file_under_an_old_name);
    RUN(test_a_roll_is_not_dearer_where_many_segments_stay);
    RUN(test_the_copy_before_the_zeros);
    RUN(test_gaps_before_everything);
    temporary_remove(path);
    return 0;
}
