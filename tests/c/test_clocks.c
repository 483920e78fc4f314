/* SPDX-License-Identifier: MIT */
/*
 * test_clocks.c - retention beside a wall clock that is set: ages are the time that has passed. clock_gettime is this
 * program's own. What another boot, or an older version, has sealed is made by patching seals.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "base/endian.h"
#include "base/format.h"
#include "platform/counter.h"
#include "platform/platform.h"
#include "small_writer.h"
#include "temporary.h"

#define SECOND INT64_C(1)
#define DAY (86400 * SECOND)
#define YEAR (365 * DAY)
#define LATE 1000  /* seconds that the process runs already when a test begins */
#define STALE 1u   /* not a boot: the clock belongs to another seal */
#define SEGMENTS 4 /* sealed, of one record each */

static int64_t clock_is_ahead; /* seconds */
static int64_t time_passed;    /* seconds, for all clocks */
static char path[TEMPORARY_BYTES];

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int status = (int)syscall(SYS_clock_gettime, clock, time);

    time->tv_sec += time_passed;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        time->tv_sec += clock_is_ahead;
    return status;
}

static chron_writer *open_writer(uint64_t max_age_s, uint64_t reader_ttl_s)
{
    chron_retention retention = {.struct_size = sizeof retention};
    chron_writer_options options = {.struct_size = sizeof options, .retention = &retention};
    chron_writer *w;

    retention.max_age_ms = max_age_s * 1000u;
    retention.reader_ttl_ms = reader_ttl_s * 1000u;
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    return w;
}

static void fill(chron_writer *w)
{
    static uint8_t payload[40000];

    for (int i = 0; i <= SEGMENTS; i++)
        CHECK(chron_writer_append(w, payload, sizeof payload, 0, 0) >= 0);
}

/* "me" has read nothing. */
static void leave_a_reader(void)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = "me"};
    chron_reader *r;

    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    CHECK_EQ(chron_reader_commit(r, 0), 0);
    CHECK_EQ(chron_reader_close(r), 0);
}

static void begin(int64_t ahead)
{
    chron_writer *w;

    temporary_directory(path);
    time_passed = LATE;
    clock_is_ahead = ahead;
    w = open_writer(0, 0);
    fill(w);
    leave_a_reader();
    CHECK_EQ(chron_writer_close(w), 0);
}

/* How many go, by a cleanup of now; a plan says the same. */
static uint64_t cleaned(uint64_t max_age_s, uint64_t reader_ttl_s)
{
    chron_retention retention = {.struct_size = sizeof retention};
    chron_cleanup plan = {.struct_size = sizeof plan};
    chron_cleanup done = {.struct_size = sizeof done};
    chron_writer *w;

    retention.max_age_ms = max_age_s * 1000u;
    retention.reader_ttl_ms = reader_ttl_s * 1000u;
    CHECK_EQ(chron_queue_cleanup_plan(path, &retention, &plan, NULL, 0), 0);
    w = open_writer(max_age_s, reader_ttl_s);
    CHECK_EQ(chron_writer_cleanup(w, &done, NULL, 0), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(plan.deleted_segments, done.deleted_segments);
    return done.deleted_segments;
}

/* Change what stands behind the seal of segment `i`: of another boot, STALE, or (0) nothing, as older versions leave it. */
static void seal_in_boot(uint64_t i, uint32_t boot)
{
    uint8_t clock[sizeof(chron__seal_clock)] = {0};
    char name[TEMPORARY_BYTES + 32];
    int fd;

    (void)snprintf(name, sizeof name, "%s/%020d.seg", path, (int)i);
    fd = open(name, O_RDWR);
    CHECK(fd >= 0);
    if (boot) {
        CHECK_EQ(pread(fd, clock, sizeof clock, CHRON__SEAL_CLOCK_AT), (ssize_t)sizeof clock);
        CHECK(chron__read_le32(clock + offsetof(chron__seal_clock, boot)) != 0);
        if (boot == STALE)
            clock[0]++;
        else
            chron__write_le32(clock + offsetof(chron__seal_clock, boot), boot);
        chron__write_le32(clock + offsetof(chron__seal_clock, crc),
                          chron_crc32c(0, clock, offsetof(chron__seal_clock, crc)));
    }
    CHECK_EQ(pwrite(fd, clock, sizeof clock, CHRON__SEAL_CLOCK_AT), (ssize_t)sizeof clock);
    close(fd);
}

static void test_a_clock_that_was_behind(void)
{
    begin(-50 * YEAR); /* no clock that runs without power: the machine starts in the past */
    clock_is_ahead = 0;
    CHECK_EQ(cleaned(7 * DAY, 0), 0);
    time_passed = LATE + 6 * DAY;
    CHECK_EQ(cleaned(7 * DAY, 0), 0);
    time_passed = LATE + 8 * DAY;
    CHECK_EQ(cleaned(7 * DAY, 0), SEGMENTS);
    temporary_remove(path);
}

static void test_a_clock_that_was_ahead(void)
{
    begin(80 * YEAR);
    clock_is_ahead = 0;
    CHECK_EQ(cleaned(10, 0), 0);
    time_passed = LATE + 11;
    CHECK_EQ(cleaned(10, 0), SEGMENTS);
    temporary_remove(path);
}

static void test_a_step_under_an_open_writer(void)
{
    chron_segment_fate fates[SEGMENTS] = {{.struct_size = sizeof fates[0]}};
    chron_writer *w;

    begin(0);
    w = open_writer(7 * DAY, 0);
    clock_is_ahead = 10 * DAY; /* a server of time went mad */
    CHECK_EQ(chron_writer_cleanup(w, NULL, fates, SEGMENTS), 0);
    for (int i = 0; i < SEGMENTS; i++) {
        CHECK_EQ(fates[i].reason, CHRON_KEPT_READER);
        CHECK(fates[i].age_ms < 600u * 1000u);
        CHECK_EQ(fates[i].clock_ms / 1000 / DAY, 10); /* and it is told */
    }
    clock_is_ahead = 0;
    time_passed = LATE + 8 * DAY;
    CHECK_EQ(chron_writer_cleanup(w, NULL, fates, SEGMENTS), 0);
    for (int i = 0; i < SEGMENTS; i++) {
        CHECK_EQ(fates[i].reason, CHRON_GONE_AGE);
        CHECK_EQ((int64_t)fates[i].age_ms / 1000 / DAY, 8);
        CHECK(fates[i].clock_ms < 10000 && fates[i].clock_ms > -10000);
    }
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void test_what_another_boot_sealed_has_the_wall_clock_only(void)
{
    static const uint32_t boots[] = {0, STALE, 0x80000001u};

    for (size_t b = 0; b < sizeof boots / sizeof *boots; b++) {
        begin(0);
        for (uint64_t i = 0; i < SEGMENTS; i++)
            seal_in_boot(i, boots[b]);
        CHECK_EQ(cleaned(7 * DAY, 0), 0);
        clock_is_ahead = 8 * DAY;
        CHECK_EQ(cleaned(7 * DAY, 0), SEGMENTS);
        temporary_remove(path);
    }
}

static void test_the_future_counts_as_now(void)
{
    begin(80 * YEAR);
    for (uint64_t i = 0; i < SEGMENTS; i++)
        seal_in_boot(i, 0x80000001u);
    clock_is_ahead = 0;
    CHECK_EQ(cleaned(3600, 0), 0);
    time_passed = LATE + 2700; /* more than an hour since this process began: it is no younger than that */
    CHECK_EQ(cleaned(3600, 0), SEGMENTS);
    temporary_remove(path);
}

static void test_the_future_counts_as_what_follows(void)
{
    begin(80 * YEAR);
    for (uint64_t i = 0; i < SEGMENTS - 1; i++)
        seal_in_boot(i, 0x80000001u);
    clock_is_ahead = 0;
    time_passed = LATE + 20; /* the last one was sealed 20 seconds ago, and the others before */
    CHECK_EQ(cleaned(30, 0), 0);
    CHECK_EQ(cleaned(19, 0), SEGMENTS);
    temporary_remove(path);
}

static void test_silent_readers(void)
{
    begin(-50 * YEAR);
    clock_is_ahead = 0;
    CHECK_EQ(cleaned(0, 7 * DAY), 0);
    time_passed = LATE + 8 * DAY;
    CHECK_EQ(cleaned(0, 7 * DAY), SEGMENTS);
    temporary_remove(path);
    begin(80 * YEAR);
    clock_is_ahead = 0;
    CHECK_EQ(cleaned(0, 10), 0);
    time_passed = LATE + 11;
    CHECK_EQ(cleaned(0, 10), SEGMENTS);
    temporary_remove(path);
}

/* A position is stamped with a coarse clock, and with the one since the boot about once a second. */
static void test_commits_while_the_clock_is_set(void)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = "me"};
    chron_reader *r;

    begin(0);
    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    for (int64_t ahead = -1; ahead <= 1; ahead++) {
        clock_is_ahead = ahead * 40 * YEAR;
        CHECK_EQ(chron_reader_commit(r, 0), 0);
        time_passed += 5;
        CHECK_EQ(chron_reader_commit(r, 0), 0);
    }
    clock_is_ahead = 0;
    CHECK_EQ(chron_reader_close(r), 0);
    time_passed += 10;
    CHECK_EQ(cleaned(0, 18), 0); /* 15 seconds, and some that the test takes at most */
    time_passed += 10;
    CHECK_EQ(cleaned(0, 18), SEGMENTS);
    temporary_remove(path);
}

/* ------------------------------------------------------------------------------------- the counter */

static uint64_t real_ns(void)
{
    return chron__clock_ns(0);
}

/* Readings lie between those of the clock in front of and behind them, but for the bound. */
static void follow_for(chron__counter *c, uint64_t ns)
{
    uint64_t until = chron__monotonic_ns() + ns;

    while (chron__monotonic_ns() < until) {
        uint64_t before = real_ns();
        uint64_t now = chron__counter_ns(c);

        CHECK(now + 5000u >= before);
        CHECK(now <= real_ns() + 5000u);
    }
}

static void let_it_notice(chron__counter *c)
{
    uint64_t until = chron__monotonic_ns() + 2u * CHRON__COUNTER_NS;

    while (chron__monotonic_ns() < until)
        (void)chron__counter_ns(c);
}

static void test_the_counter_follows_the_clock(void)
{
    chron__counter c;

    chron__counter_start(&c);
    follow_for(&c, 50000000u);
    if (c.trusted)
        CHECK(c.limit > 0); /* it was the counter */
}

static void test_a_clock_that_is_set_is_noticed(void)
{
    static const int64_t steps[] = {3600, -7200, 1, -1};
    chron__counter c;

    chron__counter_start(&c);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        follow_for(&c, 20000000u);
        clock_is_ahead += steps[i];
        let_it_notice(&c);
        follow_for(&c, 20000000u);
    }
    clock_is_ahead = 0;
}

static void test_a_counter_that_stood_still(void)
{
    chron__counter c;

    chron__counter_start(&c);
    follow_for(&c, 20000000u);
    time_passed += 5; /* the machine slept, and its counter with it */
    let_it_notice(&c);
    follow_for(&c, 20000000u);
    c.anchor -= UINT64_C(1) << 40; /* nobody read it for minutes */
    follow_for(&c, 20000000u);
}

static void test_a_clock_without_a_counter(void)
{
    chron__counter c;

    chron__counter_start(&c);
    c.trusted = 0;
    follow_for(&c, 5000000u);
    CHECK_EQ(c.limit, 0);
}

int main(void)
{
    CHECK(chron__running_ns() < 1000000000u); /* from here on */
    RUN(test_a_clock_that_was_behind);
    RUN(test_a_clock_that_was_ahead);
    RUN(test_a_step_under_an_open_writer);
    RUN(test_what_another_boot_sealed_has_the_wall_clock_only);
    RUN(test_the_future_counts_as_now);
    RUN(test_the_future_counts_as_what_follows);
    RUN(test_silent_readers);
    RUN(test_commits_while_the_clock_is_set);
    RUN(test_the_counter_follows_the_clock);
    RUN(test_a_clock_that_is_set_is_noticed);
    RUN(test_a_counter_that_stood_still);
    RUN(test_a_clock_without_a_counter);
    return 0;
}
