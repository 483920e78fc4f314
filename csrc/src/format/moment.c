/* SPDX-License-Identifier: MIT */
/* moment.c - see moment.h. Keeps nothing; thread-safe. */
#include "format/moment.h"

#include "platform/platform.h"

#define PASS_NS 1000000000u /* between two readings of the clock since the boot, which is no coarse one */

void chron__moment_now(chron__moment *out)
{
    out->clock_ns = chron__clock_ns(0);
    out->boot_ns = chron__boot_ns();
    out->boot = chron__boot_tag();
}

void chron__moment_pass(chron__moment *m)
{
    uint64_t clock_ns = chron__clock_ns(1);
    uint64_t passed = clock_ns - m->clock_ns; /* a lot, if the clock was set back */

    if (m->boot == 0 || passed >= PASS_NS) {
        chron__moment_now(m);
        return;
    }
    m->clock_ns = clock_ns;
    m->boot_ns += passed;
}

int chron__moment_age(const chron__moment *then, const chron__moment *now, uint64_t *age_ns)
{
    if (then->boot != 0 && then->boot == now->boot && then->boot_ns <= now->boot_ns) {
        *age_ns = now->boot_ns - then->boot_ns;
        return 1;
    }
    *age_ns = now->clock_ns > then->clock_ns ? now->clock_ns - then->clock_ns : 0;
    return then->clock_ns <= now->clock_ns;
}
