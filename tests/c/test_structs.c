/* SPDX-License-Identifier: MIT */
/*
 * test_structs.c - structs of all sizes, where the API takes or fills one: nothing is read or written behind the end that
 * struct_size gives (AddressSanitizer watches), what is missing is 0, and what cannot be true is refused.
 */
#define _GNU_SOURCE
#include "check.h"
#include "chronicle.h"
#include "temporary.h"

static char path[TEMPORARY_BYTES];
static chron_writer *w;
static chron_reader *r;

/* ------------------------------------------------------------------ every call that takes a struct */

static int64_t open_writer(void *s)
{
    chron_writer *other;

    return chron_writer_open(path, s, &other); /* EWRITER, if the options are right */
}

static int64_t open_with_retention(void *s)
{
    chron_writer_options options = {.struct_size = sizeof options, .retention = s};

    return open_writer(&options);
}

static int64_t open_reader(void *s)
{
    chron_reader *other = NULL;
    int status = chron_reader_open(path, s, &other);

    CHECK_EQ(chron_reader_close(other), 0);
    return status;
}

static int64_t plan_with_retention(void *s)
{
    return chron_queue_cleanup_plan(path, s, NULL, NULL, 0);
}

static int64_t plan(void *s)
{
    return chron_queue_cleanup_plan(path, NULL, s, NULL, 0);
}

static int64_t plan_fates(void *s)
{
    return chron_queue_cleanup_plan(path, NULL, NULL, s, 1);
}

static int64_t cleanup(void *s)
{
    return chron_writer_cleanup(w, s, NULL, 0);
}

static int64_t cleanup_fates(void *s)
{
    return chron_writer_cleanup(w, NULL, s, 1);
}

static int64_t append(void *s)
{
    return chron_writer_append_source(w, s, 0, 1);
}

static int64_t append_whole(void *s)
{
    return chron_writer_append_source_whole(w, s, 0, 1);
}

static int64_t peek(void *s)
{
    return chron_reader_peek_columns(r, s, 1, NULL);
}

static int64_t recovery(void *s)
{
    return chron_writer_recovery_get(w, s);
}

static int64_t writer_stats(void *s)
{
    return chron_writer_stats_get(w, s);
}

static int64_t reader_stats(void *s)
{
    return chron_reader_stats_get(r, s);
}

static int64_t info(void *s)
{
    return chron_queue_info_get(path, s);
}

static int64_t segments(void *s)
{
    return chron_queue_segments(path, s, 1);
}

static int64_t readers(void *s)
{
    return chron_queue_readers(path, s, 1);
}

static int64_t verify(void *s)
{
    return chron_queue_verify(path, NULL, NULL, s);
}

enum direction { IN = 1, OUT = 2 };

static const struct call {
    const char *type;
    size_t size;
    int direction;
    int64_t (*make)(void *s);
} calls[] = {
    {"chron_writer_options", sizeof(chron_writer_options), IN, open_writer},
    {"chron_retention", sizeof(chron_retention), IN, open_with_retention},
    {"chron_retention", sizeof(chron_retention), IN, plan_with_retention},
    {"chron_reader_options", sizeof(chron_reader_options), IN, open_reader},
    {"chron_source", sizeof(chron_source), IN, append},
    {"chron_source", sizeof(chron_source), IN, append_whole},
    {"chron_columns", sizeof(chron_columns), IN | OUT, peek},
    {"chron_cleanup", sizeof(chron_cleanup), OUT, plan},
    {"chron_cleanup", sizeof(chron_cleanup), OUT, cleanup},
    {"chron_segment_fate", sizeof(chron_segment_fate), OUT, plan_fates},
    {"chron_segment_fate", sizeof(chron_segment_fate), OUT, cleanup_fates},
    {"chron_recovery", sizeof(chron_recovery), OUT, recovery},
    {"chron_writer_stats", sizeof(chron_writer_stats), OUT, writer_stats},
    {"chron_reader_stats", sizeof(chron_reader_stats), OUT, reader_stats},
    {"chron_queue_info", sizeof(chron_queue_info), OUT, info},
    {"chron_segment_info", sizeof(chron_segment_info), OUT, segments},
    {"chron_reader_info", sizeof(chron_reader_info), OUT, readers},
    {"chron_verify_summary", sizeof(chron_verify_summary), OUT, verify},
};

#define CALLS (sizeof calls / sizeof *calls)
#define MORE 64u /* bytes that a later version may have added */

/* `size` bytes and not one more, that say of themselves that they are `said` bytes. */
static uint8_t *struct_of(size_t size, uint32_t said, int fill)
{
    uint8_t *s = malloc(size);

    CHECK(s != NULL);
    memset(s, fill, size);
    memcpy(s, &said, sizeof said);
    return s;
}

/* What the call fills is filled with this before, what it reads must be 0. */
static int fill_of(const struct call *c)
{
    return c->direction == OUT ? 0xA5 : 0;
}

/* ------------------------------------------------------------------------------------------- tests */

static void begin(void)
{
    chron_reader_options options = {.struct_size = sizeof options, .name = "me"};

    temporary_directory(path);
    CHECK_EQ(chron_writer_open(path, NULL, &w), 0);
    CHECK_EQ(chron_writer_append(w, "x", 1, 0, 0), 0);
    CHECK_EQ(chron_reader_open(path, &options, &r), 0);
}

static void end(void)
{
    CHECK_EQ(chron_reader_close(r), 0);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

static void test_sizes_that_cannot_be_true(void)
{
    static const uint32_t sizes[] = {0, 1, 4, 7, 12, 1032, 0xA5A5A5A5, UINT32_MAX};
    char hint[64];

    begin();
    for (size_t i = 0; i < CALLS; i++) {
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            uint8_t *s = struct_of(sizeof(uint32_t), sizes[k], 0);

            CHECK_EQ(calls[i].make(s), -CHRON_EINVAL);
            (void)snprintf(hint, sizeof hint, "set it to sizeof(%s)", calls[i].type);
            CHECK(strstr(chron_last_error()->text, hint) != NULL);
            free(s);
        }
    }
    CHECK_EQ(chron_writer_next_seq(w), 1);
    end();
}

/* Of a program that knows but a part, down to the first two fields. */
static void test_smaller_ones(void)
{
    begin();
    for (size_t i = 0; i < CALLS; i++) {
        uint8_t *whole = struct_of(calls[i].size, (uint32_t)calls[i].size, fill_of(&calls[i]));

        CHECK(calls[i].make(whole) != -CHRON_EINVAL);
        for (size_t size = 8; size < calls[i].size; size += 8) {
            uint8_t *s = struct_of(size, (uint32_t)size, fill_of(&calls[i]));
            uint32_t said;

            CHECK(calls[i].make(s) != -CHRON_EINVAL);
            memcpy(&said, s, sizeof said);
            CHECK_EQ(said, size);
            CHECK(memcmp(s + sizeof said, whole + sizeof said, size - sizeof said) == 0);
            free(s);
        }
        free(whole);
    }
    end();
}

/* Of a program that knows more, and has left it at 0, or sees it filled with 0. */
static void test_larger_ones(void)
{
    begin();
    for (size_t i = 0; i < CALLS; i++) {
        size_t size = calls[i].size + MORE;
        uint8_t *s = struct_of(size, (uint32_t)size, fill_of(&calls[i]));
        uint32_t said;

        CHECK(calls[i].make(s) != -CHRON_EINVAL);
        memcpy(&said, s, sizeof said);
        CHECK_EQ(said, size);
        for (size_t k = calls[i].size; k < size; k++)
            CHECK_EQ(s[k], 0);
        free(s);
    }
    end();
}

/* And of one that uses what this library does not know. */
static void test_what_is_not_known_is_refused(void)
{
    begin();
    for (size_t i = 0; i < CALLS; i++) {
        size_t size = calls[i].size + MORE;

        for (size_t k = calls[i].size; k < size && (calls[i].direction & IN); k++) {
            uint8_t *s = struct_of(size, (uint32_t)size, 0);

            s[k] = 1;
            CHECK_EQ(calls[i].make(s), -CHRON_EINVAL);
            CHECK(strstr(chron_last_error()->text, "newer header") != NULL);
            free(s);
        }
    }
    CHECK_EQ(chron_writer_next_seq(w), 1);
    end();
}

static void test_arrays_go_by_the_first_ones_size(void)
{
    static const uint8_t payload[40000]; /* one in a segment */
    chron_writer_options options = {.struct_size = sizeof options, .segment_size = CHRON_SEGMENT_SIZE_MIN};
    struct {
        chron_segment_info it;
        uint64_t more[2];
    } larger[4];
    struct {
        uint32_t struct_size;
        uint32_t reason;
    } smaller[4];

    memset(larger, 0xA5, sizeof larger);
    memset(smaller, 0xA5, sizeof smaller);
    larger[0].it.struct_size = sizeof *larger;
    smaller[0].struct_size = sizeof *smaller;
    temporary_directory(path);
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(chron_writer_append(w, payload, sizeof payload, 0, 0), i);
    CHECK_EQ(chron_queue_segments(path, (void *)larger, 4), 3);
    CHECK_EQ(chron_queue_cleanup_plan(path, NULL, NULL, (void *)smaller, 4), 0);
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(larger[i].it.struct_size, sizeof *larger);
        CHECK_EQ(larger[i].it.base_seq, i);
        CHECK_EQ(larger[i].it.next_seq, i + 1);
        CHECK_EQ(larger[i].more[0] | larger[i].more[1], 0);
        CHECK_EQ(smaller[i].struct_size, sizeof *smaller);
        CHECK_EQ(smaller[i].reason, i < 2 ? CHRON_KEPT_NO_READERS : CHRON_KEPT_ACTIVE);
    }
    CHECK_EQ(larger[3].it.struct_size, 0xA5A5A5A5);
    CHECK_EQ(smaller[3].struct_size, 0xA5A5A5A5);
    CHECK_EQ(chron_writer_close(w), 0);
    temporary_remove(path);
}

/* 0 is the default of every field. */
static void test_defaults(void)
{
    chron_writer_options options = {.struct_size = sizeof options};
    chron_columns columns = {.struct_size = sizeof columns};
    chron_queue_info is = {.struct_size = sizeof is};

    temporary_directory(path);
    CHECK_EQ(chron_writer_open(path, &options, &w), 0);
    CHECK_EQ(chron_writer_append(w, "0123456789", 10, 0, 0), 0);
    CHECK_EQ(chron_queue_info_get(path, &is), 0);
    CHECK_EQ(is.segment_size, CHRON_SEGMENT_SIZE_DEFAULT);
    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    CHECK_EQ(chron_reader_peek_columns(r, &columns, 2, NULL), 1); /* no limit */
    CHECK_EQ(columns.payload_bytes, 10);
    CHECK_EQ(columns.bytes_max, 0);
    end();
}

static void test_reserved_fields_are_0(void)
{
    chron_columns columns = {.struct_size = sizeof columns, .reserved = 1};

    begin();
    CHECK_EQ(chron_reader_peek_columns(r, &columns, 1, NULL), -CHRON_EINVAL);
    end();
}

int main(void)
{
    RUN(test_sizes_that_cannot_be_true);
    RUN(test_smaller_ones);
    RUN(test_larger_ones);
    RUN(test_what_is_not_known_is_refused);
    RUN(test_arrays_go_by_the_first_ones_size);
    RUN(test_defaults);
    RUN(test_reserved_fields_are_0);
    return 0;
}
