/* SPDX-License-Identifier: MIT */
/*
 * test_lock.c - never two holders: several processes take the kernel's lock and give it back as fast as they can. On
 * the file system of the temporary directory, and on an overlayfs, where a mapping cannot hold the lock, if one may be
 * mounted here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "platform/platform.h"
#include "temporary.h"

#define PROCESSES 4
#define TRIES 10000
#define HOLD_SPINS 40000 /* some ten microseconds: long enough for somebody else to come in */

static chron__a32 *holders; /* shared by all processes */

static void take_and_give_back(int dir)
{
    chron__lock lock;
    int fd = openat(dir, "lock", O_RDWR | O_CREAT, 0600);
    int status;

    CHECK(fd >= 0);
    status = chron__io_posix.lock(&chron__io_posix, fd, &lock);
    if (status < 0) {
        CHECK_EQ(status, -EAGAIN);
        CHECK_EQ(close(fd), 0);
        return;
    }
    CHECK_EQ(chron__count_up32(holders), 1);
    for (volatile int i = 0; i < HOLD_SPINS; i++)
        continue;
    (void)chron__count_down32(holders);
    chron__io_posix.unlock(&chron__io_posix, &lock);
}

static void compete(int dir)
{
    int status;

    CHECK(dir >= 0);
    for (int i = 0; i < PROCESSES; i++) {
        if (fork() == 0) {
            for (int n = 0; n < TRIES; n++)
                take_and_give_back(dir);
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        CHECK(wait(&status) > 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK_EQ(chron__get32(holders), 0);
    CHECK_EQ(close(dir), 0);
}

static void test_never_two_holders(void)
{
    char path[TEMPORARY_BYTES];

    temporary_directory(path);
    CHECK_EQ(mkdir(path, 0700), 0);
    compete(open(path, O_RDONLY | O_DIRECTORY));
    temporary_remove(path);
}

static void test_never_two_holders_on_overlayfs(void)
{
    static const char *const names[] = {"lower", "upper", "work", "merged"};
    char path[TEMPORARY_BYTES];
    char places[4][TEMPORARY_BYTES + 16];
    char options[4 * TEMPORARY_BYTES];

    temporary_directory(path);
    CHECK_EQ(mkdir(path, 0700), 0);
    for (int i = 0; i < 4; i++) {
        (void)snprintf(places[i], sizeof places[i], "%s/%s", path, names[i]);
        CHECK_EQ(mkdir(places[i], 0700), 0);
    }
    (void)snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", places[0], places[1], places[2]);
    if (mount("overlay", places[3], "overlay", 0, options) == 0) {
        int dir = open(places[3], O_RDONLY | O_DIRECTORY);

        CHECK_EQ(umount2(places[3], MNT_DETACH), 0); /* it goes with the last descriptor, whatever happens here */
        compete(dir);
    } else {
        printf("    skipped: no overlayfs can be mounted here\n");
    }
    temporary_remove(path);
}

int main(void)
{
    holders = mmap(NULL, sizeof *holders, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(holders != MAP_FAILED);
    RUN(test_never_two_holders);
    RUN(test_never_two_holders_on_overlayfs);
    return 0;
}
