/* SPDX-License-Identifier: MIT */
/* merge.c - topic "merge": records of eight sources in order of their timestamps, beside reading each source alone. */
#define _GNU_SOURCE
#include <stdio.h>

#include "bench.h"

#define SEGMENT (64u * MIB)
#define SOURCES 8u
#define BYTES 64u
#define EACH 100000u /* records of a source */
#define BATCH 256

static char paths[SOURCES][4300];

/* Source i has the records i, i + 8, i + 16, ...: none has two in a row, the worst for a merge. */
static void fill(const place *where)
{
    for (uint64_t i = 0; i < SOURCES; i++) {
        chron_writer_options options = {.struct_size = sizeof options, .segment_size = SEGMENT};
        chron_writer *w;

        (void)snprintf(paths[i], sizeof paths[i], "%s-%u", queue_path(where->directory), (unsigned)i);
        must(chron_writer_open(paths[i], &options, &w), "open a writer");
        for (uint64_t at = i; at < SOURCES * EACH; at += SOURCES)
            must(chron_writer_append_at(w, pool_at(at), BYTES, 1, 0, at), "append_at");
        must(chron_writer_close(w), "close");
    }
}

static uint64_t read_each_alone(void)
{
    static chron_view views[BATCH];
    uint64_t sum = 0;

    for (unsigned s = 0; s < SOURCES; s++) {
        chron_reader *r;
        int64_t n;

        must(chron_reader_open(paths[s], NULL, &r), "open a reader");
        while ((n = must(chron_reader_next_batch(r, views, BATCH), "next_batch")) > 0)
            for (int64_t i = 0; i < n; i++)
                sum += payload_word(views[i].payload);
        must(chron_reader_close(r), "close");
    }
    return sum;
}

static uint64_t merge_all(void)
{
    static chron_merged batch[BATCH];
    uint64_t sum = 0;
    uint64_t at = 0;
    chron_merge *m;
    int64_t n;

    must(chron_merge_open(NULL, &m), "open a merge");
    for (unsigned s = 0; s < SOURCES; s++)
        must(chron_merge_add(m, paths[s], NULL), "add a source");
    while ((n = must(chron_merge_next_batch(m, batch, BATCH), "next_batch of a merge")) > 0)
        for (int64_t i = 0; i < n; i++) {
            if (batch[i].record.timestamp_ns != at++)
                die("the merge is not in order");
            sum += payload_word(batch[i].record.payload);
        }
    chron_merge_close(m);
    return sum;
}

void topic_merge(const config *c)
{
    uint64_t (*const ways[])(void) = {read_each_alone, merge_all};
    const char *const names[] = {"next_batch, each alone", "merged"};
    samples value[2] = {{.count = 0}, {.count = 0}};
    place where[PLACES];

    places_of(c, where);
    report_section("merge", "million records a second out of 8 queues, opening them included; neighbours of the order "
                            "never lie in the same queue");
    fill(&where[0]);
    pin(0);
    for (unsigned round = 0; round < (c->quick ? 4u : 10u); round++)
        for (int i = 0; i < 2; i++) {
            uint64_t start = now_ns();
            uint64_t sum = ways[i]();

            if (round)
                samples_add(&value[i], SOURCES * EACH / ((double)(now_ns() - start) / 1e3));
            check_sum(names[i], sum, 0, (uint64_t)SOURCES * EACH);
        }
    unpin();
    for (unsigned i = 0; i < SOURCES; i++)
        directory_delete(paths[i]);
    for (int i = 0; i < 2; i++)
        report_row(&(row){.name = names[i],
                          .where = where[0].name,
                          .distance = "",
                          .unit = "M/s",
                          .bytes = BYTES,
                          .value = samples_spread(&value[i]),
                          .value_goal = i ? 5.0 : 0.0});
}
