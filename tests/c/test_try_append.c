/* SPDX-License-Identifier: MIT */
/* test_try_append.c - chron_writer_try_append() appends what needs only copying, and leaves all else as it was. */
#define _GNU_SOURCE
#include "check.h"
#include "chronicle.h"
#include "small_writer.h"
#include "temporary.h"

static int64_t try(chron_writer *w, const void *data, size_t length, uint16_t type_id)
{
    uint64_t next_seq = chron_writer_next_seq(w);
    int64_t seq = chron_writer_try_append(w, data, length, type_id, 7, 5);

    CHECK_EQ(chron_writer_next_seq(w), next_seq + (seq >= 0));
    return seq;
}

static void test_what_is_not_ready(void)
{
    static const uint8_t large[CHRON_SEGMENT_SIZE_MIN];
    char path[TEMPORARY_BYTES];
    chron_writer *w;
    void *claimed;

    temporary_directory(path);
    w = small_writer(path, CHRON_CHECKED, CHRON_DURABILITY_NONE);
    CHECK_EQ(try(w, "x", 1, 0), CHRON_NOT_READY); /* no pages are prepared yet */
    CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), 0);
    CHECK_EQ(try(w, "x", 1, 0), 1);
    CHECK_EQ(try(w, NULL, 0, CHRON_TYPE_MAX), 2);
    CHECK_EQ(try(w, NULL, 1, 0), CHRON_NOT_READY);
    CHECK_EQ(try(w, "x", 1, CHRON_TYPE_MAX + 1), CHRON_NOT_READY);
    CHECK_EQ(try(w, large, sizeof large, 0), CHRON_NOT_READY);
    CHECK_EQ(chron_writer_claim(w, 10, &claimed), 0);
    CHECK_EQ(try(w, "x", 1, 0), CHRON_NOT_READY);
    CHECK_EQ(chron_writer_abort(w), 0);
    CHECK_EQ(try(w, "x", 1, 0), 3);
    CHECK_EQ(chron_writer_shut(w), 0);
    CHECK_EQ(chron_writer_try_append(w, "x", 1, 0, 0, 0), -CHRON_ECLOSED);
    CHECK_EQ(chron_writer_try_append(NULL, "x", 1, 0, 0, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* Over many rolls: try, and do it the other way if that was not ready. Nothing is lost, nothing comes twice. */
static void test_it_and_the_ordinary_append_make_one_log(void)
{
    char path[TEMPORARY_BYTES];
    uint8_t payload[700] = {0};
    uint64_t refused = 0;
    chron_writer *w;
    chron_reader *r;
    chron_view v;

    temporary_directory(path);
    w = small_writer(path, CHRON_CHECKED, CHRON_DURABILITY_NONE);
    for (uint64_t i = 0; i < 2000; i++) {
        size_t length = i * 37 % sizeof payload;
        int64_t seq;

        payload[0] = (uint8_t)i;
        seq = try(w, payload, length, (uint16_t)i);
        if (seq == CHRON_NOT_READY) {
            refused++;
            seq = chron_writer_append_at(w, payload, length, (uint16_t)i, 7, 5);
        }
        CHECK_EQ(seq, i);
    }
    CHECK(refused >= 10 && refused < 100);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    for (uint64_t i = 0; i < 2000; i++) {
        CHECK_EQ(chron_reader_next(r, &v), 1);
        CHECK_EQ(v.seq, i);
        CHECK_EQ(v.length, i * 37 % sizeof payload);
        CHECK_EQ(v.type_id, i);
        CHECK_EQ(v.flags, 7);
        CHECK_EQ(v.timestamp_ns, 5);
        CHECK(v.length == 0 || *(const uint8_t *)v.payload == (uint8_t)i);
    }
    CHECK_EQ(chron_reader_next(r, &v), 0);
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void test_a_sync_that_is_due_is_not_forgotten(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer *w;

    temporary_directory(path);
    w = small_writer(path, CHRON_CHECKED, CHRON_DURABILITY_ALWAYS);
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(try(w, "x", 1, 0), CHRON_NOT_READY);
        CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), i);
        CHECK_EQ(chron_writer_durable_seq(w), i);
    }
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_what_is_not_ready);
    RUN(test_it_and_the_ordinary_append_make_one_log);
    RUN(test_a_sync_that_is_due_is_not_forgotten);
    return 0;
}
