/* SPDX-License-Identifier: MIT */
/* image.c - the cursor, and images by choices; choose.c makes the choices. See image.h. */
#define _DEFAULT_SOURCE /* anonymous mappings */
#include "image.h"

#include <string.h>
#include <sys/mman.h>

#include "runtime.h"

/* --------------------------------------------------------------------------------------- cursor */

static void start_disk(sim_disk *to, const sim_disk *from)
{
    if (!to->bytes)
        to->bytes = sim_arena();
    to->node_count = from->node_count;
    to->names = from->names;
    memcpy(to->nodes, from->nodes, sizeof to->nodes);
    for (int node = 0; node < from->node_count; node++)
        if (from->nodes[node].kind == SIM_FILE)
            memcpy(sim_disk_file(to, node), sim_disk_file(from, node), from->nodes[node].size);
}

void sim_cursor_start(sim_cursor *cursor, const sim_log *log)
{
    if (!cursor->items) {
        cursor->items = mmap(NULL, SIM_ITEMS * sizeof *cursor->items, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (cursor->items == MAP_FAILED)
            sim_broken("no memory for a cursor");
    }
    cursor->log = log;
    cursor->at = 0;
    cursor->item_count = cursor->size_count = cursor->change_count = 0;
    cursor->truth = &log->truths[0];
    start_disk(&cursor->durable, &log->boot);
    start_disk(&cursor->now, &log->boot);
}

/* A store, word by word; what changes nothing is left out. */
static void step_store(sim_cursor *c, const sim_event *e)
{
    uint8_t *now = sim_disk_file(&c->now, e->node);
    const uint8_t *value = c->log->data + e->data;

    for (uint32_t at = e->offset; at < e->offset + e->bytes;) {
        uint32_t end = (at / SIM_WORD + 1u) * SIM_WORD;
        sim_item *item = &c->items[c->item_count];

        if (end > e->offset + e->bytes)
            end = e->offset + e->bytes;
        if (memcmp(now + at, value + (at - e->offset), end - at) != 0) {
            if (c->item_count == SIM_ITEMS)
                sim_broken("more than %u stores are undecided", SIM_ITEMS);
            *item = (sim_item){.event = c->at, .offset = at, .node = e->node, .bytes = (uint8_t)(end - at)};
            memcpy(item->value, value + (at - e->offset), end - at);
            memcpy(now + at, item->value, end - at);
            c->item_count++;
        }
        at = end;
    }
}

static void step_size(sim_cursor *c, const sim_event *e)
{
    sim_node *now = &c->now.nodes[e->node];

    if (c->size_count == SIM_PENDING)
        sim_broken("more than %u sizes are undecided", SIM_PENDING);
    if (e->bytes > now->size) {
        memset(sim_disk_file(&c->now, e->node) + now->size, 0, e->bytes - now->size);
        memset(sim_disk_file(&c->durable, e->node) + now->size, 0, e->bytes - now->size);
    }
    now->size = e->bytes;
    c->sizes[c->size_count].event = c->at;
    c->sizes[c->size_count].bytes = e->bytes;
    c->sizes[c->size_count++].node = e->node;
}

static void step_names(sim_cursor *c, const sim_event *e)
{
    const sim_change *change = &c->log->changes[e->data];

    if (c->change_count == SIM_PENDING)
        sim_broken("more than %u changes of names are undecided", SIM_PENDING);
    if (change->removed.node == -1) {
        sim_node new = {.kind = c->log->now.nodes[change->added.node].kind};

        c->now.nodes[change->added.node] = new;
        c->durable.nodes[change->added.node] = new;
    }
    sim_names_apply(&c->now.names, change);
    c->changes[c->change_count].event = c->at;
    c->changes[c->change_count++].change = e->data;
}

/*
 * Changes are on disk in order. A rename from one directory to another is one change of both; so with it goes all that came
 * before it in the other one.
 */
static void sync_directory(sim_cursor *c, int node, uint32_t began)
{
    uint32_t until[SIM_NODES] = {0}; /* of each directory: changes before this event are on disk */
    uint32_t kept = 0;

    until[node] = began;
    for (uint32_t i = c->change_count; i-- > 0;) {
        const sim_change *change = &c->log->changes[c->changes[i].change];
        int from = change->removed.node >= 0 ? change->removed.directory : change->added.directory;
        int to = change->added.node >= 0 ? change->added.directory : change->removed.directory;

        if (c->changes[i].event < until[from] && until[to] <= c->changes[i].event)
            until[to] = c->changes[i].event + 1u;
        if (c->changes[i].event < until[to] && until[from] <= c->changes[i].event)
            until[from] = c->changes[i].event + 1u;
    }
    for (uint32_t i = 0; i < c->change_count; i++) {
        const sim_change *change = &c->log->changes[c->changes[i].change];
        int to = change->added.node >= 0 ? change->added.directory : change->removed.directory;

        if (c->changes[i].event < until[to])
            sim_names_apply(&c->durable.names, change);
        else
            c->changes[kept++] = c->changes[i];
    }
    c->change_count = kept;
}

/* Its size goes along: msync is an fdatasync, which leaves out no size that the data needs. */
static void sync_contents(sim_cursor *c, int node, uint32_t from, uint32_t bytes, uint32_t began)
{
    uint8_t *durable = sim_disk_file(&c->durable, node);
    uint32_t kept = 0;

    for (uint32_t i = 0; i < c->size_count; i++) {
        if (c->sizes[i].node == node && c->sizes[i].event < began)
            c->durable.nodes[node].size = c->sizes[i].bytes;
        else
            c->sizes[kept++] = c->sizes[i];
    }
    c->size_count = kept;
    kept = 0;
    for (uint32_t i = 0; i < c->item_count; i++) {
        const sim_item *item = &c->items[i];

        if (item->node == node && item->event < began && item->offset >= from && item->offset - from < bytes)
            memcpy(durable + item->offset, item->value, item->bytes);
        else
            c->items[kept++] = *item;
    }
    c->item_count = kept;
}

void sim_cursor_step(sim_cursor *c)
{
    const sim_event *e = &c->log->events[c->at];

    switch (e->kind) {
    case SIM_STORE:
    case SIM_WRITE:
        step_store(c, e);
        break;
    case SIM_SIZE:
        step_size(c, e);
        break;
    case SIM_NAMES:
        step_names(c, e);
        break;
    case SIM_SYNC_END:
        if (c->now.nodes[e->node].kind == SIM_DIRECTORY)
            sync_directory(c, e->node, e->data);
        else
            sync_contents(c, e->node, e->offset, e->bytes, e->data);
        break;
    case SIM_TRUTH:
        c->truth = &c->log->truths[e->data];
        break;
    default:
        break;
    }
    c->at++;
}

/* --------------------------------------------------------------------------------------- images */

/* Only what a name leads to is there. */
static void mark_reachable(const sim_disk *disk, int directory, uint8_t *reachable)
{
    reachable[directory] = 1;
    for (unsigned i = 0; i < disk->names.count; i++) {
        int node = disk->names.at[i].node;

        if (disk->names.at[i].directory != directory || reachable[node])
            continue;
        if (disk->nodes[node].kind == SIM_DIRECTORY)
            mark_reachable(disk, node, reachable);
        reachable[node] = 1;
    }
}

static void drop_unreachable(sim_disk *disk, const uint8_t *reachable)
{
    for (unsigned i = 0; i < disk->names.count;) {
        if (reachable[disk->names.at[i].directory])
            i++;
        else
            disk->names.at[i] = disk->names.at[--disk->names.count];
    }
}

static void spoil(const sim_choice *choice, const sim_item *item, uint8_t *file, uint32_t size)
{
    uint32_t from = item->offset;
    uint32_t to = item->offset + item->bytes;

    if (choice->spoils_sectors) {
        from = from / SIM_SECTOR * SIM_SECTOR;
        to = from + SIM_SECTOR < size ? from + SIM_SECTOR : size;
    }
    for (uint32_t at = from; at < to; at++)
        file[at] = (uint8_t)sim_mix(choice->garbage ^ (uint64_t)(uint32_t)item->node << 32 ^ at);
}

void sim_image_make(const sim_cursor *c, const sim_choice *choice, sim_disk *out)
{
    uint8_t reachable[SIM_NODES] = {0};

    if (!out->bytes)
        out->bytes = sim_arena();
    out->log = NULL;
    out->node_count = c->log->now.node_count;
    out->names = c->durable.names;
    memcpy(out->nodes, c->durable.nodes, sizeof out->nodes);
    for (uint32_t i = 0; i < c->change_count; i++)
        if (choice->changes[i])
            sim_names_apply(&out->names, &c->log->changes[c->changes[i].change]);
    for (uint32_t i = 0; i < c->size_count; i++)
        if (choice->sizes[i])
            out->nodes[c->sizes[i].node].size = c->sizes[i].bytes;
    mark_reachable(out, SIM_ROOT, reachable);
    drop_unreachable(out, reachable);
    for (int node = 0; node < out->node_count; node++) {
        if (!reachable[node])
            out->nodes[node] = (sim_node){.kind = SIM_FREE};
        else if (out->nodes[node].kind == SIM_FILE)
            sim_raw_copy(sim_disk_file(out, node), sim_disk_file(&c->durable, node), out->nodes[node].size);
    }
    for (uint32_t i = 0; i < c->item_count; i++) {
        const sim_item *item = &c->items[i];

        if (choice->items[i] == SIM_NEW && item->offset + item->bytes <= out->nodes[item->node].size)
            sim_raw_copy(sim_disk_file(out, item->node) + item->offset, item->value, item->bytes);
    }
    for (uint32_t i = 0; i < c->item_count; i++) {
        const sim_item *item = &c->items[i];

        if (choice->items[i] == SIM_SPOILT && item->offset + item->bytes <= out->nodes[item->node].size)
            spoil(choice, item, sim_disk_file(out, item->node), out->nodes[item->node].size);
    }
}

uint64_t sim_image_hash(const sim_disk *disk)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < disk->names.count; i++) {
        const sim_entry *entry = &disk->names.at[i];
        const uint8_t *file = sim_disk_file(disk, entry->node);
        uint64_t h = (uint64_t)(uint16_t)entry->directory;
        uint64_t word;

        for (const char *c = entry->name; *c; c++)
            h = sim_mix(h ^ (uint8_t)*c);
        for (uint32_t at = 0; disk->nodes[entry->node].kind == SIM_FILE && at < disk->nodes[entry->node].size;
             at += 8) {
            memcpy(&word, file + at, sizeof word);
            if (word)
                h = sim_mix(h + at) ^ word; /* most of a file are zeros */
        }
        sum += sim_mix(h ^ disk->nodes[entry->node].size);
    }
    return sum;
}
