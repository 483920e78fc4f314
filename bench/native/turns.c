/* SPDX-License-Identifier: MIT */
/*
 * turns.c - topic "turns": what it costs that a writer shares its log. One alone that shares beside one that does not, and
 * several processes at once. Over fresh segments with the keeper, whose pages are part of the figure.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define BYTES 64u
#define SEGMENT (64u * MIB)
#define BATCH 32u
#define WRITERS 4u
#define RECORDS (WRITERS * BATCH * 8192u) /* a round */

static chron_writer *open_one(const char *path, uint32_t flags)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    options.segment_size = SEGMENT;
    options.flags = flags | CHRON_KEEPER;
    options.lock_wait_ns = 5000000000;
    must(chron_writer_open(path, &options, &w), "open a writer");
    return w;
}

static void append_all(chron_writer *w, uint64_t count, unsigned batch)
{
    chron_record records[BATCH];

    for (unsigned i = 0; i < BATCH; i++)
        records[i] = (chron_record){.payload = pool_at(i), .length = BYTES, .timestamp_ns = CHRON_NOW, .type_id = 1};
    for (uint64_t i = 0; i < count; i += batch) {
        if (batch == 1)
            must(chron_writer_append(w, pool_at(i), BYTES, 1, 0), "append");
        else
            must(chron_writer_append_batch(w, records, batch), "append a batch");
    }
}

/* Millions of records a second. */
static double rate_of(uint64_t since, uint64_t until)
{
    return (double)RECORDS * 1000.0 / (double)(until - since);
}

static double alone(const char *path, uint32_t flags, unsigned batch)
{
    chron_writer *w;
    uint64_t start;
    double rate;

    directory_delete(path);
    w = open_one(path, flags);
    start = now_ns();
    append_all(w, RECORDS, batch);
    rate = rate_of(start, now_ns());
    must(chron_writer_close(w), "close");
    return rate;
}

/* Mapped by all. */
typedef struct meeting {
    uint32_t here;
    uint32_t go;
    uint64_t done_ns[WRITERS];
} meeting;

static _Noreturn void take_part(const char *path, meeting *m, unsigned who, unsigned batch)
{
    chron_writer *w;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        die("prctl failed");
    w = open_one(path, CHRON_SHARED);
    (void)__atomic_add_fetch(&m->here, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&m->go, __ATOMIC_ACQUIRE))
        sleep_us(100);
    append_all(w, RECORDS / WRITERS, batch);
    m->done_ns[who] = now_ns();
    must(chron_writer_close(w), "close");
    _exit(0);
}

static double together(const char *path, unsigned batch)
{
    meeting *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[WRITERS];
    uint64_t start;
    uint64_t end = 0;
    chron_writer *w;
    int status;

    if (m == MAP_FAILED)
        die("mmap failed");
    directory_delete(path);
    for (unsigned who = 0; who < WRITERS; who++) {
        children[who] = fork();
        if (children[who] == 0)
            take_part(path, m, who, batch);
    }
    while (__atomic_load_n(&m->here, __ATOMIC_ACQUIRE) < WRITERS)
        sleep_us(1000);
    start = now_ns();
    __atomic_store_n(&m->go, 1, __ATOMIC_RELEASE);
    for (unsigned who = 0; who < WRITERS; who++) {
        if (waitpid(children[who], &status, 0) != children[who] || status != 0)
            die("a writer failed");
        end = m->done_ns[who] > end ? m->done_ns[who] : end;
    }
    w = open_one(path, 0);
    if (chron_writer_next_seq(w) != RECORDS)
        die("records are missing");
    must(chron_writer_close(w), "close");
    (void)munmap(m, sizeof *m);
    return rate_of(start, end);
}

static void row_of(const char *name, const place *where, const samples *value, const samples *limit, double goal)
{
    row r = {.name = name, .where = where->name, .distance = "", .unit = "M/s", .bytes = BYTES, .value_goal = goal};

    r.value = samples_spread(value);
    if (limit)
        r.ratio = ratio_of(value, limit);
    report_row(&r);
}

static void turns_of(const config *c, const place *where, unsigned batch)
{
    const int single = batch == 1;
    samples exclusive = {.count = 0};
    samples shared = {.count = 0};
    samples several = {.count = 0};
    char path[4096];

    (void)snprintf(path, sizeof path, "%s", queue_path(where->directory)); /* of this process, for all of them */
    for (unsigned round = 0; round < (c->quick ? 3u : 9u); round++) {
        samples_add(&exclusive, alone(path, 0, batch));
        samples_add(&shared, alone(path, CHRON_SHARED, batch));
        samples_add(&several, together(path, batch));
    }
    directory_delete(path);
    row_of(single ? "append, exclusive (the limit)" : "32 at once, exclusive (the limit)", where, &exclusive, NULL, 0);
    row_of(single ? "append, shared, alone" : "32 at once, shared, alone", where, &shared, &exclusive, 0);
    row_of(single ? "append, four processes" : "32 at once, four processes", where, &several, &exclusive,
           single ? 6.0 : 20.0);
}

void topic_turns(const config *c)
{
    place where[PLACES];

    places_of(c, where);
    report_section("turns", "millions of records a second, of all writers; the ratio is to an exclusive writer's");
    for (int p = 0; p < PLACES; p++) {
        turns_of(c, &where[p], 1);
        turns_of(c, &where[p], BATCH);
    }
}
