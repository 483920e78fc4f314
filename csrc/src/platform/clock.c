/* SPDX-License-Identifier: MIT */
/*
 * clock.c - time and threads in terms of POSIX: clocks, sleeping, condition variables; and the fork counter, the process's
 * id, its host's name, random bytes. No files. Everything is thread-safe; calls that a signal interrupts say so.
 */
#if defined(__linux__)
#define _GNU_SOURCE
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif

#include "platform/platform.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h> /* getentropy, which POSIX has in <unistd.h> */
#endif

#define ENTROPY_MAX 256u        /* of one getentropy */
#define SECONDS_MAX 1000000000u /* of one sleep; fits a 32-bit time_t */
#define NS_PER_SECOND 1000000000u

/* ----------------------------------------------------------------------------------------- time */

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now = {0, 0};

    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t chron__clock_ns(int coarse)
{
#if defined(CLOCK_REALTIME_COARSE) /* Linux */
    return read_clock(coarse ? CLOCK_REALTIME_COARSE : CLOCK_REALTIME);
#elif defined(CLOCK_REALTIME_FAST) /* FreeBSD */
    return read_clock(coarse ? CLOCK_REALTIME_FAST : CLOCK_REALTIME);
#else
    (void)coarse;
    return read_clock(CLOCK_REALTIME);
#endif
}

uint64_t chron__monotonic_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t chron__boot_ns(void)
{
#if defined(CLOCK_BOOTTIME) /* Linux, where CLOCK_MONOTONIC stands still while the machine sleeps */
    return read_clock(CLOCK_BOOTTIME);
#else
    return read_clock(CLOCK_MONOTONIC);
#endif
}

void chron__yield(void)
{
    (void)sched_yield();
}

int chron__sleep_ns(uint64_t ns)
{
    CHRON__UNCANCELLED;
    uint64_t seconds = ns / NS_PER_SECOND;
    struct timespec wait;

    wait.tv_sec = (time_t)(seconds < SECONDS_MAX ? seconds : SECONDS_MAX);
    wait.tv_nsec = (long)(ns % NS_PER_SECOND);
    return nanosleep(&wait, NULL) < 0 ? -errno : 0;
}

#if defined(__APPLE__)

void chron__cond_init(pthread_cond_t *cond)
{
    (void)pthread_cond_init(cond, NULL);
}

void chron__cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t ns)
{
    CHRON__UNCANCELLED;
    struct timespec wait = {(time_t)(ns / NS_PER_SECOND), (long)(ns % NS_PER_SECOND)};

    (void)pthread_cond_timedwait_relative_np(cond, mutex, &wait);
}

#else

void chron__cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;

    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

void chron__cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t ns)
{
    CHRON__UNCANCELLED;
    struct timespec until;

    ns += chron__monotonic_ns();
    until.tv_sec = (time_t)(ns / NS_PER_SECOND);
    until.tv_nsec = (long)(ns % NS_PER_SECOND);
    (void)pthread_cond_timedwait(cond, mutex, &until);
}

#endif

void chron__cond_wait_long(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    CHRON__UNCANCELLED;

    (void)pthread_cond_wait(cond, mutex);
}

/* ------------------------------------------------------------------------------ threads, processes */

int chron__cancel_off(void)
{
    int before = PTHREAD_CANCEL_DISABLE;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

void chron__cancel_restore(const int *before)
{
    int ours;

    (void)pthread_setcancelstate(*before, &ours);
}

void chron__cancel_point(void (*undo)(void *argument), void *argument)
{
    pthread_cleanup_push(undo, argument);
    pthread_testcancel();
    pthread_cleanup_pop(0);
}

int chron__thread_join(pthread_t thread)
{
    CHRON__UNCANCELLED;

    return -pthread_join(thread, NULL);
}

int chron__thread_start(pthread_t *thread, void *(*main)(void *), void *argument)
{
    sigset_t all;
    sigset_t before;
    int error;

    (void)sigfillset(&all);
    (void)sigdelset(&all, SIGBUS);
    (void)sigdelset(&all, SIGSEGV);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(thread, NULL, main, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

chron__a32 chron__fork_count; /* [FORK] */

static pthread_mutex_t fork_gate = PTHREAD_MUTEX_INITIALIZER;

static void count_fork(void)
{
    (void)pthread_mutex_unlock(&fork_gate);      /* it was taken by this thread, before the fork */
    (void)chron__count_up32(&chron__fork_count); /* [FORK] */
}

void chron__fork_shut(void)
{
    (void)pthread_mutex_lock(&fork_gate);
}

void chron__fork_open(void)
{
    (void)pthread_mutex_unlock(&fork_gate);
}

static void watch_forks(void)
{
    /* Can fail for want of a few bytes only, at the first opening of all; there is nothing to do about it. */
    (void)pthread_atfork(chron__fork_shut, chron__fork_open, count_fork);
}

void chron__fork_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, watch_forks);
}

int chron__random(void *buffer, size_t bytes)
{
    uint8_t *to = buffer;

    while (bytes > 0) {
        size_t want = bytes < ENTROPY_MAX ? bytes : ENTROPY_MAX;

        if (getentropy(to, want) < 0)
            return -errno;
        to += want;
        bytes -= want;
    }
    return 0;
}

int64_t chron__pid(void)
{
    return (int64_t)getpid();
}

void chron__hostname(char *buffer, size_t bytes)
{
    if (gethostname(buffer, bytes) < 0)
        buffer[0] = '\0';
    buffer[bytes - 1] = '\0'; /* a name that was cut off need not end */
}
