/* SPDX-License-Identifier: MIT */
/*
 * fuzz_queue.c - any bytes in any file of a queue. An input is a list of patches (file, offset, bytes) to a small
 * queue with two segments and a reader; with the lowest bit of its first byte set, the CRCs of headers, slots, the
 * seal and the records are made right again afterwards, so that half of the inputs get past the front door. Then the
 * queue is read forwards, backwards and around damage, looked at, verified, opened for writing with repair, and
 * appended to. Nothing may crash, hang, leak, or give a record its reader did not check.
 *
 * For libFuzzer ("make fuzz"); with FUZZ_REPLAY a program that runs the files named, as "make test-c" does.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "chronicle.h"
#include "endian.h"
#include "format.h"
#include "temporary.h"

#define FILES 5
#define FILE_MAX 65536u
#define SEGMENT_0 "00000000000000000000.seg"
#define PATCHES_MAX 64

typedef struct pristine {
    char name[80];
    size_t size;
    uint8_t bytes[FILE_MAX];
    uint8_t now[FILE_MAX];
    int changed;
} pristine;

static pristine files[FILES];
static char path[TEMPORARY_BYTES];

static void keep(size_t index, const char *name)
{
    char file[TEMPORARY_BYTES + 128];
    int fd;

    (void)snprintf(files[index].name, sizeof files[index].name, "%s", name);
    (void)snprintf(file, sizeof file, "%s/%s", path, name);
    fd = open(file, O_RDONLY);
    CHECK(fd >= 0);
    files[index].size = (size_t)read(fd, files[index].bytes, FILE_MAX);
    close(fd);
}

static void make_queue(void)
{
    static uint8_t payload[3000];
    chron_writer_options options;
    chron_reader_options reading;
    chron_segment_info segments[2];
    chron_writer *w;
    chron_reader *r;
    char name[80];

    temporary_directory(path);
    chron_writer_options_init(&options);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    for (uint64_t seq = 0; seq < 40; seq++)
        CHECK(chron_writer_append_at(w, payload, seq * 77 % sizeof payload, 1, 0, seq) >= 0);
    CHECK_EQ(chron_writer_close(w), 0);
    chron_reader_options_init(&reading);
    reading.name = "me";
    reading.start = CHRON_START_SEQ;
    reading.start_value = 7;
    CHECK_EQ(chron_reader_open(path, &reading, &r), 0);
    CHECK_EQ(chron_reader_commit(r, 0), 0);
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_queue_segments(path, segments, 2), 2);
    (void)snprintf(name, sizeof name, "%020llu.seg", (unsigned long long)segments[1].base_seq);
    keep(0, "queue.meta");
    keep(1, "doorbell");
    keep(2, SEGMENT_0);
    keep(3, name);
    keep(4, "readers/me.pos");
}

/* ------------------------------------------------------------------------------------- an input */

static void repair_crcs(pristine *file)
{
    uint8_t *b = file->now;

    chron__write_le32(b + 124, chron_crc32c(0, b, 124));
    if (file->size == CHRON__PAGE) {
        chron__write_le32(b + 512 + 60, chron_crc32c(0, b + 512, 60));
        chron__write_le32(b + 1024 + 60, chron_crc32c(0, b + 1024, 60));
        return;
    }
    chron__write_le32(b + 128 + 60, chron_crc32c(0, b + 132, 56));
    for (size_t at = 8192; at + 32 <= file->size;) {
        uint32_t commit = chron__read_le32(b + at);
        size_t length = commit ? commit - 1u : 0;
        uint32_t crc;

        if (commit == 0 || length > file->size || at + 32 + length > file->size)
            break;
        crc = chron_crc32c(chron_crc32c(chron_crc32c(0, b + at, 4), b + at + 8, 24), b + at + 32, length);
        chron__write_le32(b + at + 4, crc);
        at += (32 + length + 31) / 32 * 32;
    }
}

/* Patches of 4 bytes of head (file, offset, length) and their bytes. */
static void apply(const uint8_t *data, size_t size)
{
    int repair = size > 0 && (data[0] & 1);
    size_t at = 1;

    for (int n = 0; n < PATCHES_MAX && at + 4 <= size; n++) {
        pristine *file = &files[data[at] % FILES];
        size_t offset = ((size_t)data[at + 1] | (size_t)data[at + 2] << 8) % file->size;
        size_t length = data[at + 3];

        at += 4;
        if (length > size - at)
            length = size - at;
        if (length > file->size - offset)
            length = file->size - offset;
        memcpy(file->now + offset, data + at, length);
        file->changed = 1;
        at += length;
    }
    for (int i = 0; i < FILES; i++)
        if (files[i].changed && repair)
            repair_crcs(&files[i]);
}

static void write_files(int all)
{
    for (int i = 0; i < FILES; i++) {
        char file[TEMPORARY_BYTES + 128];
        int fd;

        if (!all && !files[i].changed)
            continue;
        (void)snprintf(file, sizeof file, "%.255s/%.79s", path, files[i].name);
        fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        CHECK(fd >= 0);
        CHECK_EQ(pwrite(fd, files[i].now, files[i].size, 0), (ssize_t)files[i].size);
        close(fd);
    }
}

static int remove_extra(const char *file, const struct stat *info, int kind, struct FTW *level)
{
    (void)info;
    (void)level;
    if (kind == FTW_F)
        (void)unlink(file);
    return 0;
}

/* ----------------------------------------------------------------------------------- what is done */

static void read_everything(const char *name)
{
    chron_reader_options options;
    chron_reader *r;
    chron_view v;
    uint64_t last = CHRON_SEQ_NONE;

    chron_reader_options_init(&options);
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

static void look_and_write(void)
{
    chron_writer_options options;
    chron_queue_info info;
    chron_segment_info segments[4];
    chron_reader_info readers[4];
    chron_cleanup cleanup;
    chron_writer *w;

    (void)chron_queue_info_get(path, &info);
    (void)chron_queue_segments(path, segments, 4);
    (void)chron_queue_readers(path, readers, 4);
    (void)chron_queue_cleanup_plan(path, NULL, &cleanup, NULL, 0);
    (void)chron_queue_verify(path, NULL, NULL, NULL);
    chron_writer_options_init(&options);
    options.flags = CHRON_REPAIR;
    if (chron_writer_open(path, &options, &w) < 0)
        return;
    (void)chron_writer_append(w, "after", 5, 0, 0);
    (void)chron_writer_cleanup(w, &cleanup, NULL, 0);
    (void)chron_writer_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!files[0].size)
        make_queue();
    (void)nftw(path, remove_extra, 8, FTW_PHYS);
    for (int i = 0; i < FILES; i++) {
        memcpy(files[i].now, files[i].bytes, files[i].size);
        files[i].changed = 0;
    }
    apply(data, size);
    write_files(1);
    read_everything(NULL);
    read_everything("me");
    look_and_write();
    read_everything(NULL);
    return 0;
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
