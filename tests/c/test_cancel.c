/* SPDX-License-Identifier: MIT */
/*
 * test_cancel.c - threads that are cancelled. Where they wait for somebody else they end, and the handle goes on; nothing
 * else is a cancellation point: a thread that was cancelled before does all the rest to the end.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "small_writer.h"
#include "temporary.h"

#define TICK_NS 1000000u

static char path[TEMPORARY_BYTES];
static uint8_t payload[50000]; /* one a segment */
static chron_writer *w;
static chron_reader *r;
static _Atomic int waits; /* the thread is about to wait */

static void open_bounded_writer(void)
{
    chron_writer_options options = {.struct_size = sizeof options};

    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.flags = CHRON_CHECKED;
    options.max_segments = 2;
    options.block_ns = -1;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
}

static void register_reader(const char *name, uint32_t start)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = name, .start = start};

    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    CHECK_EQ(chron_reader_commit(r, 0), 0);
    CHECK_EQ(chron_reader_close(r), 0);
}

/* Cancelled while it waits: it ends, and is known to have ended by that. */
static void cancel_while_it_waits(void *(*work)(void *), void *argument)
{
    pthread_t thread;
    void *result = NULL;

    atomic_store(&waits, 0);
    CHECK_EQ(pthread_create(&thread, NULL, work, argument), 0);
    while (!atomic_load(&waits))
        CHECK_EQ(chron__sleep_ns(TICK_NS), 0);
    CHECK_EQ(chron__sleep_ns(20 * TICK_NS), 0); /* also right if it has not begun to wait by then */
    CHECK_EQ(pthread_cancel(thread), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
}

static void *append_for_ever(void *unused)
{
    (void)unused;
    for (;;) {
        if (chron_writer_next_seq(w) == 2)
            atomic_store(&waits, 1);
        CHECK(chron_writer_append(w, payload, sizeof payload, 0, 0) >= 0);
    }
}

static void *claim_and_wait(void *unused)
{
    void *room;

    (void)unused;
    atomic_store(&waits, 1);
    CHECK_EQ(chron_writer_claim(w, sizeof payload, &room), 0);
    return NULL;
}

static void *wait_for_room(void *unused)
{
    (void)unused;
    atomic_store(&waits, 1);
    CHECK_EQ(chron_writer_wait_room(w, -1), 1);
    return NULL;
}

static void test_waits_for_room(void)
{
    chron_writer_options options = {.struct_size = sizeof options, .flags = CHRON_MUST_EXIST};

    temporary_directory(path);
    open_bounded_writer();
    register_reader("slow", CHRON_START_EARLIEST);
    cancel_while_it_waits(append_for_ever, NULL);
    cancel_while_it_waits(claim_and_wait, NULL);
    cancel_while_it_waits(wait_for_room, NULL);
    CHECK_EQ(chron_writer_next_seq(w), 2);
    CHECK_EQ(chron_queue_reader_remove(path, "slow"), 0);
    register_reader("fast", CHRON_START_LATEST);
    CHECK_EQ(chron_writer_append(w, payload, sizeof payload, 0, 0), 2); /* the handle goes on, also over a roll */
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    CHECK_EQ(chron_writer_next_seq(w), 3);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void *wait_for_a_record(void *unused)
{
    (void)unused;
    atomic_store(&waits, 1);
    CHECK_EQ(chron_reader_wait(r, -1), 1);
    return NULL;
}

static void test_waits_for_a_record(void)
{
    static const uint32_t ways[] = {CHRON_WAIT_HYBRID, CHRON_WAIT_SPIN, CHRON_WAIT_SLEEP};

    temporary_directory(path);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        chron_reader_options options = {.struct_size = sizeof options, .flags = CHRON_CHECKED};
        chron_view view;

        options.wait = ways[i];
        options.start = CHRON_START_LATEST;
        CHECK_EQ(chron_reader_open(path, &options, &r), 0);
        cancel_while_it_waits(wait_for_a_record, NULL);
        CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), (int64_t)i);
        CHECK_EQ(chron_reader_next(r, &view), 1);
        CHECK_EQ(chron_reader_close(r), 0);
    }
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void *open_and_wait(void *unused)
{
    chron_writer_options options = {.struct_size = sizeof options, .lock_wait_ns = -1};
    chron_writer *other;

    (void)unused;
    atomic_store(&waits, 1);
    CHECK_EQ(chron_writer_open(path, &options, &other), 0);
    return NULL;
}

/* LeakSanitizer looks at what is left, too. */
static void test_waits_for_the_lock(void)
{
    temporary_directory(path);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    cancel_while_it_waits(open_and_wait, NULL);
    CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE); /* nobody has it any more */
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* All but waits; from the first one on the thread is to be cancelled. */
static void *work_while_cancelled(void *done)
{
    chron_writer_options options = {.struct_size = sizeof options, .flags = CHRON_KEEPER | CHRON_CHECKED};
    chron_reader_options named = {.struct_size = sizeof named, .name = "me"};
    chron_queue_info info = {.struct_size = sizeof info};
    chron_view view;

    CHECK_EQ(pthread_cancel(pthread_self()), 0);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.durability = CHRON_DURABILITY_BATCH;
    options.durability_n = 3;
    options.clock = CHRON_CLOCK_COUNTER;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    CHECK_EQ(chron_reader_open(path, &named, &r), 0);
    for (int64_t seq = 0; seq < 10; seq++)
        CHECK_EQ(chron_writer_append(w, payload, sizeof payload, 0, 0), seq);
    CHECK_EQ(chron_writer_sync(w), 0);
    for (int i = 0; i < 8; i++)
        CHECK_EQ(chron_reader_next(r, &view), 1);
    CHECK_EQ(chron_reader_commit(r, 1), 0);
    CHECK_EQ(chron_reader_seek(r, 3), 0);
    CHECK_EQ(chron_reader_lag(r), 7);
    CHECK_EQ(chron_reader_writer_alive(r), 1);
    CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
    CHECK_EQ(chron_queue_info_get(path, &info), 0);
    CHECK_EQ(chron_queue_readers(path, NULL, 0), 1);
    CHECK_EQ(chron_queue_verify(path, NULL, NULL, NULL), 0);
    CHECK_EQ(chron_writer_keeper_stop(w), 0);
    CHECK_EQ(chron_writer_keeper_start(w), 0);
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    *(int *)done = 1;
    pthread_testcancel();
    return NULL;
}

static void test_nothing_else_is_a_cancellation_point(void)
{
    int done = 0;
    void *result = NULL;
    pthread_t thread;

    temporary_directory(path);
    CHECK_EQ(pthread_create(&thread, NULL, work_while_cancelled, &done), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK_EQ(done, 1);
    CHECK(result == PTHREAD_CANCELED);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_waits_for_room);
    RUN(test_waits_for_a_record);
    RUN(test_waits_for_the_lock);
    RUN(test_nothing_else_is_a_cancellation_point);
    return 0;
}
