/* SPDX-License-Identifier: MIT */
/*
 * test_listen.c - bells: one thread waits at many for another one that owns the handles, and hears of every record and
 * of every sync.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "small_writer.h"
#include "temporary.h"

#define QUEUES 5
#define RECORDS 4000
#define LONG_NS INT64_C(30000000000)
#define SHORT_NS INT64_C(5000000000)
#define SWEEP 64u

static chron__a32 *seen;         /* shared with the reading process */
static uint32_t rounds = 100000; /* unless CHRON_BELL_ROUNDS says otherwise */
static char paths[QUEUES][TEMPORARY_BYTES];

/* A process of its own: appends here and there, with pauses, so that readers do sleep. */
static void write_all(void)
{
    chron_writer *w[QUEUES];
    uint32_t dice = 1;

    for (size_t i = 0; i < QUEUES; i++)
        w[i] = small_writer(paths[i], 0, CHRON_DURABILITY_NONE);
    for (uint64_t n = 0; n < RECORDS * QUEUES; n++) {
        dice = dice * 1664525u + 1013904223u;
        CHECK(chron_writer_append(w[n % QUEUES], &n, sizeof n, 0, 0) >= 0);
        if ((dice >> 16) % 16 == 0)
            usleep((dice >> 24) % 64);
    }
    for (size_t i = 0; i < QUEUES; i++)
        CHECK_EQ(chron_writer_close(w[i]), 0);
    _exit(0);
}

/* As a loop would: read all there is, arm, and wait when nothing is left. A ring that is lost takes 30 s. */
static void test_no_record_is_overheard(void)
{
    chron_reader *r[QUEUES];
    chron_bell *bells[QUEUES];
    uint32_t counts[QUEUES];
    uint64_t left = (uint64_t)RECORDS * QUEUES;
    uint64_t waits = 0;
    int status;
    pid_t child;

    for (size_t i = 0; i < QUEUES; i++) {
        temporary_directory(paths[i]);
        CHECK_EQ(chron_writer_close(small_writer(paths[i], 0, CHRON_DURABILITY_NONE)), 0);
    }
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        write_all();
    for (size_t i = 0; i < QUEUES; i++) {
        CHECK_EQ(chron_reader_open(paths[i], NULL, &r[i]), 0);
        CHECK_EQ(chron_reader_bell(r[i], &bells[i]), 0);
        counts[i] = chron_bell_count(bells[i]);
    }
    while (left > 0) {
        int ready = 0;

        for (size_t i = 0; i < QUEUES; i++) {
            chron_view v;

            while (chron_reader_next(r[i], &v) == 1)
                left--;
            ready |= chron_reader_arm(r[i]);
            CHECK(ready >= 0);
        }
        if (ready || left == 0)
            continue;
        CHECK(chron_bells_wait(bells, counts, QUEUES, LONG_NS) > 0);
        waits++;
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK(waits > 10);
    for (size_t i = 0; i < QUEUES; i++) {
        CHECK_EQ(chron_reader_close(r[i]), 0);
        (void)chron_bell_count(bells[i]); /* it outlives its reader */
        chron_bell_release(bells[i]);
        temporary_remove(paths[i]);
    }
}

static void read_one_by_one(void)
{
    chron_reader *r;
    chron_bell *bell;
    uint32_t count;

    CHECK_EQ(chron_reader_open(paths[0], NULL, &r), 0);
    CHECK_EQ(chron_reader_bell(r, &bell), 0);
    count = chron_bell_count(bell);
    for (uint32_t round = 1; round <= rounds; round++) {
        chron_view v;

        while (chron_reader_next(r, &v) == 0)
            if (chron_reader_arm(r) == 0)
                CHECK_EQ(chron_bells_wait(&bell, &count, 1, SHORT_NS), 1);
        chron__set_release32(seen, round);
    }
    _exit(0);
}

/* One record at a time, at another moment of the reader's arming each time, and none after it to make up for it. */
static void test_no_record_falls_between_a_look_and_arming(void)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;
    int status;
    pid_t child;

    temporary_directory(paths[0]);
    CHECK_EQ(chron_writer_open(paths[0], &options, &w), 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        read_one_by_one();
    for (uint32_t round = 1; round <= rounds; round++) {
        for (uint32_t i = 0; i < round % SWEEP; i++)
            chron__pause();
        CHECK(chron_writer_append_at(w, NULL, 0, 0, 0, 0) >= 0);
        while (chron__get_acquire32(seen) < round)
            if (waitpid(child, &status, WNOHANG) == child)
                CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    (void)waitpid(child, &status, 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(paths[0]);
}

static void *ring(void *bell)
{
    usleep(1000);
    CHECK_EQ(chron_bell_ring(bell), 0);
    return NULL;
}

static void test_bells_of_ones_own(void)
{
    chron_bell *bells[CHRON_BELLS_MAX];
    uint32_t counts[CHRON_BELLS_MAX];
    pthread_t thread;
    int status;
    pid_t child;

    for (size_t i = 0; i < CHRON_BELLS_MAX; i++) {
        CHECK_EQ(chron_bell_new(&bells[i]), 0);
        counts[i] = chron_bell_count(bells[i]);
    }
    CHECK_EQ(chron_bells_wait(bells, counts, CHRON_BELLS_MAX, 0), 0);
    CHECK_EQ(chron_bells_wait(bells, counts, CHRON_BELLS_MAX, 1000000), 0);
    CHECK_EQ(pthread_create(&thread, NULL, ring, bells[CHRON_BELLS_MAX - 1]), 0);
    CHECK_EQ(chron_bells_wait(bells, counts, CHRON_BELLS_MAX, LONG_NS), 1);
    CHECK_EQ(counts[CHRON_BELLS_MAX - 1], 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(chron_bell_ring(bells[3]), 0); /* before the wait: not lost */
    CHECK_EQ(chron_bell_ring(bells[3]), 0);
    CHECK_EQ(chron_bell_ring(bells[5]), 0);
    CHECK_EQ(chron_bells_wait(bells, counts, CHRON_BELLS_MAX, -1), 2);
    CHECK_EQ(counts[3], 2);
    CHECK_EQ(chron_bells_wait(bells, counts, CHRON_BELLS_MAX + 1, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_bells_wait(bells, counts, 0, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_bells_wait(NULL, counts, 1, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_bell_ring(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_bell_new(NULL), -CHRON_EINVAL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK_EQ(chron_bells_wait(bells, counts, 1, -1), -CHRON_EFORKED);
        for (size_t i = 0; i < CHRON_BELLS_MAX; i++)
            chron_bell_release(bells[i]);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    for (size_t i = 0; i < CHRON_BELLS_MAX; i++)
        chron_bell_release(bells[i]);
    chron_bell_release(NULL);
}

/* Ask for each seq as it comes; go on when the bell has rung. */
static void test_syncs_by_the_keeper(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer_stats stats = {.struct_size = sizeof stats};
    chron_writer *w;
    chron_bell *bell;
    uint32_t count;

    temporary_directory(path);
    w = small_writer(path, CHRON_KEEPER, CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_bell(w, &bell), 0);
    count = chron_bell_count(bell);
    CHECK_EQ(chron_writer_sync_request(w, 0), -CHRON_ERANGE);
    for (uint64_t seq = 0; seq < 50; seq++) {
        int status;

        CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), seq);
        while ((status = chron_writer_sync_request(w, seq)) == 0)
            CHECK_EQ(chron_bells_wait(&bell, &count, 1, LONG_NS), 1);
        if (status == -CHRON_ENOTDURABLE) {
            printf("    not here: %s\n", chron_last_error()->text);
            break;
        }
        CHECK_EQ(status, 1);
        CHECK_EQ(chron_writer_durable_seq(w), seq);
    }
    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    CHECK(stats.syncs <= 51);
    CHECK_EQ(chron_bell_ring(bell), 0);
    CHECK_EQ(chron_writer_keeper_stop(w), 0);
    CHECK(chron_writer_append(w, "x", 1, 0, 0) >= 0);
    CHECK(chron_writer_sync_request(w, chron_writer_next_seq(w) - 1u) < 0);
    CHECK_EQ(chron_writer_close(w), 0);
    chron_bell_release(bell);
    temporary_remove(path);
}

int main(void)
{
    const char *wanted = getenv("CHRON_BELL_ROUNDS");

    if (wanted)
        rounds = (uint32_t)strtoul(wanted, NULL, 10);
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(seen != MAP_FAILED);
    RUN(test_no_record_falls_between_a_look_and_arming);
    RUN(test_no_record_is_overheard);
    RUN(test_bells_of_ones_own);
    RUN(test_syncs_by_the_keeper);
    return 0;
}
