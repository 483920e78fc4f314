/* SPDX-License-Identifier: MIT */
/*
 * test_crash.c - a writer is killed at every named step between two stores or system calls, one after the
 * other; after each death a reader and the next writer must find what had been acknowledged, in order,
 * and nothing torn. Needs a library built with CHRON_TESTING.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "records.h"
#include "base/step.h"
#include "temporary.h"

#define OPERATIONS 90
#define BATCH 7

/* Shared with the child: how many records it was told are in, and which step it is at. */
typedef struct progress {
    volatile uint64_t acknowledged;
    volatile uint64_t in_progress; /* records of the operation that is under way: all of them, or none */
    volatile uint64_t steps;
    volatile uint64_t kill_at;
    char name[64];
} progress;

static progress *shared;

static void on_step(const char *name)
{
    if (++shared->steps != shared->kill_at)
        return;
    (void)snprintf(shared->name, sizeof shared->name, "%s", name);
    raise(SIGKILL);
}

static void one_operation(chron_writer *w, int i)
{
    static uint8_t payloads[BATCH][RECORD_PAYLOAD_MAX];
    chron_record batch[BATCH];
    uint64_t seq = chron_writer_next_seq(w);
    void *room;

    shared->in_progress = i % 4 == 2 ? BATCH : i % 8 == 3 ? 0 : 1;
    switch (i % 4) {
    case 0:
    case 1:
        CHECK_EQ(chron_writer_append_at(w, payloads[0], record_fill(seq, payloads[0]), 1, 2, seq), (int64_t)seq);
        break;
    case 2:
        for (unsigned n = 0; n < BATCH; n++)
            batch[n] = (chron_record){payloads[n], record_fill(seq + n, payloads[n]), seq + n, 1, 2};
        CHECK_EQ(chron_writer_append_batch(w, batch, BATCH), (int64_t)seq);
        break;
    default:
        CHECK_EQ(chron_writer_claim(w, 3000, &room), 0);
        memset(room, 0xEE, 3000);
        if (i % 8 == 3) {
            CHECK_EQ(chron_writer_abort(w), 0);
            break;
        }
        CHECK_EQ(chron_writer_publish(w, record_fill(seq, room), 1, 2, seq), (int64_t)seq);
    }
    shared->acknowledged = chron_writer_next_seq(w);
}

static void open_writer(const char *path, int keeper, chron_writer **w)
{
    chron_writer_options options = {.struct_size = sizeof options};

    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.flags = keeper ? CHRON_KEEPER : 0;
    CHECK_EQ(chron_writer_open(path, &options, w), 0);
}

static void child(const char *path, uint64_t kill_at, int sync_every)
{
    chron_writer *w;

    shared->steps = 0;
    shared->kill_at = kill_at;
    chron__on_step = on_step;
    open_writer(path, 0, &w);
    for (int i = 0; i < OPERATIONS; i++) {
        one_operation(w, i);
        if (sync_every && i % sync_every == 0)
            CHECK_EQ(chron_writer_sync(w), 0);
    }
    CHECK_EQ(chron_writer_close(w), 0);
    _exit(0);
}

/* 1 if the child died at step kill_at, 0 if it had come to its end before. */
static int run_child(const char *path, uint64_t kill_at, int sync_every)
{
    int status;
    pid_t pid;

    shared->acknowledged = 0;
    pid = fork();
    if (pid == 0)
        child(path, kill_at, sync_every);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

static void kill_everywhere(int sync_every, uint64_t stride)
{
    uint64_t kill_at = 1;
    int died = 1;

    for (; died; kill_at += stride) {
        char path[TEMPORARY_BYTES];
        chron_verify_summary summary = {.struct_size = sizeof summary};
        chron_recovery recovery = {.struct_size = sizeof recovery};
        chron_queue_info info = {.struct_size = sizeof info};
        chron_writer *w;
        uint64_t seen = 0;

        temporary_directory(path);
        died = run_child(path, kill_at, sync_every);
        if (access(path, F_OK) == 0 && shared->acknowledged > 0) {
            seen = records_check(path, shared->acknowledged);
            CHECK_EQ(chron_queue_info_get(path, &info), 0); /* whatever a roll left behind */
            CHECK_EQ(info.next_seq, seen);
        }
        open_writer(path, 1, &w);
        CHECK_EQ(chron_writer_recovery_get(w, &recovery), 0);
        CHECK(chron_writer_next_seq(w) >= seen);
        if (died && shared->acknowledged)
            CHECK(chron_writer_next_seq(w) == shared->acknowledged ||
                  chron_writer_next_seq(w) == shared->acknowledged + shared->in_progress);
        CHECK_EQ(recovery.clean, died ? recovery.clean : 1u);
        for (int i = 0; i < OPERATIONS / 2; i++)
            one_operation(w, i);
        seen = chron_writer_next_seq(w);
        CHECK_EQ(chron_writer_close(w), 0);
        CHECK_EQ(records_check(path, seen), seen);
        CHECK_EQ(chron_queue_verify(path, NULL, NULL, &summary), 0);
        if (summary.problems)
            fprintf(stderr, "killed at step %llu, \"%s\"\n", (unsigned long long)kill_at, shared->name);
        CHECK_EQ(summary.problems, 0u);
        CHECK_EQ(summary.records, seen);
        temporary_remove(path);
    }
    CHECK(kill_at > 100);
}

static void test_every_step(void)
{
    kill_everywhere(0, 1);
}

static void test_with_syncs(void)
{
    kill_everywhere(4, 7);
}

/* Recovery itself is killed at every one of its steps, and run again. */
static void test_recovery_is_killed(void)
{
    uint64_t kill_at = 1;
    int died = 1;

    for (; died; kill_at++) {
        char path[TEMPORARY_BYTES];
        uint64_t acknowledged;
        chron_writer *w;

        temporary_directory(path);
        CHECK_EQ(run_child(path, 300, 0), 1); /* in the middle of a batch or a roll */
        acknowledged = shared->acknowledged;
        died = run_child(path, kill_at, 0);
        open_writer(path, 0, &w);
        CHECK(chron_writer_next_seq(w) >= acknowledged);
        CHECK_EQ(chron_writer_close(w), 0);
        (void)records_check(path, acknowledged);
        temporary_remove(path);
        if (kill_at > 12)
            break;
    }
}

int main(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    RUN(test_every_step);
    RUN(test_with_syncs);
    RUN(test_recovery_is_killed);
    return 0;
}
