/* SPDX-License-Identifier: MIT */
/* report.c - see report.h. */
#include "report.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define KINDS_MAX 64u
#define EVENTS_SHOWN 8u
#define SECTORS_SHOWN 12u

static uint64_t known[KINDS_MAX];
static unsigned known_count;

int sim_report_is_new(const sim_failure *failure)
{
    uint64_t key = failure->life->rule;

    for (const char *c = failure->life->text; *c; c++)
        if (!isdigit((unsigned char)*c))
            key = sim_mix(key ^ (uint8_t)*c);
    for (unsigned i = 0; i < known_count; i++)
        if (known[i] == key)
            return 0;
    if (known_count < KINDS_MAX)
        known[known_count++] = key;
    return 1;
}

/* ------------------------------------------------------------------------------------ minimising */

static int fails_the_same(const sim_failure *failure, void (*again)(unsigned depth, int with_log), enum sim_rule rule)
{
    again(failure->depth, 0);
    return failure->life->failed && failure->life->rule == rule;
}

/* Put back as much as can be put back without losing the failure: first halves, then quarters, ... */
static void minimise(const sim_failure *failure, void (*again)(unsigned depth, int with_log))
{
    static uint8_t kept[SIM_ITEMS];
    sim_choice *choice = failure->choice;
    uint32_t count = failure->cursor->item_count;
    enum sim_rule rule = failure->life->rule;

    for (uint32_t step = count ? count : 1u; step > 0; step /= 2u) {
        for (uint32_t from = 0; from < count; from += step) {
            uint32_t n = count - from < step ? count - from : step;

            memcpy(kept, choice->items + from, n);
            memset(choice->items + from, SIM_NEW, n);
            if (memcmp(kept, choice->items + from, n) != 0 && !fails_the_same(failure, again, rule))
                memcpy(choice->items + from, kept, n);
        }
        if (count / step > 256u)
            break;
    }
    for (uint32_t i = 0; i < failure->cursor->size_count; i++) {
        uint8_t before = choice->sizes[i];

        choice->sizes[i] = 1;
        if (!before && !fails_the_same(failure, again, rule))
            choice->sizes[i] = 0;
    }
    for (uint32_t i = 0; i < failure->cursor->change_count; i++) {
        uint8_t before = choice->changes[i];

        choice->changes[i] = 1;
        if (!before && !fails_the_same(failure, again, rule))
            choice->changes[i] = 0;
    }
    (void)fails_the_same(failure, again, rule);
}

/* ------------------------------------------------------------------------------------- printing */

static const char *name_of(const sim_cursor *c, int node)
{
    for (unsigned i = 0; i < c->now.names.count; i++)
        if (c->now.names.at[i].node == node)
            return c->now.names.at[i].name;
    return "(a file that is gone)";
}

static void print_missing(const sim_failure *failure)
{
    const sim_cursor *c = failure->cursor;
    const sim_choice *choice = failure->choice;
    uint32_t shown = 0;

    fprintf(stderr,
            "    least that is not on disk as it was in memory (%u stores, %u sizes, %u changes of names undecided):\n",
            c->item_count, c->size_count, c->change_count);
    for (uint32_t i = 0; i < c->item_count; i++) {
        if (choice->items[i] == SIM_NEW)
            continue;
        if (shown++ == SECTORS_SHOWN) {
            fprintf(stderr, "      ...\n");
            break;
        }
        fprintf(stderr, "      %s: %s offset %u +%u (event %u)\n", choice->items[i] == SIM_OLD ? "missing" : "garbage",
                name_of(c, c->items[i].node), c->items[i].offset, c->items[i].bytes, c->items[i].event);
    }
    for (uint32_t i = 0; i < c->size_count; i++)
        if (!choice->sizes[i])
            fprintf(stderr, "      size: %s %u\n", name_of(c, c->sizes[i].node), c->sizes[i].bytes);
    for (uint32_t i = 0; i < c->change_count; i++) {
        const sim_change *change = &c->log->changes[c->changes[i].change];

        if (!choice->changes[i])
            fprintf(stderr, "      name: %s -> %s\n", change->removed.node < 0 ? "(new)" : change->removed.name,
                    change->added.node < 0 ? "(gone)" : change->added.name);
    }
}

static void print_command(const sim_failure *failure, int lost_power)
{
    fprintf(stderr, "    replay: build/sim/sim --seed %llu --models %u", (unsigned long long)failure->seed,
            failure->search->models);
    for (unsigned d = 0; lost_power && d <= failure->depth; d++)
        fprintf(stderr, "%s%u:%c%llu", d ? "/" : " --at ", failure->crashes[d].at, failure->crashes[d].kind,
                (unsigned long long)failure->crashes[d].number);
    fprintf(stderr, "\n");
}

void sim_report(sim_failure *failure, void (*again)(unsigned depth, int with_log))
{
    const sim_life *life = failure->life;
    const sim_truth *truth = failure->cursor ? failure->cursor->truth : &life->truth;
    uint32_t end = failure->cursor ? failure->cursor->at : failure->log->count;

    fprintf(stderr, "\nBROKEN %s: %s\n    %s\n", sim_rule_names[life->rule], sim_rule_texts[life->rule], life->text);
    sim_profile_print(failure->profile);
    print_command(failure, again != NULL);
    fprintf(stderr, "    %s; records started %u, returned %u, durable %u (must be %u to %u)%s\n",
            again ? failure->choice->text : "no loss of power", truth->started, truth->returned, truth->durable,
            life->lower, life->upper, life->rotten == SIM_NO_POSITION ? "" : "; a record was damaged on purpose");
    for (uint32_t i = end > EVENTS_SHOWN ? end - EVENTS_SHOWN : 0; i < end; i++)
        sim_log_print(failure->log, i);
    if (!again)
        return;
    minimise(failure, again);
    print_missing(failure);
}
