/* SPDX-License-Identifier: MIT */
/* read.c - topic "read": records that are there, with the CRC check; one by one and in batches, beside a raw loop. */
#define _GNU_SOURCE
#include <stdio.h>

#include "bench.h"

#define SEGMENT (64u * MIB)
#define FILL (24u * MIB)
#define BATCH 256

static uint64_t read_singly(chron_reader *r, uint64_t count)
{
    uint64_t sum = 0;
    chron_view v;

    while (count--) {
        if (must(chron_reader_next(r, &v), "next") == 0)
            die("the log ended early");
        sum += payload_word(v.payload);
    }
    return sum;
}

static uint64_t read_in_batches(chron_reader *r, uint64_t count)
{
    static chron_view views[BATCH];
    uint64_t sum = 0;

    while (count > 0) {
        int64_t n = must(chron_reader_next_batch(r, views, count < BATCH ? (size_t)count : BATCH), "next_batch");

        if (n == 0)
            die("the log ended early");
        for (int64_t i = 0; i < n; i++)
            sum += payload_word(views[i].payload);
        count -= (uint64_t)n;
    }
    return sum;
}

static void row_of(const char *name, const place *where, unsigned bytes, const samples *value, const samples *limit)
{
    row r = {.name = name, .where = where->name, .distance = "", .unit = "ns", .bytes = bytes};

    r.value = samples_spread(value);
    if (limit) {
        r.ratio = ratio_of(value, limit);
        r.ratio_goal = 1.5;
    }
    report_row(&r);
}

static void one_size(const config *c, const place *where, unsigned bytes)
{
    uint64_t count = FILL / record_bytes(bytes);
    chron_writer *w = queue_new(where->directory, SEGMENT, 0);
    uint64_t (*const ways[])(chron_reader *, uint64_t) = {read_singly, read_in_batches};
    const char *const names[] = {"next", "next_batch"};
    samples raw = {.count = 0};
    samples value[2] = {{.count = 0}, {.count = 0}};
    chron_reader *r;
    raw_log log;
    char path[4200];

    for (uint64_t i = 0; i < count; i++)
        must(chron_writer_append_at(w, pool_at(i), bytes, 1, 0, i), "append_at");
    (void)snprintf(path, sizeof path, "%s/%020u.seg", queue_path(where->directory), 0u);
    log = raw_map_file(path);
    r = queue_reader(where->directory);
    for (unsigned round = 0; round < (c->quick ? 4u : 10u); round++) {
        uint64_t start = now_ns();
        uint64_t sum = raw_read(log.base + 8192u, 0, count);

        if (round)
            samples_add(&raw, (double)(now_ns() - start) / (double)count);
        check_sum("raw loop", sum, 0, count);
        for (int i = 0; i < 2; i++) {
            must(chron_reader_seek(r, 0), "seek");
            start = now_ns();
            sum = ways[i](r, count);
            if (round)
                samples_add(&value[i], (double)(now_ns() - start) / (double)count);
            check_sum(names[i], sum, 0, count);
        }
    }
    must(chron_reader_close(r), "close");
    must(chron_writer_close(w), "close");
    raw_close(&log);
    queue_delete(where->directory);
    row_of("raw loop, warm (the limit)", where, bytes, &raw, NULL);
    for (int i = 0; i < 2; i++)
        row_of(names[i], where, bytes, &value[i], &raw);
}

void topic_read(const config *c)
{
    place where[PLACES];

    places_of(c, where);
    report_section("read", "nanoseconds a record, CRC checked, pages present");
    pin(0);
    for (int i = 0; i < PAYLOAD_SIZES; i++)
        one_size(c, &where[0], payload_sizes[i]);
    unpin();
}
