/* SPDX-License-Identifier: MIT */
/*
 * stream.c - topic "stream": one process appends 64-byte records as fast as it can, another reads all of them in
 * batches at the same time. The time is from the first append to the last record read.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define BYTES 64u
#define BATCH 512

static void consume(const char *path, uint64_t count, int out)
{
    static chron_view views[BATCH];
    chron_reader *r;
    uint64_t sum = 0;
    uint64_t seen = 0;
    uint64_t end;

    must(chron_reader_open(path, NULL, &r), "open a reader");
    if (write(out, "r", 1) != 1) /* ready */
        die("the pipe broke");
    while (seen < count) {
        int64_t n = must(chron_reader_next_batch(r, views, BATCH), "next_batch");

        for (int64_t i = 0; i < n; i++)
            sum += payload_word(views[i].payload);
        seen += (uint64_t)n;
        if (n == 0)
            spin_pause();
    }
    end = now_ns();
    check_sum("the other process", sum, 0, count);
    if (write(out, &end, sizeof end) != sizeof end)
        die("the pipe broke");
    _exit(0);
}

static double one_round(const place *where, uint64_t count)
{
    chron_writer *w = queue_new(where->directory, CHRON_SEGMENT_SIZE_DEFAULT, CHRON_KEEPER);
    char path[4200];
    uint64_t start;
    uint64_t end;
    char ready;
    int ends[2];
    int status;
    pid_t child;

    (void)snprintf(path, sizeof path, "%s", queue_path(where->directory));
    if (pipe(ends) < 0)
        die("no pipe");
    child = fork();
    if (child == 0)
        consume(path, count, ends[1]);
    if (read(ends[0], &ready, 1) != 1)
        die("the other process failed");
    start = now_ns();
    for (uint64_t i = 0; i < count; i++)
        must(chron_writer_append_at(w, pool_at(i), BYTES, 1, 0, i), "append_at");
    if (read(ends[0], &end, sizeof end) != sizeof end || waitpid(child, &status, 0) != child || status != 0)
        die("the other process failed");
    close(ends[0]);
    close(ends[1]);
    must(chron_writer_close(w), "close");
    queue_delete(where->directory);
    return (double)count / ((double)(end - start) / 1e9) / 1e6;
}

void topic_stream(const config *c)
{
    uint64_t count = c->quick ? 2000000u : 6000000u;
    place where[PLACES];

    places_of(c, where);
    report_section("stream", "million 64-byte records a second from one process to another, over several segments");
    for (int p = PLACES - 1; p >= 0; p--) {
        samples value = {.count = 0};

        for (unsigned round = 0; round < (c->quick ? 3u : 7u); round++)
            samples_add(&value, one_round(&where[p], count));
        report_row(&(row){.name = "append to next_batch",
                          .where = where[p].name,
                          .distance = "",
                          .unit = "M/s",
                          .bytes = BYTES,
                          .value = samples_spread(&value),
                          .value_goal = 25.0});
    }
}
