/* SPDX-License-Identifier: MIT */
/*
 * linux_locks.c - locks that a fork does not share, on Linux. Called through posix.c. Keeps no state; everything is
 * thread-safe.
 *
 * An open-file-description lock ends when the last reference to its open file description goes.
 * A descriptor would be a bad holder: a forked child gets a copy, and as long as it runs the lock of its
 * dead parent lives on. A mapping is a reference too, and MADV_DONTFORK keeps it out of children. So the
 * lock is held by one page, mapped without any access rights, and all descriptors are closed.
 *
 * That does not hold on a file system that passes the mapping on to a file of another one: on overlayfs
 * (measured), which is what the root of most containers is, the mapping refers to a description in the
 * layer below, and the lock would end with the descriptor. Therefore the lock is looked at through a
 * second description before the descriptor is trusted to be superfluous; if it is gone, or if there is no
 * /proc to get a second description from, the descriptor is kept. Limit: there a forked child that
 * neither execs nor closes the inherited handle keeps the lock for as long as it runs.
 *
 * While that is found out, nobody else may come in: his lock would look like ours. So the lock, whole at first,
 * is divided: its first byte is left to the mapping, the rest held by the second description until all is clear.
 * Everybody asks for the whole file, so either part keeps everybody out.
 *
 * Who shares a file with others locks single bytes of it, and takes no descriptor for a holder: it is told that a mapping cannot do it.
 */
#if defined(__linux__)

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64

#include "platform/platform.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOCK_MAP_BYTES 1u               /* the kernel makes a page of it */
#define PROBE_BYTES (UINT64_C(1) << 41) /* from here on, bytes that are locked by their finder only */

/* Lock or unlock from byte `from` to the end of the file, however far that goes. */
static int set_lock(int fd, short type, off_t from)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = from};

    if (fcntl(fd, F_OFD_SETLK, &range) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno; /* POSIX allows either for "somebody else has it" */
}

/* Does another description hold a lock on any of the first `bytes` (0: all)? Asking needs no write access. */
static int is_locked(int fd, off_t bytes)
{
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = bytes};

    if (fcntl(fd, F_OFD_GETLK, &range) < 0)
        return -errno;
    return range.l_type != F_UNLCK;
}

static int reopen(int fd)
{
    char path[32];

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

/* A page that keeps the description of `fd` alive, in this process only. */
static void *hold_by_map(int fd)
{
    void *map = mmap(NULL, LOCK_MAP_BYTES, PROT_NONE, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED || madvise(map, LOCK_MAP_BYTES, MADV_DONTFORK) == 0)
        return map;
    (void)munmap(map, LOCK_MAP_BYTES);
    return MAP_FAILED;
}

/*
 * Takes the lock through `other` and hands it to a mapping. 1: done; 0: a mapping cannot hold it here, so `fd` does
 * now.
 */
static int lock_by_map(int fd, int other, chron__lock *out)
{
    int status = set_lock(other, F_WRLCK, 0);
    void *map = MAP_FAILED;

    if (status == 0) {
        map = hold_by_map(other);
        status = map == MAP_FAILED ? -errno : 0;
    }
    if (status == 0)
        status = set_lock(other, F_UNLCK, 1);
    if (status == 0)
        status = set_lock(fd, F_WRLCK, 1); /* nobody can have come in: byte 0 keeps them out */
    close(other);
    if (status == 0)
        status = is_locked(fd, 1); /* by the mapping, or by nobody */
    if (status == 1) {
        out->map = map;
        return 1;
    }
    if (map != MAP_FAILED)
        (void)munmap(map, LOCK_MAP_BYTES);
    return status < 0 ? status : set_lock(fd, F_WRLCK, 0);
}

int chron__os_lock(int fd, chron__lock *out)
{
    int other = reopen(fd);
    int status = other >= 0 ? lock_by_map(fd, other, out) : set_lock(fd, F_WRLCK, 0);

    if (status == 1)
        close(fd);
    else if (status == 0)
        out->fd = fd;
    return status < 0 ? status : 0;
}

void chron__os_unlock(chron__lock *lock)
{
    if (lock->map)
        (void)munmap(lock->map, LOCK_MAP_BYTES);
    else
        (void)close(lock->fd);
}

int chron__os_lock_held(int fd)
{
    return is_locked(fd, 0);
}

static int set_byte(int fd, short type, uint64_t byte)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};

    if (fcntl(fd, F_OFD_SETLK, &range) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : errno == EINVAL ? -ENOTSUP : -errno;
}

int chron__os_lock_byte(const chron__io *io, int fd, uint64_t byte, int kind)
{
    CHRON__UNCANCELLED;
    (void)io;
    return set_byte(fd, kind == CHRON__BYTE_FREE ? F_UNLCK : kind == CHRON__BYTE_SHARED ? F_RDLCK : F_WRLCK, byte);
}

int chron__os_byte_held(const chron__io *io, int fd, uint64_t byte)
{
    CHRON__UNCANCELLED;
    struct flock range = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};

    (void)io;
    if (fcntl(fd, F_OFD_GETLK, &range) < 0)
        return -errno;
    return range.l_type != F_UNLCK;
}

/* Nobody else asks for this byte: so who holds it is the description that it was locked through. */
int chron__os_hold(const chron__io *io, int fd, int other, chron__lock *out)
{
    CHRON__UNCANCELLED;
    uint32_t random = 0;
    void *map = MAP_FAILED;
    int status = chron__random(&random, sizeof random);
    const uint64_t probe = PROBE_BYTES + random;

    out->map = NULL;
    out->fd = -1;
    if (status >= 0)
        status = set_byte(fd, F_WRLCK, probe);
    if (status >= 0) {
        map = hold_by_map(fd);
        status = map == MAP_FAILED ? -errno : 0;
    }
    close(fd);
    if (status >= 0)
        status = chron__os_byte_held(io, other, probe);
    if (status == 1) {
        out->map = map;
        return 0;
    }
    if (map != MAP_FAILED)
        (void)munmap(map, LOCK_MAP_BYTES);
    return status < 0 ? status : -ENOTSUP;
}

#else
typedef int chron__platform_linux_locks_is_empty; /* ISO C wants something in every file */
#endif
