/* SPDX-License-Identifier: MIT */
/*
 * crc32c.c - which CRC-32C implementation serves this process.
 *
 * The choice is made once, by a constructor, while the library is being loaded: no thread can be inside
 * it yet, and `chosen` never changes again, so the hot path reads a plain pointer and needs neither an
 * atomic nor a "have I looked yet?". Whoever calls even earlier (another constructor in a static link)
 * gets the portable implementation, which gives the same answers.
 */
#include "crc32c/crc32c.h"

#include "chronicle.h"
#include "crc32c/impl.h"

#define IMPL(name, impl)                                                                             \
    {name, chron__crc32c_##impl##_update, chron__crc32c_##impl##_record, chron__crc32c_##impl##_put, \
     chron__crc32c_##impl##_available}

const chron__crc32c_impl chron__crc32c_impls[] = {
#if CHRON__CRC32C_X86
    IMPL("sse4.2+pclmul", x86_lanes),
    IMPL("sse4.2", x86),
#elif CHRON__CRC32C_ARM
    IMPL("armv8+pmull", arm_lanes),
    IMPL("armv8", arm),
#endif
    IMPL("portable", portable),
    {NULL, NULL, NULL, NULL, NULL},
};

#define PORTABLE (&chron__crc32c_impls[sizeof chron__crc32c_impls / sizeof chron__crc32c_impls[0] - 2])

static const chron__crc32c_impl *chosen = PORTABLE;
chron__crc32c_record_fn chron__crc32c_chosen_record = chron__crc32c_portable_record;
chron__record_put_fn chron__chosen_record_put = chron__crc32c_portable_put;

__attribute__((constructor)) static void choose(void)
{
    const chron__crc32c_impl *impl = chron__crc32c_impls;

    while (!impl->available())
        impl++;
    chosen = impl;
    chron__crc32c_chosen_record = impl->record;
    chron__chosen_record_put = impl->put;
}

const chron__crc32c_impl *chron__crc32c_best(void)
{
    return chosen;
}

uint32_t chron_crc32c(uint32_t crc, const void *data, size_t len)
{
    return chosen->update(crc, data, len);
}

const char *chron_crc32c_name(void)
{
    return chosen->name;
}
