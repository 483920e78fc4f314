/* SPDX-License-Identifier: MIT */
/*
 * sensor.c - a C program that writes structs, for sensor.py to read.
 *
 *     cc sensor.c $(pkg-config --cflags --libs chron) -lm -o sensor
 *     ./sensor /tmp/readings 1000
 */
#include <chronicle.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TYPE_READING 1

/* 16 bytes without padding: sensor.py unpacks it as "<Ifd". */
struct reading {
    uint32_t sensor;
    float volts;
    double kelvin;
};

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, chron_last_error()->text);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    chron_writer *writer;
    int status = EXIT_SUCCESS;

    if (argc != 3) {
        fprintf(stderr, "usage: %s QUEUE COUNT\n", argv[0]);
        return 2;
    }
    if (chron_writer_open(argv[1], NULL, &writer) < 0)
        return fail("cannot open the queue");
    for (long i = 0, count = strtol(argv[2], NULL, 10); i < count && status == EXIT_SUCCESS; i++) {
        struct reading *reading;
        void *place;

        /* Written where it stays, in the mapped segment: no copy. Nobody sees it before it is published. */
        if (chron_writer_claim(writer, sizeof *reading, &place) < 0) {
            status = fail("cannot claim");
            break;
        }
        reading = place;
        reading->sensor = (uint32_t)i % 4;
        reading->volts = 3.3f;
        reading->kelvin = 293.15 + sin((double)i / 100);
        if (chron_writer_publish(writer, sizeof *reading, TYPE_READING, 0, CHRON_NOW) < 0)
            status = fail("cannot publish");
    }
    printf("next seq: %" PRIu64 "\n", chron_writer_next_seq(writer));
    return chron_writer_close(writer) < 0 ? fail("cannot close") : status;
}
