/* SPDX-License-Identifier: MIT */
/*
 * reader.c - print what a named reader has not seen yet, and commit; with -f, wait for more.
 *
 *     cc reader.c $(pkg-config --cflags --libs chron) -o reader
 *     ./reader /tmp/q me
 */
#include <chronicle.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 256

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, chron_last_error()->text);
    return EXIT_FAILURE;
}

/* Print what there is now. The views point into the mapped file: nothing is copied on the way. */
static int drain(chron_reader *reader)
{
    static chron_view views[BATCH];
    int64_t count;

    while ((count = chron_reader_next_batch(reader, views, BATCH)) > 0)
        for (int64_t i = 0; i < count; i++)
            printf("%" PRIu64 " %.*s\n", views[i].seq, (int)views[i].length, (const char *)views[i].payload);
    if (count < 0)
        return fail("cannot read");
    /* On screen first, then committed: after a crash in between, some lines are printed again, none is lost. */
    fflush(stdout);
    return chron_reader_commit(reader, 0) < 0 ? fail("cannot commit") : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    int follow = argc == 4 && strcmp(argv[3], "-f") == 0;
    chron_reader_options options = {.struct_size = sizeof options};
    chron_reader *reader;
    int status;

    if (argc != 3 && !follow) {
        fprintf(stderr, "usage: %s QUEUE NAME [-f]\n", argv[0]);
        return 2;
    }
    options.name = argv[2];
    if (chron_reader_open(argv[1], &options, &reader) < 0)
        return fail("cannot open the queue");
    do
        status = drain(reader);
    while (follow && status == EXIT_SUCCESS && chron_reader_wait(reader, -1) >= 0);
    chron_reader_close(reader);
    return status;
}
