/* SPDX-License-Identifier: MIT */
/* place.c - where a benchmark works: directories, and queues of its own in them. */
#define _GNU_SOURCE
#include "bench.h"

#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

const unsigned payload_sizes[PAYLOAD_SIZES] = {16, 64, 256, 1024, 4096};

void places_of(const config *c, place out[PLACES])
{
    out[0] = (place){"disk", c->disk};
    out[1] = (place){"shm", c->shm};
}

const char *queue_path(const char *directory)
{
    static char path[4096];

    (void)snprintf(path, sizeof path, "%s/chronbench-%ld", directory, (long)getpid());
    return path;
}

chron_writer *queue_new(const char *directory, uint64_t segment_bytes, uint32_t flags)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;

    queue_delete(directory);
    options.segment_size = segment_bytes;
    options.flags = flags;
    must(chron_writer_open(queue_path(directory), &options, &w), "open a writer");
    return w;
}

chron_reader *queue_reader(const char *directory)
{
    chron_reader *r;

    must(chron_reader_open(queue_path(directory), NULL, &r), "open a reader");
    return r;
}

static int delete_one(const char *path, const struct stat *info, int kind, struct FTW *level)
{
    (void)info;
    (void)kind;
    (void)level;
    return remove(path);
}

void directory_delete(const char *path)
{
    (void)nftw(path, delete_one, 16, FTW_DEPTH | FTW_PHYS);
}

void queue_delete(const char *directory)
{
    directory_delete(queue_path(directory));
}
