/* SPDX-License-Identifier: MIT */
/*
 * main.c - the command line. Without arguments: some seeds, the same each time, and status 1 if a rule was broken that is not
 * in known.h. See usage().
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image.h"
#include "search.h"

#define SEEDS_DEFAULT 100u
#define IMAGES_DEFAULT 400u
#define SAVE_EVERY_SECS 10.0

typedef struct run {
    sim_search search;
    uint64_t seed;  /* the first */
    uint64_t step;  /* to the next: others may do those in between */
    uint64_t seeds; /* how many at most */
    double secs;    /* how long at most, from now on; 0: no limit */
    const char *state;
    double before; /* seconds that earlier runs of this state took */
    uint64_t done; /* seeds, in all of them */
} run;

void sim_broken(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "the simulator itself is broken: ");
    (void)vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

static void usage(void)
{
    fprintf(stderr,
            "usage: sim [options]\n"
            "  --seed N        the first seed (1)\n"
            "  --step N        from one seed to the next (1)\n"
            "  --seeds N       how many (%u, or no end with --secs)\n"
            "  --secs N        stop after so many seconds\n"
            "  --images N      of one seed, about (%u)\n"
            "  --models N      what disks do, as in image.h (%u)\n"
            "  --all           every combination where at most %u units are undecided\n"
            "  --go-on         behind a failure, too\n"
            "  --known         show what is in known.h as well\n"
            "  --state FILE    go on where the run that wrote this file has stopped\n"
            "  --at PATH       only these losses of power, of one seed: EVENT:CHOICE[/EVENT:CHOICE...]\n",
            SEEDS_DEFAULT, IMAGES_DEFAULT, SIM_MODELS_USUAL, SIM_UNITS_MAX);
    exit(2);
}

static double seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --------------------------------------------------------------------------------------- arguments */

static void parse_path(sim_search *search, const char *text)
{
    while (*text && search->path_count < SIM_DEPTH_MAX) {
        sim_crash *crash = &search->path[search->path_count++];
        int used = 0;

        if (sscanf(text, "%" SCNu32 ":%c%" SCNu64 "%n", &crash->at, &crash->kind, &crash->number, &used) != 3)
            usage();
        text += used;
        if (*text == '/')
            text++;
    }
}

static int parse_flag(run *r, const char *name)
{
    if (strcmp(name, "--go-on") == 0)
        r->search.goes_on = 1;
    else if (strcmp(name, "--known") == 0)
        r->search.shows_known = 1;
    else if (strcmp(name, "--all") == 0)
        r->search.exhaustive = 1;
    else
        return 0;
    return 1;
}

static void parse_value(run *r, const char *name, const char *value)
{
    uint64_t number = strtoull(value, NULL, 10);

    if (strcmp(name, "--seed") == 0)
        r->seed = number;
    else if (strcmp(name, "--step") == 0)
        r->step = number;
    else if (strcmp(name, "--seeds") == 0)
        r->seeds = number;
    else if (strcmp(name, "--secs") == 0)
        r->secs = (double)number;
    else if (strcmp(name, "--images") == 0)
        r->search.images_of_seed = number;
    else if (strcmp(name, "--models") == 0 && (number & (SIM_BY_TIME | SIM_BY_PAGE | SIM_BY_SECTOR | SIM_BY_WORD)))
        r->search.models = (uint32_t)number;
    else if (strcmp(name, "--state") == 0)
        r->state = value;
    else if (strcmp(name, "--at") == 0)
        parse_path(&r->search, value);
    else
        usage();
}

static void parse(run *r, int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        if (parse_flag(r, arguments[i]))
            continue;
        if (i + 1 == count)
            usage();
        parse_value(r, arguments[i], arguments[i + 1]);
        i++;
    }
    if (r->seeds == 0)
        r->seeds = r->search.path_count ? 1 : r->secs > 0 ? UINT64_MAX : SEEDS_DEFAULT;
}

/* ------------------------------------------------------------------------------------------- state */

/* The counts of a run, one number a line; what belongs to another seed or other models is no state of this run. */
static void load(run *r)
{
    sim_search *s = &r->search;
    uint64_t seed;
    uint32_t models;
    FILE *file = r->state ? fopen(r->state, "r") : NULL;

    if (!file)
        return;
    if (fscanf(file, "seed %" SCNu64 " models %" SCNu32 " done %" SCNu64 " secs %lf images %" SCNu64 " twins %" SCNu64,
               &seed, &models, &r->done, &r->before, &s->images, &s->twins) != 6 ||
        seed != r->seed || models != s->models)
        sim_broken("%s is the state of another run: remove it", r->state);
    if (fscanf(file, " depths %" SCNu64 " %" SCNu64 " %" SCNu64 " events %" SCNu64 " failures %" SCNu64 " broken",
               &s->by_depth[1], &s->by_depth[2], &s->by_depth[3], &s->events, &s->failures) != 5)
        sim_broken("%s is damaged: remove it", r->state);
    for (size_t i = 0; i < sizeof s->broken / sizeof *s->broken; i++)
        if (fscanf(file, " %" SCNu64, &s->broken[i]) != 1)
            s->broken[i] = 0;
    (void)fclose(file);
}

static void save(const run *r, double took)
{
    const sim_search *s = &r->search;
    char temporary[512];
    FILE *file;

    if (!r->state)
        return;
    (void)snprintf(temporary, sizeof temporary, "%s.tmp", r->state);
    file = fopen(temporary, "w");
    if (!file)
        sim_broken("cannot write %s", temporary);
    fprintf(file,
            "seed %" PRIu64 " models %" PRIu32 " done %" PRIu64 " secs %.1f images %" PRIu64 " twins %" PRIu64 "\n",
            r->seed, s->models, r->done, r->before + took, s->images, s->twins);
    fprintf(file, "depths %" PRIu64 " %" PRIu64 " %" PRIu64 " events %" PRIu64 " failures %" PRIu64 " broken",
            s->by_depth[1], s->by_depth[2], s->by_depth[3], s->events, s->failures);
    for (size_t i = 0; i < sizeof s->broken / sizeof *s->broken; i++)
        fprintf(file, " %" PRIu64, s->broken[i]);
    fprintf(file, "\n");
    if (fclose(file) != 0 || rename(temporary, r->state) != 0)
        sim_broken("cannot write %s", r->state);
}

static void print_summary(const run *r, double took)
{
    const sim_search *s = &r->search;

    took += r->before;
    printf("%" PRIu64 " seeds, %" PRIu64 " images (%" PRIu64 " twins left out; depth 1 to 3: %" PRIu64 ", %" PRIu64
           ", %" PRIu64 "), %" PRIu64 " events, %.1f s, %.0f images/s\n",
           r->done, s->images, s->twins, s->by_depth[1], s->by_depth[2], s->by_depth[3], s->events, took,
           (double)s->images / took);
    for (int rule = 0; rule < SIM_RULE_COUNT; rule++)
        if (s->broken[rule])
            printf("%s %s, %" PRIu64 " times: %s\n", sim_rule_now[rule] ? "BROKEN" : "limit:", sim_rule_names[rule],
                   s->broken[rule], sim_rule_texts[rule]);
    for (int i = 0; sim_known_texts[i]; i++)
        if (s->broken[SIM_RULE_COUNT + 1 + i])
            printf("known: %" PRIu64 " times: %s\n", s->broken[SIM_RULE_COUNT + 1 + i], sim_known_texts[i]);
}

int main(int count, char **arguments)
{
    static run r = {.search = {.models = SIM_MODELS_USUAL, .images_of_seed = IMAGES_DEFAULT}, .seed = 1, .step = 1};
    double start = seconds();
    double saved = start;

    parse(&r, count, arguments);
    load(&r);
    for (uint64_t n = 0; n < r.seeds && (r.search.goes_on || r.search.failures == 0); n++) {
        (void)sim_search_seed(&r.search, r.seed + r.done * r.step);
        r.done++;
        if (r.secs > 0 && seconds() - start >= r.secs)
            break;
        if (seconds() - saved >= SAVE_EVERY_SECS) {
            saved = seconds();
            save(&r, saved - start);
        }
    }
    save(&r, seconds() - start);
    print_summary(&r, seconds() - start);
    return r.search.failures != 0;
}
