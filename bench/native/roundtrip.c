/* SPDX-License-Identifier: MIT */
/*
 * roundtrip.c - topic "roundtrip": a 64-byte record to another process and one back, both spinning. Three loops in
 * turn: a bare cache line to and fro, the raw log's records, the library's. The two processors of a virtual machine
 * are at times near each other and at times far; the bare loop of the same turn tells which, and only like is
 * compared with like.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define BYTES 64u
#define ROUNDS 4000u /* of one turn and loop */
#define SEGMENT (256u * MIB)
#define NEAR_NS 180.0

typedef struct lines {
    _Atomic uint32_t there;
    uint8_t apart[252];
    _Atomic uint32_t back;
} lines;

typedef struct side {
    uint8_t *put;
    const uint8_t *get;
    chron_writer *writer;
    chron_reader *reader;
    uint64_t seq;
} side;

static void wait_for(_Atomic uint32_t *word, uint32_t value)
{
    while (atomic_load_explicit(word, memory_order_acquire) != value)
        continue;
}

static void bare(lines *shared, uint32_t from, int first)
{
    for (uint32_t i = from; i < from + ROUNDS; i++) {
        if (first)
            atomic_store_explicit(&shared->there, i, memory_order_release);
        wait_for(first ? &shared->back : &shared->there, i);
        if (!first)
            atomic_store_explicit(&shared->back, i, memory_order_release);
    }
}

static void raw_get_one(side *s)
{
    size_t length;

    while (!raw_get(s->get, s->seq, &length))
        continue;
    s->get += record_bytes(BYTES);
}

static void raw_put_one(side *s)
{
    raw_put(s->put, s->seq, s->seq, pool_at(s->seq), BYTES);
    s->put += record_bytes(BYTES);
}

static void queue_get_one(side *s)
{
    chron_view v;

    while (must(chron_reader_next(s->reader, &v), "next") == 0)
        continue;
    if (v.seq != s->seq)
        die("seq %llu came instead of %llu", (unsigned long long)v.seq, (unsigned long long)s->seq);
}

static void queue_put_one(side *s)
{
    must(chron_writer_append_at(s->writer, pool_at(s->seq), BYTES, 1, 0, s->seq), "append_at");
}

static void exchange(side *s, int first, void (*put)(side *), void (*get)(side *))
{
    for (uint32_t i = 0; i < ROUNDS; i++, s->seq++) {
        if (first)
            put(s);
        get(s);
        if (!first)
            put(s);
    }
}

/* One turn of all three; returns nanoseconds a round trip in ns[3]. */
static void turn(lines *shared, uint32_t number, side *raw, side *queue, int first, double ns[3])
{
    uint64_t start = now_ns();
    uint64_t between;

    bare(shared, number * ROUNDS + 1u, first);
    between = now_ns();
    ns[0] = (double)(between - start) / ROUNDS;
    exchange(raw, first, raw_put_one, raw_get_one);
    start = now_ns();
    ns[1] = (double)(start - between) / ROUNDS;
    exchange(queue, first, queue_put_one, queue_get_one);
    ns[2] = (double)(now_ns() - start) / ROUNDS;
}

static side open_side(const char *const paths[2], int first)
{
    side s = {.seq = 0};
    chron_writer_options options = {.struct_size = sizeof options};

    options.segment_size = SEGMENT;
    options.flags = CHRON_KEEPER;
    must(chron_writer_open(paths[first ? 0 : 1], &options, &s.writer), "open a writer");
    while (chron_reader_open(paths[first ? 1 : 0], NULL, &s.reader) < 0)
        sleep_us(1000); /* the other side has not made it yet */
    return s;
}

static void other_side(lines *shared, raw_log logs[2], const char *const paths[2], unsigned turns)
{
    side raw = {.put = logs[1].base, .get = logs[0].base};
    side queue = open_side(paths, 0);
    double ns[3];

    pin(1);
    for (unsigned i = 0; i < turns; i++)
        turn(shared, i, &raw, &queue, 0, ns);
    must(chron_reader_close(queue.reader), "close");
    must(chron_writer_close(queue.writer), "close");
    _exit(0);
}

static void rows(const char *distance, const samples value[3])
{
    static const char *const names[] = {"bare cache line", "raw records", "append and next"};

    if (value[0].count == 0)
        return;
    for (int i = 0; i < 3; i++) {
        row r = {.name = names[i], .where = "shm", .distance = distance, .unit = "ns", .bytes = i ? BYTES : 0};

        r.value = samples_spread(&value[i]);
        if (i == 2) {
            r.ratio = ratio_of(&value[2], &value[1]);
            r.ratio_goal = 1.2;
        }
        report_row(&r);
    }
}

void topic_roundtrip(const config *c)
{
    static samples value[2][3]; /* near, far */
    unsigned turns = c->quick ? 60u : 200u;
    char paths_of[2][4200];
    const char *const paths[2] = {paths_of[0], paths_of[1]};
    raw_log logs[2];
    lines *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    side raw, queue;
    pid_t child;
    int status;

    report_section("roundtrip", "nanoseconds for a record there and one back, both processes spinning");
    if (shared == MAP_FAILED || processors() < 2) {
        report_note("needs two processors");
        return;
    }
    queue_delete(c->shm);
    for (int i = 0; i < 2; i++) {
        logs[i] = raw_open(c->shm, i ? "chronbench.pong" : "chronbench.ping", (size_t)turns * ROUNDS * 96u + 4096u);
        raw_touch(logs[i].base, logs[i].bytes);
        (void)snprintf(paths_of[i], sizeof paths_of[i], "%s-%d", queue_path(c->shm), i);
    }
    child = fork();
    if (child == 0)
        other_side(shared, logs, paths, turns);
    raw = (side){.put = logs[0].base, .get = logs[1].base};
    queue = open_side(paths, 1);
    pin(0);
    for (unsigned i = 0; i < turns; i++) {
        double ns[3];

        turn(shared, i, &raw, &queue, 1, ns);
        for (int k = 0; k < 3 && i > 1; k++)
            samples_add(&value[ns[0] > NEAR_NS][k], ns[k]);
    }
    unpin();
    if (waitpid(child, &status, 0) != child || status != 0)
        die("the other process failed");
    must(chron_reader_close(queue.reader), "close");
    must(chron_writer_close(queue.writer), "close");
    for (int i = 0; i < 2; i++) {
        raw_close(&logs[i]);
        directory_delete(paths[i]);
    }
    rows("near", value[0]);
    rows("far", value[1]);
    (void)munmap(shared, 4096);
}
