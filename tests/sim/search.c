/* SPDX-License-Identifier: MIT */
/* search.c - see search.h. */
#include "search.h"

#include <stdio.h>
#include <string.h>

#include "image.h"
#include "look.h"
#include "report.h"
#include "runtime.h"

#define TWINS (1u << 18)
#define ALL_MAX 4096u      /* combinations are tried one and all only if there are no more */
#define IMAGES_BEHIND 8u   /* of a life that came after a loss of power */
#define ONE_IN_ROTTEN 12u  /* of all images have a damaged record as well */
#define IMAGES_BY_DEPTH 4u /* so each image of the first life makes so many in all */

/* One level of depth: a disk, the life on it, its log, and the way through that. */
typedef struct level {
    sim_disk disk;
    sim_life life;
    sim_log log;
    sim_cursor cursor;
    sim_choice choice;
    uint8_t fates[SIM_ITEMS];
    sim_crash crash; /* the one that is tried in this life */
} level;

static level levels[SIM_DEPTH_MAX + 1u];
static sim_search *search;
static sim_profile profile;
static uint64_t twins[TWINS];
static int reports; /* run_next is called to minimise */

/* -------------------------------------------------------------------------------------- one image */

static void choose(level *l)
{
    l->choice.items = l->fates;
    switch (l->crash.kind) {
    case 's':
        sim_choice_systematic(&l->cursor, (uint32_t)l->crash.number, &l->choice);
        break;
    case 'c':
        sim_choice_combination(&l->cursor, l->crash.number, &l->choice);
        break;
    default:
        sim_choice_random(&l->cursor, sim_mix(l->life.seed ^ (l->crash.number << 32 | l->crash.at)), search->models,
                          &l->choice);
    }
}

static int is_twin(uint64_t key)
{
    uint64_t *slot = &twins[key % TWINS];

    if (*slot == key)
        return 1;
    *slot = key;
    return 0;
}

/* What has to hold for the life behind this loss of power. */
static void expect(level *l, sim_life *next)
{
    const sim_cursor *c = &l->cursor;
    sim_truth *truth = &next->truth;
    sim_mark mark;
    uint32_t oldest = sim_look_oldest(&c->now);

    *truth = *c->truth;
    /* Readers may have seen this mark, and acted on it, though the writer's call has not returned. */
    if (sim_look_mark(&c->now, &mark) && mark.durable_next > truth->durable)
        truth->durable = mark.durable_next;
    if (oldest != SIM_SEQS && oldest > truth->oldest)
        truth->oldest = oldest;
    next->lower = truth->durable;
    next->upper = truth->started;
    if (l->life.after_power && l->life.was_opened && c->at <= l->life.opened_event)
        next->lower = next->upper = l->life.recovered; /* that recovery was cut off: it comes to the same end */
    else if (l->crash.kind == 's' && l->crash.number == 0 && truth->returned > next->lower)
        next->lower = truth->returned; /* nothing is missing on disk */
    next->cruelty = l->life.cruelty > l->choice.cruelty ? l->life.cruelty : l->choice.cruelty;
    next->after_power = 1;
    next->was_in_use = truth->opened != 0;
    next->before = l->life.after_power ? &l->life.found : NULL;
}

/* Run the life behind the choice of levels[depth]. */
static void run_next(unsigned depth, int with_log)
{
    level *l = &levels[depth];
    level *next = &levels[depth + 1u];
    uint64_t dice =
        sim_mix(l->life.seed ^ sim_mix(l->crash.at ^ sim_mix((uint64_t)l->crash.kind << 56 ^ l->crash.number)));

    sim_image_make(&l->cursor, &l->choice, &next->disk);
    next->disk.boot = depth + 2u;
    next->life.profile = &profile;
    next->life.disk = &next->disk;
    next->life.depth = depth + 1u;
    next->life.seed = dice;
    next->life.works = 0;
    next->life.cut = 0;
    next->life.rotten = SIM_NO_POSITION;
    expect(l, &next->life);
    if (sim_dice(&dice, ONE_IN_ROTTEN) == 0)
        (void)sim_look_spoil(&next->life, &dice);
    if (search->path_count && !reports) {
        fprintf(stderr, "--- the power goes before event %u, and leaves: %s\n", l->crash.at, l->choice.text);
        sim_look_print(&next->life);
    }
    sim_heap_choose(depth + 1u);
    if (with_log)
        sim_log_start(&next->log, &next->disk, &next->life.truth, next->life.seed % 8u == 0);
    sim_life_run(&next->life);
    if (search->path_count && !reports) {
        if (with_log)
            for (uint32_t i = 0; i < next->log.count; i++)
                sim_log_print(&next->log, i);
        fprintf(stderr, "--- opened: %d, next_seq %u; at the end:\n", next->life.was_opened, next->life.recovered);
        sim_look_print(&next->life);
    }
}

static int explore(unsigned depth);

static void found_failure(unsigned depth)
{
    const sim_life *failed = &levels[depth + 1u].life;
    sim_failure failure = {.search = search, .seed = profile.seed, .profile = &profile, .life = failed, .depth = depth};

    search->broken[failed->known ? SIM_RULE_COUNT + failed->known : (int)failed->rule]++;
    if (sim_is_excused(failed) && !(search->path_count || search->shows_known))
        return;
    search->failures += sim_is_excused(failed) ? 0u : 1u;
    for (unsigned d = 0; d <= depth; d++)
        failure.crashes[d] = levels[d].crash;
    failure.log = &levels[depth].log;
    failure.cursor = &levels[depth].cursor;
    failure.choice = &levels[depth].choice;
    reports = 1;
    if (sim_report_is_new(&failure))
        sim_report(&failure, run_next);
    reports = 0;
}

/* Is the life behind worth losing power in? Those whose recovery had to do something are. */
static int is_worth_more(unsigned depth, uint64_t dice)
{
    static const uint32_t one_in[] = {24, 8, 2}; /* by sim_life.cut */
    const sim_life *life = &levels[depth + 1u].life;

    return depth + 1u < SIM_DEPTH_MAX && life->rotten == SIM_NO_POSITION && life->was_opened &&
           sim_dice(&dice, one_in[life->cut]) == 0;
}

/* 0: that is enough. */
static int try_crash(unsigned depth, uint32_t at, char kind, uint64_t number)
{
    level *l = &levels[depth];
    sim_life *life = &levels[depth + 1u].life;
    int replays = search->path_count > depth;

    l->crash = (sim_crash){at, kind, number};
    choose(l);
    sim_image_make(&l->cursor, &l->choice, &levels[depth + 1u].disk);
    if (!replays && is_twin(sim_mix(sim_image_hash(&levels[depth + 1u].disk) ^ l->cursor.truth->durable))) {
        search->twins++;
        return 1;
    }
    run_next(depth, depth + 1u < search->path_count);
    search->images++;
    search->by_depth[depth + 1u]++;
    if (life->failed) {
        found_failure(depth);
        return (search->goes_on || sim_is_excused(life)) && !replays;
    }
    for (int rule = 0; life->later >> rule; rule++)
        search->broken[rule] += life->later >> rule & 1u;
    if (replays)
        return depth + 1u < search->path_count && explore(depth + 1u);
    if (!is_worth_more(depth, sim_mix(life->seed ^ 0xDEEBu)))
        return 1;
    run_next(depth, 1);
    return explore(depth + 1u);
}

/* ------------------------------------------------------------------------------------- one life */

/* Between two stores all is much the same; behind a system call or a promise it is not. */
static uint32_t weight_of(const sim_log *log, uint32_t at)
{
    return at > 0 && log->events[at - 1u].kind != SIM_STORE && log->events[at - 1u].kind != SIM_STEP ? 12u : 1u;
}

static uint64_t sum_of_weights(const sim_log *log)
{
    uint64_t sum = 0;

    for (uint32_t at = 0; at <= log->count; at++)
        sum += weight_of(log, at);
    return sum;
}

/* One image of some kind. */
static int try_some(unsigned depth, uint32_t at, uint64_t *dice)
{
    uint64_t all = search->models >= SIM_BY_SECTOR ? sim_choices_all(&levels[depth].cursor) : 0;
    uint32_t which = (uint32_t)sim_dice(dice, SIM_SYSTEMATIC);

    switch (sim_dice(dice, 4)) {
    case 0:
        if (sim_systematic_models(which) <= search->models)
            return try_crash(depth, at, 's', which);
        break;
    case 1:
        if (all)
            return try_crash(depth, at, 'c', sim_dice(dice, all));
        break;
    default:
        break;
    }
    return try_crash(depth, at, 'r', sim_dice(dice, 1u << 30));
}

static int try_combinations(unsigned depth, uint32_t at)
{
    uint64_t all = sim_choices_all(&levels[depth].cursor);

    for (uint64_t code = 0; code < all && all <= ALL_MAX; code++)
        if (!try_crash(depth, at, 'c', code))
            return 0;
    return 1;
}

/* As many images as are due, spread over the whole life. */
static int explore_all(unsigned depth, uint64_t dice)
{
    level *l = &levels[depth];
    uint64_t due = depth == 0 ? search->images_of_seed / IMAGES_BY_DEPTH : IMAGES_BEHIND;
    uint64_t sum = sum_of_weights(&l->log);
    uint64_t done = 0; /* of sum */
    uint64_t tried = 0;
    uint64_t phase = sim_dice(&dice, sum);

    for (uint32_t at = 0; at <= l->log.count; at++) {
        uint32_t weight = weight_of(&l->log, at);

        done += weight;
        if (search->exhaustive && depth == 0 && weight > 1 && !try_combinations(depth, at))
            return 0;
        while (tried * sum + phase < due * done) {
            tried++;
            if (!try_some(depth, at, &dice))
                return 0;
        }
        if (at < l->log.count)
            sim_cursor_step(&l->cursor);
    }
    return 1;
}

static int explore(unsigned depth)
{
    level *l = &levels[depth];
    const sim_crash *crash = &search->path[depth];

    sim_cursor_start(&l->cursor, &l->log);
    search->events += l->log.count;
    if (search->path_count <= depth)
        return explore_all(depth, sim_mix(l->life.seed ^ 0xD15Cu));
    while (l->cursor.at < crash->at && l->cursor.at < l->log.count)
        sim_cursor_step(&l->cursor);
    return try_crash(depth, crash->at, crash->kind, crash->number);
}

uint64_t sim_search_seed(sim_search *s, uint64_t seed)
{
    level *l = &levels[0];
    uint64_t before = s->failures;

    search = s;
    memset(twins, 0, sizeof twins); /* a seed does the same whatever came before it */
    sim_profile_roll(&profile, seed);
    sim_disk_clear(&l->disk);
    memset(&l->life, 0, sizeof l->life);
    l->life.profile = &profile;
    l->life.disk = &l->disk;
    l->life.seed = sim_mix(seed);
    l->life.works = 1;
    l->life.rotten = SIM_NO_POSITION;
    sim_truth_clear(&l->life.truth);
    sim_heap_choose(0);
    sim_log_start(&l->log, &l->disk, &l->life.truth, 1);
    sim_life_run(&l->life);
    for (uint32_t i = 0; s->path_count && i < l->log.count; i++)
        sim_log_print(&l->log, i);
    if (l->life.failed) {
        sim_failure failure = {.search = search, .seed = seed, .profile = &profile, .life = &l->life, .log = &l->log};

        s->broken[l->life.known ? SIM_RULE_COUNT + l->life.known : (int)l->life.rule]++;
        s->failures += sim_is_excused(&l->life) ? 0u : 1u;
        if ((!sim_is_excused(&l->life) || s->shows_known) && sim_report_is_new(&failure))
            sim_report(&failure, NULL);
    } else {
        (void)explore(0);
    }
    return s->failures - before;
}
