/* SPDX-License-Identifier: MIT */
/* clock.h - simulated time. */
#ifndef SIM_CLOCK_H
#define SIM_CLOCK_H

#include "sim.h"

/* A new life begins, after `lives` others: time and random bytes follow from that and the seed. */
void sim_clock_start(uint64_t seed, uint32_t lives);

#endif
