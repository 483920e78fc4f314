/* SPDX-License-Identifier: MIT */
/*
 * test_sources.c - data to append that lies in a mapping of the library whose file is cut short: what can be read there are
 * zeros, and no record may be made of them, whichever call it is, and whether the file went before the call or is missed by it.
 */
#define _GNU_SOURCE
#include "check.h"
#include "chronicle.h"
#include "small_writer.h"
#include "temporary.h"

#define RECORDS 40u
#define LONGEST 8000u
#define SMALL (CHRON_SEGMENT_SIZE_MIN / 2) /* where the file is cut: the first records are in front of it */
#define OUR_TYPE 7

/* A queue with records of one length, and views of them in its mapping. */
typedef struct {
    char path[TEMPORARY_BYTES];
    chron_reader *reader;
    chron_view views[RECORDS];
} lender;

static void lend(lender *l, uint32_t length)
{
    static uint8_t payload[LONGEST];
    chron_writer_options options = {.struct_size = sizeof options, .segment_size = 16 * CHRON_SEGMENT_SIZE_MIN};
    chron_writer *w;

    memset(payload, 0xEE, sizeof payload);
    temporary_directory(l->path);
    CHECK_EQ(chron_writer_open(l->path, &options, &w), 0);
    for (uint64_t i = 0; i < RECORDS; i++)
        CHECK_EQ(chron_writer_append_at(w, payload, length, 0, 0, 1), i);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(chron_reader_open(l->path, NULL, &l->reader), 0);
    CHECK_EQ(chron_reader_next_batch(l->reader, l->views, RECORDS), RECORDS);
}

static void cut_short(const lender *l)
{
    char name[TEMPORARY_BYTES + 40];

    (void)snprintf(name, sizeof name, "%s/%020d.seg", l->path, 0);
    CHECK_EQ(truncate(name, SMALL), 0);
}

static void give_back(lender *l)
{
    CHECK_EQ(chron_reader_close(l->reader), 0);
    CHECK_EQ(chron_guard_faulted(NULL, 0), 0);
    temporary_remove(l->path);
}

typedef int64_t (*append_fn)(chron_writer *w, const chron_view *views, size_t count);

static int64_t one(chron_writer *w, const chron_view *views, size_t count)
{
    return chron_writer_append_at(w, views[count - 1u].payload, views->length, OUR_TYPE, 0, 1);
}

static int64_t try(chron_writer *w, const chron_view *views, size_t count)
{
    return chron_writer_try_append(w, views[count - 1u].payload, views->length, OUR_TYPE, 0, 1);
}

static int64_t batch(chron_writer *w, const chron_view *views, size_t count)
{
    chron_record records[RECORDS];

    for (size_t i = 0; i < count; i++)
        records[i] = (chron_record){.payload = views[i].payload, .length = views[i].length, .type_id = OUR_TYPE};
    return chron_writer_append_batch(w, records, count);
}

static chron_source rows(const chron_view *views)
{
    return (chron_source){.struct_size = sizeof(chron_source),
                          .bytes = views[RECORDS - 1u].payload,
                          .bytes_size = views->length,
                          .row_bytes = views->length / 4u,
                          .type_id = OUR_TYPE,
                          .timestamp_ns = 1};
}

static int64_t source(chron_writer *w, const chron_view *views, size_t count)
{
    chron_source s = rows(views);

    (void)count;
    return chron_writer_append_source(w, &s, 0, 4);
}

static int64_t whole(chron_writer *w, const chron_view *views, size_t count)
{
    chron_source s = rows(views);

    (void)count;
    return chron_writer_append_source_whole(w, &s, 0, 4);
}

/* What can be had of a column there: stamps that would be 0. */
static chron_source stamps(const chron_view *views)
{
    return (chron_source){.struct_size = sizeof(chron_source),
                          .bytes = "abcd",
                          .bytes_size = 4,
                          .row_bytes = 1,
                          .type_id = OUR_TYPE,
                          .timestamps = (const uint64_t *)views[RECORDS - 1u].payload};
}

static int64_t column(chron_writer *w, const chron_view *views, size_t count)
{
    chron_source s = stamps(views);

    (void)count;
    return chron_writer_append_source(w, &s, 0, 4);
}

static int64_t column_of_whole(chron_writer *w, const chron_view *views, size_t count)
{
    chron_source s = stamps(views);

    (void)count;
    return chron_writer_append_source_whole(w, &s, 0, 4);
}

/* Nothing was appended, and nothing stands behind the tail: what comes next is read back. */
static void check_untouched(chron_writer *w, const char *path)
{
    static uint8_t payload[LONGEST];
    chron_reader *r;
    chron_view v;

    CHECK_EQ(chron_writer_next_seq(w), 1);
    CHECK_EQ(chron_writer_append(w, payload, 100, 0, 0), 1);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    CHECK_EQ(chron_reader_next(r, &v), 1);
    CHECK_EQ(chron_reader_next(r, &v), 1);
    CHECK_EQ(v.length, 100);
    CHECK_EQ(chron_reader_next(r, &v), 0);
    CHECK_EQ(chron_reader_close(r), 0);
}

static void append_what_went(append_fn append, uint32_t length, int was_seen)
{
    char path[TEMPORARY_BYTES];
    chron_verify_summary summary = {.struct_size = sizeof summary};
    volatile const uint8_t *last;
    chron_writer *w;
    lender l;

    lend(&l, length);
    temporary_directory(path);
    w = small_writer(path, CHRON_CHECKED, CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_append(w, "first", 5, 0, 0), 0); /* from here on pages are prepared */
    last = (const uint8_t *)l.views[RECORDS - 1u].payload;
    cut_short(&l);
    if (was_seen)
        CHECK_EQ(*last, 0);
    CHECK_EQ(chron_guard_faulted(NULL, 0), was_seen);
    CHECK_EQ(append(w, l.views, RECORDS), -CHRON_EIO);
    CHECK_EQ(append(w, l.views, RECORDS), -CHRON_EIO);
    CHECK_EQ(chron_guard_faulted(NULL, 0), 1);
    CHECK_EQ(chron_guard_faulted(l.views[0].payload, 1), 1); /* of the mapping all is zeros now */
    CHECK_EQ(chron_guard_faulted("elsewhere", 9), 0);
    check_untouched(w, path);
    give_back(&l);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(chron_queue_verify(path, NULL, NULL, &summary), 0);
    CHECK_EQ(summary.problems, 0);
    temporary_remove(path);
}

static void test_every_way_to_append(void)
{
    static const append_fn ways[] = {one, try, source, whole, column, column_of_whole};

    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        append_what_went(ways[i], LONGEST, 0);
        append_what_went(ways[i], LONGEST, 1);
    }
}

/* All of the batch lies in the mapping, and the last record behind what is left of the file. */
static void test_batches(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer *w;
    lender l;

    for (int was_seen = 0; was_seen < 2; was_seen++) {
        lend(&l, 1000);
        temporary_directory(path);
        w = small_writer(path, 0, CHRON_DURABILITY_NONE);
        CHECK_EQ(chron_writer_append(w, "first", 5, 0, 0), 0);
        CHECK_EQ(batch(w, l.views, 2), 1); /* while it was there */
        cut_short(&l);
        if (was_seen)
            CHECK_EQ(*(volatile const uint8_t *)l.views[RECORDS - 1u].payload, 0);
        CHECK_EQ(batch(w, l.views, RECORDS), -CHRON_EIO);
        CHECK_EQ(chron_writer_next_seq(w), 3);
        CHECK_EQ(batch(w, l.views, 2), -CHRON_EIO); /* zeros by now */
        CHECK_EQ(chron_writer_append(w, "next", 4, 0, 0), 3);
        give_back(&l);
        CHECK_EQ(chron_writer_close(w), 0);
        temporary_remove(path);
    }
}

int main(void)
{
    CHECK_EQ(chron_guard_install(), 0);
    RUN(test_every_way_to_append);
    RUN(test_batches);
    return 0;
}
