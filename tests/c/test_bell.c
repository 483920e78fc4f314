/* SPDX-License-Identifier: MIT */
/*
 * test_bell.c - no wake-up is lost: two processes hand a number to and fro as fast as they can, one ringing, one
 * sleeping whenever there is nothing. Without any of the fences of doorbell.h and .c a ring and an announcement miss each
 * other in the end, and the sleeper stays down for its whole five seconds. All of it three times: as the kernel offers
 * it, in a sandbox without membarrier(2), and with only the sleeper in one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

/* For this process and its children: membarrier(2) fails with EPERM, as in a container that does not know it. */
static void forbid_membarrier(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof rules / sizeof *rules, .filter = rules};

    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
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

/* Nobody rings. Who cannot be sure to be seen does not wait for it. */
static void wake_by_oneself(const char *path)
{
    chron__queue q;
    chron__doorbell bell;
    uint64_t before = chron__monotonic_ns();

    open_bell(path, &q, &bell);
    if (chron__load_relaxed32(bell.map.base + CHRON__BELL_FENCE)) {
        CHECK(!chron__doorbell_works(&bell));
        CHECK_EQ(chron__doorbell_sleep(&bell, chron__doorbell_announce(&bell), SLEEP_NS), 0);
        CHECK(chron__monotonic_ns() - before < TOO_LONG_NS);
    }
    chron__doorbell_close(&q, &bell);
    chron__queue_close(&q);
}

/* The writer's side, as chron__doorbell_create() has settled it when the queue was opened. */
static void ringer(const char *path, int is_light, pid_t child)
{
    chron__queue q;
    chron__doorbell bell;
    int status;

    open_bell(path, &q, &bell);
    bell.is_light = chron__load_relaxed32(bell.map.base + CHRON__BELL_FENCE);
    CHECK_EQ(bell.is_light, (unsigned)is_light);
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
}

static void hand_to_and_fro(int is_light, int is_sleeper_sandboxed)
{
    char path[TEMPORARY_BYTES];
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;
    pid_t child;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    chron__set32(&shared->sent, 0);
    chron__set32(&shared->seen, 0);
    child = fork();
    if (child == 0) {
        if (is_sleeper_sandboxed) {
            forbid_membarrier();
            wake_by_oneself(path);
        }
        sleeper(path);
    }
    ringer(path, is_light, child);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void test_no_wake_up_is_lost(void)
{
    hand_to_and_fro(chron__membarrier_join() == 0, 0);
}

static void test_nor_by_a_sleeper_that_may_not_fence(void)
{
    rounds /= 100; /* it polls: a millisecond each */
    hand_to_and_fro(chron__membarrier_join() == 0, 1);
    rounds *= 100;
}

/* The last one: there is no way out of a sandbox. */
static void test_nor_where_the_writer_has_to(void)
{
    forbid_membarrier();
    hand_to_and_fro(0, 0);
}

int main(void)
{
    const char *wanted = getenv("CHRON_BELL_ROUNDS");

    if (wanted)
        rounds = (uint32_t)strtoul(wanted, NULL, 10);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    RUN(test_no_wake_up_is_lost);
    RUN(test_nor_by_a_sleeper_that_may_not_fence);
    RUN(test_nor_where_the_writer_has_to);
    return 0;
}
