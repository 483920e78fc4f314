/* SPDX-License-Identifier: MIT */
/*
 * test_stress.c - a writer and several readers, each a process of its own, at full speed on small segments: single
 * records, batches, claims, syncs and cleanups on one side; commits, steps back, leaving and coming back on the other.
 * Every reader sees every record once, in order, unaltered. CHRON_STRESS_RECORDS sets how many (default 60,000).
 * The threads of one process are test_threads.c.
 */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "records.h"
#include "small_writer.h"
#include "temporary.h"

#define READERS 3
#define BATCH 5u
#define STAY 7000u /* records, after which a reader leaves and comes back */
#define PATIENCE_NS 120000000000

static char path[TEMPORARY_BYTES];
static uint64_t records = 60000;

static void write_batch(chron_writer *w, uint64_t seq)
{
    static uint8_t payloads[BATCH][RECORD_PAYLOAD_MAX];
    chron_record batch[BATCH];

    for (unsigned n = 0; n < BATCH; n++)
        batch[n] = (chron_record){payloads[n], record_fill(seq + n, payloads[n]), seq + n, 1, 2};
    CHECK_EQ(chron_writer_append_batch(w, batch, BATCH), (int64_t)seq);
}

static void write_all(void)
{
    static uint8_t payload[RECORD_PAYLOAD_MAX];
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;
    uint64_t seq;
    void *room;

    options.flags = CHRON_KEEPER;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    while ((seq = chron_writer_next_seq(w)) < records) {
        switch (seq % 3) {
        case 0:
            CHECK_EQ(chron_writer_append_at(w, payload, record_fill(seq, payload), 1, 2, seq), (int64_t)seq);
            break;
        case 1:
            write_batch(w, seq);
            break;
        default:
            CHECK_EQ(chron_writer_claim(w, RECORD_PAYLOAD_MAX, &room), 0);
            CHECK_EQ(chron_writer_publish(w, record_fill(seq, room), 1, 2, seq), (int64_t)seq);
        }
        if (seq % 400 == 0)
            CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
        if (seq % 3000 == 0) {
            int status = chron_writer_sync(w);

            CHECK(status == 0 || status == -CHRON_ENOTDURABLE); /* a file system in memory */
        }
    }
    CHECK_EQ(chron_writer_close(w), 0);
}

/* Until `until`, from `seq` on. */
static void read_some(chron_reader *r, uint64_t seq, uint64_t until)
{
    static uint8_t expected[RECORD_PAYLOAD_MAX];
    chron_view v;

    while (seq < until) {
        int status = chron_reader_next(r, &v);

        CHECK(status >= 0);
        if (status == 0) {
            CHECK_EQ(chron_reader_wait(r, PATIENCE_NS), 1);
            continue;
        }
        CHECK_EQ(v.seq, seq);
        CHECK_EQ(v.timestamp_ns, seq);
        CHECK_EQ(v.length, record_fill(seq, expected));
        CHECK(memcmp(v.payload, expected, v.length) == 0);
        if (++seq % 100 == 0)
            CHECK_EQ(chron_reader_commit(r, 0), 0);
        if (seq % 900 == 0) {
            CHECK_EQ(chron_reader_previous(r, &v), 1);
            CHECK_EQ(v.seq, seq - 1u);
            CHECK_EQ(chron_reader_next(r, &v), 1);
        }
    }
}

static void open_reader(char *name, chron_reader **r)
{
    chron_reader_options options = {.struct_size = sizeof options};

    options.name = name;
    CHECK_EQ(chron_reader_open(path, &options, r), 0);
}

static void read_all(char *name)
{
    uint64_t seq = 0;
    chron_reader *r;

    while (seq < records) {
        uint64_t until = seq + STAY < records ? seq + STAY : records;

        open_reader(name, &r);
        CHECK_EQ(chron_reader_position(r), seq);
        read_some(r, seq, until);
        CHECK_EQ(chron_reader_commit(r, 0), 0);
        CHECK_EQ(chron_reader_close(r), 0);
        seq = until;
    }
}

static void test_processes(void)
{
    static char names[READERS][2] = {"a", "b", "c"};
    chron_verify_summary summary = {.struct_size = sizeof summary};
    chron_cleanup cleanup = {.struct_size = sizeof cleanup};
    chron_reader *r;
    chron_writer *w;

    temporary_directory(path);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_close(w), 0);
    for (int i = 0; i < READERS; i++) { /* registered, so that the first cleanup waits for them */
        open_reader(names[i], &r);
        CHECK_EQ(chron_reader_close(r), 0);
    }
    for (int i = 0; i <= READERS; i++) {
        if (fork() != 0)
            continue;
        if (i < READERS)
            read_all(names[i]);
        else
            write_all();
        exit(0); /* not _exit: a sanitizer looks for leaks */
    }
    for (int i = 0; i <= READERS; i++) {
        int status;

        CHECK(wait(&status) > 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK_EQ(chron_queue_verify(path, NULL, NULL, &summary), 0);
    CHECK_EQ(summary.problems, 0u);
    CHECK(summary.next_seq >= records);
    CHECK_EQ(chron_writer_open(path, NULL, &w), 0);
    CHECK_EQ(chron_writer_cleanup(w, &cleanup, NULL, 0), 0);
    CHECK_EQ(cleanup.readers, (uint64_t)READERS);
    CHECK_EQ(cleanup.segments - cleanup.deleted_segments, 1u); /* all others are behind the slowest reader */
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

int main(void)
{
    const char *wanted = getenv("CHRON_STRESS_RECORDS");

    if (wanted)
        records = strtoull(wanted, NULL, 10);
    RUN(test_processes);
    return 0;
}
