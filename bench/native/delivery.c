/* SPDX-License-Identifier: MIT */
/*
 * delivery.c - topic "delivery": how long a record takes from when it was due in one process to when another one has it,
 * checked, as percentiles over --seconds. Open loop: record i is due at start + i * interval, carries that time, and its
 * latency counts from it, so that a stall is charged to all that it held up. The log is on a disk, bounded by automatic
 * retention, and its reader commits its position each thousand records. Before each,
 * for as long and at the same rate, a loop that does nothing: what the machine itself stalls.
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
#define SEGMENTS_KEPT 8u
#define COMMIT_EVERY 1000u
#define SECONDS 3u
#define SECONDS_QUICK 1u

static const unsigned rates[] = {100000, 1000000}; /* records a second */

/* What both processes see. */
typedef struct shared {
    histogram took;
    uint64_t wrong; /* records that are not what was sent */
} shared;

static double ns_since(uint64_t due)
{
    return (double)(int64_t)(ticks() - due) * ns_per_tick();
}

/* Ends when it has all of them. */
static _Noreturn void receive(const char *path, uint64_t count, shared *seen, int ready)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = "bench"};
    chron_reader *r;
    chron_view v;

    pin(1);
    must(chron_reader_open(path, &options, &r), "open a reader");
    if (write(ready, "r", 1) != 1)
        die("the pipe broke");
    for (uint64_t i = 0; i < count;) {
        if (must(chron_reader_next(r, &v), "next") == 0) {
            spin_pause();
            continue;
        }
        histogram_add(&seen->took, ns_since(payload_word(v.payload)));
        seen->wrong +=
            v.seq != i || v.length != BYTES || memcmp((const uint8_t *)v.payload + 8, pool_at(i) + 8, BYTES - 8u) != 0;
        if (++i % COMMIT_EVERY == 0)
            must(chron_reader_commit(r, 0), "commit");
    }
    must(chron_reader_close(r), "close");
    _exit(0);
}

static void send_all(chron_writer *w, unsigned rate, uint64_t count)
{
    const double ticks_each = 1e9 / rate / ns_per_tick();
    const uint64_t start = ticks();
    uint8_t payload[BYTES];

    for (uint64_t i = 0; i < count; i++) {
        uint64_t due = start + (uint64_t)((double)i * ticks_each);

        memcpy(payload, pool_at(i), BYTES);
        memcpy(payload, &due, sizeof due);
        while (ticks() < due)
            spin_pause();
        must(chron_writer_append(w, payload, BYTES, 1, 0), "append");
    }
}

static void nothing(unsigned rate, uint64_t count)
{
    histogram *h = histogram_new();
    const double ticks_each = 1e9 / rate / ns_per_tick();
    const uint64_t start = ticks();

    for (uint64_t i = 0; i < count; i++) {
        uint64_t due = start + (uint64_t)((double)i * ticks_each);

        while (ticks() < due)
            spin_pause();
        histogram_add(h, ns_since(due));
    }
    report_curve("nothing: the machine's own stalls", "", rate, 0, h);
    free(h);
}

static chron_writer *bounded_writer(const char *directory)
{
    chron_retention retention = {.struct_size = sizeof retention, .max_segments = SEGMENTS_KEPT, .automatic = 1};
    chron_writer_options options = {
        .struct_size = sizeof options, .segment_size = SEGMENT, .flags = CHRON_KEEPER, .retention = &retention};
    chron_writer *w;

    queue_delete(directory);
    must(chron_writer_open(queue_path(directory), &options, &w), "open a writer");
    return w;
}

static void deliver(const place *where, unsigned rate, uint64_t count)
{
    shared *seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    chron_writer *w = bounded_writer(where->directory);
    char path[4200];
    int ends[2];
    int status;
    char ready;
    pid_t child;

    (void)snprintf(path, sizeof path, "%s", queue_path(where->directory));
    if (seen == MAP_FAILED || pipe(ends) < 0)
        die("no memory, or no pipe");
    child = fork();
    if (child == 0)
        receive(path, count, seen, ends[1]);
    close(ends[1]);
    if (read(ends[0], &ready, 1) != 1)
        die("the other process failed");
    close(ends[0]);
    send_all(w, rate, count);
    if (waitpid(child, &status, 0) != child || status != 0 || seen->wrong)
        die("the other process failed, or got something else than was sent");
    must(chron_writer_close(w), "close");
    queue_delete(where->directory);
    report_curve("append to next, two processes", where->name, rate, BYTES, &seen->took);
    munmap(seen, sizeof *seen);
}

void topic_delivery(const config *c)
{
    unsigned seconds = c->seconds ? c->seconds : c->quick ? SECONDS_QUICK : SECONDS;
    place where[PLACES];

    places_of(c, where);
    report_section_of_curves("delivery",
                             "nanoseconds from when a record was due (open loop) until another process had it, "
                             "checked; bounded log, committing reader");
    if (processors() < 2) {
        report_note("two processors are wanted");
        return;
    }
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        uint64_t count = (uint64_t)rates[i] * seconds;

        nothing(rates[i], count);
        deliver(&where[0], rates[i], count);
    }
    report_note("each over %u s; the writer has a keeper, and %u segments of %u MiB are kept", seconds, SEGMENTS_KEPT,
                SEGMENT / MIB);
}
