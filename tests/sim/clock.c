/* SPDX-License-Identifier: MIT */
/* clock.c - what platform.h asks for that is no file: simulated time and random bytes, no signals, no other processes. */
#include "clock.h"

#include <errno.h>

#include <stdio.h>
#include <string.h>

#include "chronicle.h"
#include "platform/counter.h"
#include "platform/platform.h"
#include "runtime.h"

#define START_NS 1700000000000000000u
#define HOUR_NS 3600000000000u
#define READING_NS 1009u /* what looking at the clock takes */

static uint64_t now_ns;
static uint64_t boot_at_ns;
static uint32_t boot;
static uint64_t random_state;

void sim_clock_start(uint64_t seed, uint32_t lives)
{
    boot_at_ns = now_ns = START_NS + lives * HOUR_NS;
    boot = lives + 1u; /* each life begins with one */
    random_state = seed;
}

uint64_t chron__clock_ns(int coarse)
{
    now_ns += READING_NS;
    return coarse ? now_ns / 4000000u * 4000000u : now_ns;
}

void chron__counter_start(chron__counter *c)
{
    memset(c, 0, sizeof *c);
}

uint64_t chron__counter_anchor(chron__counter *c)
{
    (void)c;
    return chron__clock_ns(0);
}

uint64_t chron__monotonic_ns(void)
{
    now_ns += READING_NS;
    return now_ns - START_NS;
}

uint64_t chron__boot_ns(void)
{
    return chron__monotonic_ns();
}

uint32_t chron__boot_tag(void)
{
    return boot;
}

uint64_t chron__running_ns(void)
{
    return now_ns - boot_at_ns;
}

int chron__sleep_ns(uint64_t ns)
{
    now_ns += ns;
    return 0;
}

void chron__cancel_point(void (*undo)(void *argument), void *argument)
{
    (void)undo;
    (void)argument;
}

void chron__yield(void)
{
}

chron__a32 chron__fork_count;

void chron__fork_watch(void)
{
}

int chron__futex_wait(void *word, uint32_t expected, uint64_t ns)
{
    (void)word;
    (void)expected;
    return chron__sleep_ns(ns);
}

int chron__futex_wake_all(void *word)
{
    (void)word;
    return 0;
}

int chron__futex_wake_one(void *word)
{
    return chron__futex_wake_all(word);
}

void chron__fork_shut(void)
{
}

void chron__fork_open(void)
{
}

int chron__process_state(int64_t pid)
{
    (void)pid;
    return 0;
}

uint64_t chron__memory_bytes(void)
{
    return (uint64_t)1 << 32;
}

int chron__membarrier_join(void)
{
    return -ENOSYS;
}

int chron__membarrier(void)
{
    return -ENOSYS;
}

int chron__futex_wait_any(void *const *words, const uint32_t *expected, size_t count, uint64_t ns)
{
    (void)words;
    (void)expected;
    (void)count;
    return chron__sleep_ns(ns);
}

void chron__populate(void *address, size_t bytes)
{
    (void)address;
    (void)bytes;
}

int chron__random(void *buffer, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)buffer)[i] = (uint8_t)sim_dice(&random_state, 256);
    return 0;
}

uint64_t chron__descriptor_limit(void)
{
    return UINT64_MAX;
}

int64_t chron__pid(void)
{
    return 4711;
}

void chron__hostname(char *buffer, size_t bytes)
{
    (void)snprintf(buffer, bytes, "sim");
}

void chron__map_forget(chron__map *map)
{
    memset(map, 0, sizeof *map);
}

chron__a32 chron__guard_faults; /* no mapping faults here */

int chron__guard_find_fault(const void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    return 0;
}

int chron_guard_install(void)
{
    return 0;
}

int chron_guard_faulted(const void *data, size_t length)
{
    (void)data;
    (void)length;
    return 0;
}
