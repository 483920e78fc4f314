/* SPDX-License-Identifier: MIT */
/* repair.h - chron_queue_repair() (repair.c). */
#ifndef CHRON_WRITE_REPAIR_H
#define CHRON_WRITE_REPAIR_H

#include "chronicle.h"
#include "platform/platform.h"

/* chron_queue_repair() on another table of system calls, for tests. */
int chron__repair_with(const chron__io *io, const char *path, uint32_t flags, chron_problem_fn report, void *context,
                       chron_recovery *out);

#endif
