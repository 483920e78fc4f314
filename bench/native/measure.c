/* SPDX-License-Identifier: MIT */
/* measure.c - see measure.h. */
#define _GNU_SOURCE /* sched_setaffinity */

#include "measure.h"

#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "chronicle.h"

void die(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fputs("bench: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

int64_t must(int64_t status, const char *what)
{
    if (status < 0)
        die("%s: %s: %s", what, chron_strerror((int)status), chron_last_error()->text);
    return status;
}

/* ------------------------------------------------------------------------------------------- time */

double ns_per_tick(void)
{
    static double ratio;

    if (ratio == 0) {
        uint64_t ns = now_ns();
        uint64_t from = ticks();

        sleep_us(50000);
        ratio = (double)(now_ns() - ns) / (double)(ticks() - from);
    }
    return ratio;
}

void sleep_us(unsigned us)
{
    struct timespec t = {us / 1000000u, (long)(us % 1000000u) * 1000};

    nanosleep(&t, NULL);
}

/* ---------------------------------------------------------------------------------------- samples */

void samples_add(samples *s, double value)
{
    if (s->count == sizeof s->value / sizeof s->value[0])
        die("more rounds than there is room for");
    s->value[s->count++] = value;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

spread samples_spread(const samples *s)
{
    samples sorted = *s;
    spread result = {.count = s->count};

    if (s->count == 0)
        return result;
    qsort(sorted.value, sorted.count, sizeof sorted.value[0], by_value);
    result.min = sorted.value[0];
    result.max = sorted.value[sorted.count - 1];
    result.median = (sorted.value[(sorted.count - 1) / 2] + sorted.value[sorted.count / 2]) / 2;
    return result;
}

histogram *histogram_new(void)
{
    histogram *h = calloc(1, sizeof *h);

    if (!h)
        die("out of memory");
    return h;
}

void histogram_add(histogram *h, double ns)
{
    uint64_t value = ns < 0 ? 0 : (uint64_t)(ns + 0.5);
    size_t bin = (size_t)value;

    if (value >= HISTOGRAM_FINE) {
        unsigned octave = 63u - (unsigned)__builtin_clzll(value / HISTOGRAM_FINE);

        bin = HISTOGRAM_FINE + octave * HISTOGRAM_STEPS +
              (size_t)((value >> octave) - HISTOGRAM_FINE) / (HISTOGRAM_FINE / HISTOGRAM_STEPS);
        if (bin >= HISTOGRAM_BINS)
            bin = HISTOGRAM_BINS - 1;
    }
    h->bin[bin]++;
    h->total++;
    if (ns > h->max)
        h->max = ns;
}

double histogram_percentile(const histogram *h, double percent)
{
    uint64_t wanted = (uint64_t)((double)h->total * percent / 100.0);
    uint64_t seen = 0;
    size_t bin = 0;

    if (wanted >= h->total)
        return h->max;
    while (bin < HISTOGRAM_BINS - 1 && (seen += h->bin[bin]) <= wanted)
        bin++;
    if (bin < HISTOGRAM_FINE)
        return (double)bin;
    bin -= HISTOGRAM_FINE;
    return (double)((HISTOGRAM_FINE + bin % HISTOGRAM_STEPS * (HISTOGRAM_FINE / HISTOGRAM_STEPS))
                    << bin / HISTOGRAM_STEPS);
}

/* --------------------------------------------------------------------------------------- payloads */

uint8_t pool[POOL_SLOTS * POOL_STEP + PAYLOAD_MAX];

void pool_fill(void)
{
    uint64_t state = 0x9E3779B97F4A7C15u; /* any odd number: the same bytes in every run */

    for (size_t i = 0; i < sizeof pool; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        pool[i] = (uint8_t)(state >> 56);
    }
}

uint64_t pool_sum(uint64_t first, uint64_t count)
{
    uint64_t sum = 0;

    for (uint64_t i = first; i < first + count; i++)
        sum += payload_word(pool_at(i));
    return sum;
}

void check_sum(const char *who, uint64_t sum, uint64_t first, uint64_t count)
{
    if (sum != pool_sum(first, count))
        die("%s: wrong content in records %" PRIu64 " to %" PRIu64, who, first, first + count - 1);
}

/* --------------------------------------------------------------------------------------- the rest */

static cpu_set_t allowed;

unsigned processors(void)
{
    if (CPU_COUNT(&allowed) == 0 && sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        die("cannot learn which processors may be used");
    return (unsigned)CPU_COUNT(&allowed);
}

void pin(unsigned which)
{
    cpu_set_t one;
    size_t cpu = 0;

    which %= processors();
    for (;; cpu++)
        if (CPU_ISSET(cpu, &allowed) && which-- == 0)
            break;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) < 0)
        die("cannot pin a thread to processor %zu", cpu);
}

void unpin(void)
{
    if (processors() && sched_setaffinity(0, sizeof allowed, &allowed) < 0)
        die("cannot give a thread all processors back");
}

spread ratio_of(const samples *value, const samples *limit)
{
    samples ratios = {.count = 0};

    for (size_t i = 0; i < value->count && i < limit->count; i++)
        samples_add(&ratios, value->value[i] / limit->value[i]);
    return samples_spread(&ratios);
}
