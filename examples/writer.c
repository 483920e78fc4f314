/* SPDX-License-Identifier: MIT */
/*
 * writer.c - append each line of standard input to a queue.
 *
 *     cc writer.c $(pkg-config --cflags --libs chron) -o writer
 *     ls -l / | ./writer /tmp/q
 */
#define _POSIX_C_SOURCE 200809L
#include <chronicle.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, chron_last_error()->text);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *writer;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    int status = EXIT_SUCCESS;

    if (argc != 2) {
        fprintf(stderr, "usage: %s QUEUE\n", argv[0]);
        return 2;
    }
    options.flags |= CHRON_KEEPER; /* prepare memory and segments in the background */
    if (chron_writer_open(argv[1], &options, &writer) < 0)
        return fail("cannot open the queue");
    while ((length = getline(&line, &room, stdin)) >= 0 && status == EXIT_SUCCESS) {
        if (length > 0 && line[length - 1] == '\n')
            length--;
        if (chron_writer_append(writer, line, (size_t)length, 0, 0) < 0)
            status = fail("cannot append");
    }
    free(line);
    printf("next seq: %" PRIu64 "\n", chron_writer_next_seq(writer));
    return chron_writer_close(writer) < 0 ? fail("cannot close") : status;
}
