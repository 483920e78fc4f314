/* SPDX-License-Identifier: MIT */
/* filter.h - which records somebody wants: by type, or snapshots only. */
#ifndef CHRON_FILTER_H
#define CHRON_FILTER_H

#include "format/record.h"

#define CHRON__TYPE_WORDS 1024u /* of 64 types each */

/* Types as a set: one bit for each. */
typedef struct chron__type_set {
    uint64_t words[CHRON__TYPE_WORDS];
} chron__type_set;

static inline int chron__type_set_has(const chron__type_set *set, uint16_t type)
{
    return (int)(set->words[type / 64u] >> (type % 64u) & 1u);
}

static inline void chron__type_set_add(chron__type_set *set, uint16_t type)
{
    set->words[type / 64u] |= UINT64_C(1) << (type % 64u);
}

typedef struct chron__filter {
    chron__type_set types;
    int snapshots_only;
} chron__filter;

static inline int chron__filter_takes(const chron__filter *filter, const chron__rec *rec)
{
    return chron__type_set_has(&filter->types, chron__rec_type(rec)) &&
           (!filter->snapshots_only || chron__rec_flags(rec) & CHRON__RECORD_SNAPSHOT);
}

#endif
