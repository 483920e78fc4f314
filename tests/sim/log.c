/* SPDX-License-Identifier: MIT */
/* log.c - see log.h. */
#define _DEFAULT_SOURCE /* anonymous mappings */
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime.h"

#define STEPS 256u

static const char *steps[STEPS]; /* the library's names of them, all there are */

static void *room(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        sim_broken("no memory for a log");
    return memory;
}

static void make_room(sim_log *log)
{
    if (log->events)
        return;
    log->events = room(SIM_EVENTS * sizeof *log->events);
    log->data = room(SIM_DATA_BYTES);
    log->truths = room(SIM_TRUTHS * sizeof *log->truths);
    log->boot.bytes = sim_arena();
    log->now.bytes = sim_arena();
}

static void copy_disk(sim_disk *to, const sim_disk *from)
{
    to->node_count = from->node_count;
    to->names = from->names;
    sim_raw_copy(to->nodes, from->nodes, sizeof to->nodes);
    for (int node = 0; node < from->node_count; node++)
        if (from->nodes[node].kind == SIM_FILE)
            sim_raw_copy(sim_disk_file(to, node), sim_disk_file(from, node), from->nodes[node].size);
}

void sim_log_start(sim_log *log, sim_disk *disk, const sim_truth *truth, int checks)
{
    make_room(log);
    log->count = log->data_used = log->change_count = log->truth_count = 0;
    log->checks = checks;
    copy_disk(&log->boot, disk);
    copy_disk(&log->now, disk);
    disk->log = log;
    sim_disk_use(disk);
    sim_log_truth(truth);
}

void sim_log_stop(sim_disk *disk)
{
    sim_runtime_flush();
    sim_log_check();
    disk->log = NULL;
}

static uint32_t add_event(sim_log *log, enum sim_event_kind kind, int node, uint32_t offset, uint32_t bytes,
                          uint32_t data)
{
    if (log->count == SIM_EVENTS)
        sim_broken("more than %u events in one life", SIM_EVENTS);
    log->events[log->count] = (sim_event){(uint8_t)kind, (int16_t)node, offset, bytes, data};
    return log->count++;
}

void sim_log_store(enum sim_event_kind kind, int node, uint32_t offset, uint32_t bytes)
{
    sim_disk *disk = sim_disk_used();
    sim_log *log = disk->log;
    const uint8_t *value = sim_disk_file(disk, node) + offset;

    if (!log)
        return;
    if (log->data_used + bytes > SIM_DATA_BYTES)
        sim_broken("more than %u bytes stored in one life", SIM_DATA_BYTES);
    sim_raw_copy(log->data + log->data_used, value, bytes);
    sim_raw_copy(sim_disk_file(&log->now, node) + offset, value, bytes);
    (void)add_event(log, kind, node, offset, bytes, log->data_used);
    log->data_used += bytes;
}

void sim_log_stored(void *address, size_t bytes)
{
    const sim_disk *disk = sim_disk_used();
    size_t at = (size_t)((uint8_t *)address - disk->bytes);
    int node = (int)(at / SIM_SLOT_BYTES);

    if (node >= disk->node_count || disk->nodes[node].maps == 0)
        sim_broken("a store of %zu bytes into a file that is not mapped", bytes);
    if (at % SIM_SLOT_BYTES + bytes > disk->nodes[node].size)
        sim_broken("a store of %zu bytes at offset %zu, beyond the end of the file", bytes, at % SIM_SLOT_BYTES);
    sim_log_store(SIM_STORE, node, (uint32_t)(at % SIM_SLOT_BYTES), (uint32_t)bytes);
}

void sim_log_size(int node, uint32_t bytes)
{
    sim_disk *disk = sim_disk_used();
    sim_log *log = disk->log;
    sim_node *now;

    if (!log)
        return;
    now = &log->now.nodes[node];
    if (bytes > now->size)
        sim_raw_zero(sim_disk_file(&log->now, node) + now->size, bytes - now->size);
    now->kind = SIM_FILE;
    now->size = bytes;
    (void)add_event(log, SIM_SIZE, node, 0, bytes, 0);
}

void sim_log_names(const sim_change *change)
{
    sim_log *log = sim_disk_used()->log;

    if (!log)
        return;
    if (log->change_count == SIM_CHANGES)
        sim_broken("more than %u names change in one life", SIM_CHANGES);
    log->changes[log->change_count] = *change;
    if (change->removed.node == -1) { /* new: its number may have been used in an earlier life */
        log->now.nodes[change->added.node] = sim_disk_used()->nodes[change->added.node];
        log->now.node_count = sim_disk_used()->node_count;
    }
    sim_names_apply(&log->now.names, change);
    (void)add_event(log, SIM_NAMES, change->added.node, 0, 0, log->change_count++);
}

uint32_t sim_log_sync(enum sim_event_kind kind, int node, uint32_t offset, uint32_t bytes, uint32_t began)
{
    sim_log *log = sim_disk_used()->log;

    return log ? add_event(log, kind, node, offset, bytes, began) : 0;
}

void sim_log_truth(const sim_truth *truth)
{
    sim_log *log = sim_disk_used()->log;

    if (!log)
        return;
    if (log->truth_count == SIM_TRUTHS)
        sim_broken("more than %u promises in one life", SIM_TRUTHS);
    sim_runtime_flush();
    log->truths[log->truth_count] = *truth;
    (void)add_event(log, SIM_TRUTH, -1, 0, 0, log->truth_count++);
}

void sim_log_step(const char *name)
{
    sim_log *log = sim_disk_used()->log;
    uint32_t i = 0;

    if (!log)
        return;
    sim_runtime_flush();
    while (i < STEPS && steps[i] && steps[i] != name)
        i++;
    if (i == STEPS)
        sim_broken("more than %u different steps", STEPS);
    steps[i] = name;
    (void)add_event(log, SIM_STEP, -1, 0, 0, i);
}

/* --------------------------------------------------------------------------------------- soundness */

static void check_file(const sim_disk *disk, const sim_log *log, int node, const char *name)
{
    const uint8_t *real = sim_disk_file(disk, node);
    const uint8_t *made = sim_disk_file(&log->now, node);
    uint32_t size = disk->nodes[node].size;

    if (log->now.nodes[node].size != size)
        sim_broken("%s has %u bytes, by the log %u", name, size, log->now.nodes[node].size);
    for (uint32_t at = 0; memcmp(real, made, size) != 0 && at < size; at++)
        if (real[at] != made[at])
            sim_broken("%s differs from its log at offset %u: 0x%02x, by the log 0x%02x: a store was not seen", name,
                       at, real[at], made[at]);
}

void sim_log_check(void)
{
    const sim_disk *disk = sim_disk_used();
    const sim_log *log = disk->log;

    if (!log || !log->checks)
        return;
    if (disk->names.count != log->now.names.count)
        sim_broken("there are %u names, by the log %u", disk->names.count, log->now.names.count);
    for (unsigned i = 0; i < disk->names.count; i++) {
        const sim_entry *entry = &disk->names.at[i];

        if (sim_names_find(&log->now.names, entry->directory, entry->name) != entry->node)
            sim_broken("the log does not know the name %s", entry->name);
        if (disk->nodes[entry->node].kind == SIM_FILE)
            check_file(disk, log, entry->node, entry->name);
    }
}

/* ------------------------------------------------------------------------------------- for people */

static const char *name_of(const sim_log *log, int node)
{
    for (unsigned i = 0; i < log->now.names.count; i++)
        if (log->now.names.at[i].node == node)
            return log->now.names.at[i].name;
    return "(a file that is gone)";
}

void sim_log_print(const sim_log *log, uint32_t i)
{
    const sim_event *e = &log->events[i];
    const sim_change *change = &log->changes[e->kind == SIM_NAMES ? e->data : 0];

    fprintf(stderr, "      %6u ", i);
    switch (e->kind) {
    case SIM_STORE:
    case SIM_WRITE:
        fprintf(stderr, "%s %s %u +%u:", e->kind == SIM_STORE ? "store" : "write", name_of(log, e->node), e->offset,
                e->bytes);
        for (uint32_t b = 0; b < e->bytes && b < 16; b++)
            fprintf(stderr, " %02x", log->data[e->data + b]);
        fprintf(stderr, "\n");
        break;
    case SIM_SIZE:
        fprintf(stderr, "size %s %u\n", name_of(log, e->node), e->bytes);
        break;
    case SIM_NAMES:
        fprintf(stderr, "name %s -> %s\n", change->removed.node < 0 ? "(new)" : change->removed.name,
                change->added.node < 0 ? "(gone)" : change->added.name);
        break;
    case SIM_SYNC_BEGIN:
    case SIM_SYNC_END:
        fprintf(stderr, "sync %s %s %u +%u\n", e->kind == SIM_SYNC_BEGIN ? "begins" : "ends", name_of(log, e->node),
                e->offset, e->bytes == SIM_WHOLE ? 0 : e->bytes);
        break;
    case SIM_TRUTH: {
        const sim_truth *t = &log->truths[e->data];

        fprintf(stderr, "now: %s, records started %u, returned %u, durable %u, oldest %u\n",
                t->opened ? "open" : "opening", t->started, t->returned, t->durable, t->oldest);
        break;
    }
    default:
        fprintf(stderr, "step \"%s\"\n", steps[e->data]);
    }
}
