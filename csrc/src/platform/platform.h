/* SPDX-License-Identifier: MIT */
/*
 * platform.h - all that the library asks of an operating system.
 *
 * Two parts. chron__io is the table of every call that touches a queue directory: tests put another
 * table in its place to fail any call, or to record what a power cut would have left. The functions
 * below it touch no files. posix.c and clock.c implement them with POSIX alone; linux.c and other.c hold what differs. No
 * other file asks which operating system this is.
 *
 * Unless said otherwise a function returns 0 or more on success and -errno on failure.
 */
#ifndef CHRON_PLATFORM_H
#define CHRON_PLATFORM_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomics.h"

/* One mapping of a file, or of the front of it. */
typedef struct chron__map {
    uint8_t *base;
    size_t bytes;
    chron__a32 *fault; /* [FAULT] nonzero once the guard has replaced its pages; never NULL while mapped */
    void *guard_slot;  /* the guard's entry for it, or NULL */
} chron__map;

/* A kernel lock that is held. It ends with chron__io.unlock, or with the process. */
typedef struct chron__lock {
    void *map; /* keeps the lock's open file description alive, and is not inherited by a fork; or NULL */
    int fd;    /* where a mapping cannot do that (linux.c says where); else -1 */
} chron__lock;

/* Where a file lies, now. Equal in all: the same file, on the same device, since the same boot. */
typedef struct chron__place {
    uint8_t boot[16]; /* the kernel's name for this boot; zeros: it has none */
    uint64_t device;
    uint64_t inode;
    uint64_t birth_ns; /* when the file was made; 0: not known */
    uint64_t disk_seq; /* counts the disks that this machine has been given; 0: not known */
} chron__place;

/* What is known of a name without opening it. */
typedef struct chron__stat {
    uint64_t bytes;
    uint64_t allocated;   /* bytes of the disk that it takes */
    uint64_t modified_ns; /* since 1970: its content, */
    uint64_t changed_ns;  /* and content, name or owner */
    int is_regular;
    unsigned mode; /* permission bits */
} chron__stat;

/* open_file flags */
#define CHRON__OPEN_READ 0
#define CHRON__OPEN_WRITE 1     /* for reading and writing */
#define CHRON__OPEN_CREATE 2    /* create if missing (implies WRITE) */
#define CHRON__OPEN_EXCLUSIVE 4 /* with CREATE: must not exist */

/* lock_byte kinds */
#define CHRON__BYTE_FREE 0
#define CHRON__BYTE_SHARED 1
#define CHRON__BYTE_OURS 2

/* map flags */
#define CHRON__DIRECT_ALIGN 4096u

#define CHRON__MAP_WRITE 1
#define CHRON__MAP_DONTFORK 2 /* not inherited by a fork, where the system can do that */

/* fs_kind bits */
#define CHRON__FS_NETWORK 1
#define CHRON__FS_VOLATILE 2    /* keeps nothing over a loss of power: tmpfs, ramfs */
#define CHRON__FS_LARGE_PAGES 4 /* caches what is written in one go as large pages, and writes in place: ext4, xfs */

typedef struct chron__io chron__io;
struct chron__io {
    void *context; /* for tables of tests */

    /* `at` is an open directory; negative: the current one. make_dir answers -EEXIST if there is something. */
    int (*open_dir)(const chron__io *io, int at, const char *path);
    int (*make_dir)(const chron__io *io, int at, const char *path, unsigned mode);
    /* Opens regular files only (else -EINVAL), O_CLOEXEC | O_NOFOLLOW (a symbolic link: -ELOOP). */
    int (*open_file)(const chron__io *io, int dir, const char *name, int flags, unsigned mode);
    void (*close_file)(const chron__io *io, int fd);
    int (*file_size)(const chron__io *io, int fd, uint64_t *bytes);
    /*
     * Give an empty file this size with all its blocks allocated: zeros when read. -ENOSPC if it can't;
     * then the file has the size that it had before.
     */
    int (*allocate)(const chron__io *io, int fd, uint64_t bytes);
    /*
     * Allocate what the first `bytes` of a file lack, and change none of them: a copy may have holes, and a store to one is a
     * SIGBUS if the disk is full. -ENOSPC if it can't; 0 also where the system cannot do that.
     */
    int (*fill)(const chron__io *io, int fd, uint64_t bytes);
    /* Map [0, bytes); -ERANGE if the file is shorter. Registers with the SIGBUS guard if that is installed. */
    int (*map)(const chron__io *io, int fd, size_t bytes, int flags, chron__map *out);
    void (*unmap)(const chron__io *io, chron__map *map);
    /*
     * Put [offset, offset + bytes) of a mapping on disk. fd: the same file, open. -EIO if the guard replaced
     * the mapping: what was stored there is lost.
     */
    int (*sync_map)(const chron__io *io, int fd, const chron__map *map, uint64_t offset, uint64_t bytes);
    int (*sync_file)(const chron__io *io, int fd);
    int (*sync_dir)(const chron__io *io, int dir);
    int (*rename)(const chron__io *io, int from_dir, const char *from, int to_dir, const char *to);
    /* A second name for a file, which must be free: -EEXIST. -EPERM or -ENOTSUP where files have one name only. */
    int (*link)(const chron__io *io, int dir, const char *from, const char *to);
    /* As rename, but never replaces: -EEXIST. */
    int (*rename_new)(const chron__io *io, int dir, const char *from, const char *to);
    int (*unlink)(const chron__io *io, int dir, const char *name);
    /* Calls visit for each name but "." and ".."; a nonzero result ends the walk and is returned. */
    int (*list)(const chron__io *io, int dir, int (*visit)(void *context, const char *name), void *context);
    /* Exclusive, never blocks: 0, or -EAGAIN when somebody else has it. On success takes over fd. */
    int (*lock)(const chron__io *io, int fd, chron__lock *out);
    void (*unlock)(const chron__io *io, chron__lock *lock);
    /* Does anybody hold the exclusive lock on this file? 1 or 0. Changes nothing. */
    int (*lock_held)(const chron__io *io, int fd);
    /*
     * Lock one byte of a file, which need not be there, through this open file, or change the kind of lock. Never blocks: 0, or
     * -EAGAIN when somebody else's is in the way; -ENOTSUP where a lock cannot belong to an open file.
     */
    int (*lock_byte)(const chron__io *io, int fd, uint64_t byte, int kind);
    /* Has another open file a lock of kind OURS on it? 1 or 0. Changes nothing. */
    int (*byte_held)(const chron__io *io, int fd, uint64_t byte);
    /*
     * What is locked through `fd` stays so until unlock, or the end of this process, and no child of a later fork keeps it.
     * Closes fd in every case. `other`: the same file, opened once more. -ENOTSUP where that cannot be had (overlayfs).
     */
    int (*hold)(const chron__io *io, int fd, int other, chron__lock *out);
    int64_t (*read_at)(const chron__io *io, int fd, void *buffer, size_t bytes, uint64_t offset);
    int64_t (*write_at)(const chron__io *io, int fd, const void *buffer, size_t bytes, uint64_t offset);
    int (*fs_kind)(const chron__io *io, int fd);
    /* First offset >= `offset` that may hold something but zeros; the file's size if none. */
    int64_t (*next_data)(const chron__io *io, int fd, uint64_t offset);
    int (*same_file)(const chron__io *io, int fd, int dir, const char *name);           /* 1 if the name leads to fd */
    int (*stat_name)(const chron__io *io, int dir, const char *name, chron__stat *out); /* follows no link */
    int (*place)(const chron__io *io, int fd, chron__place *out);
    /* How many names lead to an open file. 0: it was removed. */
    int64_t (*links)(const chron__io *io, int fd);
    /* A second descriptor of the same open file: what it is told of failed writes, it is told as the first. */
    int (*copy_fd)(const chron__io *io, int fd);
    /* Of an empty directory. */
    int (*remove_dir)(const chron__io *io, int at, const char *path);
    /* Begin to put a file on disk, and do not wait for it. Best effort. */
    void (*start_sync)(const chron__io *io, int fd);
    /*
     * What the device holds at [offset, offset + bytes) of a file that was synced, past the page cache: offset, bytes and
     * the buffer are multiples of CHRON__DIRECT_ALIGN. Returns how many bytes; -ENOTSUP where that cannot be read.
     */
    int64_t (*read_device)(const chron__io *io, int dir, const char *name, void *buffer, size_t bytes, uint64_t offset);
};

/* The real disk. */
extern const chron__io chron__io_posix;

/* Has the guard had to replace this mapping's pages? Then nothing read from it may be believed. */
static inline int chron__map_faulted(const chron__map *map)
{
    chron__fence_signal(); /* [FAULT] with on_fault in guard.c */
    return chron__get32(map->fault) != 0u;
}

extern chron__a32 chron__guard_faults; /* [FAULT] how many faults there were in mappings that are still there */
int chron__guard_find_fault(const void *data, size_t bytes);

/* Has the guard had to replace pages anywhere? */
static inline int chron__any_faulted(void)
{
    chron__fence_signal(); /* [FAULT] with on_fault in guard.c */
    return __builtin_expect(chron__get32(&chron__guard_faults) != 0u, 0) != 0;
}

/* Do any of these bytes, the caller's or ours, lie in a mapping whose pages it has replaced? */
static inline int chron__is_faulted(const void *data, size_t bytes)
{
    return chron__any_faulted() && chron__guard_find_fault(data, bytes);
}

/* For an unmap in a forked child: forget the mapping without touching memory. */
void chron__map_forget(chron__map *map);

/* Let zeros stand in for [offset, offset + bytes) of a mapping, and for the rest of its pages: the file keeps what it has. */
int chron__map_blank(chron__map *map, uint64_t offset, uint64_t bytes);

/* --------------------------------------------------------------------------- not about files */

/* Counts forks that led to this process. Starts the counting on first use. */
extern chron__a32 chron__fork_count; /* [FORK] */
void chron__fork_watch(void);

/* Wall clock, nanoseconds since the epoch. coarse: the kernel tick's time. Never fails. */
uint64_t chron__clock_ns(int coarse);
/* Monotonic, for timeouts. */
uint64_t chron__monotonic_ns(void);
/* Since the machine was started, the time that it slept included where the system counts that. Nobody can set it. */
uint64_t chron__boot_ns(void);
/*
 * Which boot that is: the same number in all processes of a boot. Where the system has no name for its boots, or the process
 * cannot see it, a number that only this process has. Never 0.
 */
uint32_t chron__boot_tag(void);
/* How long this process has had to do with queues: what it finds there may be older, and is not younger. */
uint64_t chron__running_ns(void);
/* Sleep; 0, or -EINTR if a signal handler ran. */
int chron__sleep_ns(uint64_t ns);
/* Let other threads have the processor, if any wait for it. */
void chron__yield(void);

/* Start a thread that gets no signals but SIGBUS and SIGSEGV: the program's own threads get them. */
int chron__thread_start(pthread_t *thread, void *(*main)(void *), void *argument);

/*
 * Threads that are cancelled. No system call is a place for that: a handle would stay in use, a lock held, a descriptor open.
 * So whatever makes one begins with CHRON__UNCANCELLED, and what waits for somebody else asks now and then with
 * chron__cancel_point, which calls `undo` before the thread ends.
 */
int chron__cancel_off(void); /* what it was before */
void chron__cancel_restore(const int *before);
#define CHRON__UNCANCELLED \
    int cancel_before __attribute__((cleanup(chron__cancel_restore), unused)) = chron__cancel_off()
void chron__cancel_point(void (*undo)(void *argument), void *argument);
int chron__thread_join(pthread_t thread);

/* A condition variable for chron__cond_wait, which waits `ns` at most, whatever becomes of the wall clock. */
void chron__cond_init(pthread_cond_t *cond);
void chron__cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t ns);
void chron__cond_wait_long(pthread_cond_t *cond, pthread_mutex_t *mutex); /* without a limit */

/*
 * Sleep until *word != expected, or somebody wakes it, or `ns` have passed. 0 woken or value differs,
 * -ETIMEDOUT, -EINTR. Works across processes on a shared mapping. -ENOSYS where there is no such thing.
 */
int chron__futex_wait(void *word, uint32_t expected, uint64_t ns);
int chron__futex_wake_all(void *word);
int chron__futex_wake_one(void *word);
#define CHRON__FUTEX_WORDS_MAX 128u
/* The same for 1 to that many words: until one of them differs. -ENOSYS also where only one can be waited for. */
int chron__futex_wait_any(void *const *words, const uint32_t *expected, size_t count, uint64_t ns);

/*
 * A full fence in other processes, at a moment between call and return, for all that have asked to be taken part in it:
 * so whoever does something often needs no fence, if whoever does its counterpart seldom calls this. Both 0, or negative:
 * -ENOSYS, or what a sandbox answers. Source: membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED, Linux 4.16.
 */
int chron__membarrier_join(void); /* this process takes part, from the return on until it ends */
int chron__membarrier(void);

/* Memory that this process may use, in bytes: of the machine, or what its control group leaves of it. */
uint64_t chron__memory_bytes(void);

/* Make pages of a writable shared mapping present and writable. Best effort. Never alters content. */
void chron__populate(void *address, size_t bytes);

/* A hint in a spinning loop. */
static inline void chron__pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

int chron__random(void *buffer, size_t bytes);
int64_t chron__pid(void);
int chron__process_state(int64_t pid);            /* a letter as ps(1) has it: 'T' stopped, 'R' running; 0: not known */
uint64_t chron__descriptor_limit(void);           /* how many this process may have open */
void chron__hostname(char *buffer, size_t bytes); /* always NUL-terminated */

/* Implemented per system (linux.c, other.c), called by posix.c and guard.c only. */
int chron__os_allocate(int fd, uint64_t bytes); /* -ENOSYS: write it out */
int chron__os_fill(int fd, uint64_t bytes);     /* -ENOSYS: it cannot be done */
int chron__os_lock(int fd, chron__lock *out);
void chron__os_unlock(chron__lock *lock);
int chron__os_lock_held(int fd);
int chron__os_lock_byte(const chron__io *io, int fd, uint64_t byte, int kind); /* these three as the table has them */
int chron__os_byte_held(const chron__io *io, int fd, uint64_t byte);
int chron__os_hold(const chron__io *io, int fd, int other, chron__lock *out);
int chron__os_fs_kind(int fd);
int chron__os_sync_map(int fd, void *address, size_t bytes);
int chron__os_sync_file(int fd);
int64_t chron__os_next_data(int fd, uint64_t offset); /* -ENOSYS if only reading can tell */
void chron__os_dont_fork(void *address, size_t bytes);
uint64_t chron__os_memory_limit(void);                               /* of the control group; UINT64_MAX: none */
int chron__os_rename_new(int dir, const char *from, const char *to); /* -ENOSYS: link and unlink will do */
void chron__os_place(int fd, chron__place *out);                     /* boot, birth_ns, disk_seq: what it can */
int chron__os_counter_trusted(void); /* does the kernel take its time from chron__counter_ticks()? */
void chron__os_boot(uint8_t *boot);  /* 16 bytes; zeros: it has no name */
void chron__os_start_sync(int fd);
int chron__os_open_direct(int dir, const char *name); /* a descriptor that reads past the page cache, or -ENOTSUP */
int chron__os_populate(void *address, size_t bytes);  /* 0 done as far as possible, -ENOSYS: touch the pages */

/*
 * guard.c: the SIGBUS guard. add sets map->fault in every case, and map->guard_slot if the guard is
 * installed; `flags` are those of map. -ENOMEM. remove comes before the munmap.
 */
int chron__guard_add(chron__map *map, int flags);
void chron__guard_remove(chron__map *map);

#endif
