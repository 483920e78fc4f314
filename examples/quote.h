/* SPDX-License-Identifier: MIT */
/* quote.h - what quotes.c writes. "chronicle schema" reads it, too, and so quotes.py knows the fields. */
#include <stdint.h>

struct quote {
    char symbol[8];
    double bid;
    double ask;
    uint32_t size;
};
