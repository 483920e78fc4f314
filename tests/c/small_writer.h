/* SPDX-License-Identifier: MIT */
/* small_writer.h - a writer as most tests want it: the smallest segments, so that it rolls soon. */
#ifndef SMALL_WRITER_H
#define SMALL_WRITER_H

#include "check.h"
#include "chronicle.h"

static inline chron_writer *small_writer(const char *path, uint32_t flags, uint32_t durability)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.flags = flags;
    options.durability = durability;
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    return w;
}

#endif
