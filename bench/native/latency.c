/* SPDX-License-Identifier: MIT */
/*
 * latency.c - topic "latency": how long one record takes, as percentiles. Open loop: record i is due at start + i *
 * interval, whatever happened to those before it, and its latency counts from when it was due. So a stall is charged to
 * every record that it held up, not only to the one that met it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define BYTES 64u
#define SEGMENT (16u * MIB)
#define SECONDS 3u
#define SECONDS_QUICK 1u

static const unsigned rates[] = {100000, 1000000}; /* records a second */
#define RATES 2

/* When record i is due, and what time it is, in ticks since `start`. */
typedef struct schedule {
    uint64_t start;
    double ticks_each;
} schedule;

static schedule schedule_of(unsigned rate)
{
    return (schedule){.start = ticks(), .ticks_each = 1e9 / rate / ns_per_tick()};
}

static uint64_t due(const schedule *s, uint64_t i)
{
    return s->start + (uint64_t)((double)i * s->ticks_each);
}

static double late_ns(const schedule *s, uint64_t i)
{
    return (double)(int64_t)(ticks() - due(s, i)) * ns_per_tick();
}

static void append_one(chron_writer *w, uint64_t i)
{
    must(chron_writer_append(w, pool_at(i), BYTES, 1, 0), "append");
}

static uint64_t records_of(const config *c, unsigned rate)
{
    return (uint64_t)rate * (c->quick ? SECONDS_QUICK : SECONDS);
}

/* The same loop with nothing in it: what the machine itself stalls. */
static void nothing(const config *c, unsigned rate)
{
    uint64_t count = records_of(c, rate);
    histogram *h = histogram_new();
    schedule s = schedule_of(rate);

    for (uint64_t i = 0; i < count; i++) {
        while (ticks() < due(&s, i))
            spin_pause();
        histogram_add(h, late_ns(&s, i));
    }
    report_curve("nothing: the machine's own stalls", "", rate, 0, h);
    free(h);
}

static void appends(const config *c, const place *where, unsigned rate)
{
    uint64_t count = records_of(c, rate);
    histogram *h = histogram_new();
    chron_writer *w = queue_new(where->directory, SEGMENT, CHRON_KEEPER);
    schedule s = schedule_of(rate);

    for (uint64_t i = 0; i < count; i++) {
        while (ticks() < due(&s, i))
            spin_pause();
        append_one(w, i);
        histogram_add(h, late_ns(&s, i));
    }
    must(chron_writer_close(w), "close");
    queue_delete(where->directory);
    report_curve("append, one thread and the keeper", where->name, rate, BYTES, h);
    free(h);
}

/* ---------------------------------------------------------------------------------------- round trip */

static chron_reader *open_other(const char *path)
{
    chron_reader *r;

    while (chron_reader_open(path, NULL, &r) < 0)
        sleep_us(1000); /* the other side has not made it yet */
    return r;
}

static chron_writer *open_own(const char *path)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    options.segment_size = 4u * SEGMENT;
    options.flags = CHRON_KEEPER;
    must(chron_writer_open(path, &options, &w), "open a writer");
    return w;
}

static _Noreturn void echo(const char *there, const char *back, uint64_t count)
{
    chron_writer *w = open_own(back);
    chron_reader *r = open_other(there);
    chron_view v;

    for (uint64_t i = 0; i < count; i++) {
        while (must(chron_reader_next(r, &v), "next") == 0)
            spin_pause();
        must(chron_writer_append(w, v.payload, v.length, 1, 0), "append");
    }
    must(chron_reader_close(r), "close");
    must(chron_writer_close(w), "close");
    _exit(0);
}

static void send_and_receive(chron_writer *w, chron_reader *r, unsigned rate, uint64_t count, histogram *h)
{
    schedule s = schedule_of(rate);
    uint64_t sent = 0;

    for (uint64_t received = 0; received < count;) {
        chron_view v;

        if (sent < count && ticks() >= due(&s, sent))
            append_one(w, sent++);
        if (must(chron_reader_next(r, &v), "next") == 1)
            histogram_add(h, late_ns(&s, received++));
    }
}

static void round_trips(const config *c, const place *where, unsigned rate)
{
    uint64_t count = records_of(c, rate);
    histogram *h = histogram_new();
    char paths[2][4200];
    chron_writer *w;
    chron_reader *r;
    pid_t child;
    int status;

    for (int i = 0; i < 2; i++)
        (void)snprintf(paths[i], sizeof paths[i], "%s-%d", queue_path(where->directory), i);
    child = fork();
    if (child == 0)
        echo(paths[0], paths[1], count);
    w = open_own(paths[0]);
    r = open_other(paths[1]);
    sleep_us(20000); /* until the other side is there as well */
    send_and_receive(w, r, rate, count, h);
    if (waitpid(child, &status, 0) != child || status != 0)
        die("the other process failed");
    must(chron_reader_close(r), "close");
    must(chron_writer_close(w), "close");
    for (int i = 0; i < 2; i++)
        directory_delete(paths[i]);
    report_curve("round trip, two processes", where->name, rate, BYTES, h);
    free(h);
}

void topic_latency(const config *c)
{
    place where[PLACES];

    places_of(c, where);
    report_section_of_curves("latency",
                             "nanoseconds from when a record was due (open loop) until it was appended, or came back");
    for (int i = 0; i < RATES; i++)
        nothing(c, rates[i]);
    for (int p = 0; p < PLACES; p++)
        for (int i = 0; i < RATES; i++) {
            appends(c, &where[p], rates[i]);
            if (processors() > 1)
                round_trips(c, &where[p], rates[i]);
        }
}
