/* SPDX-License-Identifier: MIT */
/*
 * struct.h - the caller's structs that may grow: those that begin with `uint32_t struct_size`, which says how much of the
 * struct the caller's header knew. Whatever takes one, or fills one, does it through here.
 *
 * To add a field: at the end, and so that no padding comes to stand behind it (struct.c checks that). Padding holds
 * anything, and a later version would take it for what a program has set. 0 must mean what held before the field was there.
 */
#ifndef CHRON_STRUCT_H
#define CHRON_STRUCT_H

#include <string.h>

#include "base/error.h"

/*
 * Copy the caller's struct to ours, which has `known` bytes; what the caller's lacks becomes 0. EINVAL: it is NULL, its
 * size makes no sense, or it uses what we do not know.
 */
int chron__struct_take(const char *type, const void *from, void *to, size_t known) __attribute__((cold));

/* The same for hot paths: the caller's struct itself if it is of our size, else a copy in `own`. NULL: EINVAL. */
static inline void *chron__struct_use(const char *type, const void *from, void *own, size_t known)
{
    if (__builtin_expect(from && *(const uint32_t *)from == known, 1))
        return (void *)(uintptr_t)from;
    return chron__struct_take(type, from, own, known) < 0 ? NULL : own;
}

/* May the caller's struct be filled? Asked before anything is done. 0; EINVAL: it is NULL, or its size makes no sense. */
int chron__struct_check(const char *type, const void *to);

/* Fill it: with as much of ours, which has `known` bytes, as it has room for; with 0 behind that. Its size stays. */
void chron__struct_give(const void *from, size_t known, void *to);

/* An array of such structs, to be filled. */
typedef struct chron__array {
    uint8_t *at;
    uint32_t stride; /* bytes: what the first element says of its size */
    size_t capacity; /* elements; 0: there is none */
} chron__array;

/* 0, or EINVAL as chron__struct_check(); of an array without elements nothing is looked at. */
int chron__array_take(const char *type, void *first, size_t capacity, chron__array *out);
/* Fill element i, if it is one of them. */
void chron__array_put(const chron__array *array, size_t i, const void *from, size_t known);

#endif
