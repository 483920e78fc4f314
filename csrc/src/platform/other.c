/* SPDX-License-Identifier: MIT */
/*
 * other.c - what the library asks of macOS and the BSDs beyond POSIX: the counterpart of
 * linux.c. Called by posix.c only. Keeps no state; everything is thread-safe.
 *
 * LOCKS. flock() belongs to the open file description, as the lock on Linux does. A forked child shares the
 * description, so a child that neither execs nor closes the inherited handle keeps a dead parent's lock for
 * as long as it runs. lock_held has to take the lock for a moment to ask; whoever tries to lock at just that
 * moment is told that it is taken, so chron__os_lock tries a few times.
 *
 * There is no futex between processes here: readers that wait sleep in short slices.
 */
#if !defined(__linux__)

#if defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif
#define _FILE_OFFSET_BITS 64

#include "platform/platform.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#if defined(__APPLE__)
#include <stdio.h> /* renameatx_np */
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <uuid/uuid.h>
#endif
#include <sys/param.h>
#if defined(__NetBSD__)
#include <sys/statvfs.h>
#endif
#include <unistd.h>

#define LOCK_TRIES 5
#define LOCK_PAUSE_NS 1000000u

/* Not every file system here can be asked for blocks, and some say yes and lie: write it out. */
int chron__os_allocate(int fd, uint64_t bytes)
{
    (void)fd;
    (void)bytes;
    return -ENOSYS;
}

int chron__os_fill(int fd, uint64_t bytes)
{
    (void)fd;
    (void)bytes;
    return -ENOSYS;
}

int chron__os_rename_new(int dir, const char *from, const char *to)
{
#if defined(RENAME_EXCL) /* macOS */
    if (renameatx_np(dir, from, dir, to, RENAME_EXCL) == 0)
        return 0;
    return errno == ENOTSUP || errno == EINVAL ? -ENOSYS : -errno;
#else
    (void)dir;
    (void)from;
    (void)to;
    return -ENOSYS;
#endif
}

void chron__os_place(int fd, chron__place *out)
{
#if defined(__APPLE__)
    struct stat st;

    if (fstat(fd, &st) == 0)
        out->birth_ns = (uint64_t)st.st_birthtimespec.tv_sec * 1000000000u + (uint64_t)st.st_birthtimespec.tv_nsec;
#else
    (void)fd;
#endif
    chron__os_boot(out->boot);
}

int chron__os_counter_trusted(void)
{
    return 0;
}

void chron__os_boot(uint8_t *boot)
{
    memset(boot, 0, 16);
#if defined(__APPLE__)
    {
        char text[64] = "";
        size_t length = sizeof text - 1u;

        if (sysctlbyname("kern.bootsessionuuid", text, &length, NULL, 0) == 0)
            (void)uuid_parse(text, boot);
    }
#endif /* the other systems have no name for a boot: every opening is judged as after another one */
}

void chron__os_start_sync(int fd)
{
    (void)fd;
}

int chron__os_open_direct(int dir, const char *name)
{
    (void)dir;
    (void)name;
    return -ENOTSUP;
}

int64_t chron__os_next_data(int fd, uint64_t offset)
{
    (void)fd;
    (void)offset;
    return -ENOSYS;
}

int chron__os_lock(int fd, chron__lock *out)
{
    for (int tries = 0; tries < LOCK_TRIES; tries++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            out->fd = fd;
            return 0;
        }
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        (void)chron__sleep_ns(LOCK_PAUSE_NS);
    }
    return -EAGAIN;
}

void chron__os_unlock(chron__lock *lock)
{
    (void)close(lock->fd);
}

int chron__os_lock_held(int fd)
{
    if (flock(fd, LOCK_SH | LOCK_NB) == 0) {
        (void)flock(fd, LOCK_UN);
        return 0;
    }
    return errno == EWOULDBLOCK ? 1 : -errno;
}

int chron__os_lock_byte(const chron__io *io, int fd, uint64_t byte, int kind)
{
    (void)io;
    (void)fd;
    (void)byte;
    (void)kind;
    return -ENOTSUP; /* POSIX has them for processes only: they end with the first descriptor that is closed */
}

int chron__os_byte_held(const chron__io *io, int fd, uint64_t byte)
{
    (void)io;
    (void)fd;
    (void)byte;
    return -ENOTSUP;
}

int chron__os_hold(const chron__io *io, int fd, int other, chron__lock *out)
{
    (void)io;
    (void)other;
    (void)out;
    (void)close(fd);
    return -ENOTSUP;
}

static int is_name(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return 1;
    return 0;
}

int chron__os_fs_kind(int fd)
{
    static const char *const network[] = {"nfs", "smbfs", "afpfs", "webdav", "ftp", "cifs", "smb", NULL};
    static const char *const in_memory[] = {"tmpfs", "mfs", NULL};
#if defined(__NetBSD__)
    struct statvfs fs;

    if (fstatvfs(fd, &fs) < 0)
        return -errno;
#else
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return -errno;
#endif
    if (is_name(fs.f_fstypename, network))
        return CHRON__FS_NETWORK;
    return is_name(fs.f_fstypename, in_memory) ? CHRON__FS_VOLATILE : 0;
}

/* fsync on macOS leaves the data in the drive's cache; F_FULLFSYNC does not. */
int chron__os_sync_file(int fd)
{
    int status;

    do {
#if defined(F_FULLFSYNC)
        status = fcntl(fd, F_FULLFSYNC);
        if (status < 0 && (errno == ENOTSUP || errno == EINVAL))
            status = fsync(fd);
#else
        status = fsync(fd);
#endif
    } while (status < 0 && errno == EINTR);
    return status < 0 ? -errno : 0;
}

int chron__os_sync_map(int fd, void *address, size_t bytes)
{
    if (msync(address, bytes, MS_SYNC) < 0)
        return -errno;
    return chron__os_sync_file(fd);
}

void chron__os_dont_fork(void *address, size_t bytes)
{
#if defined(INHERIT_NONE)
    (void)minherit(address, bytes, INHERIT_NONE);
#elif defined(MAP_INHERIT_NONE)
    (void)minherit(address, bytes, MAP_INHERIT_NONE);
#else
    (void)address; /* the fork counter answers */
    (void)bytes;
#endif
}

int chron__os_populate(void *address, size_t bytes)
{
    (void)address;
    (void)bytes;
    return -ENOSYS;
}

int chron__futex_wait(void *word, uint32_t expected, uint64_t ns)
{
    (void)word;
    (void)expected;
    (void)ns;
    return -ENOSYS;
}

int chron__futex_wait_any(void *const *words, const uint32_t *expected, size_t count, uint64_t ns)
{
    (void)words;
    (void)expected;
    (void)count;
    (void)ns;
    return -ENOSYS;
}

int chron__futex_wake_all(void *word)
{
    (void)word;
    return -ENOSYS;
}

int chron__futex_wake_one(void *word)
{
    (void)word;
    return -ENOSYS;
}

int chron__process_state(int64_t pid)
{
    (void)pid;
    return 0;
}

uint64_t chron__os_memory_limit(void)
{
    return UINT64_MAX;
}

int chron__membarrier_join(void)
{
    return -ENOSYS;
}

int chron__membarrier(void)
{
    return -ENOSYS;
}

#else
typedef int chron__platform_other_is_empty; /* ISO C wants something in every file */
#endif
