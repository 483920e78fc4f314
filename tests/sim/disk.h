/* SPDX-License-Identifier: MIT */
/*
 * disk.h - a file system in memory, seen through chron__io_posix, which disk.c defines in place of platform/posix.c.
 *
 * A disk is a set of nodes (files and directories) and of names. Each file has a slot of a big arena, so the address of a
 * store tells its file and offset; a mapping of a file is its slot itself, as all shared mappings of a file are one page
 * cache. There is one disk for each depth of nested losses of power; one of them is in use.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include "sim.h"

#define SIM_SLOT_BYTES (256u << 10) /* a file is smaller */
#define SIM_NODES 160u              /* of one disk, whatever became of them */
#define SIM_ENTRIES 160u
#define SIM_NAME_BYTES 80u
#define SIM_ROOT 0 /* the directory that the queue's directory lies in */
#define SIM_QUEUE "/q"

enum sim_kind { SIM_FREE, SIM_FILE, SIM_DIRECTORY };

typedef struct sim_node {
    uint8_t kind;
    uint8_t locked;
    uint16_t maps;   /* how many mappings there are */
    uint16_t shared; /* descriptors, and mappings made through them, that keep others from owning it */
    uint32_t size;   /* bytes */
} sim_node;

typedef struct sim_entry {
    int16_t directory;
    int16_t node;
    char name[SIM_NAME_BYTES];
} sim_entry;

typedef struct sim_names {
    unsigned count;
    sim_entry at[SIM_ENTRIES];
} sim_names;

/* One change of names: add is a new file or directory, or (SIM_LINK) one more name of a file; remove; or both, a rename. Node -1: none. */
#define SIM_LINK (-2) /* removed.node */
typedef struct sim_change {
    sim_entry removed;
    sim_entry added;
} sim_change;

typedef struct sim_log sim_log;

typedef struct sim_disk {
    uint8_t *bytes; /* the arena: SIM_NODES slots */
    sim_node nodes[SIM_NODES];
    int node_count; /* handed out so far */
    sim_names names;
    uint64_t boot; /* not 0: another one each time the machine is started */
    sim_log *log;  /* where what happens is noted; NULL: nowhere */
} sim_disk;

/* Node of a name, or -1. */
int sim_names_find(const sim_names *names, int directory, const char *name);
void sim_names_apply(sim_names *names, const sim_change *change);

static inline uint8_t *sim_disk_file(const sim_disk *disk, int node)
{
    return disk->bytes + (size_t)node * SIM_SLOT_BYTES;
}

/* An arena of SIM_NODES slots. */
uint8_t *sim_arena(void);
/* Nothing but the root directory. */
void sim_disk_clear(sim_disk *disk);
/* The disk that system calls go to from now on, by a new process: nothing is open, mapped or locked. */
void sim_disk_use(sim_disk *disk);
sim_disk *sim_disk_used(void);
/* Node of the queue's directory, or -1. */
int sim_disk_queue(const sim_disk *disk);
/* Is there a segment of that name's kind? Calls visit(context, name, node) for each entry of a directory. */
void sim_disk_walk(const sim_disk *disk, int directory, void (*visit)(void *context, const char *name, int node),
                   void *context);

#endif
