/* SPDX-License-Identifier: MIT */
/*
 * exercise.h - what every fuzz target does with the queue it has made: read it forwards, backwards, in batches and
 * around damage, look at it, verify it, open it for writing with repair, append to it, clean it up. Nothing may crash,
 * hang, leak, or give a record that its reader did not check. With FUZZ_REPLAY it is a program that runs the files
 * named, as "make test-c" does, without libFuzzer.
 */
#ifndef EXERCISE_H
#define EXERCISE_H

#include <fcntl.h>
#include <unistd.h>

#include "chronicle.h"
#include "base/endian.h"
#include "base/format.h"
#include "temporary.h"

#define FILE_MAX 65536u
#define SEGMENT_0 "00000000000000000000.seg"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[TEMPORARY_BYTES];

/* The queue that the inputs damage: two segments of 40 records, and the reader "me", which has committed. */
static inline void make_queue(void)
{
    static uint8_t payload[3000];
    chron_writer_options options = {.struct_size = sizeof options};
    chron_reader_options reading = {.struct_size = sizeof reading};
    chron_writer *w;
    chron_reader *r;

    temporary_directory(path);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    for (uint64_t seq = 0; seq < 40; seq++)
        CHECK(chron_writer_append_at(w, payload, seq * 77 % sizeof payload, 1, 0, seq) >= 0);
    CHECK_EQ(chron_writer_close(w), 0);
    reading.name = "me";
    reading.start = CHRON_START_SEQ;
    reading.start_value = 7;
    CHECK_EQ(chron_reader_open(path, &reading, &r), 0);
    CHECK_EQ(chron_reader_commit(r, 0), 0);
    CHECK_EQ(chron_reader_close(r), 0);
}

static inline size_t read_file(const char *name, uint8_t *bytes)
{
    char file[TEMPORARY_BYTES + 128];
    ssize_t size;
    int fd;

    (void)snprintf(file, sizeof file, "%.255s/%.79s", path, name);
    fd = open(file, O_RDONLY);
    CHECK(fd >= 0);
    size = read(fd, bytes, FILE_MAX);
    CHECK(size > 0);
    close(fd);
    return (size_t)size;
}

static inline void write_file(const char *name, const uint8_t *bytes, size_t size)
{
    char file[TEMPORARY_BYTES + 128];
    int fd;

    (void)snprintf(file, sizeof file, "%.255s/%.79s", path, name);
    fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, bytes, size, 0), (ssize_t)size);
    close(fd);
}

/* Segments of 64 GiB are allowed, and would be made: keep those of a fuzzed header below 1 MiB. */
static inline void limit_segment_size(uint8_t *header)
{
    chron__write_le64(header + 48, chron__read_le64(header + 48) & 0xFFFFFu);
}

/* Make the CRCs of the records right that stand in `bytes` from `at` on. */
static inline void repair_records(uint8_t *bytes, size_t size, size_t at)
{
    while (at + 32 <= size) {
        uint32_t commit = chron__read_le32(bytes + at);
        size_t length = commit ? commit - 1u : 0;
        uint32_t crc;

        if (commit == 0 || length > size || at + 32 + length > size)
            break;
        crc = chron_crc32c(0, bytes + at, 4);
        crc = chron_crc32c(chron_crc32c(crc, bytes + at + 8, 24), bytes + at + 32, length);
        chron__write_le32(bytes + at + 4, crc);
        at += (32 + length + 31) / 32 * 32;
    }
}

static inline int remove_extra(const char *file, const struct stat *info, int kind, struct FTW *level)
{
    (void)info;
    (void)level;
    if (kind == FTW_F)
        (void)unlink(file);
    return 0;
}

/* ----------------------------------------------------------------------------------- what is done */

static inline void read_everything(const char *name)
{
    chron_reader_options options = {.struct_size = sizeof options};
    chron_reader *r;
    chron_view v;
    uint64_t last = CHRON_SEQ_NONE;

    options.name = name;
    options.on_gap = name ? CHRON_GAP_OLDEST : CHRON_GAP_ERROR;
    if (chron_reader_open(path, &options, &r) < 0)
        return;
    for (int calls = 0; calls < 3000; calls++) {
        int status = chron_reader_next(r, &v);

        if (status == 0)
            break;
        if (status < 0) {
            if (chron_reader_skip_damaged(r) <= 0)
                break;
            continue;
        }
        CHECK(last == CHRON_SEQ_NONE || v.seq > last);
        CHECK(v.length <= FILE_MAX);
        last = v.seq;
    }
    (void)chron_reader_commit(r, 0);
    for (int calls = 0; calls < 100 && chron_reader_previous(r, &v) == 1; calls++)
        continue;
    (void)chron_reader_seek(r, 3);
    (void)chron_reader_seek_time(r, 20);
    (void)chron_reader_lag(r);
    (void)chron_reader_wait(r, 0);
    (void)chron_reader_close(r);
}

static inline void read_batches(void)
{
    static uint64_t seqs[64];
    static uint64_t offsets[64];
    static uint32_t lengths[64];
    chron_columns columns = {.struct_size = sizeof columns, .seq = seqs, .offset = offsets, .length = lengths};
    chron_segment *segment = NULL;
    chron_view views[16];
    chron_reader *r;
    int64_t count;

    if (chron_reader_open(path, NULL, &r) < 0)
        return;
    while ((count = chron_reader_peek_columns(r, &columns, 64, &segment)) > 0) {
        for (int64_t i = 0; i < count; i++)
            CHECK(offsets[i] + lengths[i] <= chron_segment_size(segment));
        chron_segment_release(segment);
        CHECK_EQ(chron_reader_advance(r, (size_t)count), 0);
    }
    (void)chron_reader_seek_earliest(r);
    while (chron_reader_next_batch(r, views, 16) > 0)
        continue;
    (void)chron_reader_close(r);
}

/* What a repair leaves as a problem: nothing but positions, which are their readers' business. */
static inline int no_problem(void *context, const chron_problem *found)
{
    (void)context;
    if (found->kind == 0 || found->kind >= CHRON_NOTES || found->kind == CHRON_PROBLEM_POSITION)
        return 0;
    (void)fprintf(stderr, "after a repair: %s: %s\n", found->file, found->text);
    CHECK(0);
    return 0;
}

static inline int see_kept(void *last, const chron_view *record)
{
    CHECK(*(int64_t *)last < (int64_t)record->seq && record->length <= FILE_MAX);
    *(int64_t *)last = (int64_t)record->seq;
    return 0;
}

static inline void read_quarantine(void)
{
    chron_quarantine_file files[8] = {{.struct_size = sizeof *files}};
    int64_t count = chron_queue_quarantine(path, files, 8);

    for (int64_t i = 0; i < count && i < 8; i++) {
        int64_t last = -1;

        (void)chron_queue_quarantine_read(path, files[i].name, see_kept, &last);
    }
}

static inline void look_and_write(void)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_queue_info info = {.struct_size = sizeof info};
    chron_segment_info segments[4] = {{.struct_size = sizeof *segments}};
    chron_reader_info readers[4] = {{.struct_size = sizeof *readers}};
    chron_cleanup cleanup = {.struct_size = sizeof cleanup};
    chron_writer *w;

    (void)chron_queue_info_get(path, &info);
    (void)chron_queue_segments(path, segments, 4);
    (void)chron_queue_readers(path, readers, 4);
    (void)chron_queue_cleanup_plan(path, NULL, &cleanup, NULL, 0);
    (void)chron_queue_verify(path, NULL, NULL, NULL);
    (void)chron_queue_repair(path, CHRON_DRY_RUN, NULL, NULL, NULL);
    options.flags = CHRON_REPAIR;
    if (chron_writer_open(path, &options, &w) < 0)
        return;
    (void)chron_writer_append(w, "after", 5, 0, 0);
    (void)chron_writer_cleanup(w, &cleanup, NULL, 0);
    (void)chron_writer_close(w);
    CHECK_EQ(chron_queue_verify(path, no_problem, NULL, NULL), 0);
    read_quarantine();
}

static inline void remove_files(void)
{
    (void)nftw(path, remove_extra, 8, FTW_PHYS);
}

static inline void exercise(void)
{
    read_everything(NULL);
    read_everything("me");
    read_batches();
    look_and_write();
    read_everything(NULL);
}

#ifdef FUZZ_REPLAY
int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];

    for (int i = 1; i < argc; i++) {
        int fd = open(argv[i], O_RDONLY);
        ssize_t size = read(fd, data, sizeof data);

        CHECK(size >= 0);
        close(fd);
        (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    }
    temporary_remove(path);
    printf("  %d inputs\n", argc - 1);
    return 0;
}
#endif

#endif
