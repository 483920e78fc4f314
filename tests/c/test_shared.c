/* SPDX-License-Identifier: MIT */
/*
 * test_shared.c - several writers that take turns: real processes, killed at each step of joining, appending, rolling, preparing,
 * syncing and leaving, and the state that they leave repaired by another one. A record is (who, count): afterwards each
 * writer's counts are dense and in order, what was acknowledged is there, and a batch is whole or not there at all.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "base/step.h"
#include "temporary.h"

#define WRITERS 4
#define NAMES_MAX 80

typedef struct item {
    uint32_t who;
    uint32_t size; /* of its batch */
    uint64_t count;
    uint8_t rest[]; /* up to the payload's length, all `who` */
} item;

static char path[TEMPORARY_BYTES];
static uint64_t segment_bytes = CHRON_SEGMENT_SIZE_MIN;

/* Mapped by all. */
static struct shared {
    volatile uint64_t acked[64];
    volatile uint32_t step;
    char names[NAMES_MAX][48];
    volatile uint32_t reached[NAMES_MAX];
    volatile uint32_t name_count;
} *all;

static chron_writer *open_shared(uint32_t durability, int *status)
{
    chron_writer_options o = {.struct_size = sizeof o, .flags = CHRON_SHARED, .segment_size = segment_bytes};
    chron_writer *w = NULL;

    o.durability = durability;
    o.lock_wait_ns = 2000000000;
    o.turn_timeout_ns = 2000000000;
    *status = chron_writer_open(path, &o, &w);
    return w;
}

static chron_writer *must_open(uint32_t durability)
{
    int status;
    chron_writer *w = open_shared(durability, &status);

    if (status < 0)
        fprintf(stderr, "%s\n", chron_last_error()->text);
    CHECK_EQ(status, 0);
    return w;
}

/* ------------------------------------------------------------------------------------------- writing */

static uint8_t buffers[8][4096];

static chron_record make(uint32_t who, uint64_t count, uint32_t size, uint32_t i, size_t length)
{
    item *one = (item *)buffers[i];

    memset(one, (int)who, length);
    one->who = who;
    one->size = size;
    one->count = count;
    return (chron_record){.payload = one, .length = length, .timestamp_ns = CHRON_NOW, .type_id = (uint16_t)who};
}

/* A single record, or a batch, or a claim; tells how many. */
static void append_some(chron_writer *w, uint32_t who, uint32_t *random)
{
    chron_record records[8];
    uint32_t r = (*random = *random * 1103515245u + 12345u) >> 8;
    uint32_t size = r % 3u ? 1 : 1 + (r >> 4) % 8u;
    size_t length = sizeof(item) + (r >> 8) % 600u;
    int64_t seq;
    void *at;

    for (uint32_t i = 0; i < size; i++)
        records[i] = make(who, all->acked[who] + i, size, i, length);
    if (size > 1) {
        seq = chron_writer_append_batch(w, records, size);
    } else if (r % 5u == 0) {
        CHECK_EQ(chron_writer_claim(w, length + 9u, &at), 0);
        memcpy(at, buffers[0], length);
        seq = chron_writer_publish(w, length, (uint16_t)who, 0, CHRON_NOW);
    } else {
        seq = chron_writer_append(w, buffers[0], length, (uint16_t)who, 0);
    }
    if (seq < 0)
        fprintf(stderr, "%s\n", chron_last_error()->text);
    CHECK(seq >= 0);
    all->acked[who] += size;
}

/* ------------------------------------------------------------------------------------------- reading */

/*
 * All of the log: after a death one operation of `dead` may be there that was not acknowledged; it counts from now on. -1: of
 * nobody; -2: of anybody but 1.
 */
static void check_log(int dead)
{
    uint64_t seen[64] = {0};
    uint32_t left = 0;
    uint32_t of = 0;
    chron_reader *r;
    chron_view v;
    int n;

    n = chron_reader_open(path, NULL, &r);
    if (n == -CHRON_ENOQUEUE && all->acked[1] + all->acked[2] == 0)
        return; /* it died at the birth */
    CHECK_EQ(n, 0);
    while ((n = chron_reader_next(r, &v)) == 1) {
        const item *one = v.payload;

        CHECK(v.length >= sizeof *one && one->who < 64);
        CHECK_EQ(one->count, seen[one->who]);
        seen[one->who]++;
        if (left > 0)
            CHECK_EQ(one->who, of);
        else
            left = one->size;
        of = one->who;
        left--;
        for (size_t i = 0; i < v.length - sizeof *one; i++)
            CHECK_EQ(one->rest[i], one->who);
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(left, 0);
    for (int who = 0; who < 64; who++) {
        CHECK(seen[who] >= all->acked[who]);
        if (dead == -2 ? who == 1 : who != dead)
            CHECK_EQ(seen[who], all->acked[who]);
        all->acked[who] = seen[who];
    }
    CHECK_EQ(chron_reader_close(r), 0);
}

static void start_log(void)
{
    temporary_directory(path);
    memset((void *)(uintptr_t)all->acked, 0, sizeof all->acked);
}

/* --------------------------------------------------------------------------------------------- tests */

static void test_alone(void)
{
    uint32_t random = 7;
    chron_recovery recovery = {.struct_size = sizeof recovery};
    chron_writer *w;

    start_log();
    w = must_open(CHRON_DURABILITY_NONE);
    for (int i = 0; i < 2000; i++)
        append_some(w, 1, &random);
    CHECK_EQ(chron_writer_next_seq(w), all->acked[1]);
    CHECK_EQ(chron_writer_close(w), 0);
    check_log(-1);
    CHECK_EQ(chron_writer_open(path, NULL, &w), 0);
    CHECK_EQ(chron_writer_recovery_get(w, &recovery), 0);
    CHECK_EQ(recovery.clean, 1);
    CHECK_EQ(recovery.epoch, 2);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void test_shared_and_exclusive_exclude_each_other(void)
{
    chron_writer *w;
    chron_writer *x;
    chron_writer *y;
    int status;

    start_log();
    w = must_open(CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_open(path, NULL, &x), -CHRON_EWRITER);
    CHECK_EQ(chron_last_error()->pid, getpid());
    CHECK(strstr(chron_last_error()->text, "take turns") != NULL);
    x = must_open(CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(chron_writer_open(path, NULL, &w), -CHRON_EWRITER);
    CHECK_EQ(chron_writer_close(x), 0);
    CHECK_EQ(chron_writer_open(path, NULL, &w), 0);
    y = open_shared(CHRON_DURABILITY_NONE, &status);
    CHECK(y == NULL);
    CHECK_EQ(status, -CHRON_EWRITER);
    CHECK_EQ(chron_last_error()->pid, getpid());
    CHECK_EQ(chron_writer_close(w), 0);
    y = must_open(CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_close(y), 0);
    temporary_remove(path);
}

static void test_several_handles_in_turn(void)
{
    uint32_t random = 3;
    chron_writer *w[WRITERS];

    start_log();
    for (int i = 0; i < WRITERS; i++)
        w[i] = must_open(CHRON_DURABILITY_NONE);
    for (int i = 0; i < 4000; i++)
        append_some(w[i % WRITERS], (uint32_t)(i % WRITERS), &random);
    check_log(-1);
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQ(chron_writer_sync(w[i]), 0);
    CHECK_EQ(chron_writer_durable_seq(w[0]), chron_writer_next_seq(w[1]) - 1u);
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQ(chron_writer_close(w[i]), 0);
    check_log(-1);
    temporary_remove(path);
}

static void test_other_limits_are_refused(void)
{
    chron_writer_options o = {.struct_size = sizeof o, .flags = CHRON_SHARED, .max_segments = 4};
    chron_writer *w;
    chron_writer *x;

    start_log();
    w = must_open(CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_open(path, &o, &x), -CHRON_EINVAL);
    CHECK(strstr(chron_last_error()->text, "max_segments 0") != NULL);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void test_full(void)
{
    chron_writer_options o = {.struct_size = sizeof o, .flags = CHRON_SHARED, .max_segments = 3};
    uint8_t big[8000] = {0};
    chron_writer *w[2];
    int64_t seq = 0;
    int files = 0;
    char command[TEMPORARY_BYTES + 64];

    start_log();
    o.segment_size = CHRON_SEGMENT_SIZE_MIN;
    for (int i = 0; i < 2; i++)
        CHECK_EQ(chron_writer_open(path, &o, &w[i]), 0);
    for (int i = 0; seq >= 0; i++)
        seq = chron_writer_append(w[i % 2], big, sizeof big, 0, 0);
    CHECK_EQ(seq, -CHRON_EFULL);
    CHECK_EQ(chron_writer_append(w[0], big, sizeof big, 0, 0), -CHRON_EFULL);
    CHECK_EQ(chron_writer_append(w[1], big, sizeof big, 0, 0), -CHRON_EFULL);
    (void)snprintf(command, sizeof command, "test $(ls %s/*.seg | wc -l) = 3", path);
    files = system(command);
    CHECK_EQ(files, 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(chron_writer_close(w[i]), 0);
    temporary_remove(path);
}

/* ------------------------------------------------------------------------------------------- deaths */

static uint32_t die_at;      /* the nth step of all, */
static const char *die_name; /* or of those with this name */

static void count_steps(const char *name)
{
    uint32_t i = 0;

    while (i < all->name_count && strcmp(all->names[i], name) != 0)
        i++;
    if (i == all->name_count && i < NAMES_MAX) {
        (void)snprintf(all->names[i], sizeof all->names[i], "%s", name);
        all->name_count = i + 1u;
    }
    if (die_name && strcmp(name, die_name) != 0)
        return;
    if (++all->step == die_at) {
        if (i < NAMES_MAX)
            all->reached[i]++;
        (void)kill(getpid(), SIGKILL);
    }
}

/* A life with everything in it: joins, appends over a roll, syncs, leaves. */
static void live(uint32_t who, uint32_t seed)
{
    uint32_t random = seed;
    chron_writer *w = must_open(CHRON_DURABILITY_NONE);

    for (int i = 0; i < 6; i++)
        append_some(w, who, &random);
    CHECK_EQ(chron_writer_sync(w), 0);
    for (int i = 0; i < 6; i++)
        append_some(w, who, &random);
    CHECK_EQ(chron_writer_close(w), 0);
}

/* Records of one size, until there has been a roll: what is left of the segment has room for a small one. */
static void fill(uint32_t who, uint32_t seed)
{
    chron_writer *w = must_open(CHRON_DURABILITY_NONE);

    (void)seed;
    for (int i = 0; i < 30; i++) {
        chron_record r = make(who, all->acked[who], 1, 0, 3000);

        CHECK(chron_writer_append(w, r.payload, r.length, (uint16_t)who, 0) >= 0);
        all->acked[who]++;
    }
    CHECK_EQ(chron_writer_close(w), 0);
}

static void (*life)(uint32_t who, uint32_t seed) = live;

static int die_in(uint32_t who, const char *name, uint32_t at, uint32_t seed)
{
    int status;
    pid_t pid;

    all->step = 0;
    pid = fork();
    if (pid == 0) {
        CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
        die_at = at;
        die_name = name;
        chron__on_step = count_steps;
        life(who, seed);
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

static uint32_t going_on = 99;

/* After a death: nothing is lost or half there, and somebody goes on. */
static void go_on(chron_writer *w, int syncs)
{
    chron_writer *own = w ? w : must_open(CHRON_DURABILITY_NONE);

    append_some(own, 1, &going_on);
    check_log(-2);
    if (syncs) {
        CHECK_EQ(chron_writer_sync(own), 0);
        CHECK_EQ(chron_writer_durable_seq(own) + 1u, chron_writer_next_seq(own));
    }
    if (!w)
        CHECK_EQ(chron_writer_close(own), 0);
}

/* Somebody lives meanwhile, and goes on; or nobody does, and the next one recovers. */
static void die_everywhere(int with_company)
{
    chron_writer *w = NULL;
    int died = 1;

    start_log();
    if (with_company)
        w = must_open(CHRON_DURABILITY_NONE);
    for (uint32_t at = 1; died; at += 1u + at / 8u) {
        died = die_in(2, NULL, at, at);
        go_on(w, at % 7u == 0);
    }
    /* Each place by its name: the first time that a life comes there, and a later one. */
    for (uint32_t i = 0; i < all->name_count; i++) {
        const uint32_t before = all->reached[i];

        for (uint32_t seed = 1; seed < 12 && all->reached[i] == before; seed++) {
            (void)die_in(2, all->names[i], seed % 2u ? 1 : 2, i + seed);
            go_on(w, seed == 1 && i % 4u == 0);
        }
    }
    if (with_company)
        CHECK_EQ(chron_writer_close(w), 0);
    check_log(-1);
    temporary_remove(path);
}

static void test_death_at_any_step_in_company(void)
{
    die_everywhere(1);
}

static void test_death_at_any_step_alone(void)
{
    die_everywhere(0);
}

/* Who puts right what a dead one left may die of it as well, at each step; the next one begins again. */
static void test_death_while_mending(void)
{
    static const char *const left[] = {"record: placed",  "batch: hidden", "turn: intent stored", "record: published",
                                       "turn: committed", "roll: begun",   "roll: renamed",       "roll: END written",
                                       "roll: sealed",    "sync: begun",   "next: begun"};

    for (int with_company = 0; with_company < 2; with_company++) {
        chron_writer *w;

        start_log();
        w = must_open(CHRON_DURABILITY_NONE);
        append_some(w, 1, &going_on);
        if (!with_company)
            CHECK_EQ(chron_writer_close(w), 0);
        for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
            for (uint32_t at = 1; at < 16; at += with_company ? 3 : 5) {
                (void)die_in(2, left[i], 1, at); /* most lives come there */
                (void)die_in(3, i > 1 ? NULL : at % 2u ? "mend: zeroed" : "mend: epoch raised", i > 1 ? at : 1, at);

                go_on(with_company ? w : NULL, at % 5u == 0);
            }
        }
        if (with_company)
            CHECK_EQ(chron_writer_close(w), 0);
        temporary_remove(path);
    }
}

/* Nobody sees the end of a segment before there is another one: who does not need the roll appends where it was. */
static void test_death_in_a_roll(void)
{
    static const char *const steps[] = {"roll: begun",       "roll: header written", "roll: renamed",
                                        "roll: END written", "roll: END published",  "roll: sealed",
                                        "roll: done"};

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        chron_writer *w;
        chron_record r;

        start_log();
        w = must_open(CHRON_DURABILITY_NONE);
        life = fill;
        CHECK_EQ(die_in(2, steps[i], 1, 0), 1);
        life = live;
        r = make(1, 0, 1, 0, sizeof(item));
        CHECK_EQ(chron_writer_append(w, r.payload, r.length, 1, 0), (int64_t)all->acked[2]);
        all->acked[1]++;
        check_log(-1);
        CHECK_EQ(chron_writer_close(w), 0);
        temporary_remove(path);
    }
}

static uint64_t epoch_now(void)
{
    chron_recovery recovery = {.struct_size = sizeof recovery};
    chron_writer *w = must_open(CHRON_DURABILITY_NONE);

    CHECK_EQ(chron_writer_recovery_get(w, &recovery), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    return recovery.epoch;
}

/* What was not published is zeroed, and its rear may be on disk: behind it nothing has its epoch. Nothing else raises it. */
static void test_zeroing_raises_the_epoch(void)
{
    static const struct {
        const char *where;
        uint64_t raised;
    } deaths[] = {{"record: placed", 1}, {"record: published", 0}, {"batch: hidden", 1}, {"turn: committed", 0}};

    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        chron_writer *w;
        uint64_t before;

        start_log();
        w = must_open(CHRON_DURABILITY_NONE);
        append_some(w, 1, &going_on);
        before = epoch_now();
        CHECK_EQ(die_in(2, deaths[i].where, 1, 1), 1);
        go_on(w, 0);
        CHECK_EQ(epoch_now() - before, deaths[i].raised);
        CHECK_EQ(chron_writer_close(w), 0);
        temporary_remove(path);
    }
}

/* Who zeroes may die of it, and the next one finds nothing to zero: so the epoch was raised before. */
static void test_the_epoch_is_raised_first(void)
{
    chron_writer *w;
    uint64_t before;

    start_log();
    w = must_open(CHRON_DURABILITY_NONE);
    append_some(w, 1, &going_on);
    before = epoch_now();
    CHECK_EQ(die_in(2, "batch: hidden", 1, 1), 1);
    CHECK_EQ(die_in(3, "mend: zeroed", 1, 1), 1);
    go_on(w, 0);
    CHECK_EQ(epoch_now() - before, 1);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* Each place between two stores that several writers have was died at, here: those of test_turn.c are asked for there. */
static void test_all_steps_were_died_at(void)
{
    static const char *const ours[] = {
        "turn: ", "batch: hidden", "roll: ", "next: ", "mend: ", "join: ", "leave: ", "sync: "};
    uint32_t missing = 0;

    for (uint32_t i = 0; i < all->name_count; i++) {
        int is_ours = 0;

        for (size_t k = 0; k < sizeof ours / sizeof *ours; k++)
            is_ours |= strncmp(all->names[i], ours[k], strlen(ours[k])) == 0;
        if (!is_ours || all->reached[i] || strcmp(all->names[i], "turn: given back, nobody woken") == 0 ||
            strcmp(all->names[i], "turn: slept") == 0 || strcmp(all->names[i], "turn: announced") == 0 ||
            strcmp(all->names[i], "turn: owner is dead") == 0)
            continue;
        fprintf(stderr, "    not died at: %s\n", all->names[i]);
        missing++;
    }
    CHECK_EQ(missing, 0);
}

/* One reader sees all of it, from the beginning, and lets go what it has seen. */
typedef struct watch {
    chron_reader *r;
    uint64_t seen[WRITERS];
    uint32_t left; /* of a batch */
    uint32_t of;
} watch;

/* Up to `end`, and to the end of the batch there: the living go on meanwhile. */
static void read_on(watch *all_seen, uint64_t end)
{
    chron_view v = {.seq = 0};

    while (chron_reader_position(all_seen->r) < end || all_seen->left > 0) {
        CHECK_EQ(chron_reader_next(all_seen->r, &v), 1);
        const item *one = v.payload;

        CHECK(one->who < WRITERS);
        CHECK_EQ(one->count, all_seen->seen[one->who]);
        all_seen->seen[one->who]++;
        if (all_seen->left == 0)
            all_seen->left = one->size;
        else
            CHECK_EQ(one->who, all_seen->of);
        all_seen->of = one->who;
        all_seen->left--;
    }
    CHECK_EQ(chron_reader_commit(all_seen->r, 0), 0);
}

static pid_t start_writer(uint32_t who, uint32_t random)
{
    pid_t pid = fork();
    chron_writer *w;

    if (pid != 0)
        return pid;
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
    w = must_open(CHRON_DURABILITY_NONE);
    for (int n = 1;; n++) {
        append_some(w, who, &random);
        if (n % 8 == 0)
            (void)usleep(200); /* the one who watches has to come after */
        if (n % 5000 == 0) {
            int status = chron_writer_sync(w);

            CHECK(status == 0 || status == -CHRON_ENOTDURABLE); /* in memory */
        }
    }
}

/* CHRON_SHARED_KILLS: so many, and in half of them nobody is left for a moment. */
static void test_many_kills(void)
{
    const char *wish = getenv("CHRON_SHARED_KILLS");
    const long kills = wish ? atol(wish) : 200;
    chron_reader_options o = {.struct_size = sizeof o, .name = "watch", .start = CHRON_START_EARLIEST};
    uint32_t random = 5;
    watch seen = {.r = NULL};
    pid_t pids[WRITERS];
    chron_writer *w;
    long k = 0;

    if (!wish && access("/dev/shm", W_OK) == 0)
        CHECK_EQ(setenv("TMPDIR", "/dev/shm", 1), 0); /* ten times as fast */
    segment_bytes *= 8;
    start_log();
    CHECK_EQ(chron_writer_close(must_open(CHRON_DURABILITY_NONE)), 0);
    CHECK_EQ(chron_reader_open(path, &o, &seen.r), 0);
    for (uint32_t i = 0; i < WRITERS; i++)
        pids[i] = start_writer(i, i);
    while (k < kills) {
        random = random * 1103515245u + 12345u;
        (void)usleep(300u + (random >> 8) % 3000u);
        for (uint32_t i = 0; i < WRITERS; i++) {
            if ((random >> 16) % 16u != 0 && i != (random >> 20) % WRITERS)
                continue; /* one of them; now and then all, so that the next one recovers */
            CHECK_EQ(kill(pids[i], SIGKILL), 0);
            CHECK_EQ(waitpid(pids[i], NULL, 0), pids[i]);
            pids[i] = 0;
            k++;
        }
        w = must_open(CHRON_DURABILITY_NONE);     /* another one, who does not write: recovers if nobody is left */
        read_on(&seen, chron_writer_next_seq(w)); /* what the dead ones published is published, whoever says so */
        for (uint32_t i = 0; i < WRITERS; i++) {
            if (pids[i])
                continue;
            CHECK(seen.seen[i] >= all->acked[i]);
            all->acked[i] = seen.seen[i];
            pids[i] = start_writer(i, random + i);
        }
        CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
        CHECK_EQ(chron_writer_close(w), 0);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        CHECK_EQ(kill(pids[i], SIGKILL), 0);
        CHECK_EQ(waitpid(pids[i], NULL, 0), pids[i]);
    }
    w = must_open(CHRON_DURABILITY_NONE);
    read_on(&seen, chron_writer_next_seq(w));
    CHECK_EQ(chron_writer_close(w), 0);
    for (uint32_t i = 0; i < WRITERS; i++)
        CHECK(seen.seen[i] >= all->acked[i]);
    printf("    %ld kills, %" PRIu64 " records\n", k, seen.seen[0] + seen.seen[1] + seen.seen[2] + seen.seen[3]);
    CHECK_EQ(chron_reader_close(seen.r), 0);
    temporary_remove(path);
}

int main(void)
{
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(all != MAP_FAILED);
    (void)alarm(getenv("CHRON_SHARED_KILLS") ? 3600 : 300);
    if (getenv("CHRON_SHARED_KILLS")) {
        RUN(test_many_kills);
        return 0;
    }
    RUN(test_alone);
    RUN(test_shared_and_exclusive_exclude_each_other);
    RUN(test_several_handles_in_turn);
    RUN(test_other_limits_are_refused);
    RUN(test_full);
    RUN(test_death_at_any_step_in_company);
    RUN(test_death_at_any_step_alone);
    RUN(test_death_while_mending);
    RUN(test_death_in_a_roll);
    RUN(test_zeroing_raises_the_epoch);
    RUN(test_the_epoch_is_raised_first);
    RUN(test_all_steps_were_died_at);
    RUN(test_many_kills);
    return 0;
}
