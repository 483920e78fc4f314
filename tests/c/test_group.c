/* SPDX-License-Identifier: MIT */
/*
 * test_group.c - groups of workers: what a receipt is good for, and a worker that dies at every named step, beside another one that
 * lives, or before the next one comes. CHRON_GROUP_ALL=1 tries every occurrence of every step, not the first and one in the middle.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "base/format.h"
#include "base/step.h"
#include "small_writer.h"
#include "temporary.h"

#define JOBS 40
#define STEPS_MAX 20000
#define MS 1000000u

static char path[TEMPORARY_BYTES];

typedef struct progress {
    volatile uint64_t steps;
    volatile uint64_t kill_at;
    volatile uint8_t acked[JOBS];   /* 1: about to be; 2: it was */
    volatile uint8_t started[JOBS]; /* deliveries that somebody saw */
    char names[STEPS_MAX][40];
} progress;

static progress *shared;

static void on_step(const char *name)
{
    uint64_t n = ++shared->steps;

    if (shared->kill_at == 0 && n < STEPS_MAX)
        (void)snprintf(shared->names[n], sizeof shared->names[n], "%s", name);
    if (n == shared->kill_at)
        raise(SIGKILL);
}

static void make_queue(int count)
{
    chron_writer *w = small_writer(path, 0, 0);
    char payload[3000] = {0};

    for (int i = 0; i < count; i++) {
        (void)snprintf(payload, sizeof payload, "job %d", i);
        CHECK_EQ(chron_writer_append(w, payload, 2000, 7, 3), i);
    }
    CHECK_EQ(chron_writer_close(w), 0);
}

static chron_group *join_with(const char *name, chron_group_options options)
{
    chron_group *g;
    int status;

    options.struct_size = sizeof options;
    if (!options.window)
        options.window = 64;
    status = chron_group_open(path, name, &options, &g);
    if (status < 0)
        fprintf(stderr, "%s\n", chron_last_error()->text);
    CHECK_EQ(status, 0);
    return g;
}

static chron_group *join(void)
{
    return join_with("work", (chron_group_options){.max_deliveries = 2});
}

static chron_job take_one(chron_group *g)
{
    chron_job job = {.struct_size = sizeof job};

    CHECK_EQ(chron_group_take(g, &job, 1), 1);
    return job;
}

static uint64_t committed(const char *name)
{
    chron_reader_info readers[4] = {{.struct_size = sizeof readers[0]}};
    int64_t n = chron_queue_readers(path, readers, 4);

    for (int64_t i = 0; i < n; i++)
        if (strcmp(readers[i].name, name) == 0)
            return readers[i].position;
    return CHRON_SEQ_NONE;
}

static void test_jobs_are_shared_out(void)
{
    chron_group *a;
    chron_group *b;
    chron_job job = {.struct_size = sizeof job};
    chron_job jobs[8] = {{.struct_size = sizeof jobs[0]}};

    temporary_directory(path);
    make_queue(20);
    a = join();
    b = join();
    CHECK_EQ(take_one(a).seq, 0);
    job = take_one(b);
    CHECK_EQ(job.seq, 1);
    CHECK_EQ(job.delivery, 1);
    CHECK_STR(job.payload, "job 1");
    CHECK_EQ(job.type_id, 7);
    CHECK_EQ(chron_group_take(b, jobs, 8), 8);
    CHECK_EQ(jobs[7].seq, 9);
    CHECK_STR(jobs[7].payload, "job 9");
    CHECK_EQ(chron_group_ack(b, job.seq, job.receipt, 0), 0);
    CHECK_EQ(chron_group_ack(b, job.seq, job.receipt, 0), -CHRON_ESTALE);
    CHECK_EQ(chron_group_ack(a, jobs[0].seq, jobs[0].receipt, 0), -CHRON_ESTALE); /* another member's */
    CHECK_EQ(chron_group_nack(b, jobs[0].seq, jobs[0].receipt, 0), 0);
    job = take_one(a);
    CHECK_EQ(job.seq, 2);
    CHECK_EQ(job.delivery, 2);
    CHECK_EQ(chron_group_ack(b, jobs[0].seq, jobs[0].receipt, 0), -CHRON_ESTALE);
    CHECK_EQ(chron_group_close(b), 0); /* 3 to 9 come back, one by one */
    for (uint64_t seq = 3; seq < 10; seq++) {
        CHECK_EQ(chron_group_take(a, jobs, 8), 1);
        CHECK_EQ(jobs[0].seq, seq);
        CHECK_EQ(jobs[0].delivery, 2);
        CHECK_EQ(chron_group_ack(a, seq, jobs[0].receipt, 0), 0);
    }
    CHECK_EQ(chron_group_close(a), 0); /* 0 and 2 are not done */
    CHECK_EQ(committed("work"), 0);
    temporary_remove(path);
}

static void test_leases_and_delays(void)
{
    chron_group *a;
    chron_group *b;
    chron_job job;
    chron_job again = {.struct_size = sizeof again};

    temporary_directory(path);
    make_queue(3);
    a = join_with("work", (chron_group_options){.lease_ns = 30 * MS});
    b = join_with("work", (chron_group_options){.lease_ns = 0});
    job = take_one(a);
    CHECK_EQ(chron_group_extend(a, job.seq, job.receipt, 40 * MS), 0);
    CHECK_EQ(take_one(b).seq, 1);
    CHECK_EQ(take_one(b).seq, 2);
    CHECK_EQ(chron_group_take(b, &again, 1), 0);
    CHECK_EQ(chron_group_wait(b, -1), 1);
    again = take_one(b);
    CHECK_EQ(again.seq, 0);
    CHECK_EQ(again.delivery, 2);
    CHECK_EQ(chron_group_ack(a, job.seq, job.receipt, 0), -CHRON_ESTALE);
    CHECK_EQ(chron_group_extend(a, job.seq, job.receipt, MS), -CHRON_ESTALE);
    CHECK_EQ(chron_group_nack(a, job.seq, job.receipt, MS), -CHRON_ESTALE);
    CHECK_EQ(chron_group_nack(b, again.seq, again.receipt, 20 * MS), 0);
    CHECK_EQ(chron_group_take(b, &again, 1), 0);
    CHECK_EQ(chron_group_wait(b, -1), 1);
    CHECK_EQ(take_one(b).delivery, 3);
    CHECK_EQ(chron_group_release(b, 0), 0);
    CHECK_EQ(chron_group_release(b, 0), -CHRON_ERANGE);
    CHECK_EQ(take_one(a).delivery, 4);
    CHECK_EQ(chron_group_close(a), 0);
    CHECK_EQ(chron_group_close(b), 0);
    temporary_remove(path);
}

static void test_a_full_window(void)
{
    chron_group *g;
    chron_job first;
    chron_job job = {.struct_size = sizeof job};

    temporary_directory(path);
    make_queue(200);
    g = join();
    first = take_one(g);
    for (uint64_t seq = 1; seq < 64; seq++) {
        job = take_one(g);
        CHECK_EQ(job.seq, seq);
        CHECK_EQ(chron_group_ack(g, job.seq, job.receipt, 0), 0);
    }
    CHECK_EQ(chron_group_take(g, &job, 1), -CHRON_EWINDOW);
    CHECK_EQ(chron_last_error()->seq, 0);
    CHECK_EQ(chron_group_wait(g, 10 * MS), 0);
    CHECK_EQ(chron_group_ack(g, first.seq, first.receipt, 1), 0);
    for (uint64_t seq = 64; seq < 200; seq++) { /* twice through the cells */
        job = take_one(g);
        CHECK_EQ(job.seq, seq);
        CHECK_EQ(job.delivery, 1);
        CHECK_EQ(chron_group_ack(g, job.seq, job.receipt, 0), 0);
    }
    CHECK_EQ(chron_group_ack(g, 2, first.receipt, 0), -CHRON_ESTALE);
    CHECK_EQ(chron_group_take(g, &job, 1), 0);
    CHECK_EQ(committed("work"), 200);
    CHECK_EQ(chron_group_close(g), 0);
    temporary_remove(path);
}

static int64_t key_of(void *context, const chron_view *view)
{
    (void)context;
    return (int64_t)(view->seq % 3u);
}

static void test_keys_keep_order(void)
{
    chron_group *g;
    chron_job jobs[8] = {{.struct_size = sizeof jobs[0]}};
    chron_job none = {.struct_size = sizeof none};
    chron_group *plain;
    const chron_group_options options = {.struct_size = sizeof options};

    temporary_directory(path);
    make_queue(30);
    g = join_with("work", (chron_group_options){.key = key_of});
    CHECK_EQ(chron_group_open(path, "work", &options, &plain), -CHRON_EINVAL);
    CHECK_EQ(chron_group_take(g, jobs, 8), 3); /* 0, 1, 2: all others are behind one of these */
    CHECK_EQ(chron_group_take(g, &none, 1), 0);
    CHECK_EQ(chron_group_ack(g, 1, jobs[1].receipt, 0), 0);
    CHECK_EQ(chron_group_wait(g, 0), 1);
    CHECK_EQ(take_one(g).seq, 4);
    CHECK_EQ(chron_group_nack(g, 0, jobs[0].receipt, 0), 0);
    CHECK_EQ(take_one(g).seq, 0); /* not 3 */
    CHECK_EQ(chron_group_close(g), 0);
    temporary_remove(path);
}

static chron_group *slow;
static chron_job late;
static int late_status;

static void ack_late(const char *name)
{
    if (strcmp(name, "group: about to reserve") != 0 || !slow)
        return;
    late_status = chron_group_ack(slow, late.seq, late.receipt, 0);
    slow = NULL;
}

/* Its lease has ended, and was judged so, when it acknowledges. */
static void test_an_owner_acknowledges_while_it_is_judged(void)
{
    const struct timespec pause = {0, 5 * MS};
    chron_group *a;
    chron_group *b;
    chron_job job = {.struct_size = sizeof job};

    temporary_directory(path);
    make_queue(1);
    a = join_with("work", (chron_group_options){.lease_ns = MS});
    b = join();
    late = take_one(a);
    slow = a;
    (void)nanosleep(&pause, NULL);
    chron__on_step = ack_late;
    CHECK_EQ(chron_group_take(b, &job, 1), 0);
    chron__on_step = NULL;
    CHECK(!slow);
    CHECK_EQ(late_status, 0);
    CHECK_EQ(chron_group_take(b, &job, 1), 0);
    CHECK_EQ(chron_group_close(b), 0);
    CHECK_EQ(chron_group_close(a), 0);
    CHECK_EQ(committed("work"), 1);
    temporary_remove(path);
}

/* ---------------------------------------------------------------------------------- dead letters, deaths */

/* How many letters of a job there are in the dead queue. */
static int letters_of(uint64_t seq)
{
    char dead[TEMPORARY_BYTES + 8];
    char wanted[32];
    chron_reader *r;
    chron_view view;
    int count = 0;

    (void)snprintf(dead, sizeof dead, "%s.dead", path);
    (void)snprintf(wanted, sizeof wanted, "\"seq\":%" PRIu64 ",", seq);
    if (chron_reader_open(dead, NULL, &r) == -CHRON_ENOQUEUE)
        return 0;
    while (chron_reader_next(r, &view) == 1)
        if (view.type_id == CHRON_TYPE_MAX && memmem(view.payload, view.length, wanted, strlen(wanted)))
            count++;
    CHECK_EQ(chron_reader_close(r), 0);
    return count;
}

static void remove_dead(void)
{
    char command[3 * TEMPORARY_BYTES + 64];

    (void)snprintf(command, sizeof command, "rm -rf '%s.dead' '%s/groups' '%s/readers'", path, path, path);
    CHECK_EQ(system(command), 0);
}

static void see(const chron_job *job)
{
    CHECK(shared->acked[job->seq] != 2); /* an acknowledged one is never handed out again */
    CHECK(job->delivery == shared->started[job->seq] + 1u || job->delivery == shared->started[job->seq] + 2u);
    shared->started[job->seq] = (uint8_t)job->delivery;
}

static void ack(chron_group *g, const chron_job *job)
{
    shared->acked[job->seq] = 1;
    CHECK_EQ(chron_group_ack(g, job->seq, job->receipt, job->seq % 8u == 0), 0);
    shared->acked[job->seq] = 2;
}

/* What the one who dies does: everything. */
static void work(void)
{
    chron_group *g = join();
    chron_job jobs[3] = {{.struct_size = sizeof jobs[0]}};
    int64_t n;
    int turn = 0;

    while ((n = chron_group_take(g, jobs, 3)) > 0)
        for (int64_t i = 0; i < n; i++, turn++) {
            see(&jobs[i]);
            if (turn % 9 == 4)
                CHECK_EQ(chron_group_nack(g, jobs[i].seq, jobs[i].receipt, 0), 0);
            else if (turn % 9 == 5)
                CHECK_EQ(chron_group_nack(g, jobs[i].seq, jobs[i].receipt, 1), 0);
            else if (turn % 9 == 6)
                CHECK_EQ(chron_group_release(g, jobs[i].seq), 0);
            else if (turn % 18 == 7)
                CHECK_EQ(chron_group_reject(g, jobs[i].seq, jobs[i].receipt, "no \"good\"\n"), 0);
            else
                ack(g, &jobs[i]);
        }
    CHECK_EQ(n, 0);
    CHECK_EQ(chron_group_close(g), 0);
}

/* Another one does all the rest. */
static void finish(chron_group *g)
{
    chron_group_info info = {.struct_size = sizeof info};

    do {
        chron_job job = {.struct_size = sizeof job};
        int64_t n = chron_group_take(g, &job, 1);

        if (n < 0)
            fprintf(stderr, "%s\n", chron_last_error()->text);
        CHECK(n >= 0);
        if (n == 1) {
            see(&job);
            ack(g, &job);
        } else {
            CHECK(chron_group_wait(g, 20 * MS) >= 0);
        }
        CHECK_EQ(chron_queue_groups(path, &info, 1), 1);
    } while (info.floor < JOBS);
}

static void die_at(uint64_t step, int beside)
{
    chron_group *g = NULL;
    pid_t child;
    int status;

    remove_dead();
    memset(shared, 0, offsetof(progress, names));
    shared->kill_at = step;
    if (beside)
        g = join();
    child = fork();
    if (child == 0) {
        chron__on_step = on_step;
        work();
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)); /* 0: it took fewer steps this time */
    if (!g)
        g = join();
    finish(g);
    CHECK_EQ(chron_group_close(g), 0);
    for (uint64_t seq = 0; seq < JOBS; seq++) {
        int letters = letters_of(seq);

        CHECK(letters <= 1);
        CHECK(shared->acked[seq] > 0 || letters == 1);
        CHECK(shared->acked[seq] != 2 || letters == 0);
    }
}

/* Is it the first with its name, or the one in the middle of all of that name? */
static int is_chosen(uint64_t step, uint64_t steps)
{
    uint64_t before = 0;
    uint64_t all = 0;

    for (uint64_t i = 1; i <= steps; i++)
        if (strcmp(shared->names[i], shared->names[step]) == 0) {
            before += i < step;
            all++;
        }
    if (strncmp(shared->names[step], "group", 5) == 0)
        return before == 0 || before == all / 2u;
    return before == 0 && strncmp(shared->names[step], "turn", 4) == 0; /* other files have tests of their own */
}

static void test_deaths_at_every_step(void)
{
    uint64_t steps;
    uint64_t tried = 0;

    if (access("/dev/shm", W_OK) == 0)
        CHECK_EQ(setenv("TMPDIR", "/dev/shm", 1), 0); /* deaths of processes, not of disks: nothing waits for one */
    temporary_directory(path);
    make_queue(JOBS);
    die_at(0, 0);
    steps = shared->steps;
    CHECK(steps > 100 && steps < STEPS_MAX);
    for (uint64_t step = 1; step < steps; step++)
        if (getenv("CHRON_GROUP_ALL") || is_chosen(step, steps)) {
            die_at(step, 0);
            die_at(step, 1);
            tried++;
        }
    CHECK(tried > 20);
    printf("    %" PRIu64 " of %" PRIu64 " steps\n", tried, steps);
    remove_dead();
    temporary_remove(path);
}

int main(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    RUN(test_jobs_are_shared_out);
    RUN(test_leases_and_delays);
    RUN(test_a_full_window);
    RUN(test_keys_keep_order);
    RUN(test_an_owner_acknowledges_while_it_is_judged);
    RUN(test_deaths_at_every_step);
    return 0;
}
