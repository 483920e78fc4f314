/* SPDX-License-Identifier: MIT */
/*
 * main.c - the native benchmark. Each topic measures the library beside the raw loop that does the same to the
 * same kind of memory, in turns, in one run; what is compared is the ratio of the two.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct topic {
    const char *name;
    void (*run)(const config *c);
} topics[] = {
    {"append", topic_append},   {"read", topic_read},         {"roundtrip", topic_roundtrip},
    {"latency", topic_latency}, {"delivery", topic_delivery}, {"stream", topic_stream},
    {"turns", topic_turns},     {"merge", topic_merge},       {"syscalls", topic_syscalls},
};

static void usage(void)
{
    puts(
        "usage: chronbench [--quick] [--dir DIR] [--shm DIR] [--only TOPIC] [--seconds N] [--warm GIB] [--json FILE]\n\n"
        "  --dir DIR     directory on a disk (default: build/bench, or .)\n"
        "  --shm DIR     directory in memory (default: /dev/shm)\n"
        "  --only TOPIC  append, read, roundtrip, latency, delivery, stream, turns, merge or syscalls\n"
        "  --seconds N   how long each curve of delivery takes\n"
        "  --warm GIB    memory to touch first (default: 4)\n"
        "  --json FILE   write all rows to a file as well");
}

static void parse(int argc, char **argv, config *c)
{
    static const struct option known[] = {
        {"quick", no_argument, NULL, 'q'},      {"dir", required_argument, NULL, 'd'},
        {"shm", required_argument, NULL, 's'},  {"only", required_argument, NULL, 'o'},
        {"json", required_argument, NULL, 'j'}, {"seconds", required_argument, NULL, 't'},
        {"warm", required_argument, NULL, 'w'}, {"inner", required_argument, NULL, 'i'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    const char *inner = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'q':
            c->quick = 1;
            break;
        case 'd':
            c->disk = optarg;
            break;
        case 's':
            c->shm = optarg;
            break;
        case 'o':
            c->only = optarg;
            break;
        case 'j':
            c->json = optarg;
            break;
        case 't':
            c->seconds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'w':
            c->warm_gib = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'i':
            inner = optarg;
            break;
        case 'h':
            usage();
            exit(0);
        default:
            usage();
            exit(2);
        }
    }
    if (inner) {
        syscalls_inner(c->disk, strtoull(inner, NULL, 10));
        exit(0);
    }
}

int main(int argc, char **argv)
{
    config c = {.disk = access("build/bench", W_OK) == 0 ? "build/bench" : ".",
                .shm = "/dev/shm",
                .program = argv[0],
                .warm_gib = 4};
    int found = 0;

    pool_fill();
    parse(argc, argv, &c);
    (void)ns_per_tick();
    warm_memory((uint64_t)c.warm_gib * 1024u * MIB);
    report_quiet(look_how_quiet());
    printf("CRC-32C: %s. Processors: %u. Every figure is of rounds in turn with the raw loop; see bench/README.md.\n",
           chron_crc32c_name(), processors());
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        if (c.only && strcmp(c.only, topics[i].name) != 0)
            continue;
        topics[i].run(&c);
        found = 1;
    }
    if (!found)
        die("there is no topic %s", c.only);
    if (c.json)
        report_json(c.json);
    return 0;
}
