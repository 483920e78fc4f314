/* SPDX-License-Identifier: MIT */
/*
 * posix.c - the real disk (chron__io_posix), in terms of POSIX. What POSIX lacks is asked of chron__os_..., in linux.c or
 * other.c.
 *
 * Invariants: every call that a signal can interrupt is repeated; no thread is cancelled in any of them; nothing here moves a descriptor's offset, sets the
 * thread's chron_error or keeps anything between calls. Everything is thread-safe.
 *
 * The library reaches it only through a chron__io, so that tests can put another disk there.
 */
#if defined(__linux__)
#define _GNU_SOURCE
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif
#define _FILE_OFFSET_BITS 64

#include "platform/platform.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "files of more than 2 GiB");

#define TRANSFER_MAX ((size_t)1 << 30) /* of one read or write: some systems refuse INT_MAX and more */
#define ZEROS_BYTES 65536u

static int fail_errno(void)
{
    return errno ? -errno : -EIO;
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* ------------------------------------------------------------------------------ names and files */

/*
 * Descriptors 0 to 2 belong to the program, also if it was started with them closed: what it prints would land in a
 * file of the queue.
 */
static int away_from_standard(int fd)
{
    int other;

    if (fd > 2)
        return fd;
    other = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (other < 0)
        other = fail_errno();
    close(fd);
    return other;
}

static int open_dir(const chron__io *io, int at, const char *path)
{
    CHRON__UNCANCELLED;
    int fd;

    (void)io;
    do {
        fd = openat(at < 0 ? AT_FDCWD : at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? fail_errno() : away_from_standard(fd);
}

static int make_dir(const chron__io *io, int at, const char *path, unsigned mode)
{
    CHRON__UNCANCELLED;
    (void)io;
    return mkdirat(at < 0 ? AT_FDCWD : at, path, (mode_t)mode) < 0 ? fail_errno() : 0;
}

/* What openat says about names that are there but are no regular file, in one spelling. */
static int open_error(void)
{
    switch (errno) {
    case EISDIR:
    case ENXIO: /* a socket, or a FIFO without a reader */
        return -EINVAL;
    case EMLINK: /* FreeBSD's answer to O_NOFOLLOW on a symbolic link */
#if defined(EFTYPE)
    case EFTYPE: /* NetBSD's */
#endif
        return -ELOOP;
    default:
        return fail_errno();
    }
}

static int open_file(const chron__io *io, int dir, const char *name, int flags, unsigned mode)
{
    CHRON__UNCANCELLED;
    /* O_NONBLOCK: a FIFO under this name must not hold us up before we have seen that it is one. */
    int how = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;
    struct stat st;
    int status;
    int fd;

    (void)io;
    how |= flags & (CHRON__OPEN_WRITE | CHRON__OPEN_CREATE) ? O_RDWR : O_RDONLY;
    if (flags & CHRON__OPEN_CREATE)
        how |= O_CREAT;
    if (flags & CHRON__OPEN_EXCLUSIVE)
        how |= O_EXCL;
    do {
        fd = openat(dir, name, how, (mode_t)mode);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return open_error();
    fd = away_from_standard(fd);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        status = fail_errno();
    else if (!S_ISREG(st.st_mode))
        status = -EINVAL;
    else
        status = fcntl(fd, F_SETFL, 0) < 0 ? fail_errno() : 0;
    if (status == 0)
        return fd;
    close(fd);
    return status;
}

static void close_file(const chron__io *io, int fd)
{
    CHRON__UNCANCELLED;
    (void)io;
    /* Not repeated on EINTR: the descriptor is gone, and its number may be somebody else's by now. */
    (void)close(fd);
}

static int file_size(const chron__io *io, int fd, uint64_t *bytes)
{
    CHRON__UNCANCELLED;
    struct stat st;

    (void)io;
    if (fstat(fd, &st) < 0)
        return fail_errno();
    *bytes = (uint64_t)st.st_size;
    return 0;
}

static int rename_file(const chron__io *io, int from_dir, const char *from, int to_dir, const char *to)
{
    CHRON__UNCANCELLED;
    (void)io;
    return renameat(from_dir, from, to_dir, to) < 0 ? fail_errno() : 0;
}

static int rename_new(const chron__io *io, int dir, const char *from, const char *to)
{
    CHRON__UNCANCELLED;
    int status = chron__os_rename_new(dir, from, to);

    (void)io;
    if (status != -ENOSYS)
        return status;
    if (linkat(dir, from, dir, to, 0) < 0)
        return fail_errno();
    (void)unlinkat(dir, from, 0);
    return 0;
}

static int link_file(const chron__io *io, int dir, const char *from, const char *to)
{
    (void)io;
    return linkat(dir, from, dir, to, 0) < 0 ? fail_errno() : 0;
}

static int unlink_file(const chron__io *io, int dir, const char *name)
{
    CHRON__UNCANCELLED;
    (void)io;
    return unlinkat(dir, name, 0) < 0 ? fail_errno() : 0;
}

static int walk(DIR *stream, int (*visit)(void *context, const char *name), void *context)
{
    const struct dirent *entry;
    int status;

    for (;;) {
        errno = 0;
        entry = readdir(stream);
        if (!entry)
            return -errno;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        status = visit(context, entry->d_name);
        if (status != 0)
            return status;
    }
}

static int list(const chron__io *io, int dir, int (*visit)(void *context, const char *name), void *context)
{
    CHRON__UNCANCELLED;
    DIR *stream;
    int status;
    /* Opened again: a copy of `dir` would share its read position with other walks. */
    int fd = open_dir(io, dir, ".");

    if (fd < 0)
        return fd;
    stream = fdopendir(fd);
    if (!stream) {
        status = fail_errno();
        close(fd);
        return status;
    }
    status = walk(stream, visit, context);
    closedir(stream);
    return status;
}

static int same_file(const chron__io *io, int fd, int dir, const char *name)
{
    CHRON__UNCANCELLED;
    struct stat open;
    struct stat named;

    (void)io;
    if (fstat(fd, &open) < 0)
        return fail_errno();
    if (fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail_errno();
    return open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

#if defined(__APPLE__)
#define MODIFIED(st) (st).st_mtimespec
#define CHANGED(st) (st).st_ctimespec
#else
#define MODIFIED(st) (st).st_mtim
#define CHANGED(st) (st).st_ctim
#endif
#define STAT_BLOCK_BYTES 512u /* st_blocks is in these, whatever the file system has */

static uint64_t ns_of(struct timespec time)
{
    return time.tv_sec < 0 ? 0 : (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int stat_name(const chron__io *io, int dir, const char *name, chron__stat *out)
{
    struct stat st;

    (void)io;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fail_errno();
    out->bytes = (uint64_t)st.st_size;
    out->allocated = (uint64_t)st.st_blocks * STAT_BLOCK_BYTES;
    out->modified_ns = ns_of(MODIFIED(st));
    out->changed_ns = ns_of(CHANGED(st));
    out->is_regular = S_ISREG(st.st_mode);
    out->mode = (unsigned)st.st_mode & 0777u;
    return 0;
}

static int place(const chron__io *io, int fd, chron__place *out)
{
    CHRON__UNCANCELLED;
    struct stat st;

    (void)io;
    memset(out, 0, sizeof *out);
    if (fstat(fd, &st) < 0)
        return fail_errno();
    out->device = (uint64_t)st.st_dev;
    out->inode = (uint64_t)st.st_ino;
    chron__os_place(fd, out);
    return 0;
}

static int64_t links(const chron__io *io, int fd)
{
    CHRON__UNCANCELLED;
    struct stat st;

    (void)io;
    return fstat(fd, &st) < 0 ? fail_errno() : (int64_t)st.st_nlink;
}

static int copy_fd(const chron__io *io, int fd)
{
    CHRON__UNCANCELLED;
    int other = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    (void)io;
    return other < 0 ? fail_errno() : other;
}

static int remove_dir(const chron__io *io, int at, const char *path)
{
    CHRON__UNCANCELLED;
    (void)io;
    return unlinkat(at < 0 ? AT_FDCWD : at, path, AT_REMOVEDIR) < 0 ? fail_errno() : 0;
}

/* ------------------------------------------------------------------------------------- contents */

static int write_zeros(int fd, uint64_t bytes)
{
    static const uint8_t zeros[ZEROS_BYTES];

    for (uint64_t at = 0; at < bytes;) {
        size_t want = bytes - at < sizeof zeros ? (size_t)(bytes - at) : sizeof zeros;
        ssize_t n = pwrite(fd, zeros, want, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        at += (uint64_t)n;
    }
    return 0;
}

/* A file that grows beyond the process's limit (ulimit -f) would cost a signal that kills. */
static int within_limit(uint64_t bytes)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= (uint64_t)limit.rlim_cur;
}

static int allocate(const chron__io *io, int fd, uint64_t bytes)
{
    CHRON__UNCANCELLED;
    uint64_t before = 0;
    int status = file_size(io, fd, &before);

    if (status < 0)
        return status;
    if (bytes > INT64_MAX || !within_limit(bytes))
        return -EFBIG;
    status = chron__os_allocate(fd, bytes);
    if (status == -ENOSYS)
        status = write_zeros(fd, bytes);
    if (status < 0)
        (void)ftruncate(fd, (off_t)before); /* give back what it did get; the first error is the one that counts */
    return status;
}

static int fill(const chron__io *io, int fd, uint64_t bytes)
{
    CHRON__UNCANCELLED;
    int status = chron__os_fill(fd, bytes);

    (void)io;
    return status == -ENOSYS ? 0 : status;
}

static int64_t read_at(const chron__io *io, int fd, void *buffer, size_t bytes, uint64_t offset)
{
    CHRON__UNCANCELLED;
    size_t done = 0;

    (void)io;
    while (done < bytes) {
        size_t want = bytes - done < TRANSFER_MAX ? bytes - done : TRANSFER_MAX;
        ssize_t n = pread(fd, (char *)buffer + done, want, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno();
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

static int64_t write_at(const chron__io *io, int fd, const void *buffer, size_t bytes, uint64_t offset)
{
    CHRON__UNCANCELLED;
    size_t done = 0;

    (void)io;
    if (!within_limit(offset + bytes))
        return -EFBIG;
    while (done < bytes) {
        size_t want = bytes - done < TRANSFER_MAX ? bytes - done : TRANSFER_MAX;
        ssize_t n = pwrite(fd, (const char *)buffer + done, want, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno();
        if (n == 0)
            return -EIO;
        done += (size_t)n;
    }
    return (int64_t)done;
}

static int64_t next_data(const chron__io *io, int fd, uint64_t offset)
{
    CHRON__UNCANCELLED;
    uint64_t bytes = 0;
    int64_t at;
    int status = file_size(io, fd, &bytes);

    if (status < 0)
        return status;
    if (offset >= bytes)
        return (int64_t)bytes;
    at = chron__os_next_data(fd, offset);
    if (at == -ENXIO)
        return (int64_t)bytes;
    return at == -ENOSYS ? (int64_t)offset : at;
}

static void start_sync(const chron__io *io, int fd)
{
    CHRON__UNCANCELLED;
    (void)io;
    chron__os_start_sync(fd);
}

static int64_t read_device(const chron__io *io, int dir, const char *name, void *buffer, size_t bytes, uint64_t offset)
{
    CHRON__UNCANCELLED;
    int64_t n;
    int fd = chron__os_open_direct(dir, name);

    if (fd < 0)
        return fd;
    n = read_at(io, fd, buffer, bytes, offset);
    close(fd);
    return n == -EINVAL ? -ENOTSUP : n; /* a device with larger blocks than we align to */
}

static int fs_kind(const chron__io *io, int fd)
{
    CHRON__UNCANCELLED;
    (void)io;
    return chron__os_fs_kind(fd);
}

/* -------------------------------------------------------------------------------------- mappings */

static int map_file(const chron__io *io, int fd, size_t bytes, int flags, chron__map *out)
{
    CHRON__UNCANCELLED;
    int protection = flags & CHRON__MAP_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
    uint64_t size = 0;
    void *base;
    int status = file_size(io, fd, &size);

    memset(out, 0, sizeof *out);
    if (status < 0)
        return status;
    if (size < bytes)
        return -ERANGE; /* a touch of what lies behind the end would be a SIGBUS */
    base = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return fail_errno();
    if (flags & CHRON__MAP_DONTFORK)
        chron__os_dont_fork(base, bytes);
    out->base = base;
    out->bytes = bytes;
    status = chron__guard_add(out, flags);
    if (status < 0) {
        (void)munmap(base, bytes);
        memset(out, 0, sizeof *out);
    }
    return status;
}

void chron__map_forget(chron__map *map)
{
    chron__guard_remove(map);
    memset(map, 0, sizeof *map);
}

static void unmap(const chron__io *io, chron__map *map)
{
    CHRON__UNCANCELLED;
    void *base = map->base;
    size_t bytes = map->bytes;

    (void)io;
    chron__map_forget(map); /* first: the guard must not take the next owner of these addresses for us */
    (void)munmap(base, bytes);
}

static int sync_map(const chron__io *io, int fd, const chron__map *map, uint64_t offset, uint64_t bytes)
{
    CHRON__UNCANCELLED;
    size_t before = (size_t)(offset % page_bytes()); /* msync wants the start of a page */
    int status;

    (void)io;
    status = chron__os_sync_map(fd, map->base + offset - before, (size_t)bytes + before);
    if (status == 0 && chron__map_faulted(map))
        return -EIO; /* what was synced are the guard's pages, which no file has */
    return status;
}

static int sync_file(const chron__io *io, int fd)
{
    CHRON__UNCANCELLED;
    (void)io;
    return chron__os_sync_file(fd);
}

/* ----------------------------------------------------------------------------------------- locks */

static int lock(const chron__io *io, int fd, chron__lock *out)
{
    CHRON__UNCANCELLED;
    (void)io;
    out->map = NULL;
    out->fd = -1;
    return chron__os_lock(fd, out);
}

static void unlock(const chron__io *io, chron__lock *held)
{
    CHRON__UNCANCELLED;
    (void)io;
    chron__os_unlock(held);
    held->map = NULL;
    held->fd = -1;
}

static int lock_held(const chron__io *io, int fd)
{
    CHRON__UNCANCELLED;
    (void)io;
    return chron__os_lock_held(fd);
}

const chron__io chron__io_posix = {
    .open_dir = open_dir,
    .make_dir = make_dir,
    .open_file = open_file,
    .close_file = close_file,
    .file_size = file_size,
    .allocate = allocate,
    .fill = fill,
    .map = map_file,
    .unmap = unmap,
    .sync_map = sync_map,
    .sync_file = sync_file,
    .sync_dir = sync_file, /* a directory is synced like a file */
    .rename = rename_file,
    .link = link_file,
    .rename_new = rename_new,
    .unlink = unlink_file,
    .list = list,
    .lock = lock,
    .unlock = unlock,
    .lock_held = lock_held,
    .lock_byte = chron__os_lock_byte,
    .byte_held = chron__os_byte_held,
    .hold = chron__os_hold,
    .read_at = read_at,
    .write_at = write_at,
    .fs_kind = fs_kind,
    .next_data = next_data,
    .same_file = same_file,
    .stat_name = stat_name,
    .place = place,
    .links = links,
    .copy_fd = copy_fd,
    .remove_dir = remove_dir,
    .start_sync = start_sync,
    .read_device = read_device,
};
