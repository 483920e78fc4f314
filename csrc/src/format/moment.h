/* SPDX-License-Identifier: MIT */
/*
 * moment.h - when something was done, in a way that a step of the wall clock cannot change: beside what that clock said,
 * how long the machine had been running then. Stored in seals and positions, for retention, which asks how old they are.
 */
#ifndef CHRON_MOMENT_H
#define CHRON_MOMENT_H

#include <stdint.h>

typedef struct chron__moment {
    uint64_t clock_ns; /* wall clock, since 1970 */
    uint64_t boot_ns;  /* since the boot */
    uint32_t boot;     /* which boot: chron__boot_tag(); 0: not known */
} chron__moment;

void chron__moment_now(chron__moment *out);

/* The same at the price of a coarse clock: *m is what an earlier call gave (zeros at first). Right to a second. */
void chron__moment_pass(chron__moment *m);

/*
 * How long after `then` is `now`? 1 with *age_ns: by the time that has passed, if both are of one boot; else by the wall clock.
 * 0 if that cannot be told, since `then` lies in the future.
 */
int chron__moment_age(const chron__moment *then, const chron__moment *now, uint64_t *age_ns);

#endif
