/* SPDX-License-Identifier: MIT */
/* look.c - looking at a disk without the library: marks, segments, whole records. See look.h. */
#include "look.h"

#include <stdio.h>
#include <string.h>

#include "base/format.h"

#define QUARANTINE "quarantine"

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << 8u * i;
    return value;
}

/* ---------------------------------------------------------------------- files, without the library */

static int read_slot(const uint8_t *slot, uint64_t *generation, sim_mark *out)
{
    if (get(slot + offsetof(chron__slot, crc), 4) != chron_crc32c(0, slot, offsetof(chron__slot, crc)))
        return 0;
    *generation = get(slot, 8);
    out->durable_next = (uint32_t)get(slot + offsetof(chron__slot, segment_base), 8);
    out->epoch = (uint32_t)get(slot + offsetof(chron__slot, offset), 8);
    return 1;
}

int sim_look_mark(const sim_disk *disk, sim_mark *out)
{
    int queue = sim_disk_queue(disk);
    int node = queue < 0 ? -1 : sim_names_find(&disk->names, queue, CHRON__FILE_META);
    uint64_t a_generation = 0;
    uint64_t b_generation = 0;
    sim_mark a;
    sim_mark b;
    int has_a;
    int has_b;

    *out = (sim_mark){0, 0};
    if (node < 0 || disk->nodes[node].size < CHRON__PAGE)
        return 0;
    has_a = read_slot(sim_disk_file(disk, node) + CHRON__SLOT_A, &a_generation, &a);
    has_b = read_slot(sim_disk_file(disk, node) + CHRON__SLOT_B, &b_generation, &b);
    if (has_a && (!has_b || a_generation > b_generation))
        *out = a;
    else if (has_b)
        *out = b;
    return has_a || has_b;
}

static int is_segment(const char *name)
{
    size_t length = strlen(name);

    return length == 24 && strcmp(name + 20, ".seg") == 0 && strspn(name, "0123456789") == 20;
}

static void lower_oldest(void *context, const char *name, int node)
{
    uint32_t *oldest = context;
    unsigned long long base;

    (void)node;
    if (is_segment(name) && sscanf(name, "%llu", &base) == 1 && base < *oldest)
        *oldest = (uint32_t)base;
}

uint32_t sim_look_oldest(const sim_disk *disk)
{
    int queue = sim_disk_queue(disk);
    uint32_t oldest = SIM_SEQS;

    if (queue >= 0)
        sim_disk_walk(disk, queue, lower_oldest, &oldest);
    return oldest;
}

typedef struct holder {
    uint32_t seq;
    uint32_t base;
} holder;

static void raise_base(void *context, const char *name, int node)
{
    holder *h = context;
    unsigned long long base;

    (void)node;
    if (is_segment(name) && sscanf(name, "%llu", &base) == 1 && base <= h->seq && base > h->base)
        h->base = (uint32_t)base;
}

uint32_t sim_look_segment(const sim_life *life, uint32_t seq)
{
    holder h = {seq, 0};
    int queue = sim_disk_queue(life->disk);

    if (queue >= 0)
        sim_disk_walk(life->disk, queue, raise_base, &h);
    return h.base;
}

typedef struct moved {
    uint32_t seq;
    uint32_t lowest;
} moved;

static void lower_moved(void *context, const char *name, int node)
{
    moved *m = context;
    unsigned long long base;

    (void)node;
    if (sscanf(name, "%20llu-e", &base) == 1 && name[20] == '-' && name[21] == 'e' && base >= m->seq &&
        base < m->lowest)
        m->lowest = (uint32_t)base;
}

uint32_t sim_look_moved(const sim_life *life, uint32_t seq)
{
    int queue = sim_disk_queue(life->disk);
    int quarantine = queue < 0 ? -1 : sim_names_find(&life->disk->names, queue, QUARANTINE);
    moved m = {seq, SIM_SEQS};

    if (quarantine >= 0)
        sim_disk_walk(life->disk, quarantine, lower_moved, &m);
    return m.lowest;
}

/* The record that stands whole at `at`, of any of our lives: 1 with seq and life. */
static int whole_record(const sim_life *life, const uint8_t *at, uint32_t room, uint32_t *seq, uint16_t *of)
{
    uint8_t payload[SIM_PAYLOAD_MAX];
    uint64_t commit = get(at, 4);
    uint64_t its_seq = get(at + offsetof(chron__record_header, seq), 8);
    uint64_t its_life = get(at + offsetof(chron__record_header, timestamp_ns), 8);
    uint8_t word[4];
    uint32_t crc;

    if (commit == 0 || its_seq >= SIM_SEQS || its_life < its_seq * 1000000u)
        return 0;
    its_life -= its_seq * 1000000u;
    if (its_life == 0 || its_life > life->truth.lives ||
        commit - 1u != sim_record_length((uint32_t)its_seq, (uint16_t)its_life) ||
        CHRON__RECORD_HEADER + commit - 1u > room)
        return 0;
    (void)sim_record_fill((uint32_t)its_seq, (uint16_t)its_life, payload);
    if (memcmp(payload, at + CHRON__RECORD_HEADER, (size_t)commit - 1u) != 0)
        return 0;
    memcpy(word, at, sizeof word);
    crc = chron_crc32c(0, word, sizeof word);
    crc = chron_crc32c(crc, at + 8, CHRON__RECORD_HEADER - 8u + (size_t)commit - 1u);
    if (crc != get(at + offsetof(chron__record_header, crc), 4))
        return 0;
    *seq = (uint32_t)its_seq;
    *of = (uint16_t)its_life;
    return 1;
}

/* Calls visit for each whole record of a file. */
static void walk_file(const sim_life *life, int node,
                      void (*visit)(void *context, uint32_t seq, uint16_t of, int node, uint32_t offset), void *context)
{
    const uint8_t *file = sim_disk_file(life->disk, node);
    uint32_t size = life->disk->nodes[node].size;
    uint32_t seq;
    uint16_t of;

    for (uint32_t at = 0; at + CHRON__RECORD_HEADER <= size; at += CHRON__ALIGN) {
        uint32_t commit;

        memcpy(&commit, file + at, sizeof commit);
        if (commit && whole_record(life, file + at, size - at, &seq, &of))
            visit(context, seq, of, node, at);
    }
}

typedef struct file_walk {
    const sim_life *life;
    void (*visit)(void *context, uint32_t seq, uint16_t of, int node, uint32_t offset);
    void *context;
    int segments_only;
} file_walk;

static void walk_one(void *context, const char *name, int node)
{
    const file_walk *walk = context;

    if (walk->life->disk->nodes[node].kind == SIM_FILE && (!walk->segments_only || is_segment(name)))
        walk_file(walk->life, node, walk->visit, walk->context);
}

static void note_found(void *context, uint32_t seq, uint16_t of, int node, uint32_t offset)
{
    (void)node;
    (void)offset;
    ((sim_found *)context)->lives[seq] |= 1ull << of;
}

void sim_look_segments(const sim_life *life, sim_found *out)
{
    int queue = sim_disk_queue(life->disk);
    file_walk walk = {.life = life, .visit = note_found, .context = out, .segments_only = 1};

    memset(out, 0, sizeof *out);
    if (queue >= 0)
        sim_disk_walk(life->disk, queue, walk_one, &walk);
}

void sim_look_quarantine(const sim_life *life, sim_found *out)
{
    int queue = sim_disk_queue(life->disk);
    int quarantine = queue < 0 ? -1 : sim_names_find(&life->disk->names, queue, QUARANTINE);
    file_walk walk = {.life = life, .visit = note_found, .context = out};

    if (quarantine >= 0)
        sim_disk_walk(life->disk, quarantine, walk_one, &walk);
}

typedef struct remnant {
    const sim_life *life;
    int node; /* of the segment that the newest life has appended to; -1: none yet */
    uint32_t seq;
    uint16_t of; /* 0: there is none */
} remnant;

static void find_newest(void *context, uint32_t seq, uint16_t of, int node, uint32_t offset)
{
    remnant *r = context;

    (void)seq;
    (void)offset;
    if (of == r->life->truth.lives)
        r->node = node;
}

static void find_remnant(void *context, uint32_t seq, uint16_t of, int node, uint32_t offset)
{
    remnant *r = context;

    (void)offset;
    if (node == r->node && (seq >= r->life->truth.started || r->life->truth.life_of[seq] != of)) {
        r->seq = seq;
        r->of = of;
    }
}

int sim_look_remnant(const sim_life *life, uint32_t *seq, uint16_t *of)
{
    int queue = sim_disk_queue(life->disk);
    remnant r = {.life = life, .node = -1};
    file_walk walk = {.life = life, .visit = find_newest, .context = &r, .segments_only = 1};

    if (queue >= 0 && life->was_in_use) {
        sim_disk_walk(life->disk, queue, walk_one, &walk);
        walk.visit = find_remnant;
        sim_disk_walk(life->disk, queue, walk_one, &walk);
    }
    *seq = r.seq;
    *of = r.of;
    return r.of != 0;
}

typedef struct epochs {
    const sim_life *life;
    uint32_t of[SIM_LIVES_MAX + 1u]; /* 0: no record of that life is there */
} epochs;

static void note_epoch(void *context, uint32_t seq, uint16_t of, int node, uint32_t offset)
{
    epochs *e = context;

    (void)seq;
    e->of[of] = (uint32_t)get(sim_disk_file(e->life->disk, node) + offset + offsetof(chron__record_header, epoch), 4);
}

int sim_look_epochs(const sim_life *life, uint16_t *older, uint16_t *newer)
{
    epochs e = {.life = life};
    file_walk walk = {.life = life, .visit = note_epoch, .context = &e};
    int queue = sim_disk_queue(life->disk);
    int quarantine = queue < 0 ? -1 : sim_names_find(&life->disk->names, queue, QUARANTINE);

    if (queue >= 0)
        sim_disk_walk(life->disk, queue, walk_one, &walk);
    if (quarantine >= 0)
        sim_disk_walk(life->disk, quarantine, walk_one, &walk);
    *older = 0;
    for (*newer = 1; *newer <= SIM_LIVES_MAX; ++*newer) {
        if (e.of[*newer] && *older && e.of[*newer] <= e.of[*older])
            return 1;
        if (e.of[*newer])
            *older = *newer;
    }
    return 0;
}

static void print_record(void *context, uint32_t seq, uint16_t of, int node, uint32_t offset)
{
    (void)context;
    (void)node;
    fprintf(stderr, " %u/%u@%u", seq, of, offset);
}

static void print_position(const uint8_t *file)
{
    for (uint32_t at = CHRON__SLOT_A; at <= CHRON__SLOT_B; at += CHRON__SLOT_B - CHRON__SLOT_A) {
        sim_mark unused;
        uint64_t generation;

        if (read_slot(file + at, &generation, &unused))
            fprintf(stderr, " generation %llu: %lld;", (unsigned long long)generation,
                    (long long)get(file + at + offsetof(chron__slot, next_seq), 8));
        else
            fprintf(stderr, " torn;");
    }
}

void sim_look_print(const sim_life *life)
{
    const sim_disk *disk = life->disk;
    sim_mark mark;

    (void)sim_look_mark(disk, &mark);
    fprintf(stderr, "    mark %u, epoch %u; files with whole records, as seq/life@offset:\n", mark.durable_next,
            mark.epoch);
    for (unsigned i = 0; i < disk->names.count; i++) {
        const sim_entry *entry = &disk->names.at[i];

        if (disk->nodes[entry->node].kind != SIM_FILE)
            continue;
        fprintf(stderr, "      %s, %u bytes:", entry->name, disk->nodes[entry->node].size);
        if (strcmp(entry->name, SIM_READER ".pos") == 0)
            print_position(sim_disk_file(disk, entry->node));
        walk_file(life, entry->node, print_record, NULL);
        fprintf(stderr, "\n");
    }
}

static void add_sum(void *context, const char *name, int node)
{
    const file_walk *walk = context;
    const uint8_t *file = sim_disk_file(walk->life->disk, node);
    uint64_t sum = (uint64_t)node;

    if (!is_segment(name) && strcmp(name, CHRON__FILE_META) != 0)
        return;
    for (uint32_t at = 0; at < walk->life->disk->nodes[node].size; at += 8) {
        uint64_t word;

        memcpy(&word, file + at, sizeof word);
        if (word)
            sum = sim_mix(sum + at) ^ word;
    }
    *(uint64_t *)walk->context += sim_mix(sum); /* in any order */
}

uint64_t sim_look_sum(const sim_life *life)
{
    uint64_t sum = 0;
    file_walk walk = {.life = life, .context = &sum};

    if (sim_disk_queue(life->disk) >= 0)
        sim_disk_walk(life->disk, sim_disk_queue(life->disk), add_sum, &walk);
    return sum;
}

/* ------------------------------------------------------------------------------ damage on purpose */

typedef struct pick {
    sim_life *life;
    uint64_t *dice;
    uint32_t seen;
    uint32_t seq;
    int node;
    uint32_t offset;
} pick;

static void pick_one(void *context, uint32_t seq, uint16_t of, int node, uint32_t offset)
{
    pick *p = context;
    const sim_life *life = p->life;

    if (seq >= life->truth.durable || seq < life->truth.oldest || of != life->truth.life_of[seq])
        return;
    if (sim_dice(p->dice, ++p->seen) != 0)
        return;
    p->seq = seq;
    p->node = node;
    p->offset = offset;
}

uint32_t sim_look_spoil(sim_life *life, uint64_t *dice)
{
    int queue = sim_disk_queue(life->disk);
    pick p = {.life = life, .dice = dice};
    file_walk walk = {.life = life, .visit = pick_one, .context = &p, .segments_only = 1};
    sim_mark mark;
    uint32_t bytes;

    if (queue >= 0)
        sim_disk_walk(life->disk, queue, walk_one, &walk);
    if (p.seen == 0)
        return SIM_NO_POSITION;
    bytes = CHRON__RECORD_HEADER + sim_record_length(p.seq, life->truth.life_of[p.seq]);
    sim_disk_file(life->disk, p.node)[p.offset + sim_dice(dice, bytes)] ^= (uint8_t)(1u << sim_dice(dice, 8));
    (void)sim_look_mark(life->disk, &mark);
    life->rotten = p.seq;
    life->rotten_is_marked = p.seq < mark.durable_next;
    return p.seq;
}
