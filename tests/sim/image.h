/* SPDX-License-Identifier: MIT */
/*
 * image.h - what a disk may hold after a loss of power. A cursor goes through a log; at each place it knows what a
 * completed sync has put on disk for sure, and what is undecided:
 *
 *   items    stores since, each within one word of 8 bytes: the finest that a page can be torn into, if it is written out
 *            while a processor stores into it
 *   sizes    of files that grew
 *   changes  of names
 *
 * A choice decides each of them. How they hang together is the disk's nature, from gentle to cruel (SIM_BY_...): all up to
 * one moment; each page, each sector of 512 bytes at a moment of its own; each store on its own; garbage in what was being
 * written. Garbage hits what has been stored since the last sync, and no byte beside it in the sector, which is what SQLite
 * calls powersafe overwrite; SIM_GARBAGE_SECTORS spoils the whole sector.
 *
 * Names change in order, as in the journals of ext4, xfs and btrfs: all directories together, or each for itself. With
 * SIM_LOOSE_NAMES any subset of the changes is possible, which POSIX does not rule out.
 */
#ifndef SIM_IMAGE_H
#define SIM_IMAGE_H

#include "log.h"

#define SIM_BY_TIME 1u
#define SIM_BY_PAGE 2u
#define SIM_BY_SECTOR 4u
#define SIM_BY_WORD 8u
#define SIM_GARBAGE 16u
#define SIM_LOOSE_NAMES 32u
#define SIM_GARBAGE_SECTORS 64u
#define SIM_MODELS_USUAL 31u

#define SIM_ITEMS (1u << 17)
#define SIM_PENDING 256u

typedef struct sim_item {
    uint32_t event;
    uint32_t offset;
    int16_t node;
    uint8_t bytes; /* up to 8, within one word */
    uint8_t value[SIM_WORD];
} sim_item;

typedef struct sim_cursor {
    const sim_log *log;
    uint32_t at;      /* events before this one have happened */
    sim_disk durable; /* what is on disk for sure */
    sim_disk now;     /* what the page cache holds */
    sim_item *items;
    uint32_t item_count;
    struct {
        uint32_t event;
        uint32_t bytes;
        int16_t node;
    } sizes[SIM_PENDING];
    uint32_t size_count;
    struct {
        uint32_t event;
        uint32_t change; /* index in the log's */
    } changes[SIM_PENDING];
    uint32_t change_count;
    const sim_truth *truth; /* what holds here */
} sim_cursor;

enum sim_fate { SIM_OLD, SIM_NEW, SIM_SPOILT };

typedef struct sim_choice {
    uint8_t *items; /* enum sim_fate of each */
    uint8_t sizes[SIM_PENDING];
    uint8_t changes[SIM_PENDING];
    uint64_t garbage; /* seed of what stands in spoilt words */
    int spoils_sectors;
    uint32_t cruelty; /* the SIM_BY_... of which it is */
    char text[160];   /* what kind of choice it is */
} sim_choice;

void sim_cursor_start(sim_cursor *cursor, const sim_log *log);
/* One event further. */
void sim_cursor_step(sim_cursor *cursor);

/* How many choices there are if all combinations of sectors, sizes and names are tried; 0: too many (SIM_TWELVE). */
#define SIM_UNITS_MAX 12u
uint64_t sim_choices_all(const sim_cursor *cursor);
/* Combination `code` of them. */
void sim_choice_combination(const sim_cursor *cursor, uint64_t code, sim_choice *out);

/* Choices that are worth trying everywhere; `which` below SIM_SYSTEMATIC. */
#define SIM_SYSTEMATIC 12u
/* The least cruel model that has it. */
static inline uint32_t sim_systematic_models(uint32_t which)
{
    return which < 5u ? SIM_BY_TIME : which < 9u ? SIM_BY_WORD : SIM_BY_SECTOR;
}
void sim_choice_systematic(const sim_cursor *cursor, uint32_t which, sim_choice *out);
/* By dice, of one of `models`. */
void sim_choice_random(const sim_cursor *cursor, uint64_t seed, uint32_t models, sim_choice *out);

/* The disk as the choice has it. */
void sim_image_make(const sim_cursor *cursor, const sim_choice *choice, sim_disk *out);
/* A number that tells images apart. */
uint64_t sim_image_hash(const sim_disk *disk);

#endif
