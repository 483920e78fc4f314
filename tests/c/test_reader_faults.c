/* SPDX-License-Identifier: MIT */
/*
 * test_reader_faults.c - a disk that fails under a reader. Every call that reads meets a segment whose pages cannot be
 * delivered, the oldest one, one in the middle, the newest; and every system call fails once. The answer is EIO or what
 * is right: never a position that is wrong, a record that is not one, or "nothing there".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "io_calls.h"
#include "records.h"
#include "read/reader.h"
#include "small_writer.h"
#include "temporary.h"

#define RECORDS 150

static char where[TEMPORARY_BYTES];
static uint64_t bases[16];
static int segments;

static void make(void)
{
    static uint8_t payload[RECORD_PAYLOAD_MAX];
    chron_segment_info infos[16] = {{.struct_size = sizeof infos[0]}};
    chron_writer *w;

    temporary_directory(where);
    w = small_writer(where, 0, CHRON_DURABILITY_NONE);
    for (uint64_t seq = 0; seq < RECORDS; seq++)
        CHECK_EQ(chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq), seq);
    CHECK_EQ(chron_writer_close(w), 0);
    segments = (int)chron_queue_segments(where, infos, 16);
    CHECK(segments >= 3 && segments <= 16);
    for (int i = 0; i < segments; i++)
        bases[i] = infos[i].base_seq;
}

/* ---------------------------------------------------------------------- pages that cannot be delivered */

static int64_t bad = -1; /* index of the segment */

/* Behind its header and index, pages of an empty file: touching them is SIGBUS. */
static int map_badly(const chron__io *io, int fd, size_t bytes, int flags, chron__map *out)
{
    int status = chron__io_posix.map(io, fd, bytes, flags, out);
    chron__file_header header;
    int empty;

    if (status < 0 || bytes != CHRON_SEGMENT_SIZE_MIN || bad < 0)
        return status;
    memcpy(&header, out->base, sizeof header);
    if (header.base_seq != bases[bad])
        return status;
    empty = memfd_create("empty", MFD_CLOEXEC);
    CHECK(empty >= 0);
    CHECK(mmap(out->base + 8192, bytes - 8192, PROT_READ, MAP_SHARED | MAP_FIXED, empty, 0) != MAP_FAILED);
    close(empty);
    return status;
}

static chron_reader *reader_at(uint64_t seq)
{
    static chron__io io;
    chron_reader_options options = {
        .struct_size = sizeof options, .start = CHRON_START_SEQ, .start_value = seq, .flags = CHRON_CHECKED};
    chron_reader *r;

    io = chron__io_posix;
    io.map = map_badly;
    bad = -1;
    CHECK_EQ(chron__reader_open_with(&io, where, &options, &r), 0);
    return r;
}

static int64_t call_seek(chron_reader *r, uint64_t seq)
{
    return chron_reader_seek(r, seq);
}

static int64_t call_seek_time(chron_reader *r, uint64_t seq)
{
    return chron_reader_seek_time(r, seq); /* timestamps are seqs */
}

/* Each of them, aimed at a record in the middle of the bad segment. */
static void test_moving_into_pages_that_cannot_be_delivered(void)
{
    static int64_t (*const calls[])(chron_reader *, uint64_t) = {call_seek, call_seek_time};

    for (int i = 0; i < segments; i++) {
        for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
            uint64_t from = i == 0 ? RECORDS : 0;
            chron_reader *r = reader_at(from);

            bad = i;
            CHECK_EQ(calls[c](r, bases[i] + 2), -CHRON_EIO);
            CHECK_EQ(chron_reader_position(r), from);
            bad = -1;
            CHECK_EQ(calls[c](r, bases[i] + 2), 0); /* the disk is there again */
            CHECK_EQ(chron_reader_position(r), bases[i] + 2);
            chron_reader_close(r);
        }
    }
}

static void test_the_end_in_pages_that_cannot_be_delivered(void)
{
    chron_reader *r = reader_at(0);

    bad = segments - 1;
    CHECK_EQ(chron_reader_lag(r), -CHRON_EIO);
    CHECK_EQ(chron_reader_seek_latest(r), -CHRON_EIO);
    CHECK_EQ(chron_reader_seek(r, RECORDS), -CHRON_EIO);
    CHECK_EQ(chron_reader_position(r), 0);
    bad = -1;
    CHECK_EQ(chron_reader_lag(r), RECORDS);
    CHECK_EQ(chron_reader_seek_latest(r), 0);
    CHECK_EQ(chron_reader_position(r), RECORDS);
    chron_reader_close(r);
}

static void test_reading_into_pages_that_cannot_be_delivered(void)
{
    static uint8_t copy[RECORD_PAYLOAD_MAX];
    chron_columns columns = {.struct_size = sizeof columns};
    chron_view v;

    for (int i = 1; i < segments; i++) {
        chron_reader *r = reader_at(bases[i] - 1);

        CHECK_EQ(chron_reader_next(r, &v), 1);
        bad = i;
        CHECK_EQ(chron_reader_next(r, &v), -CHRON_EIO);
        CHECK_EQ(chron_reader_next_copy(r, copy, sizeof copy, &v), -CHRON_EIO);
        CHECK_EQ(chron_reader_next_batch(r, &v, 1), -CHRON_EIO);
        CHECK_EQ(chron_reader_peek_columns(r, &columns, 8, NULL), -CHRON_EIO);
        CHECK_EQ(chron_reader_skip_damaged(r), -CHRON_EIO);
        CHECK_EQ(chron_reader_wait(r, 0), 1); /* there is something to be told */
        CHECK_EQ(chron_reader_position(r), bases[i]);
        chron_reader_close(r);
    }
}

static void test_previous_in_pages_that_cannot_be_delivered(void)
{
    chron_view v;

    for (int i = 0; i + 1 < segments; i++) {
        chron_reader *r = reader_at(bases[i + 1]);

        bad = i;
        CHECK_EQ(chron_reader_previous(r, &v), -CHRON_EIO);
        CHECK_EQ(chron_reader_position(r), bases[i + 1]);
        bad = -1;
        CHECK_EQ(chron_reader_previous(r, &v), 1);
        CHECK_EQ(v.seq, bases[i + 1] - 1);
        chron_reader_close(r);
    }
}

/* ------------------------------------------------------------------------------ system calls that fail */

static uint64_t calls;
static uint64_t fail_at;

static int fails(void)
{
    return ++calls == fail_at;
}

#define WRAP(name, parameters, ...)                                \
    static int faulty_##name parameters                            \
    {                                                              \
        return fails() ? -EIO : chron__io_posix.name(__VA_ARGS__); \
    }

IO_CALLS_THAT_CHANGE(WRAP) /* and open, and map */
IO_CALLS_THAT_LOOK(WRAP)

static int64_t faulty_read_at(const chron__io *io, int fd, void *buffer, size_t bytes, uint64_t offset)
{
    return fails() ? -EIO : chron__io_posix.read_at(io, fd, buffer, bytes, offset);
}

#define USE(name, ...) io.name = faulty_##name;

/* Whatever fails: EIO, and the reader stays; or the right answer. Afterwards all is as it would have been. */
static void test_every_system_call_of_a_reader_fails_once(void)
{
    chron_reader_options options = {.struct_size = sizeof options, .start = CHRON_START_SEQ, .start_value = 3};
    chron__io io = chron__io_posix;
    uint64_t rounds = 0;

    IO_CALLS_THAT_CHANGE(USE)
    IO_CALLS_THAT_LOOK(USE)
    io.read_at = faulty_read_at;
    do {
        uint64_t was = 3;
        chron_reader *r;
        chron_view v;
        int64_t status;

        calls = 0;
        fail_at = ++rounds;
        status = chron__reader_open_with(&io, where, &options, &r);
        if (status < 0) {
            CHECK_EQ(status, -CHRON_EIO);
            continue;
        }
        for (int i = 0; i < 6; i++) {
            uint64_t to[6] = {bases[1] + 1, bases[2], RECORDS, RECORDS - 1, was, 0};

            r->looked_ns = 0;
            status = i == 0   ? chron_reader_seek(r, to[i])
                     : i == 1 ? chron_reader_seek_time(r, to[i])
                     : i == 2 ? chron_reader_seek_latest(r)
                     : i == 3 ? chron_reader_previous(r, &v)
                     : i == 4 ? chron_reader_lag(r)
                              : chron_reader_seek_earliest(r);
            if (status < 0) {
                CHECK_EQ(status, -CHRON_EIO);
                CHECK_EQ(chron_reader_position(r), was);
            } else if (i != 4 && !(i == 3 && was != RECORDS)) {
                CHECK_EQ(chron_reader_position(r), to[i]);
            } else if (i == 4) {
                CHECK_EQ(status, RECORDS - was);
            }
            was = chron_reader_position(r);
        }
        fail_at = 0;
        for (uint64_t seq = was; seq < RECORDS; seq++) {
            CHECK_EQ(chron_reader_next(r, &v), 1);
            CHECK_EQ(v.seq, seq);
        }
        CHECK_EQ(chron_reader_next(r, &v), 0);
        chron_reader_close(r);
    } while (calls >= rounds);
    CHECK(rounds > 20);
}

int main(void)
{
    CHECK_EQ(chron_guard_install(), 0);
    make();
    RUN(test_moving_into_pages_that_cannot_be_delivered);
    RUN(test_the_end_in_pages_that_cannot_be_delivered);
    RUN(test_reading_into_pages_that_cannot_be_delivered);
    RUN(test_previous_in_pages_that_cannot_be_delivered);
    RUN(test_every_system_call_of_a_reader_fails_once);
    temporary_remove(where);
    return 0;
}
