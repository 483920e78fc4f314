/* SPDX-License-Identifier: MIT */
/* fiber.c - see fiber.h. As many coroutines as a writer has threads: the owner's and two of the keeper. */
#define _GNU_SOURCE
#include "fiber.h"

#include <errno.h>
#include <pthread.h>
#include <ucontext.h>

#include "platform/platform.h"
#include "runtime.h"

#define STACK_BYTES (256u << 10)
#define FIBERS 3u
#define ONE_IN_STORES 48u /* how often the dice say: switch */
#define ONE_IN_CALLS 3u
#define PATIENCE 1000000u /* switches in vain before it is called a deadlock */

typedef struct fiber {
    ucontext_t context;
    void *(*main)(void *);
    void *argument;
    int alive;
    uint8_t stack[STACK_BYTES] __attribute__((aligned(16)));
} fiber;

static fiber fibers[FIBERS]; /* 0: the owner's thread */
static ucontext_t outside;
static unsigned running;
static uint64_t dice;
static uint64_t dies_after;
static int died;

static void switch_to(unsigned next)
{
    unsigned from = running;

    if (!fibers[next].alive || next == from)
        return;
    running = next;
    if (swapcontext(&fibers[from].context, &fibers[next].context) < 0)
        sim_broken("swapcontext fails");
}

static int has_others(void)
{
    for (unsigned i = 0; i < FIBERS; i++)
        if (i != running && fibers[i].alive)
            return 1;
    return 0;
}

/* To one of the others, if there is one. */
static void switch_away(void)
{
    unsigned next = running;

    if (!has_others())
        return;
    while (next == running || !fibers[next].alive)
        next = (unsigned)sim_dice(&dice, FIBERS);
    switch_to(next);
}

static void fiber_main(unsigned index)
{
    (void)fibers[index].main(fibers[index].argument);
    sim_runtime_flush();
    fibers[index].alive = 0;
    if (index == 0) {
        (void)setcontext(&outside);
    } else {
        running = 0;
        (void)setcontext(&fibers[0].context);
    }
    sim_broken("setcontext fails");
}

static void start(unsigned index, void *(*main)(void *), void *argument, ucontext_t *link)
{
    fiber *one = &fibers[index];

    one->main = main;
    one->argument = argument;
    one->alive = 1;
    if (getcontext(&one->context) < 0)
        sim_broken("getcontext fails");
    one->context.uc_stack.ss_sp = one->stack;
    one->context.uc_stack.ss_size = sizeof one->stack;
    one->context.uc_link = link;
    makecontext(&one->context, (void (*)(void))fiber_main, 1, index);
}

/* ------------------------------------------------------------------------------------ processes */

static void (*process_main)(void *);

static void *call_process(void *argument)
{
    process_main(argument);
    return NULL;
}

int sim_process_run(void (*main)(void *), void *argument, uint64_t seed)
{
    dice = seed;
    running = 0;
    died = 0;
    dies_after = 0;
    process_main = main;
    for (unsigned i = 0; i < FIBERS; i++)
        fibers[i].alive = 0;
    start(0, call_process, argument, &outside);
    if (swapcontext(&outside, &fibers[0].context) < 0)
        sim_broken("swapcontext fails");
    sim_runtime_flush();
    for (unsigned i = 0; i < FIBERS; i++)
        fibers[i].alive = 0;
    return died;
}

void sim_process_die(void)
{
    sim_runtime_flush();
    died = 1;
    (void)setcontext(&outside);
    sim_broken("setcontext fails");
}

void sim_process_die_after(uint64_t n)
{
    dies_after = n;
}

static void point(unsigned one_in)
{
    if (dies_after && --dies_after == 0)
        sim_process_die();
    if (has_others() && sim_dice(&dice, one_in) == 0)
        switch_away();
}

void sim_point_store(const void *address, size_t bytes)
{
    (void)address;
    (void)bytes;
    point(ONE_IN_STORES);
}

void sim_point_call(void)
{
    point(ONE_IN_CALLS);
}

void sim_point_idle(void)
{
    sim_runtime_flush();
    switch_away();
}

/* -------------------------------------------------------------------------------------- threads */

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*main)(void *), void *argument);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*main)(void *), void *argument)
{
    unsigned i = 1;

    (void)attributes;
    while (i < FIBERS && fibers[i].alive)
        i++;
    if (i == FIBERS)
        sim_broken("a process of more than %u threads", FIBERS);
    *out = i;
    start(i, main, argument, &outside);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result)
{
    (void)result;
    for (unsigned n = 0; fibers[thread].alive; n++) {
        if (n == PATIENCE)
            sim_broken("the keeper does not end");
        sim_point_idle();
    }
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    sim_runtime_flush();
    if (has_others())
        point(ONE_IN_CALLS);
    for (unsigned n = 0; pthread_mutex_trylock(mutex) == EBUSY; n++) {
        if (n == PATIENCE || !has_others())
            sim_broken("a lock is never given back");
        sim_point_idle();
    }
    return 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    (void)cond;
    (void)pthread_mutex_unlock(mutex);
    if (!has_others())
        sim_broken("a thread waits for one that is not there");
    sim_point_idle(); /* to be woken for nothing is allowed, so everybody is woken at once */
    return __wrap_pthread_mutex_lock(mutex);
}

int chron__thread_start(pthread_t *thread, void *(*main)(void *), void *argument)
{
    return __wrap_pthread_create(thread, NULL, main, argument);
}

int chron__thread_join(pthread_t thread)
{
    return __wrap_pthread_join(thread, NULL);
}

void chron__cond_init(pthread_cond_t *cond)
{
    (void)pthread_cond_init(cond, NULL);
}

void chron__cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t ns)
{
    (void)chron__sleep_ns(ns / 8u);
    (void)__wrap_pthread_cond_wait(cond, mutex);
}

void chron__cond_wait_long(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    (void)__wrap_pthread_cond_wait(cond, mutex);
}
