/* SPDX-License-Identifier: MIT */
/* choose.c - the choices of image.h: systematic ones, all combinations where they are few, and dice. */
#include <stdio.h>
#include <string.h>

#include "image.h"

static void clear(const sim_cursor *c, sim_choice *out, enum sim_fate items, int sizes, uint32_t changes)
{
    memset(out->items, (int)items, c->item_count);
    memset(out->sizes, sizes, sizeof out->sizes);
    for (uint32_t i = 0; i < c->change_count; i++)
        out->changes[i] = i < changes;
    out->garbage = 0;
    out->spoils_sectors = 0;
    out->cruelty = SIM_BY_TIME;
}

static uint64_t unit_of(const sim_item *item, uint32_t bytes)
{
    return (uint64_t)(uint16_t)item->node << 32 | item->offset / bytes;
}

/* ------------------------------------------------------------------------------------- systematic */

/* The sector of the last item gets `fate`, or (others) all but that. */
static void last_sector(const sim_cursor *c, sim_choice *out, enum sim_fate fate)
{
    const sim_item *last = &c->items[c->item_count - 1u];

    for (uint32_t i = 0; i < c->item_count; i++)
        if (unit_of(&c->items[i], SIM_SECTOR) == unit_of(last, SIM_SECTOR))
            out->items[i] = (uint8_t)fate;
}

void sim_choice_systematic(const sim_cursor *c, uint32_t which, sim_choice *out)
{
    static const char *const texts[SIM_SYSTEMATIC] = {
        "all is there",
        "nothing is there but what was synced",
        "all data, no name",
        "all names, no data",
        "all names and sizes, no data",
        "all but the last store",
        "the last store alone",
        "all but the first store",
        "the first store alone",
        "all but the last sector",
        "the last sector alone",
        "every other sector",
    };
    int few = which == 1 || which == 3 || which == 4 || which == 6 || which == 8 || which == 10;

    clear(c, out, few ? SIM_OLD : SIM_NEW, which != 1 && which != 3, which == 1 || which == 2 ? 0 : c->change_count);
    (void)snprintf(out->text, sizeof out->text, "%s", texts[which]);
    out->cruelty = sim_systematic_models(which);
    if (c->item_count == 0)
        return;
    if (which == 5 || which == 6)
        out->items[c->item_count - 1u] = which == 5 ? SIM_OLD : SIM_NEW;
    else if (which == 7 || which == 8)
        out->items[0] = which == 7 ? SIM_OLD : SIM_NEW;
    else if (which == 9 || which == 10)
        last_sector(c, out, which == 9 ? SIM_OLD : SIM_NEW);
    for (uint32_t i = 0; which == 11 && i < c->item_count; i++)
        out->items[i] = (uint8_t)(unit_of(&c->items[i], SIM_SECTOR) % 2u);
}

/* ----------------------------------------------------------------------------------- combinations */

/* The sectors that items lie in; more than SIM_UNITS_MAX: 0 is returned. */
static uint32_t list_sectors(const sim_cursor *c, uint64_t *sectors)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < c->item_count; i++) {
        uint64_t unit = unit_of(&c->items[i], SIM_SECTOR);
        uint32_t n = 0;

        while (n < count && sectors[n] != unit)
            n++;
        if (n < count)
            continue;
        if (count == SIM_UNITS_MAX)
            return UINT32_MAX;
        sectors[count++] = unit;
    }
    return count;
}

uint64_t sim_choices_all(const sim_cursor *c)
{
    uint64_t sectors[SIM_UNITS_MAX];
    uint32_t units = list_sectors(c, sectors);

    if (units == UINT32_MAX || units + c->size_count + c->change_count > SIM_UNITS_MAX)
        return 0;
    return ((uint64_t)c->change_count + 1u) << (units + c->size_count);
}

void sim_choice_combination(const sim_cursor *c, uint64_t code, sim_choice *out)
{
    uint64_t sectors[SIM_UNITS_MAX];
    uint32_t units = list_sectors(c, sectors);
    uint64_t names = code % (c->change_count + 1u);
    uint64_t bits = code / (c->change_count + 1u);

    clear(c, out, SIM_OLD, 0, (uint32_t)names);
    out->cruelty = SIM_BY_SECTOR;
    for (uint32_t i = 0; i < c->item_count; i++) {
        uint32_t n = 0;

        while (sectors[n] != unit_of(&c->items[i], SIM_SECTOR))
            n++;
        out->items[i] = bits >> n & 1u ? SIM_NEW : SIM_OLD;
    }
    for (uint32_t i = 0; i < c->size_count; i++)
        out->sizes[i] = bits >> (units + i) & 1u;
    (void)snprintf(out->text, sizeof out->text, "combination %llu of %llu", (unsigned long long)code,
                   (unsigned long long)sim_choices_all(c));
}

/* ------------------------------------------------------------------------------------------- dice */

enum manner { COIN, MOMENT, UP_TO, ONE_MISSING, ONE_ALONE, FROM, MANNERS }; /* FROM tears every unit but the least */

typedef struct draw {
    uint64_t seed;
    uint32_t unit_bytes; /* 0: each store is a unit */
    enum manner manner;
    uint32_t chance;  /* of 16 */
    uint32_t event;   /* UP_TO, FROM */
    uint64_t special; /* the one unit */
} draw;

static uint64_t unit_for(const draw *d, const sim_item *item)
{
    return d->unit_bytes ? unit_of(item, d->unit_bytes) : (uint64_t)item->event << 16 | item->offset % SIM_PAGE;
}

/* Between the first undecided event and here. */
static uint32_t some_event(const sim_cursor *c, uint64_t key)
{
    uint32_t first = c->item_count ? c->items[0].event : c->at;

    return first + (uint32_t)(sim_mix(key) % (c->at - first + 1u));
}

static int is_there(const sim_cursor *c, const draw *d, const sim_item *item)
{
    uint64_t unit = unit_for(d, item);

    switch (d->manner) {
    case COIN:
        return sim_mix(d->seed ^ unit) % 16u < d->chance;
    case MOMENT: /* a moment for each unit */
        return item->event < some_event(c, d->seed ^ unit);
    case UP_TO:
        return item->event < d->event;
    case FROM:
        return item->event >= d->event;
    case ONE_MISSING:
        return unit != d->special;
    default:
        return unit == d->special;
    }
}

static void choose_items(const sim_cursor *c, uint64_t *dice, uint32_t models, sim_choice *out)
{
    static const char *const units[] = {"moments", "pages", "sectors", "stores"};
    static const char *const manners[MANNERS] = {"by coin", "by moment", "up to", "one missing", "one alone", "from"};
    static const uint32_t bytes[] = {0, SIM_PAGE, SIM_SECTOR, 0};
    static const uint32_t chances[] = {1, 8, 15, 12};
    draw d = {.seed = *dice};
    uint32_t kind;

    do
        kind = (uint32_t)sim_dice(dice, 4);
    while (!(models >> kind & 1u));
    out->cruelty = 1u << kind;
    d.unit_bytes = bytes[kind];
    d.manner = kind == 0 ? UP_TO : (enum manner)sim_dice(dice, kind == 3 ? MANNERS : FROM);
    d.chance = chances[sim_dice(dice, 4)];
    d.event = some_event(c, *dice);
    if (c->item_count)
        d.special = unit_for(&d, &c->items[sim_dice(dice, c->item_count)]);
    for (uint32_t i = 0; i < c->item_count; i++)
        out->items[i] = is_there(c, &d, &c->items[i]) ? SIM_NEW : SIM_OLD;
    (void)snprintf(out->text, sizeof out->text, "%s %s", units[kind], manners[d.manner]);
}

/* One sector, or some, of those that are being written. */
static void choose_garbage(const sim_cursor *c, uint64_t *dice, sim_choice *out)
{
    uint64_t special = unit_of(&c->items[sim_dice(dice, c->item_count)], SIM_SECTOR);
    uint64_t some = sim_dice(dice, 2);
    uint64_t seed = *dice;
    size_t used = strlen(out->text);

    for (uint32_t i = 0; i < c->item_count; i++) {
        uint64_t unit = unit_of(&c->items[i], SIM_SECTOR);

        if (unit == special || (some && sim_mix(seed ^ unit) % 8u == 0))
            out->items[i] = SIM_SPOILT;
    }
    out->garbage = seed;
    out->cruelty = SIM_GARBAGE;
    (void)snprintf(out->text + used, sizeof out->text - used, ", garbage in %s", some ? "some sectors" : "a sector");
}

/* Each directory's changes up to some place, in order; those of two directories only if it is the turn of both. */
static void change_by_directory(const sim_cursor *c, uint64_t *dice, sim_choice *out)
{
    uint8_t ended[SIM_NODES] = {0};

    for (uint32_t i = 0; i < c->change_count; i++) {
        const sim_change *change = &c->log->changes[c->changes[i].change];
        int from = change->removed.node >= 0 ? change->removed.directory : change->added.directory;
        int to = change->added.node >= 0 ? change->added.directory : change->removed.directory;

        if (sim_dice(dice, c->change_count + 1u) == 0)
            ended[to] = 1;
        out->changes[i] = !ended[from] && !ended[to];
        ended[from] |= !out->changes[i];
        ended[to] |= !out->changes[i];
    }
}

static void choose_changes(const sim_cursor *c, uint64_t *dice, uint32_t models, sim_choice *out)
{
    static const char *const manners[] = {"all", "none", "up to one", "up to one in each directory", "any"};
    uint64_t manner = sim_dice(dice, models & SIM_LOOSE_NAMES ? 5 : 4);
    uint64_t all = sim_dice(dice, c->change_count + 1u);
    size_t used = strlen(out->text);

    for (uint32_t i = 0; i < c->change_count; i++)
        out->changes[i] = manner == 0 ? 1 : manner == 1 ? 0 : manner == 2 ? i < all : (uint8_t)sim_dice(dice, 2);
    if (manner == 3)
        change_by_directory(c, dice, out);
    (void)snprintf(out->text + used, sizeof out->text - used, ", names %s", manners[manner]);
}

void sim_choice_random(const sim_cursor *c, uint64_t seed, uint32_t models, sim_choice *out)
{
    uint64_t dice = seed;
    int sizes_too = sim_dice(&dice, 4) == 0;

    clear(c, out, SIM_NEW, 1, c->change_count);
    choose_items(c, &dice, models, out);
    for (uint32_t i = 0; i < c->size_count; i++)
        out->sizes[i] = !sizes_too || sim_dice(&dice, 2);
    choose_changes(c, &dice, models, out);
    if ((models & SIM_GARBAGE) && c->item_count && sim_dice(&dice, 3) == 0)
        choose_garbage(c, &dice, out);
    if (models & (SIM_LOOSE_NAMES | SIM_GARBAGE_SECTORS))
        out->cruelty = models;
    out->spoils_sectors = (models & SIM_GARBAGE_SECTORS) != 0;
}
