/* SPDX-License-Identifier: MIT */
/* test_keeper.c - the keeper: start, stop, and a wall clock that is set back. clock_gettime is this program's own. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "small_writer.h"
#include "temporary.h"
#include "write/writer.h"

#define TICK_NS 1000000u
#define PATIENCE 60000 /* ticks: a minute, of which 20 ms are needed */

/* One hour ahead of the kernel's: whoever waits until a wall clock time waits as if the clock had been set back. */
int clock_gettime(clockid_t clock, struct timespec *time)
{
    int status = (int)syscall(SYS_clock_gettime, clock, time);

    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        time->tv_sec += 3600;
    return status;
}

static void wait_until_durable(const chron_writer *w, uint64_t seq)
{
    for (int tick = 0; chron_writer_durable_seq(w) != seq; tick++) {
        CHECK(tick < PATIENCE);
        CHECK_EQ(chron__sleep_ns(TICK_NS), 0);
    }
}

static void test_syncs_go_on_when_the_wall_clock_is_set_back(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.flags = CHRON_KEEPER;
    options.durability = CHRON_DURABILITY_INTERVAL;
    options.durability_n = 20;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    CHECK_EQ(chron_writer_append(w, "a", 1, 0, 0), 0); /* wakes the keeper: the writer's first pages */
    wait_until_durable(w, 0);
    CHECK_EQ(chron__sleep_ns(100 * TICK_NS), 0);
    CHECK_EQ(chron_writer_append(w, "b", 1, 0, 0), 1); /* does not */
    wait_until_durable(w, 1);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* Nothing was promised, and nobody syncs: but once the kernel has written a sealed segment by itself, the mark follows. */
static void test_the_mark_moves_by_itself(void)
{
    static const uint32_t durabilities[] = {CHRON_DURABILITY_NONE, CHRON_DURABILITY_BATCH};
    char path[TEMPORARY_BYTES];

    for (int i = 0; i < 2; i++) {
        chron_writer_options options = {.struct_size = sizeof options, .segment_size = CHRON_SEGMENT_SIZE_MIN};
        chron_queue_info info = {.struct_size = sizeof info};
        chron_writer *w;
        uint64_t sealed;

        temporary_directory(path);
        options.flags = CHRON_KEEPER;
        options.durability = durabilities[i];
        options.durability_n = 1000000;
        CHECK_EQ(chron_writer_open(path, &options, &w), 0);
        for (int64_t seq = 0; seq < 500; seq++)
            CHECK_EQ(chron_writer_append(w, path, sizeof path, 0, 0), seq);
        pthread_mutex_lock(&w->lock);
        sealed = w->seg->base_seq - 1u;
        if (durabilities[i] == CHRON_DURABILITY_NONE) {
            CHECK(w->backlog.count > 1 && chron_writer_durable_seq(w) == CHRON_SEQ_NONE);
            for (size_t k = 0; k < w->backlog.count; k++) /* it is half a minute later */
                w->backlog.at[k].sealed_ns -= UINT64_C(40000000000);
        }
        pthread_mutex_unlock(&w->lock);
        wait_until_durable(w, sealed);
        CHECK_EQ(chron_queue_info_get(path, &info), 0);
        CHECK_EQ(info.durable_seq, sealed); /* in queue.meta, too */
        pthread_mutex_lock(&w->lock);
        CHECK_EQ(w->backlog.count, 0u);
        pthread_mutex_unlock(&w->lock);
        CHECK_EQ(chron_writer_close(w), 0);
        temporary_remove(path);
    }
}

static uint64_t is_running(const chron_writer *w)
{
    chron_writer_stats stats = {.struct_size = sizeof stats};

    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    return stats.keeper_running;
}

static void test_start_and_stop(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer *w;

    temporary_directory(path);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    CHECK_EQ(is_running(w), 0);
    CHECK_EQ(chron_writer_keeper_stop(w), 0);
    for (int64_t seq = 0; seq < 300; seq++) { /* with rolls in between, prepared by the keeper or not */
        CHECK_EQ(chron_writer_append(w, path, sizeof path, 0, 0), seq);
        if (seq % 50 == 0) {
            CHECK_EQ(chron_writer_keeper_start(w), 0);
            CHECK_EQ(chron_writer_keeper_start(w), 0); /* runs already */
            CHECK_EQ(is_running(w), 1);
        } else if (seq % 50 == 25) {
            CHECK_EQ(chron_writer_keeper_stop(w), 0);
            CHECK_EQ(is_running(w), 0);
        }
    }
    CHECK_EQ(chron_writer_close(w), 0);
    w = small_writer(path, CHRON_KEEPER, CHRON_DURABILITY_INTERVAL);
    CHECK_EQ(chron_writer_keeper_stop(w), -CHRON_EINVAL); /* who would sync? */
    CHECK_EQ(is_running(w), 1);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_start_and_stop);
    RUN(test_syncs_go_on_when_the_wall_clock_is_set_back);
    RUN(test_the_mark_moves_by_itself);
    return 0;
}
