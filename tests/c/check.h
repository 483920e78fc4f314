/* SPDX-License-Identifier: MIT */
/*
 * check.h - the whole test framework. A test is a function without arguments, run by RUN from main. The
 * first check that fails says where and with what values, and ends the process with status 1: what comes
 * after a broken assumption tells nothing, and so checks work in helpers and in child processes as well.
 */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

/* Integers of any type, -1 and 0xFFFFFFFF being different ones (but for 64 bits). */
#define CHECK_EQ(actual, expected) check_eq(__FILE__, __LINE__, #actual, (intmax_t)(actual), (intmax_t)(expected))

#define CHECK_STR(actual, expected) check_str(__FILE__, __LINE__, #actual, (actual), (expected))

#define RUN(test)                                                                              \
    do {                                                                                       \
        printf("  %s\n", #test);                                                               \
        fflush(stdout); /* known even if the test crashes, and not printed again by a child */ \
        test();                                                                                \
    } while (0)

static inline void check_eq(const char *file, int line, const char *what, intmax_t actual, intmax_t expected)
{
    if (actual == expected)
        return;
    fprintf(stderr, "%s:%d: failed: %s is %" PRIdMAX " (0x%" PRIxMAX "), not %" PRIdMAX " (0x%" PRIxMAX ")\n", file,
            line, what, actual, (uintmax_t)actual, expected, (uintmax_t)expected);
    exit(1);
}

static inline void check_str(const char *file, int line, const char *what, const char *actual, const char *expected)
{
    if (actual && strcmp(actual, expected) == 0)
        return;
    fprintf(stderr, "%s:%d: failed: %s is \"%s\", not \"%s\"\n", file, line, what, actual ? actual : "(NULL)",
            expected);
    exit(1);
}

#endif
