/* SPDX-License-Identifier: MIT */
/*
 * test_bell.c - no wake-up is lost: two processes hand a number to and fro as fast as they can, one ringing, one
 * sleeping whenever there is nothing. Without either fence of doorbell.h and .c a ring and an announcement miss each
 * other in the end, and the sleeper stays down for its whole five seconds.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "format/doorbell.h"
#include "temporary.h"

#define ROUNDS 500000u /* unless CHRON_BELL_ROUNDS says otherwise */
#define SWEEP 32u
#define LINES 48u
#define SLEEP_NS 5000000000u
#define TOO_LONG_NS 4000000000u

typedef struct words {
    chron__a32 sent;
    uint8_t apart[124];
    chron__a32 seen;
    uint8_t apart_too[124];
    struct {
        chron__a32 word;
        uint8_t apart[124];
    } lines[LINES];
} words;

static words *shared;
static uint32_t rounds = ROUNDS;

/*
 * Stores to lines that the other process wrote last: they wait in this processor, and what is stored behind them waits
 * too, while loads go ahead. So a missing fence shows in this build within some million rounds.
 */
static void store_slowly(uint32_t round)
{
    for (uint32_t i = 0; i < LINES; i++)
        chron__set32(&shared->lines[i].word, round);
}

static void open_bell(const char *path, chron__queue *q, chron__doorbell *bell)
{
    CHECK_EQ(chron__queue_open(q, &chron__io_posix, path, 0), 0);
    chron__doorbell_open(q, bell);
    CHECK(bell->map.base != NULL);
}

static void sleeper(const char *path)
{
    chron__queue q;
    chron__doorbell bell;

    open_bell(path, &q, &bell);
    for (uint32_t round = 1; round <= rounds; round++) {
        while (chron__get_acquire32(&shared->sent) < round) {
            uint32_t announced = chron__doorbell_announce(&bell);
            uint64_t before = chron__monotonic_ns();

            if (chron__get_acquire32(&shared->sent) >= round)
                break;
            CHECK_EQ(chron__doorbell_sleep(&bell, announced, SLEEP_NS), 0);
            CHECK(chron__monotonic_ns() - before < TOO_LONG_NS);
        }
        store_slowly(round); /* so that the other one's are slow */
        chron__set_release32(&shared->seen, round);
    }
    _exit(0);
}

static void test_no_wake_up_is_lost(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;
    chron__queue q;
    chron__doorbell bell;
    pid_t child;
    int status;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    child = fork();
    if (child == 0)
        sleeper(path);
    open_bell(path, &q, &bell);
    for (uint32_t round = 1; round <= rounds; round++) {
        for (uint32_t i = 0; i < round % SWEEP; i++) /* meet the sleeper at another moment each time */
            chron__pause();
        store_slowly(round);
        chron__set_release32(&shared->sent, round);
        (void)chron__doorbell_ring(&bell);
        while (chron__get_acquire32(&shared->seen) < round)
            if (waitpid(child, &status, WNOHANG) == child)
                CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    (void)waitpid(child, &status, 0);
    chron__doorbell_close(&q, &bell);
    chron__queue_close(&q);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

int main(void)
{
    const char *wanted = getenv("CHRON_BELL_ROUNDS");

    if (wanted)
        rounds = (uint32_t)strtoul(wanted, NULL, 10);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    RUN(test_no_wake_up_is_lost);
    return 0;
}
