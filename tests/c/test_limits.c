/* SPDX-License-Identifier: MIT */
/*
 * test_limits.c - limits of the process: descriptors, the size of files, threads. What cannot be had is an error with its
 * cause, or done without, and passes when its cause does. pthread_create is this program's own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "small_writer.h"
#include "temporary.h"

#define RECORD_BYTES 50000 /* one a segment */
#define OWN_MAX 8          /* descriptors of a writer, beside those of sealed segments, as chronicle.h says */

static uint8_t payload[RECORD_BYTES];
static char path[TEMPORARY_BYTES];
static int threads_refused; /* how many starts of a thread are still to fail */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *argument)
{
    typedef int create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    create *real = (create *)(uintptr_t)dlsym(RTLD_NEXT, "pthread_create");

    if (threads_refused > 0) {
        threads_refused--;
        return EAGAIN;
    }
    return real(thread, attributes, main, argument);
}

static int descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = -3; /* ".", "..", and that of the directory */

    CHECK(directory != NULL);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static void allow(int what, uint64_t limit)
{
    struct rlimit now;

    CHECK_EQ(getrlimit((__rlimit_resource_t)what, &now), 0);
    now.rlim_cur = limit < now.rlim_max ? (rlim_t)limit : now.rlim_max;
    CHECK_EQ(setrlimit((__rlimit_resource_t)what, &now), 0);
}

static void append(chron_writer *w, int count)
{
    while (count-- > 0)
        CHECK(chron_writer_append(w, payload, sizeof payload, 0, 0) >= 0);
}

static void test_descriptors_that_a_writer_keeps(void)
{
    static const struct {
        uint64_t allowed;
        int sealed;
    } cases[] = {{1024, 64}, {80, 20}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int before;
        int kept;
        chron_writer *w;

        temporary_directory(path);
        allow(RLIMIT_NOFILE, cases[i].allowed);
        before = descriptors();
        w = small_writer(path, 0, CHRON_DURABILITY_NONE);
        append(w, 100); /* never synced */
        kept = descriptors() - before;
        CHECK(kept > cases[i].sealed && kept <= cases[i].sealed + OWN_MAX);
        CHECK_EQ(chron_writer_sync(w), 0);
        CHECK(descriptors() - before <= OWN_MAX);
        CHECK_EQ(chron_writer_close(w), 0);
        CHECK_EQ(descriptors(), before);
        temporary_remove(path);
    }
}

static void test_no_descriptor_is_left(void)
{
    int taken[64];
    int count = 0;
    chron_reader *r;
    chron_writer *w;

    temporary_directory(path);
    allow(RLIMIT_NOFILE, 64);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    append(w, 30); /* many that no sync has covered, and most of them without a descriptor */
    while (count < 64 && (taken[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    CHECK_EQ(errno, EMFILE);
    CHECK_EQ(chron_writer_append(w, payload, sizeof payload, 0, 0), -CHRON_EIO);
    CHECK_EQ(chron_last_error()->sys_errno, EMFILE);
    CHECK_EQ(chron_writer_next_seq(w), 30);
    CHECK_EQ(chron_writer_sync(w), -CHRON_EIO);
    CHECK_EQ(chron_last_error()->sys_errno, EMFILE);
    CHECK_EQ(chron_reader_open(path, NULL, &r), -CHRON_EIO);
    CHECK_EQ(chron_last_error()->sys_errno, EMFILE);
    while (count > 0)
        close(taken[--count]);
    append(w, 1); /* it has passed: nothing is poisoned */
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(chron_writer_durable_seq(w), 30);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
    allow(RLIMIT_NOFILE, 1024);
}

/* Beyond the limit a write is a signal that kills, SIGXFSZ, which nobody here ignores. */
static void test_files_may_not_grow(void)
{
    chron_writer *w;

    temporary_directory(path);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    append(w, 1);
    allow(RLIMIT_FSIZE, CHRON_SEGMENT_SIZE_MIN - 1);
    CHECK_EQ(chron_writer_append(w, payload, sizeof payload, 0, 0), -CHRON_ENOSPC);
    CHECK_EQ(chron_last_error()->sys_errno, EFBIG);
    CHECK(strstr(chron_last_error()->text, "ulimit -f") != NULL);
    CHECK_EQ(chron_writer_append(w, payload, 100, 0, 0), 1); /* there is room for a small one */
    allow(RLIMIT_FSIZE, RLIM_INFINITY);
    append(w, 1);
    CHECK_EQ(chron_writer_close(w), 0);
    allow(RLIMIT_FSIZE, 100); /* not even the line in writer.lock */
    CHECK_EQ(chron_writer_open(path, NULL, &w), -CHRON_ENOSPC);
    CHECK_EQ(chron_last_error()->sys_errno, EFBIG);
    allow(RLIMIT_FSIZE, RLIM_INFINITY);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_next_seq(w), 3);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static chron_writer_stats stats_of(const chron_writer *w)
{
    chron_writer_stats stats = {.struct_size = sizeof stats};

    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    return stats;
}

static void test_no_thread_is_left(void)
{
    chron_writer_options options = {.struct_size = sizeof options, .flags = CHRON_KEEPER};
    chron_writer *w;

    for (int started = 0; started < 2; started++) { /* not even the first, or only the first */
        temporary_directory(path);
        threads_refused = started == 0 ? 1 : 0;
        w = small_writer(path, started == 0 ? CHRON_KEEPER : 0, CHRON_DURABILITY_NONE);
        if (started == 0) {
            CHECK_EQ(stats_of(w).keeper_running, 0);
            CHECK_EQ(stats_of(w).keeper_errors, 1);
            append(w, 1);
            threads_refused = 1;
            append(w, 1); /* a roll: it is tried again */
            CHECK_EQ(stats_of(w).keeper_errors, 2);
            threads_refused = 1;
            CHECK_EQ(chron_writer_sync_request(w, 0), -CHRON_EIO);
            CHECK_EQ(chron_last_error()->sys_errno, EAGAIN);
            CHECK(strstr(chron_last_error()->text, "ulimit -u") != NULL);
            append(w, 1);
            CHECK_EQ(stats_of(w).keeper_running, 1);
        } else {
            threads_refused = 1;
            CHECK_EQ(chron_writer_keeper_start(w), -CHRON_EIO);
            append(w, 3);
            CHECK_EQ(stats_of(w).keeper_running, 0); /* a failed start is no wish for ever */
            CHECK_EQ(chron_writer_keeper_start(w), 0);
        }
        CHECK_EQ(chron_writer_keeper_stop(w), 0);
        append(w, 3);
        CHECK_EQ(stats_of(w).keeper_running, 0); /* stopped is stopped */
        CHECK_EQ(chron_writer_close(w), 0);
        temporary_remove(path);
    }
    temporary_directory(path);
    options.durability = CHRON_DURABILITY_INTERVAL;
    threads_refused = 1;
    CHECK_EQ(chron_writer_open(path, &options, &w), -CHRON_EIO); /* who would sync? */
    CHECK_EQ(access(path, F_OK), -1);                            /* and nothing is left of it */
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_descriptors_that_a_writer_keeps);
    RUN(test_no_descriptor_is_left);
    RUN(test_files_may_not_grow);
    RUN(test_no_thread_is_left);
    return 0;
}
