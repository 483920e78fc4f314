/* SPDX-License-Identifier: MIT */
/* bench.h - what the topics of the benchmark share: where to work and how long, and queues to work on. */
#ifndef BENCH_H
#define BENCH_H

#include "chronicle.h"
#include "measure.h"
#include "raw.h"
#include "report.h"

typedef struct config {
    const char *disk; /* directory on a disk */
    const char *shm;  /* directory in memory */
    int quick;
    unsigned warm_gib;   /* of memory to touch first */
    unsigned seconds;    /* of topic delivery; 0: as long as `quick` says */
    const char *only;    /* a topic, or NULL */
    const char *json;    /* file, or NULL */
    const char *program; /* to run itself under strace */
} config;

typedef struct place {
    const char *name;
    const char *directory;
} place;

#define PLACES 2
void places_of(const config *c, place out[PLACES]);

extern const unsigned payload_sizes[];
#define PAYLOAD_SIZES 5

/* A fresh queue `<directory>/chronbench-<pid>`; flags as in chron_writer_options. */
chron_writer *queue_new(const char *directory, uint64_t segment_bytes, uint32_t flags);
chron_reader *queue_reader(const char *directory);
const char *queue_path(const char *directory);
void queue_delete(const char *directory);
void directory_delete(const char *path);

/* Touch so many bytes of memory in a process of its own, if there are so many to spare. */
void warm_memory(uint64_t bytes);
/* What others take of the busiest processor, in percent; says so. */
double look_how_quiet(void);

void topic_append(const config *c);
void topic_read(const config *c);
void topic_roundtrip(const config *c);
void topic_latency(const config *c);
void topic_delivery(const config *c);
void topic_stream(const config *c);
void topic_turns(const config *c);
void topic_merge(const config *c);
void topic_syscalls(const config *c);
/* What topic_syscalls runs under strace: append and read `count` records. */
void syscalls_inner(const char *directory, uint64_t count);

#endif
