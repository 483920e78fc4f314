/* SPDX-License-Identifier: MIT */
/*
 * die_at_step.c - a writer that dies where it is told to, for tests/test_crashes.py. Not a test by itself.
 *
 *     die_at_step QUEUE OPERATION STEP WORD...
 *     die_at_step QUEUE 0 STEP repair
 *
 * With CHRON_TEST_REUSE in the environment it reuses what it deletes.
 *
 * Each WORD is an operation: append:BYTES, batch:BYTES,BYTES..., claim:BYTES, abort:BYTES, sync, cleanup, close.
 * Before them comes operation 0, the opening. The process kills itself with SIGKILL at the STEP-th step from the
 * beginning of the OPERATION-th operation on, or at the end: a step is a place between two stores (CHRON__STEP) or a
 * system call that touches the queue. Standard output tells what was acknowledged before, the next seq in a line after
 * each operation; then the name of the step.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "io_calls.h"
#include "base/step.h"
#include "write/repair.h"
#include "write/writer.h"

#define BATCH_MAX 16

static uint64_t steps;
static int counting; /* the operation to die in has begun */
static uint64_t die_at;

static void say(const char *line)
{
    CHECK_EQ(write(STDOUT_FILENO, line, strlen(line)), (ssize_t)strlen(line));
    CHECK_EQ(write(STDOUT_FILENO, "\n", 1), 1);
}

static void on_step(const char *name)
{
    if (!counting || ++steps != die_at)
        return;
    say(name);
    (void)raise(SIGKILL);
}

/* Calls that change what is on disk, each a step: the process dies before it. */
#define WRAP(name, parameters, ...)               \
    static int step_##name parameters             \
    {                                             \
        on_step("call: " #name);                  \
        return chron__io_posix.name(__VA_ARGS__); \
    }

IO_CALLS_THAT_CHANGE(WRAP)

static int64_t step_write_at(const chron__io *io, int fd, const void *buffer, size_t bytes, uint64_t offset)
{
    on_step("call: write_at");
    return chron__io_posix.write_at(io, fd, buffer, bytes, offset);
}

#define USE(name, ...) io.name = step_##name;

static const chron__io *stepping_io(void)
{
    static chron__io io;

    io = chron__io_posix;
    IO_CALLS_THAT_CHANGE(USE)
    io.write_at = step_write_at;
    return &io;
}

/* The model in test_crashes.py makes the same: bytes, time, type 9, flags 3. */
static chron_record record_of(uint64_t seq, size_t length, uint8_t *payload)
{
    for (size_t i = 0; i < length; i++)
        payload[i] = (uint8_t)(seq * 31u + i);
    return (chron_record){payload, length, seq % 50u, 9, 3};
}

static void claim(chron_writer *w, uint64_t seq, size_t length, int publish)
{
    void *room;

    CHECK_EQ(chron_writer_claim(w, length, &room), 0);
    (void)record_of(seq, length, room);
    on_step("claim: filled");
    if (publish)
        CHECK_EQ(chron_writer_publish(w, length, 9, 3, seq % 50u), (int64_t)seq);
    else
        CHECK_EQ(chron_writer_abort(w), 0);
}

static void one_operation(chron_writer *w, const char *word)
{
    static uint8_t payloads[BATCH_MAX][CHRON_SEGMENT_SIZE_MIN];
    chron_record batch[BATCH_MAX];
    uint64_t seq = chron_writer_next_seq(w);
    const char *sizes = strchr(word, ':');
    size_t count = 0;

    while (sizes && count < BATCH_MAX) {
        size_t length = strtoul(sizes + 1, NULL, 10);

        CHECK(length <= sizeof payloads[0]);
        batch[count] = record_of(seq + count, length, payloads[count]);
        count++;
        sizes = strchr(sizes + 1, ',');
    }
    if (strncmp(word, "append", 6) == 0)
        CHECK_EQ(chron_writer_append_at(w, batch[0].payload, batch[0].length, 9, 3, batch[0].timestamp_ns),
                 (int64_t)seq);
    else if (strncmp(word, "batch", 5) == 0)
        CHECK_EQ(chron_writer_append_batch(w, batch, count), (int64_t)seq);
    else if (strncmp(word, "claim", 5) == 0 || strncmp(word, "abort", 5) == 0)
        claim(w, seq, batch[0].length, word[0] == 'c');
    else if (strcmp(word, "sync") == 0)
        CHECK_EQ(chron_writer_sync(w), 0);
    else
        CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
}

int main(int argc, char **argv)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;
    int dies_in;
    char line[32];

    CHECK(argc >= 4);
    dies_in = atoi(argv[2]);
    die_at = strtoull(argv[3], NULL, 10);
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.flags = getenv("CHRON_TEST_REUSE") ? CHRON_REUSE : 0;
    chron__on_step = on_step;
    if (argc > 4 && strcmp(argv[4], "repair") == 0) {
        counting = 1;
        CHECK_EQ(chron__repair_with(stepping_io(), argv[1], 0, NULL, NULL, NULL), 0);
        return 0;
    }
    for (int i = 0; i < argc - 3; i++) {
        counting |= i == dies_in;
        if (i == 0) {
            CHECK_EQ(chron__writer_open_with(stepping_io(), argv[1], &options, &w), 0);
        } else if (strcmp(argv[3 + i], "close") == 0) {
            CHECK_EQ(chron_writer_close(w), 0);
            return 0;
        } else {
            one_operation(w, argv[3 + i]);
        }
        (void)snprintf(line, sizeof line, "%llu", (unsigned long long)chron_writer_next_seq(w));
        say(line);
    }
    (void)raise(SIGKILL);
    return 0;
}
