/* SPDX-License-Identifier: MIT */
/*
 * boot.c - which boot of the machine this is, and since when this process has had to do with queues. Looked at once a process;
 * thread-safe.
 */
#define _POSIX_C_SOURCE 200809L /* threads */

#include "chronicle.h"

#include <string.h>

#include "platform/platform.h"

#define BOOT_HAS_NAME 0x80000000u /* in a tag: else it is this process's own */

static uint32_t boot_tag;
static uint64_t began_ns;

static void look_at_boot(void)
{
    static const uint8_t unknown[16];
    uint8_t boot[16];
    CHRON__UNCANCELLED;

    began_ns = chron__boot_ns();
    chron__os_boot(boot);
    if (memcmp(boot, unknown, sizeof boot) != 0)
        boot_tag = chron_crc32c(0, boot, sizeof boot) | BOOT_HAS_NAME;
    else if (chron__random(&boot_tag, sizeof boot_tag) == 0)
        boot_tag = (boot_tag & ~BOOT_HAS_NAME) | 1u;
    else
        boot_tag = (uint32_t)chron__pid() | 1u;
}

static void know_boot(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, look_at_boot);
}

uint32_t chron__boot_tag(void)
{
    know_boot();
    return boot_tag;
}

uint64_t chron__running_ns(void)
{
    know_boot();
    return chron__boot_ns() - began_ns;
}
