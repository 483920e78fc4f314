/* SPDX-License-Identifier: MIT */
/* machine.c - before anything is measured: memory that the host has given already, and how quiet the machine is. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define PAGE 4096u
#define LEFT_ALONE (2048u * (uint64_t)MIB)
#define LOOK_NS 300000000u /* on each processor */
#define GAP_NS 5000.0      /* between two looks at the counter: somebody else had the processor */

/*
 * A virtual machine pays for the first touch of each page that its host has not given it yet, more than the records on it
 * cost. So a child touches memory, and ends.
 */
void warm_memory(uint64_t bytes)
{
    uint64_t there = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * PAGE;
    uint64_t start = now_ns();
    pid_t child;

    if (there < LEFT_ALONE + (uint64_t)MIB)
        return;
    if (bytes > there - LEFT_ALONE)
        bytes = there - LEFT_ALONE;
    child = fork();
    if (child == 0) {
        uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        for (uint64_t at = 0; memory != MAP_FAILED && at < bytes; at += PAGE)
            memory[at] = 1;
        _exit(0);
    }
    if (child > 0)
        (void)waitpid(child, NULL, 0);
    printf("Memory: %.1f GiB touched first, in %.1f s.\n", (double)bytes / (1024.0 * MIB),
           (double)(now_ns() - start) / 1e9);
}

/* The share of a processor's time that this loop did not get, in percent. */
static double lost(unsigned processor)
{
    uint64_t start, last, now;
    double gone = 0;

    pin(processor);
    start = last = ticks();
    do {
        double gap;

        now = ticks();
        gap = (double)(now - last) * ns_per_tick();
        if (gap > GAP_NS)
            gone += gap;
        last = now;
    } while ((double)(now - start) * ns_per_tick() < LOOK_NS);
    unpin();
    return 100.0 * gone / ((double)(now - start) * ns_per_tick());
}

double look_how_quiet(void)
{
    double worst = 0;

    for (unsigned i = 0; i < processors(); i++) {
        double percent = lost(i);

        if (percent > worst)
            worst = percent;
    }
    printf("Quiet: others took %.1f %% of a processor's time%s.\n", worst,
           worst > 2 ? ", TOO MUCH: what follows is theirs as well" : "");
    return worst;
}
