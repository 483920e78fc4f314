/* SPDX-License-Identifier: MIT */
/* test_misuse.c - a C program that holds the API wrong is told so, and nothing outside its structs is read. */
#define _GNU_SOURCE
#include "check.h"
#include "chronicle.h"
#include "temporary.h"

static void test_no_handle(void)
{
    chron_writer_stats writer_stats = {.struct_size = sizeof writer_stats};
    chron_reader_stats reader_stats = {.struct_size = sizeof reader_stats};
    chron_recovery recovery = {.struct_size = sizeof recovery};
    chron_record record = {"x", 1, CHRON_NOW, 0, 0};
    chron_view view;
    void *room;

    CHECK_EQ(chron_writer_append(NULL, "x", 1, 0, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_append_batch(NULL, &record, 1), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_claim(NULL, 1, &room), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_publish(NULL, 1, 0, 0, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_abort(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_sync(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_cleanup(NULL, NULL, NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_wait_room(NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_keeper_start(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_keeper_stop(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_stats_get(NULL, &writer_stats), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_recovery_get(NULL, &recovery), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_close(NULL), 0);
    CHECK_EQ(chron_writer_shut(NULL), 0);
    CHECK_EQ(chron_reader_next(NULL, &view), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_next_copy(NULL, NULL, 0, &view), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_next_batch(NULL, &view, 1), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_previous(NULL, &view), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_wait(NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_commit(NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_seek(NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_seek_time(NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_seek_earliest(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_seek_latest(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_skip_damaged(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_lag(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_writer_alive(NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_stats_get(NULL, &reader_stats), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_close(NULL), 0);
    CHECK_EQ(chron_reader_shut(NULL), 0);
    chron_segment_release(NULL);
}

static void test_no_arguments(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer *w;
    chron_reader *r;

    temporary_directory(path);
    CHECK_EQ(chron_writer_open(NULL, NULL, &w), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_open(path, NULL, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_open(NULL, NULL, &r), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_open(path, NULL, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_info_get(NULL, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_segments(NULL, NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_readers(NULL, NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_reader_remove(NULL, "x"), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_verify(NULL, NULL, NULL, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_cleanup_plan(NULL, NULL, NULL, NULL, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_open(path, NULL, &w), 0);
    CHECK_EQ(chron_writer_append(w, NULL, 1, 0, 0), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_append(w, NULL, 0, 0, 0), 0);
    CHECK_EQ(chron_writer_append(w, "x", SIZE_MAX, 0, 0), -CHRON_ETOOBIG);
    CHECK_EQ(chron_writer_append_batch(w, NULL, 1), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_append_batch(w, NULL, 0), 1);
    CHECK_EQ(chron_writer_claim(w, 1, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_writer_stats_get(w, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_info_get(path, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_segments(path, NULL, 1), -CHRON_EINVAL);
    CHECK_EQ(chron_queue_segments(path, NULL, 0), 1);
    CHECK_EQ(chron_queue_readers(path, NULL, 0), 0);
    CHECK_EQ(chron_queue_reader_remove(path, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    CHECK_EQ(chron_reader_next(r, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_next_copy(r, NULL, 1, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_next_batch(r, NULL, 1), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_previous(r, NULL), -CHRON_EINVAL);
    CHECK_EQ(chron_reader_commit(r, 0), -CHRON_EREADONLY);
    CHECK_EQ(chron_reader_position(r), 0);
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* shut, and shut again, then close: memory goes at the last one. Late calls of a checked handle are refused. */
static void test_late_calls(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer_options options = {.struct_size = sizeof options};
    chron_reader_options reader_options = {.struct_size = sizeof reader_options};
    chron_writer *w;
    chron_reader *r;
    chron_view view;
    void *room;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.flags = CHRON_CHECKED | CHRON_KEEPER;
    reader_options.flags = CHRON_CHECKED;
    reader_options.name = "me";
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    CHECK_EQ(chron_reader_open(path, &reader_options, &r), 0);
    CHECK_EQ(chron_writer_claim(w, 100, &room), 0);
    memset(room, 1, 100);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(chron_writer_shut(w), 0);
        CHECK_EQ(chron_reader_shut(r), 0);
        CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), -CHRON_ECLOSED);
        CHECK_EQ(chron_writer_publish(w, 1, 0, 0, 0), -CHRON_ECLOSED);
        CHECK_EQ(chron_writer_sync(w), -CHRON_ECLOSED);
        CHECK_EQ(chron_reader_next(r, &view), -CHRON_ECLOSED);
        CHECK_EQ(chron_reader_commit(r, 0), -CHRON_ECLOSED);
        CHECK_EQ(chron_writer_next_seq(w), 0);
        CHECK(chron_reader_committed(r) == CHRON_SEQ_NONE);
    }
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK_EQ(chron_reader_close(r), 0);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_no_handle);
    RUN(test_no_arguments);
    RUN(test_late_calls);
    return 0;
}
