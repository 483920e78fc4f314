/* SPDX-License-Identifier: MIT */
/*
 * test_signals.c - system calls that a signal interrupts are made again, and one that never comes to an end between two
 * signals (fallocate on the tmpfs of older kernels) is done in another way. The calls here are this program's own.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64 /* fallocate has another name then, as in the library */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "small_writer.h"
#include "temporary.h"

static int interrupts; /* of each call that are to come */
static int met;
static uint8_t payload[40000];

static int is_interrupted(void)
{
    if (interrupts == 0)
        return 0;
    interrupts--;
    met++;
    errno = EINTR;
    return 1;
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return is_interrupted() ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int msync(void *address, size_t bytes, int flags)
{
    return is_interrupted() ? -1 : (int)syscall(SYS_msync, address, bytes, flags);
}

int fsync(int fd)
{
    return is_interrupted() ? -1 : (int)syscall(SYS_fsync, fd);
}

static void test_interrupted_syncs_are_repeated(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer *w;

    temporary_directory(path);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), 0);
    met = 0;
    interrupts = 3;
    CHECK_EQ(chron_writer_sync(w), 0);
    CHECK_EQ(met, 3);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void test_a_segment_is_made_however_often_signals_come(void)
{
    char path[TEMPORARY_BYTES];
    chron_writer *w;

    temporary_directory(path);
    w = small_writer(path, 0, CHRON_DURABILITY_NONE);
    met = 0;
    interrupts = 10000;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(chron_writer_append(w, payload, sizeof payload, 0, 0), i);
    CHECK(met > 0 && met < 10000);
    interrupts = 0;
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

int main(void)
{
    RUN(test_interrupted_syncs_are_repeated);
    RUN(test_a_segment_is_made_however_often_signals_come);
    return 0;
}
