/* SPDX-License-Identifier: MIT */
/*
 * linux.c - what the library asks of Linux beyond POSIX: locks that a fork does not share, futexes,
 * allocation, the kinds of file systems, and pages in bulk. Called by posix.c, but for the futex
 * and chron__os_dont_fork. Keeps no state; everything is thread-safe.
 *
 * LOCKS. An open-file-description lock ends when the last reference to its open file description goes.
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
 */
#if defined(__linux__)

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64

#include "platform/platform.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#if !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define FUTEX_OP_WAIT 0
#define FUTEX_OP_WAKE 1
#define FUTEX_SIZE_32 2u /* flag of a struct futex_waitv; without FUTEX_PRIVATE: shared between processes */
#define NS_PER_SECOND 1000000000u
#define BLOCK_BYTES 512u  /* unit of st_blocks, whatever st_blksize says */
#define INTERRUPTS_MAX 8  /* of one fallocate */
#define LOCK_MAP_BYTES 1u /* the kernel makes a page of it */

/* ---------------------------------------------------------------------------------------- sizes */

/* Blocks for all of [0, bytes), and no byte changed. -ENOSYS: it cannot be asked for, or never comes to an end. */
static int give_blocks(int fd, int mode, uint64_t bytes)
{
    int interrupts = 0;
    int status;

    do {
        status = fallocate(fd, mode, 0, (off_t)bytes);
    } while (status < 0 && errno == EINTR && ++interrupts < INTERRUPTS_MAX);
    if (status == 0)
        return 0;
    return errno == EOPNOTSUPP || errno == EINTR ? -ENOSYS : -errno;
}

int chron__os_fill(int fd, uint64_t bytes)
{
    struct stat st;

    /* Asked for nothing, it would still change the file's times: of one that is only looked at, perhaps. */
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_blocks * BLOCK_BYTES >= bytes)
        return 0;
    return give_blocks(fd, FALLOC_FL_KEEP_SIZE, bytes);
}

int chron__os_allocate(int fd, uint64_t bytes)
{
    struct stat st;
    int status = give_blocks(fd, 0, bytes);

    if (status < 0 && status != -ENOSYS)
        return status;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (status == 0 && (uint64_t)st.st_size >= bytes && (uint64_t)st.st_blocks * BLOCK_BYTES >= bytes)
        return 0;
    /*
     * It cannot be asked for blocks, or said yes and did not give them (ZFS), or begins anew at each signal and never
     * comes to an end (the tmpfs of older kernels). Writing is what remains. What then still allocates late,
     * compresses or copies on write cannot be bound at all; see guard.c.
     */
    return -ENOSYS;
}

/* SEEK_DATA overlooks pages that are dirty in memory only, on FUSE and on some releases of ZFS. */
static int knows_its_holes(int fd)
{
    static const uint32_t known[] = {
        0x0000EF53u, /* ext4 */
        0x58465342u, /* XFS */
        0x9123683Eu, /* btrfs */
        0x01021994u, /* tmpfs */
    };
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if ((uint32_t)fs.f_type == known[i])
            return 1;
    }
    return 0;
}

int64_t chron__os_next_data(int fd, uint64_t offset)
{
    off_t at;

    if (!knows_its_holes(fd))
        return -ENOSYS;
    at = lseek(fd, (off_t)offset, SEEK_DATA); /* moves the descriptor's offset, which nobody uses */
    if (at >= 0)
        return at;
    return errno == EINVAL ? -ENOSYS : -errno;
}

/* ---------------------------------------------------------------------------------------- places */

int chron__os_rename_new(int dir, const char *from, const char *to)
{
    const unsigned no_replace = 1;

    if (syscall(SYS_renameat2, dir, from, dir, to, no_replace) == 0)
        return 0;
    return errno == EINVAL ? -ENOSYS : -errno; /* EINVAL: this file system does not know the flag */
}

/* All of a small file of the kernel's; "" if it cannot be read. */
static void read_text(const char *path, char *text, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, capacity - 1u) : -1;

    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

/* "8c3a61ce-..." as 16 bytes. */
void chron__os_boot(uint8_t *boot)
{
    static const char digits[] = "0123456789abcdef";
    char text[64];
    unsigned count = 0;

    memset(boot, 0, 16);
    read_text("/proc/sys/kernel/random/boot_id", text, sizeof text);
    for (const char *c = text; *c && count < 32; c++) {
        const char *digit = strchr(digits, *c);

        if (!digit)
            continue;
        boot[count / 2u] = (uint8_t)(boot[count / 2u] << 4 | (digit - digits));
        count++;
    }
    if (count < 32)
        memset(boot, 0, 16);
}

/* The kernel has checked then that it runs evenly, through sleep too, and is the same on all processors. */
int chron__os_counter_trusted(void)
{
#if defined(__x86_64__)
    CHRON__UNCANCELLED;
    char text[64];

    read_text("/sys/devices/system/clocksource/clocksource0/current_clocksource", text, sizeof text);
    return strcmp(text, "tsc\n") == 0 || strcmp(text, "tsc") == 0;
#else
    return 0;
#endif
}

/* Of the disk that a partition lies on, if it is one (Linux 5.15). A disk that goes and comes back gets another. */
static uint64_t read_disk_seq(unsigned device_major, unsigned device_minor)
{
    static const char *const places[] = {"", "/.."};
    char path[64];
    char text[32];

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u%s/diskseq", device_major, device_minor, places[i]);
        read_text(path, text, sizeof text);
        if (text[0])
            return strtoull(text, NULL, 10);
    }
    return 0;
}

void chron__os_place(int fd, chron__place *out)
{
    struct statx st;

    chron__os_boot(out->boot);
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) < 0)
        return;
    if (st.stx_mask & STATX_BTIME)
        out->birth_ns = (uint64_t)st.stx_btime.tv_sec * NS_PER_SECOND + st.stx_btime.tv_nsec;
    out->disk_seq = read_disk_seq(st.stx_dev_major, st.stx_dev_minor);
}

void chron__os_start_sync(int fd)
{
    (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int chron__os_open_direct(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);

    if (fd < 0)
        return errno == EINVAL ? -ENOTSUP : -errno;
    return fd;
}

/* ---------------------------------------------------------------------------------------- locks */

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

/* ---------------------------------------------------------------------------------- file systems */

/*
 * FUSE is let through: behind it are local disks (ntfs-3g, mergerfs, encrypted folders) as well as remote
 * ones (sshfs), it does not tell which, and its shared mappings are coherent on one host. Overlayfs answers
 * for itself even if its upper layer is a tmpfs, so that case is not seen as volatile.
 */
static const struct {
    uint32_t type;
    int kind;
} kinds[] = {
    {0x00006969u, CHRON__FS_NETWORK},     /* NFS */
    {0x0000517Bu, CHRON__FS_NETWORK},     /* SMB */
    {0xFF534D42u, CHRON__FS_NETWORK},     /* CIFS */
    {0xFE534D42u, CHRON__FS_NETWORK},     /* SMB2 */
    {0x01021997u, CHRON__FS_NETWORK},     /* 9P */
    {0x00C36400u, CHRON__FS_NETWORK},     /* Ceph */
    {0x5346414Fu, CHRON__FS_NETWORK},     /* AFS (OpenAFS) */
    {0x6B414653u, CHRON__FS_NETWORK},     /* AFS (the kernel's) */
    {0x73757245u, CHRON__FS_NETWORK},     /* Coda */
    {0x0BD00BD0u, CHRON__FS_NETWORK},     /* Lustre */
    {0x47504653u, CHRON__FS_NETWORK},     /* GPFS */
    {0x0000EF53u, CHRON__FS_LARGE_PAGES}, /* ext4 */
    {0x58465342u, CHRON__FS_LARGE_PAGES}, /* xfs */
    {0x01021994u, CHRON__FS_VOLATILE},    /* tmpfs */
    {0x858458F6u, CHRON__FS_VOLATILE},    /* ramfs */
    {0x958458F6u, CHRON__FS_VOLATILE},    /* hugetlbfs */
};

int chron__os_fs_kind(int fd)
{
    struct statfs fs;

    while (fstatfs(fd, &fs) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if ((uint32_t)fs.f_type == kinds[i].type) /* f_type is signed, or 32 bits wide, on some machines */
            return kinds[i].kind;
    }
    return 0;
}

/* -------------------------------------------------------------------------------- disk and memory */

int chron__os_sync_map(int fd, void *address, size_t bytes)
{
    (void)fd;
    while (msync(address, bytes, MS_SYNC) < 0) { /* an fdatasync of that range */
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int chron__os_sync_file(int fd)
{
    while (fsync(fd) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

void chron__os_dont_fork(void *address, size_t bytes)
{
    /* Without it children are protected by the fork counter alone, as on other systems. */
    (void)madvise(address, bytes, MADV_DONTFORK);
}

int chron__os_populate(void *address, size_t bytes)
{
    /* An error other than "unknown advice" means that there are pages which a touch would be a SIGBUS for. */
    if (madvise(address, bytes, MADV_POPULATE_WRITE) < 0 && errno == EINVAL)
        return -ENOSYS;
    return 0;
}

/* ---------------------------------------------------------------------------------------- futexes */

/* Not FUTEX_PRIVATE: the word is shared between processes. `timeout` as the call named `number` wants it. */
static int futex(long number, void *word, int operation, uint32_t value, const void *timeout)
{
    return syscall(number, word, operation, value, timeout, NULL, 0) < 0 ? -errno : 0;
}

/* The system call's own struct, which need not be the C library's struct timespec on 32-bit machines. */
static int futex_long(void *word, uint32_t expected, uint64_t ns)
{
    uint64_t seconds = ns / NS_PER_SECOND;
    struct {
        long seconds;
        long nanoseconds;
    } timeout = {seconds < LONG_MAX ? (long)seconds : LONG_MAX, (long)(ns % NS_PER_SECOND)};

#if defined(SYS_futex)
    return futex(SYS_futex, word, FUTEX_OP_WAIT, expected, &timeout);
#else
    (void)word;
    (void)expected;
    (void)timeout;
    return -ENOSYS; /* 32-bit machines younger than futex_time64 */
#endif
}

int chron__futex_wait(void *word, uint32_t expected, uint64_t ns)
{
    int status = -ENOSYS;

#if defined(SYS_futex_time64)
    struct {
        int64_t seconds;
        int64_t nanoseconds;
    } timeout = {(int64_t)(ns / NS_PER_SECOND), (int64_t)(ns % NS_PER_SECOND)};

    status = futex(SYS_futex_time64, word, FUTEX_OP_WAIT, expected, &timeout);
#endif
    if (status == -ENOSYS) /* 64-bit machines, which have no other call, and kernels before 5.1 */
        status = futex_long(word, expected, ns);
    return status == -EAGAIN ? 0 : status;
}

/* futex_waitv, Linux 5.16. Its number is the same on all machines but alpha. */
int chron__futex_wait_any(void *const *words, const uint32_t *expected, size_t count, uint64_t ns)
{
#if defined(SYS_futex_waitv)
    const long number = SYS_futex_waitv;
#else
    const long number = 449;
#endif
    struct {
        uint64_t value;
        uint64_t address;
        uint32_t flags;
        uint32_t reserved;
    } waiters[CHRON__FUTEX_WORDS_MAX];
    struct {
        int64_t seconds;
        int64_t nanoseconds;
    } until;
    uint64_t now = chron__monotonic_ns();

    for (size_t i = 0; i < count; i++) {
        waiters[i].value = expected[i];
        waiters[i].address = (uint64_t)(uintptr_t)words[i];
        waiters[i].flags = FUTEX_SIZE_32;
        waiters[i].reserved = 0;
    }
    ns = ns < INT64_MAX - now ? now + ns : INT64_MAX;
    until.seconds = (int64_t)(ns / NS_PER_SECOND);
    until.nanoseconds = (int64_t)(ns % NS_PER_SECOND);
    if (syscall(number, waiters, (unsigned)count, 0u, &until, CLOCK_MONOTONIC) >= 0 || errno == EAGAIN)
        return 0;
    return errno == EPERM ? -ENOSYS : -errno; /* EPERM: a sandbox that does not know the call */
}

int chron__futex_wake_all(void *word)
{
#if defined(SYS_futex)
    return futex(SYS_futex, word, FUTEX_OP_WAKE, INT_MAX, NULL);
#else
    return futex(SYS_futex_time64, word, FUTEX_OP_WAKE, INT_MAX, NULL);
#endif
}

/* --------------------------------------------------------------------------------------- memory */

/* A number in a small file; UINT64_MAX if it says "max", or is not there. */
static uint64_t read_limit(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;

    if (fd >= 0) {
        n = read(fd, text, sizeof text - 1u);
        close(fd);
    }
    return n > 0 && text[0] >= '0' && text[0] <= '9' ? strtoull(text, NULL, 10) : UINT64_MAX;
}

/*
 * memory.max of the process's group and of those above it, where the unified hierarchy is mounted. In a container the group is
 * usually the root of what is seen, and the line of /proc/self/cgroup says "/".
 */
uint64_t chron__os_memory_limit(void)
{
    char path[512] = "/sys/fs/cgroup";
    size_t root = strlen(path);
    uint64_t lowest = UINT64_MAX;
    char line[400] = "";
    int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        ssize_t n = read(fd, line, sizeof line - 1u);

        close(fd);
        line[n > 0 ? n : 0] = 0;
    }
    if (strncmp(line, "0::/", 4) == 0)
        (void)snprintf(path + root, sizeof path - root - 16u, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
    for (char *end = path + strlen(path); end; end = strrchr(path + root, '/')) {
        uint64_t limit;

        (void)snprintf(end, sizeof path - (size_t)(end - path), "/memory.max");
        limit = read_limit(path);
        *end = 0;
        lowest = limit < lowest ? limit : lowest;
    }
    return lowest;
}

/* ---------------------------------------------------------------------------------- fences of others */

/* The values are the kernel's; its header knows them since 4.16 only. */
#define MEMBARRIER_GLOBAL_EXPEDITED (1 << 1)
#define MEMBARRIER_REGISTER_GLOBAL_EXPEDITED (1 << 2)

static int membarrier(int command)
{
#if defined(SYS_membarrier)
    return syscall(SYS_membarrier, command, 0, 0) < 0 ? -errno : 0;
#else
    (void)command;
    return -ENOSYS;
#endif
}

int chron__membarrier_join(void)
{
    return membarrier(MEMBARRIER_REGISTER_GLOBAL_EXPEDITED);
}

int chron__membarrier(void)
{
    return membarrier(MEMBARRIER_GLOBAL_EXPEDITED);
}

#else
typedef int chron__platform_linux_is_empty; /* ISO C wants something in every file */
#endif
