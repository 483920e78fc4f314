/* SPDX-License-Identifier: MIT */
/*
 * measure.h - what every part of the benchmark needs: clocks, samples of several rounds and their spread,
 * latency histograms, deterministic payloads, pinning to a processor.
 *
 * The benchmark is for Linux. Whatever goes wrong ends the program with a message: a figure that could not
 * be measured is never printed.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define MIB 1048576u

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A negative status of the library ends the program with the library's own explanation. */
int64_t must(int64_t status, const char *what);

/* ------------------------------------------------------------------------------------------- time */

static inline uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The cheapest clock there is: the time stamp counter where there is one. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#else
    return now_ns();
#endif
}

double ns_per_tick(void); /* measured once */
void sleep_us(unsigned us);

static inline void spin_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

/* ---------------------------------------------------------------------------------------- samples */

/* One value a round; kept whole, so that a median can be taken and nothing is averaged away. */
typedef struct samples {
    double value[512];
    size_t count;
} samples;

typedef struct spread {
    double min, median, max;
    size_t count;
} spread;

void samples_add(samples *s, double value);
spread samples_spread(const samples *s);
/* The ratio of two samples taken in the same rounds. */
spread ratio_of(const samples *value, const samples *limit);

/* Latencies in whole nanoseconds up to 8 us, then in steps of 1.6 %. */
#define HISTOGRAM_FINE 8192u
#define HISTOGRAM_STEPS 64u
#define HISTOGRAM_BINS (HISTOGRAM_FINE + 24u * HISTOGRAM_STEPS)

typedef struct histogram {
    uint64_t total;
    double max;
    uint32_t bin[HISTOGRAM_BINS];
} histogram;

histogram *histogram_new(void); /* free() it */
void histogram_add(histogram *h, double ns);
double histogram_percentile(const histogram *h, double percent); /* 100: the largest, exactly */

/* --------------------------------------------------------------------------------------- payloads */

/*
 * Record i carries the bytes at pool_at(i), the same in every run. Its first eight bytes are what timed
 * readers add up, so that no read can be optimised away, and are compared with pool_sum afterwards.
 */
#define POOL_SLOTS 256u
#define POOL_STEP 64u
#define PAYLOAD_MAX 4096u

extern uint8_t pool[POOL_SLOTS * POOL_STEP + PAYLOAD_MAX];

void pool_fill(void);
uint64_t pool_sum(uint64_t first, uint64_t count);

static inline const uint8_t *pool_at(uint64_t i)
{
    return pool + i % POOL_SLOTS * POOL_STEP;
}

static inline uint64_t payload_word(const void *payload)
{
    uint64_t word;

    memcpy(&word, payload, sizeof word);
    return word;
}

/* Ends the program if `sum` is not that of records [first, first + count). */
void check_sum(const char *who, uint64_t sum, uint64_t first, uint64_t count);

/* --------------------------------------------------------------------------------------- the rest */

/* Run this thread on the which-th (0, 1) processor that the program may use. */
void pin(unsigned which);
void unpin(void);
unsigned processors(void);

#endif
