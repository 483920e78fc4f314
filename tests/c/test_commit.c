/* SPDX-License-Identifier: MIT */
/* test_commit.c - a commit of less than the position: where the next reader resumes. */
#define _GNU_SOURCE
#include "check.h"
#include "chronicle.h"
#include "records.h"
#include "small_writer.h"
#include "temporary.h"

#define RECORDS 300u /* several segments of them */

static void fill(const char *path, uint64_t from, uint64_t to)
{
    uint8_t payload[RECORD_PAYLOAD_MAX];
    chron_writer *w = small_writer(path, 0, CHRON_DURABILITY_NONE);

    for (uint64_t seq = from; seq < to; seq++)
        CHECK_EQ(chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq), (int64_t)seq);
    CHECK_EQ(chron_writer_close(w), 0);
}

static chron_reader *resume(const char *path, uint32_t start, uint64_t seq)
{
    chron_reader_options options = {
        .struct_size = sizeof options, .name = "me", .start = start, .start_value = seq, .on_gap = CHRON_GAP_OLDEST};
    chron_reader *r;

    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
    return r;
}

static void take(chron_reader *r, uint64_t count)
{
    chron_view v;

    while (count-- > 0)
        CHECK_EQ(chron_reader_next(r, &v), 1);
}

/* From every position, every seq that may be committed: the next reader begins there. */
static void test_every_seq_up_to_the_position(void)
{
    char path[TEMPORARY_BYTES];
    chron_segment_info segments[8] = {{.struct_size = sizeof segments[0]}};

    temporary_directory(path);
    fill(path, 0, RECORDS);
    CHECK(chron_queue_segments(path, segments, 8) >= 3);
    for (uint64_t upto = 0; upto <= RECORDS; upto++) {
        chron_reader *r = resume(path, CHRON_START_EARLIEST, 0);
        chron_view v;

        take(r, upto + (RECORDS - upto) * (upto % 4u) / 3u);
        CHECK_EQ(chron_reader_commit_upto(r, upto, (int)(upto % 2u)), 0);
        CHECK_EQ(chron_reader_committed(r), upto);
        CHECK_EQ(chron_reader_close(r), 0);
        r = resume(path, CHRON_START_RESUME, 0);
        CHECK_EQ(chron_reader_position(r), upto);
        if (upto < RECORDS) {
            CHECK_EQ(chron_reader_next(r, &v), 1);
            CHECK_EQ(v.seq, upto);
        }
        CHECK_EQ(chron_reader_close(r), 0);
    }
    temporary_remove(path);
}

static void test_what_lies_elsewhere_is_refused(void)
{
    char path[TEMPORARY_BYTES];
    chron_reader *r;

    temporary_directory(path);
    fill(path, 0, RECORDS);
    r = resume(path, CHRON_START_EARLIEST, 0);
    take(r, 100);
    CHECK_EQ(chron_reader_commit_upto(r, 101, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_commit_upto(r, CHRON_SEQ_NONE, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_committed(r), CHRON_SEQ_NONE);
    CHECK_EQ(chron_reader_commit_upto(r, 50, 0), 0);
    CHECK_EQ(chron_reader_commit_upto(r, 49, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_commit_upto(r, 50, 0), 0);
    CHECK_EQ(chron_reader_commit_upto(r, 100, 0), 0);
    CHECK_EQ(chron_reader_commit_upto(r, 99, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_committed(r), 100u);
    CHECK_EQ(chron_reader_position(r), 100u);
    /* Who goes back may commit less than before, as with a plain commit. */
    CHECK_EQ(chron_reader_seek(r, 20), 0);
    CHECK_EQ(chron_reader_commit_upto(r, 30, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_commit_upto(r, 10, 0), 0);
    CHECK_EQ(chron_reader_committed(r), 10u);
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    take(r, 10);
    CHECK_EQ(chron_reader_commit_upto(r, 5, 0), -CHRON_EREADONLY);
    CHECK_EQ(chron_reader_close(r), 0);
    temporary_remove(path);
}

/* What was deleted since has no fingerprint any more; the position counts all the same. */
static void test_behind_a_record_that_was_deleted(void)
{
    char path[TEMPORARY_BYTES];
    char name[TEMPORARY_BYTES + 40];
    chron_segment_info segments[8] = {{.struct_size = sizeof segments[0]}};
    chron_reader *r;

    temporary_directory(path);
    fill(path, 0, RECORDS);
    CHECK(chron_queue_segments(path, segments, 8) >= 3);
    r = resume(path, CHRON_START_EARLIEST, 0);
    take(r, RECORDS);
    (void)snprintf(name, sizeof name, "%s/%020" PRIu64 ".seg", path, segments[0].base_seq);
    CHECK_EQ(remove(name), 0);
    CHECK_EQ(chron_reader_commit_upto(r, 5, 0), 0);
    CHECK_EQ(chron_reader_commit_upto(r, segments[1].base_seq, 0), 0);
    CHECK_EQ(chron_reader_close(r), 0);
    r = resume(path, CHRON_START_RESUME, 0);
    CHECK_EQ(chron_reader_position(r), segments[1].base_seq);
    CHECK_EQ(chron_reader_close(r), 0);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_every_seq_up_to_the_position);
    RUN(test_what_lies_elsewhere_is_refused);
    RUN(test_behind_a_record_that_was_deleted);
    return 0;
}
