/* SPDX-License-Identifier: MIT */
/*
 * append.c - topic "append": one record at a time. Warm: into memory that is present, beside the raw loop. Sustained:
 * over many segments with the keeper, whose fresh pages are what costs; beside the raw loop on warm memory. Reused: the same in
 * a bounded queue, beside the warm append.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "bench.h"
#include "write/writer.h" /* to have a segment's pages present: no caller can ask for that */

#define WARM_SEGMENT (64u * MIB)
#define WARM_CHUNK (3u * MIB)
#define SUSTAINED_SEGMENT (32u * MIB)
#define BOUNDED_SEGMENT (16u * MIB) /* three of them fit into a processor's cache, or nearly */
#define COMMIT_EVERY (1u * MIB)

static void append_at(chron_writer *w, uint64_t seq, uint64_t count, unsigned bytes)
{
    for (uint64_t end = seq + count; seq < end; seq++)
        must(chron_writer_append_at(w, pool_at(seq), bytes, 1, 0, seq), "append_at");
}

static void append_now(chron_writer *w, uint64_t seq, uint64_t count, unsigned bytes)
{
    for (uint64_t end = seq + count; seq < end; seq++)
        must(chron_writer_append(w, pool_at(seq), bytes, 1, 0), "append");
}

static double per_record(uint64_t since, uint64_t count)
{
    return (double)(now_ns() - since) / (double)count;
}

static void row_of(const char *name, const place *where, unsigned bytes, const samples *value, const samples *limit,
                   double goal)
{
    row r = {.name = name, .where = where->name, .distance = "", .unit = "ns", .bytes = bytes, .ratio_goal = goal};

    r.value = samples_spread(value);
    if (limit)
        r.ratio = ratio_of(value, limit);
    report_row(&r);
}

/* Rounds over one warm segment each; fills *raw and *given for what follows. */
static void warm(const config *c, const place *where, unsigned bytes, samples *raw, samples *given)
{
    uint64_t count = WARM_CHUNK / record_bytes(bytes);
    samples clocked = {.count = 0};
    raw_log log = raw_open(where->directory, "chronbench.raw", WARM_SEGMENT);
    chron_writer *w = queue_new(where->directory, WARM_SEGMENT, 0);
    unsigned rounds = c->quick ? 5 : 9;
    uint8_t *at = log.base;
    uint64_t seq = 0;

    raw_touch(log.base, log.bytes);
    raw_touch(w->seg->map.base, w->seg->map.bytes);
    chron__set64(&w->seg->touched, w->seg->size); /* so that the writer does not prepare them once more */
    for (unsigned round = 0; round < rounds + 1; round++, seq += 2 * count) {
        uint64_t start = now_ns();

        at = raw_append(at, seq, count, bytes);
        if (round) /* the first one warms up */
            samples_add(raw, per_record(start, count));
        start = now_ns();
        append_at(w, seq, count, bytes);
        if (round)
            samples_add(given, per_record(start, count));
        start = now_ns();
        append_now(w, seq + count, count, bytes);
        if (round)
            samples_add(&clocked, per_record(start, count));
    }
    must(chron_writer_close(w), "close");
    raw_close(&log);
    queue_delete(where->directory);
    row_of("raw loop, warm (the limit)", where, bytes, raw, NULL, 0);
    row_of("append, given timestamp, warm", where, bytes, given, raw, 1.5);
    row_of("append, reads the clock, warm", where, bytes, &clocked, raw, 0);
}

static void sustained(const config *c, const place *where, unsigned bytes, const samples *raw)
{
    uint64_t total = (c->quick ? 128u : 320u) * (uint64_t)MIB;
    uint64_t count = total / record_bytes(bytes);
    samples value = {.count = 0};
    samples limit = {.count = 0};
    chron_writer_stats stats = {.struct_size = sizeof stats};
    uint64_t unprepared = 0;
    uint64_t rolls = 0;

    for (unsigned round = 0; round < (c->quick ? 2u : 3u); round++) {
        chron_writer *w = queue_new(where->directory, SUSTAINED_SEGMENT, CHRON_KEEPER);
        uint64_t start = now_ns();

        append_at(w, 0, count, bytes);
        samples_add(&value, per_record(start, count));
        samples_add(&limit, samples_spread(raw).median);
        must(chron_writer_stats_get(w, &stats), "stats");
        unprepared += stats.rolls_unprepared;
        rolls += stats.rolls;
        must(chron_writer_close(w), "close");
    }
    queue_delete(where->directory);
    row_of("append, given timestamp, sustained", where, bytes, &value, &limit, 3.0);
    if (unprepared)
        report_note("%llu of %llu rolls found no prepared segment", (unsigned long long)unprepared,
                    (unsigned long long)rolls);
}

/*
 * In a bounded queue, after its first rounds: files of deleted segments are used again. A reader is always at the end, and
 * commits once a MiB; it reads nothing, for there are two processors, and the keeper wants one.
 */
static void bounded(const config *c, const place *where, unsigned bytes, const samples *given)
{
    chron_retention retention = {.struct_size = sizeof retention, .automatic = 1};
    chron_writer_options options = {.struct_size = sizeof options, .flags = CHRON_KEEPER | CHRON_REUSE};
    chron_reader_options reading = {.struct_size = sizeof reading, .name = "end"};
    chron_writer_stats stats = {.struct_size = sizeof stats};
    uint64_t step = COMMIT_EVERY / record_bytes(bytes);
    uint64_t steps = BOUNDED_SEGMENT / COMMIT_EVERY * (c->quick ? 8u : 20u);
    samples value = {.count = 0};
    samples limit = {.count = 0};
    chron_reader *r;
    chron_writer *w;
    uint64_t seq = 0;

    queue_delete(where->directory);
    options.segment_size = BOUNDED_SEGMENT;
    options.retention = &retention;
    must(chron_writer_open(queue_path(where->directory), &options, &w), "open");
    must(chron_reader_open(queue_path(where->directory), &reading, &r), "open");
    for (unsigned round = 0; round < (c->quick ? 3u : 4u); round++) {
        uint64_t start = now_ns();

        for (uint64_t i = 0; i < steps; i++, seq += step) {
            append_at(w, seq, step, bytes);
            must(chron_reader_seek(r, seq), "seek");
            must(chron_reader_commit(r, 0), "commit");
        }
        if (round == 0) /* fresh pages, most of them */
            continue;
        samples_add(&value, per_record(start, steps * step));
        samples_add(&limit, samples_spread(given).median);
    }
    must(chron_writer_stats_get(w, &stats), "stats");
    must(chron_reader_close(r), "close");
    must(chron_writer_close(w), "close");
    queue_delete(where->directory);
    row_of("append, given timestamp, reused", where, bytes, &value, &limit, bytes < 1024 ? 1.3 : 1.4);
    report_note("of %llu rolls %llu went to a file that was used before, %llu found no segment ready",
                (unsigned long long)stats.rolls, (unsigned long long)stats.reused_segments,
                (unsigned long long)stats.rolls_unprepared);
}

void topic_append(const config *c)
{
    place where[PLACES];

    places_of(c, where);
    report_section("append", "nanoseconds a record, one call each; \"of raw\" is to the raw loop on warm memory");
    for (int p = 0; p < PLACES; p++)
        for (int i = 0; i < PAYLOAD_SIZES; i++) {
            samples raw = {.count = 0};
            samples given = {.count = 0};

            pin(0);
            warm(c, &where[p], payload_sizes[i], &raw, &given);
            unpin(); /* the keeper wants the other processor */
            sustained(c, &where[p], payload_sizes[i], &raw);
            bounded(c, &where[p], payload_sizes[i], &given);
        }
}
