/* SPDX-License-Identifier: MIT */
/*
 * abi_grown.c - how structs of another header meet this library: tests/test_abi.py makes one where those that grow lack
 * their last field, and one where each has a further field `added` (with -DMORE). Prints what the structs hold.
 */
#include <chronicle.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILL 0xA5 /* what the library must not touch, or has to fill */

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            printf("line %d: %s: %s\n", __LINE__, #condition, chron_last_error()->text); \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* What stands right behind a struct. */
typedef struct guard {
    unsigned char bytes[64];
} guard;

static void check_guard(const guard *g)
{
    for (size_t i = 0; i < sizeof g->bytes; i++)
        CHECK(g->bytes[i] == FILL);
}

#ifdef MORE
#define IS_0(field) CHECK(field == 0)
#else
#define IS_0(field) ((void)0)
#endif

/* A struct to be filled: nothing behind it is, and all that the header knows is. `show` prints some of it. */
#define FILLED(type, call, show)                \
    do {                                        \
        struct {                                \
            type it;                            \
            guard behind;                       \
        } s;                                    \
                                                \
        memset(&s, FILL, sizeof s);             \
        s.it.struct_size = sizeof s.it;         \
        CHECK(call >= 0);                       \
        CHECK(s.it.struct_size == sizeof s.it); \
        IS_0(s.it.added);                       \
        check_guard(&s.behind);                 \
        show;                                   \
    } while (0)

/* An array of three, of which two are filled. */
#define FILLED_ARRAY(type, call, show)                    \
    do {                                                  \
        struct {                                          \
            type it[3];                                   \
            guard behind;                                 \
        } s;                                              \
                                                          \
        memset(&s, FILL, sizeof s);                       \
        s.it[0].struct_size = sizeof s.it[0];             \
        CHECK(call >= 0);                                 \
        for (int i = 0; i < 2; i++) {                     \
            CHECK(s.it[i].struct_size == sizeof s.it[0]); \
            IS_0(s.it[i].added);                          \
            show;                                         \
        }                                                 \
        CHECK(s.it[2].struct_size == 0xA5A5A5A5u);        \
        check_guard(&s.behind);                           \
    } while (0)

/*
 * A struct to be read, with `fields`: what stands behind it is none of it. A field that the library does not know may be 0
 * and nothing else.
 */
#define READ(type, fields, call)                  \
    do {                                          \
        struct {                                  \
            type it;                              \
            guard behind;                         \
        } s;                                      \
                                                  \
        memset(&s, 0, sizeof s);                  \
        memset(&s.behind, FILL, sizeof s.behind); \
        s.it.struct_size = sizeof s.it;           \
        fields;                                   \
        REFUSED(s.it.added, call);                \
        CHECK(call >= 0);                         \
        check_guard(&s.behind);                   \
    } while (0)

#ifdef MORE
#define REFUSED(field, call)                                             \
    do {                                                                 \
        field = 1;                                                       \
        CHECK(call == -CHRON_EINVAL);                                    \
        CHECK(strstr(chron_last_error()->text, "newer header") != NULL); \
        field = 0;                                                       \
    } while (0)
#else
#define REFUSED(field, call) ((void)0)
#endif

static const char *path;
static chron_writer *w;
static chron_reader *r;

static void read_structs(void)
{
    static const char bytes[50000];
    uint64_t seqs[4];
    chron_retention *limits;

    READ(chron_retention, s.it.max_segments = 9;
         limits = &s.it, chron_writer_open(path,
                                           &(chron_writer_options){.struct_size = sizeof(chron_writer_options),
                                                                   .segment_size = CHRON_SEGMENT_SIZE_MIN,
                                                                   .retention = limits},
                                           &w));
    CHECK(chron_writer_close(w) == 0);
    READ(chron_writer_options, s.it.max_segments = 2, chron_writer_open(path, &s.it, &w));
    READ(chron_source, s.it.bytes = bytes; s.it.bytes_size = sizeof bytes;
         s.it.row_bytes = sizeof bytes, chron_writer_append_source(w, &s.it, 0, 1));
    READ(chron_source, s.it.bytes = bytes; s.it.bytes_size = sizeof bytes;
         s.it.row_bytes = sizeof bytes, chron_writer_append_source_whole(w, &s.it, 0, 1));
    /* block_ns, which the smaller struct lacks, is 0: it does not wait. */
    CHECK(chron_writer_append(w, bytes, sizeof bytes, 0, 0) == -CHRON_EFULL);
    READ(chron_reader_options, s.it.name = "me"; s.it.start = CHRON_START_SEQ, chron_reader_open(path, &s.it, &r));
    READ(chron_columns, s.it.seq = seqs, chron_reader_peek_columns(r, &s.it, 4, NULL));
    printf("first seq %" PRIu64 ", position %" PRIu64 "\n", seqs[0], chron_reader_position(r));
}

static void fill_structs(void)
{
    FILLED(chron_recovery, chron_writer_recovery_get(w, &s.it), printf("recovery %" PRIu64 "\n", s.it.epoch));
    FILLED(chron_writer_stats, chron_writer_stats_get(w, &s.it), printf("written %" PRIu64 "\n", s.it.records));
    FILLED(chron_reader_stats, chron_reader_stats_get(r, &s.it), printf("read %" PRIu64 "\n", s.it.records));
    FILLED(chron_queue_info, chron_queue_info_get(path, &s.it), printf("next %" PRIu64 "\n", s.it.next_seq));
    FILLED(chron_verify_summary, chron_queue_verify(path, NULL, NULL, &s.it),
           printf("good %" PRIu64 "\n", s.it.records));
    FILLED(chron_cleanup, chron_writer_cleanup(w, &s.it, NULL, 0), printf("readers %" PRIu64 "\n", s.it.readers));
    FILLED_ARRAY(chron_segment_info, chron_queue_segments(path, s.it, 3),
                 printf("segment %" PRIu64 " sealed %u\n", s.it[i].base_seq, s.it[i].sealed));
    FILLED_ARRAY(chron_reader_info, chron_queue_readers(path, s.it, 3), printf("reader %s\n", s.it[i].name));
    FILLED_ARRAY(chron_segment_fate, chron_queue_cleanup_plan(path, NULL, NULL, s.it, 3),
                 printf("fate of %" PRIu64 ": %u\n", s.it[i].base_seq, s.it[i].reason));
}

int main(int argc, char **argv)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = "you"};
    chron_reader *other;

    if (argc != 2)
        return 2;
    path = argv[1];
    read_structs();
    CHECK(chron_reader_open(path, &options, &other) == 0);
    fill_structs();
    CHECK(chron_reader_close(other) == 0);
    CHECK(chron_reader_close(r) == 0);
    CHECK(chron_writer_close(w) == 0);
    return 0;
}
