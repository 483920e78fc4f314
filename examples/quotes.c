/* SPDX-License-Identifier: MIT */
/*
 * quotes.c - a C program that writes structs whose fields others know by name, for quotes.py to read.
 *
 *     chronicle schema /tmp/quotes --type 1 --struct quote.h --key symbol
 *     cc quotes.c $(pkg-config --cflags --libs chron) -o quotes
 *     ./quotes /tmp/quotes 1000
 */
#include "quote.h"

#include <chronicle.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TYPE_QUOTE 1
#define TYPE_HEARTBEAT 2

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, chron_last_error()->text);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static const char *const symbols[] = {"EURUSD", "EURGBP", "USDJPY"};
    chron_writer *writer;
    int status = EXIT_SUCCESS;

    if (argc != 3) {
        fprintf(stderr, "usage: %s QUEUE COUNT\n", argv[0]);
        return 2;
    }
    if (chron_writer_open(argv[1], NULL, &writer) < 0)
        return fail("cannot open the queue");
    for (long i = 0, count = strtol(argv[2], NULL, 10); i < count && status == EXIT_SUCCESS; i++) {
        struct quote quote = {.bid = 1.0 + (double)i / 1000, .ask = 1.001 + (double)i / 1000, .size = (uint32_t)i};

        strcpy(quote.symbol, symbols[i % 3]);
        if (i % 10 == 0 && chron_writer_append(writer, "alive", 5, TYPE_HEARTBEAT, 0) < 0)
            status = fail("cannot append");
        if (chron_writer_append(writer, &quote, sizeof quote, TYPE_QUOTE, 0) < 0)
            status = fail("cannot append");
    }
    if (chron_writer_close(writer) < 0)
        status = fail("cannot close");
    return status;
}
