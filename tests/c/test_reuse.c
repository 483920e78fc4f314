/* SPDX-License-Identifier: MIT */
/*
 * test_reuse.c - the file of a deleted segment becomes the next one. In the tests' build segments of 64 KiB do, too.
 *
 * Without a keeper the writer works in pieces that a test can put something in between of: a cleanup gives the file up and owns
 * it (1 to 3 of reuse.c), appends wipe it (4), the roll gives it header and name (5, 6).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "read/reader.h"
#include "temporary.h"
#include "write/reuse.h"

#define PAYLOAD 18000u /* three to a segment */
#define PER_SEGMENT 3u

static char path[TEMPORARY_BYTES];
static chron_writer *writer;
static chron_reader *reader; /* whose position lets segments go */

/* ------------------------------------------------------------------------------------ what is done */

static chron_writer *open_writer(uint32_t flags)
{
    chron_writer_options options = {.struct_size = sizeof options, .flags = flags};
    chron_writer *w;

    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    return w;
}

static void open_both(void)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = "r"};

    writer = open_writer(CHRON_REUSE);
    CHECK_EQ(chron_reader_open(path, &options, &reader), 0);
}

static void close_both(void)
{
    CHECK_EQ(chron_reader_close(reader), 0);
    CHECK_EQ(chron_writer_close(writer), 0);
    temporary_remove(path);
    temporary_directory(path);
}

static void append(void)
{
    static uint8_t payload[PAYLOAD];

    memset(payload, (int)(chron_writer_next_seq(writer) % 251u + 1u), sizeof payload);
    CHECK(chron_writer_append(writer, payload, sizeof payload, 0, 0) >= 0);
}

/* A segment's worth of records. */
static void fill(void)
{
    for (unsigned i = 0; i < PER_SEGMENT; i++)
        append();
}

static void check(const chron_view *v)
{
    CHECK_EQ(v->length, PAYLOAD);
    for (size_t i = 0; i < v->length; i++)
        CHECK_EQ(((const uint8_t *)v->payload)[i], v->seq % 251u + 1u);
}

/* To the end, and all of it committed. */
static void consume(void)
{
    chron_view v;
    int status;

    while ((status = chron_reader_next(reader, &v)) == 1)
        check(&v);
    CHECK_EQ(status, 0);
    CHECK_EQ(chron_reader_commit(reader, 0), 0);
}

static uint64_t reused(void)
{
    chron_writer_stats stats = {.struct_size = sizeof stats};

    CHECK_EQ(chron_writer_stats_get(writer, &stats), 0);
    return stats.reused_segments;
}

static uint64_t clean(void)
{
    chron_cleanup done = {.struct_size = sizeof done};

    CHECK_EQ(chron_writer_cleanup(writer, &done, NULL, 0), 0);
    return done.deleted_segments;
}

static void file_of(uint64_t seq, char *to)
{
    (void)snprintf(to, TEMPORARY_BYTES + 32, "%s/%020" PRIu64 ".seg", path, seq);
}

/* Two segments, of which the first may go. */
static void begin(char *first)
{
    open_both();
    fill();
    fill();
    consume();
    file_of(0, first);
}

/* The file that was given up: is it the spare now? And the log is whole, whatever became of it. */
static void check_reuse(int expected)
{
    char spare[TEMPORARY_BYTES + 32];
    uint64_t before = reused();

    CHECK(clean() >= 1);
    (void)snprintf(spare, sizeof spare, "%s/%s", path, CHRON__FILE_SPARE);
    CHECK_EQ(access(spare, F_OK) == 0, expected);
    fill();
    fill();
    CHECK_EQ(reused() - before, expected);
    consume();
}

/* -------------------------------------------------------------------------------- who hinders it */

static void test_nobody_else_has_it(void)
{
    char first[TEMPORARY_BYTES + 32];
    struct stat before;
    struct stat after;

    begin(first);
    CHECK_EQ(stat(first, &before), 0);
    check_reuse(1);
    file_of(6, first);
    CHECK_EQ(stat(first, &after), 0);
    CHECK_EQ(after.st_ino, before.st_ino);
    close_both();
}

/* It is zero behind the last record, and its index and seal are its own: what verify wants. */
static void test_what_is_left_is_whole(void)
{
    chron_verify_summary summary = {.struct_size = sizeof summary};
    char first[TEMPORARY_BYTES + 32];

    begin(first);
    for (int i = 0; i < 20; i++)
        check_reuse(1);
    CHECK_EQ(chron_reader_close(reader), 0);
    CHECK_EQ(chron_writer_close(writer), 0);
    CHECK_EQ(chron_queue_verify(path, NULL, NULL, &summary), 0);
    CHECK_EQ(summary.problems, 0);
    open_both();
    CHECK_EQ(chron_writer_next_seq(writer), 126);
    close_both();
}

static void test_a_program_that_reads_the_file(void)
{
    char first[TEMPORARY_BYTES + 32];
    uint8_t byte;
    int fd;

    begin(first);
    fd = open(first, O_RDONLY);
    CHECK(fd >= 0);
    check_reuse(0);
    CHECK_EQ(pread(fd, &byte, 1, 8192 + 32), 1);
    CHECK_EQ(byte, 1);
    (void)close(fd);
    close_both();
}

/* As releases did that knew nothing of reuse. */
static void test_a_program_that_maps_it_and_locks_nothing(void)
{
    char first[TEMPORARY_BYTES + 32];
    uint8_t *map;
    int fd;

    begin(first);
    fd = open(first, O_RDONLY);
    map = mmap(NULL, CHRON_SEGMENT_SIZE_MIN, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    (void)close(fd);
    check_reuse(0);
    CHECK_EQ(map[8192 + 32], 1);
    (void)munmap(map, CHRON_SEGMENT_SIZE_MIN);
    close_both();
}

static void test_a_second_name(void)
{
    char first[TEMPORARY_BYTES + 32];
    char other[TEMPORARY_BYTES + 32];
    uint8_t byte;
    int fd;

    begin(first);
    (void)snprintf(other, sizeof other, "%s/backup", path);
    CHECK_EQ(link(first, other), 0);
    check_reuse(0);
    fd = open(other, O_RDONLY);
    CHECK_EQ(pread(fd, &byte, 1, 8192 + 32), 1);
    CHECK_EQ(byte, 1);
    (void)close(fd);
    close_both();
}

/* A reader that keeps a view of what the others have committed past. */
static void test_a_view(void)
{
    char first[TEMPORARY_BYTES + 32];
    chron_reader *other;
    chron_view v;

    begin(first);
    CHECK_EQ(chron_reader_open(path, NULL, &other), 0);
    CHECK_EQ(chron_reader_next(other, &v), 1);
    check_reuse(0);
    check(&v);
    CHECK_EQ(chron_reader_close(other), 0);
    close_both();
}

/* The same, but its process has gone on, and only a child that it had forked has the view. */
static void test_a_view_in_a_forked_child(void)
{
    char first[TEMPORARY_BYTES + 32];
    chron_reader *other;
    chron_view v;
    int go[2];
    int status;

    begin(first);
    CHECK_EQ(chron_reader_open(path, NULL, &other), 0);
    CHECK_EQ(chron_reader_next(other, &v), 1);
    CHECK_EQ(pipe(go), 0);
    if (fork() == 0) {
        uint8_t byte;

        (void)close(go[1]);
        CHECK_EQ(read(go[0], &byte, 1), 0);
        check(&v);
        _exit(0);
    }
    (void)close(go[0]);
    CHECK_EQ(chron_reader_close(other), 0);
    check_reuse(0);
    (void)close(go[1]);
    CHECK(wait(&status) > 0);
    CHECK_EQ(status, 0);
    close_both();
}

/* ---------------------------------------------------------------- a reader that comes in between */

static char victim[TEMPORARY_BYTES + 32];
static int victim_fd; /* of no kind that the kernel counts: it stands for a name that was looked up a moment ago */
static int at_share;

static void do_roll(void)
{
    fill();
    CHECK_EQ(reused(), 1);
}

/* The name was looked up, then the file was given up and owned, then it is opened. */
static int late_open(const chron__io *io, int dir, const char *name, int flags, unsigned mode)
{
    char magic[64];

    if (!strstr(victim, name) || !strstr(name, ".seg"))
        return chron__io_posix.open_file(io, dir, name, flags, mode);
    CHECK_EQ(access(victim, F_OK), 0);
    CHECK_EQ(clean(), 1);
    (void)snprintf(magic, sizeof magic, "/proc/self/fd/%d", victim_fd);
    victim[0] = '\0';
    return open(magic, O_RDONLY | O_CLOEXEC);
}

static int late_share(const chron__io *io, int fd)
{
    if (victim[0] == '\0' && at_share == 1) {
        do_roll();
    } else if (victim[0] == '\0' && at_share == 2) {
        chron__reuse_slice(writer, 4096);
        chron__io_posix.disown(io, writer->spare->fd);
    }
    at_share = 0;
    return chron__io_posix.share(io, fd);
}

/* It asks for its share 0: while the file is owned; 1: only when it is another segment; 2: when its owner is dead. */
static void come_late(int at)
{
    chron_reader_options options = {.struct_size = sizeof options, .start = CHRON_START_SEQ, .start_value = 1};
    chron__io io = chron__io_posix;
    chron_reader *late;
    chron__queue q;
    chron__seg *seg;

    begin(victim);
    victim_fd = open(victim, O_PATH);
    CHECK(victim_fd >= 0);
    at_share = at;
    io.open_file = late_open;
    io.share = late_share;
    CHECK_EQ(chron__queue_open(&q, &io, path, 0), 0);
    CHECK_EQ(chron__seg_open(&q, 0, CHRON__SEG_HEADLESS, &seg), -CHRON_EGONE); /* neither damaged nor believed */
    chron__queue_close(&q);
    CHECK_EQ(chron_reader_open(path, &options, &late), -CHRON_EGONE);
    CHECK_EQ(chron_last_error()->oldest, 3);
    if (at != 1)
        do_roll();
    consume();
    (void)close(victim_fd);
    close_both();
}

static void test_a_reader_that_opens_it_while_it_is_owned(void)
{
    come_late(0);
}

static void test_a_reader_that_opens_it_when_it_is_another(void)
{
    come_late(1);
}

/* The writer has died in the middle: the lock is gone with it, and what stands there is no segment. */
static void test_a_reader_that_opens_what_a_dead_writer_left(void)
{
    come_late(2);
}

/* ------------------------------------------------------------------------------------------ signals */

static chron__a32 stop;

static void *open_and_close(void *magic)
{
    while (!chron__get32(&stop)) {
        int fd = open(magic, O_RDONLY);

        if (fd >= 0)
            (void)close(fd);
    }
    return NULL;
}

/* A lease that is broken sends a signal, whose default is death. And what others sent is still there. */
static void test_a_broken_lease_kills_nobody(void)
{
    char first[TEMPORARY_BYTES + 32];
    pthread_t thread;
    int granted = 0;
    int fd;

    begin(first);
    fd = open(first, O_RDWR);
    CHECK_EQ(unlink(first), 0); /* two names are as bad as none */
    file_of(77, first);
    (void)close(fd);
    fd = open(first, O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(pthread_create(&thread, NULL, open_and_close, first), 0);
    for (int i = 0; i < 20000; i++) {
        if (chron__io_posix.own(&chron__io_posix, fd) == 0) {
            granted++;
            chron__io_posix.disown(&chron__io_posix, fd);
        }
    }
    chron__set32(&stop, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(granted > 0);
    (void)close(fd);
    CHECK_EQ(unlink(first), 0);
    (void)chron_reader_close(reader);
    (void)chron_writer_close(writer);
    temporary_remove(path);
    temporary_directory(path);
}

/* -------------------------------------------------------------------------------- older queues */

static int has_flag(void)
{
    char meta[TEMPORARY_BYTES + 32];
    uint32_t incompat = 0;
    int fd;

    (void)snprintf(meta, sizeof meta, "%s/queue.meta", path);
    fd = open(meta, O_RDONLY);
    CHECK_EQ(pread(fd, &incompat, 4, 16), 4);
    (void)close(fd);
    return incompat == 1;
}

static void test_a_queue_gets_the_flag_when_nobody_has_it_open(void)
{
    chron_recovery found = {.struct_size = sizeof found};

    writer = open_writer(0);
    CHECK_EQ(has_flag(), 0);
    append();
    CHECK_EQ(chron_writer_close(writer), 0);
    CHECK_EQ(chron_reader_open(path, NULL, &reader), 0);
    writer = open_writer(CHRON_REUSE);
    CHECK_EQ(has_flag(), 0);
    CHECK_EQ(chron_writer_close(writer), 0);
    CHECK_EQ(chron_reader_close(reader), 0);
    writer = open_writer(CHRON_REUSE);
    CHECK_EQ(has_flag(), 1);
    append();
    CHECK_EQ(chron_writer_close(writer), 0);
    writer = open_writer(0);
    CHECK_EQ(has_flag(), 1);
    CHECK_EQ(chron_writer_recovery_get(writer, &found), 0);
    CHECK_EQ(found.copied, 0);
    CHECK_EQ(chron_writer_next_seq(writer), 2);
    CHECK_EQ(chron_writer_close(writer), 0);
    temporary_remove(path);
    temporary_directory(path);
}

/* --------------------------------------------------------------------------- after a loss of power */

static void patch(const char *name, uint64_t offset, const void *bytes, size_t count)
{
    char file[TEMPORARY_BYTES + 64];
    int fd;

    (void)snprintf(file, sizeof file, "%s/%s", path, name);
    fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, bytes, count, (off_t)offset), (ssize_t)count);
    (void)close(fd);
}

#define STALE_BYTES (PAYLOAD + 48u) /* a record, rounded up */

/*
 * Four records in two segments, the second of which was 0 before, and where the record behind the last one stands what stood
 * there then: a loss of power left it, for nobody knows that it is still the same boot. The record is that of seq `stale`.
 */
static void lose_power(uint8_t *stale)
{
    static const uint8_t nothing[64];
    char file[TEMPORARY_BYTES + 32];
    int fd;

    begin(file);
    fd = open(file, O_RDONLY);
    CHECK_EQ(pread(fd, stale, STALE_BYTES, 8192 + STALE_BYTES), STALE_BYTES); /* of seq 1 */
    (void)close(fd);
    CHECK_EQ(clean(), 1);
    fill();
    CHECK_EQ(reused(), 1);
    consume();
    append(); /* 9, the first of another segment */
    consume();
    CHECK_EQ(chron_reader_close(reader), 0);
    CHECK_EQ(chron_writer_close(writer), 0);
    patch("queue.meta", 576, nothing, sizeof nothing);
    patch("queue.meta", 1088, nothing, sizeof nothing);
    patch("00000000000000000009.seg", 8192 + STALE_BYTES, stale, STALE_BYTES);
}

static int read_to_the_end(void)
{
    chron_view v;
    int status;

    CHECK_EQ(chron_reader_open(path, NULL, &reader), 0);
    while ((status = chron_reader_next(reader, &v)) == 1)
        check(&v);
    if (status == 0)
        CHECK_EQ(chron_reader_position(reader), 10);
    CHECK_EQ(chron_reader_close(reader), 0);
    return status;
}

static void test_what_the_file_held_before_counts_as_nothing(void)
{
    static uint8_t stale[STALE_BYTES];
    chron_recovery found = {.struct_size = sizeof found};

    lose_power(stale);
    CHECK_EQ(read_to_the_end(), 0);
    open_both();
    CHECK_EQ(chron_writer_recovery_get(writer, &found), 0);
    CHECK_EQ(found.next_seq, 10);
    CHECK_EQ(found.cut_bytes, 0);
    CHECK_EQ(found.cut_records, 0);
    CHECK_EQ(found.quarantined, 0);
    append();
    consume();
    CHECK_EQ(chron_reader_position(reader), 11);
    close_both();
}

/* A lower seq alone is no proof: it may be the last record, and damaged. */
static void test_damage_is_not_what_it_held_before(void)
{
    static uint8_t stale[STALE_BYTES];

    lose_power(stale);
    stale[100] ^= 1;
    patch("00000000000000000009.seg", 8192 + STALE_BYTES, stale, STALE_BYTES);
    CHECK_EQ(read_to_the_end(), -CHRON_ECORRUPT);
    temporary_remove(path);
    temporary_directory(path);
}

/* The header of what it was before: a segment that got its name, and nothing more reached the disk. */
static void test_a_name_and_nothing_else(void)
{
    static uint8_t stale[STALE_BYTES];
    static uint8_t page[4096];
    chron_recovery found = {.struct_size = sizeof found};
    char file[TEMPORARY_BYTES + 32];
    char last[TEMPORARY_BYTES + 32];
    int fd;

    lose_power(stale);
    file_of(6, file);
    fd = open(file, O_RDONLY);
    CHECK_EQ(pread(fd, page, sizeof page, 0), sizeof page);
    (void)close(fd);
    file_of(9, last);
    patch("00000000000000000009.seg", 0, page, sizeof page);
    patch("00000000000000000009.seg", 8192, stale, STALE_BYTES);
    writer = open_writer(CHRON_REUSE);
    CHECK_EQ(chron_writer_recovery_get(writer, &found), 0);
    CHECK_EQ(found.next_seq, 9);
    CHECK_EQ(found.quarantined, 0);
    CHECK_EQ(found.cut_segments, 0);
    CHECK_EQ(chron_reader_open(path, NULL, &reader), 0);
    append();
    close_both();
}

static void test_an_opening_removes_a_spare(void)
{
    char spare[TEMPORARY_BYTES + 32];

    writer = open_writer(CHRON_REUSE);
    (void)snprintf(spare, sizeof spare, "%s/%s", path, CHRON__FILE_SPARE);
    CHECK_EQ(chron_writer_close(writer), 0);
    (void)close(open(spare, O_RDWR | O_CREAT, 0600));
    writer = open_writer(0);
    CHECK(access(spare, F_OK) < 0);
    CHECK_EQ(chron_writer_close(writer), 0);
    temporary_remove(path);
    temporary_directory(path);
}

/* Does the directory of tests lie where files can be owned? */
static int can(void)
{
    int dir = open("/", O_RDONLY);
    char parent[TEMPORARY_BYTES];
    int kind;

    (void)close(dir);
    (void)snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = '\0';
    dir = open(parent, O_RDONLY | O_DIRECTORY);
    kind = chron__io_posix.fs_kind(&chron__io_posix, dir);
    (void)close(dir);
    return (kind & CHRON__FS_REUSE) != 0;
}

int main(void)
{
    temporary_directory(path);
    if (!can()) {
        printf("  skipped: no ext4, xfs or tmpfs here\n");
        temporary_remove(path);
        return 0;
    }
    RUN(test_nobody_else_has_it);
    RUN(test_what_is_left_is_whole);
    RUN(test_a_program_that_reads_the_file);
    RUN(test_a_program_that_maps_it_and_locks_nothing);
    RUN(test_a_second_name);
    RUN(test_a_view);
    RUN(test_a_view_in_a_forked_child);
    RUN(test_a_reader_that_opens_it_while_it_is_owned);
    RUN(test_a_reader_that_opens_it_when_it_is_another);
    RUN(test_a_reader_that_opens_what_a_dead_writer_left);
    RUN(test_a_broken_lease_kills_nobody);
    RUN(test_a_queue_gets_the_flag_when_nobody_has_it_open);
    RUN(test_what_the_file_held_before_counts_as_nothing);
    RUN(test_damage_is_not_what_it_held_before);
    RUN(test_a_name_and_nothing_else);
    RUN(test_an_opening_removes_a_spare);
    temporary_remove(path);
    return 0;
}
