/* SPDX-License-Identifier: MIT */
/*
 * fiber.h - one simulated process: its owner's thread and, if the library starts one, the keeper's, as coroutines. They
 * switch at stores, system calls and locks, by dice; so one order of all events exists, and a seed repeats it.
 *
 * pthread_create, pthread_join, pthread_mutex_lock and pthread_cond_wait of the library come here (-Wl,--wrap), and so does
 * chron__cond_wait.
 */
#ifndef SIM_FIBER_H
#define SIM_FIBER_H

#include "sim.h"

/* Run main(argument) as a new process, until it returns (0) or dies (1). Not to be nested. */
int sim_process_run(void (*main)(void *), void *argument, uint64_t seed);
/* The process dies here: control goes back to sim_process_run, and nothing of it runs again. */
void sim_process_die(void) __attribute__((noreturn));
/* Let it die at the n-th store or system call from now on; 0: never. */
void sim_process_die_after(uint64_t n);

/* Before a store of the library. */
void sim_point_store(const void *address, size_t bytes);
/* Before a system call. */
void sim_point_call(void);
/* Nothing to do here for a while: others first. */
void sim_point_idle(void);

#endif
