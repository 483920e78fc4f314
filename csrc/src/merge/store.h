/* SPDX-License-Identifier: MIT */
/*
 * store.h - the file that holds the position of a merge, <name>.merge: a header, and two areas that take turns; each has a
 * CRC. Whoever is killed in the middle of a store leaves the other area as it was. docs/FORMAT.md describes it.
 */
#ifndef CHRON_STORE_H
#define CHRON_STORE_H

#include "platform/platform.h"

/* What an area is made of, and read from. */
typedef struct chron__bytes {
    uint8_t *at;
    size_t count, room;
    int no_memory;
} chron__bytes;

typedef struct chron__store {
    int dir, fd; /* -1: not open */
    chron__lock lock;
    char file[80];
    uint64_t area_bytes; /* of each area in the file */
    uint64_t generation; /* of the newest one; 0: none was ever stored */
    chron__bytes bytes;  /* the newest one's content, after an opening; then what is to be stored */
    int names_synced;
} chron__store;

void chron__bytes_u32(chron__bytes *b, uint32_t value);
void chron__bytes_u64(chron__bytes *b, uint64_t value);
void chron__bytes_put(chron__bytes *b, const void *from, size_t count);

/*
 * Open <home>/<name>.merge, or make it, and lock it. What was stored last is in store->bytes; nothing if that is new.
 * Errors: EREADER (somebody has it), ECORRUPT, EFORMAT, EINVAL (no such directory), those of the system.
 */
int chron__store_open(chron__store *store, const char *home, const char *name);
/* Store what is in store->bytes. It is there as a whole, or what was there before is. */
int chron__store_write(chron__store *store, int sync);
/* `forked`: leave to the parent what is the parent's. */
void chron__store_close(chron__store *store, int forked);

#endif
