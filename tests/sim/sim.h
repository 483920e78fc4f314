/* SPDX-License-Identifier: MIT */
/*
 * sim.h - what all parts of the simulator share: units, dice, and how it gives up when it is itself at fault.
 *
 *   runtime.c   what the instrumented library calls: every store, atomic operation and fence
 *   fiber.c     the library's threads as coroutines of one thread, switched by dice
 *   disk.c      files in memory behind chron__io; clock.c the rest of platform.h
 *   log.c       everything that happened to the files, in one order
 *   truth.c     what was appended, and what was promised of it
 *   image.c     what the disk may hold after a loss of power; choose.c which of that is tried
 *   life.c      processes that use a queue; check.c what has to hold meanwhile; look.c the same files without the library
 *   search.c    lives, losses of power, lives after them; report.c failures for people; main.c the command line
 *
 * One thread, no real files, no real time: the same seed does the same on every machine.
 */
#ifndef SIM_H
#define SIM_H

#include <stddef.h>
#include <stdint.h>

#define SIM_PAGE 4096u  /* what the page cache writes */
#define SIM_SECTOR 512u /* what a disk writes */
#define SIM_WORD 8u     /* what a processor stores at once */

/* The simulator is broken, not the library: says why and ends the process. */
void sim_broken(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn, cold));

static inline uint64_t sim_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* 0 to sides - 1. */
static inline uint64_t sim_dice(uint64_t *state, uint64_t sides)
{
    *state = sim_mix(*state);
    return (*state >> 11) % sides;
}

#endif
