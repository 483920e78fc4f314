/* SPDX-License-Identifier: MIT */
/*
 * own.c - files whose bytes may be given away: who still looks at one? Called by nobody but through the table of platform.h.
 *
 * Who maps a file shares it by a read lock on the open file that is mapped: it lives as long as the mapping, in forked
 * children too. Whoever wants the file for himself asks twice: a write lock, which those refuse who follow the rules, and a
 * write lease, which the kernel grants only if no other open file or mapping of it is there, of any program (it counts open
 * files: a descriptor's copies, and what was mapped through it, are one).
 *
 * The lease is given back at once. Whoever opens the file in between is stopped by it, and makes the kernel send us SIGIO,
 * which would end the process: so that goes to this thread alone, which has it blocked, and is taken away again.
 */
#if defined(__linux__)
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#endif

#include "platform/platform.h"

#include <errno.h>

#if defined(__linux__)

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Without waiting, on the whole file. */
static int set_lock(int fd, short type)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET};

    return fcntl(fd, F_OFD_SETLK, &range) == 0 ? 0 : -errno; /* EAGAIN: somebody else has it; EACCES: it is forbidden */
}

int chron__os_share(const chron__io *io, int fd)
{
    (void)io;
    return set_lock(fd, F_RDLCK);
}

/* What a broken lease has sent; not what others wait for. */
static void take_away(const sigset_t *signal, int fd)
{
    const struct timespec now = {0};
    siginfo_t info;

    if (sigtimedwait(signal, &info, &now) == SIGIO && info.si_fd != fd)
        (void)kill(getpid(), SIGIO);
}

/* Does no other open file lead to this one? 0, -EAGAIN, or why there is no telling. SIGIO is blocked. */
static int lease_once(int fd)
{
    struct f_owner_ex us = {.type = F_OWNER_TID, .pid = (pid_t)syscall(SYS_gettid)};
    int status = 0;

    if (fcntl(fd, F_SETOWN_EX, &us) < 0 || fcntl(fd, F_SETSIG, SIGIO) < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
        return -errno;
    if (fcntl(fd, F_GETLEASE) != F_WRLCK) /* somebody opens it just now */
        status = -EAGAIN;
    if (fcntl(fd, F_SETLEASE, F_UNLCK) < 0)
        status = -errno;
    return status;
}

static int is_alone(int fd)
{
    sigset_t signal;
    sigset_t before;
    sigset_t pending;
    int status;

    (void)sigemptyset(&signal);
    (void)sigaddset(&signal, SIGIO);
    (void)pthread_sigmask(SIG_BLOCK, &signal, &before);
    (void)sigpending(&pending);
    status = lease_once(fd);
    if (!sigismember(&pending, SIGIO))
        take_away(&signal, fd);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

int chron__os_own(const chron__io *io, int fd)
{
    CHRON__UNCANCELLED;
    struct stat st;
    int status = set_lock(fd, F_WRLCK);

    if (status < 0)
        return status;
    if (fstat(fd, &st) < 0)
        status = -errno;
    else if (st.st_nlink != 1) /* a backup may have a name of its own for it */
        status = -EMLINK;
    else
        status = is_alone(fd);
    if (status < 0)
        chron__os_disown(io, fd);
    return status;
}

void chron__os_disown(const chron__io *io, int fd)
{
    (void)io;
    (void)set_lock(fd, F_UNLCK);
}

#else

/* No file system of these says that it can (CHRON__FS_REUSE). */
int chron__os_share(const chron__io *io, int fd)
{
    (void)io;
    (void)fd;
    return -ENOTSUP;
}

int chron__os_own(const chron__io *io, int fd)
{
    (void)io;
    (void)fd;
    return -ENOTSUP;
}

void chron__os_disown(const chron__io *io, int fd)
{
    (void)io;
    (void)fd;
}

#endif
