/* SPDX-License-Identifier: MIT */
/*
 * syscalls.c - topic "syscalls": this program runs itself under strace, once with few and once with many records; the
 * difference is what the records cost.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"

#define BYTES 64u
#define FEW 1000u
#define MANY 1001000u

void syscalls_inner(const char *directory, uint64_t count)
{
    chron_writer *w = queue_new(directory, 256u * MIB, 0); /* one segment: rolls are another matter */
    chron_reader *r = queue_reader(directory);
    chron_view v;

    for (uint64_t i = 0; i < count; i++) {
        must(chron_writer_append(w, pool_at(i), BYTES, 1, 0), "append");
        if (must(chron_reader_next(r, &v), "next") != 1)
            die("the log ended early");
    }
    must(chron_reader_close(r), "close");
    must(chron_writer_close(w), "close");
    queue_delete(directory);
}

/* Calls in all, or -1 if strace does not work here. */
static long count_calls(const config *c, unsigned records)
{
    char command[9000];
    char line[512];
    long calls = -1;
    long errors;
    FILE *out;

    (void)snprintf(command, sizeof command, "strace -f -c -o /dev/stdout '%s' --dir '%s' --inner %u 2>/dev/null",
                   c->program, c->disk, records);
    out = popen(command, "r");
    while (out && fgets(line, sizeof line, out)) {
        double percent, seconds;
        long us;

        if (strstr(line, "total") && sscanf(line, "%lf %lf %ld %ld %ld", &percent, &seconds, &us, &calls, &errors) < 4)
            calls = -1;
    }
    if (out && pclose(out) != 0)
        calls = -1;
    return calls;
}

void topic_syscalls(const config *c)
{
    long few;
    long many;

    report_section("syscalls", "what strace -c counts for an append and a next, beyond opening and closing");
    few = count_calls(c, FEW);
    many = few < 0 ? -1 : count_calls(c, MANY);
    if (many < 0) {
        report_note("strace is not installed, or may not trace here: nothing was counted");
        return;
    }
    report_note(
        "%ld system calls with %u records, %ld with %u: %.6f calls a record (one madvise for each slice of pages "
        "prepared ahead)",
        few, FEW, many, MANY, (double)(many - few) / (MANY - FEW));
}
