/* SPDX-License-Identifier: MIT */
/*
 * test_crc32c.c - every CRC-32C implementation that this processor has, against the vectors of RFC 3720
 * and against the definition, bit by bit. Data is random with a fixed seed.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <sys/mman.h>
#include <unistd.h>

#include "../../csrc/include/chronicle.h"
#include "crc32c/crc32c.h"
#include "crc32c/shift.h"
#include "base/endian.h"
#include "check.h"

#define LARGE (1u << 20)
#define HEADER 32u

#define FOR_EACH(impl)                                                             \
    for (const chron__crc32c_impl *impl = chron__crc32c_impls; impl->name; impl++) \
        if (impl->available())

static uint8_t data[LARGE + 16];
static uint8_t header[HEADER];

static uint64_t next_random(void)
{
    static uint64_t state = 20240229;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Times x, modulo the polynomial. */
static uint32_t times_x(uint32_t v)
{
    return v >> 1 ^ (v & 1 ? 0x82f63b78u : 0);
}

/* The definition. */
static uint32_t reference(uint32_t crc, const uint8_t *p, size_t bytes)
{
    crc = ~crc;
    for (; bytes > 0; p++, bytes--) {
        crc ^= *p;
        for (int bit = 0; bit < 8; bit++)
            crc = times_x(crc);
    }
    return ~crc;
}

/* The same for a record: 4 bytes of commit, 24 of header, payload. */
static uint32_t reference_record(uint32_t commit, const uint8_t *payload, size_t bytes)
{
    uint8_t word[4];

    chron__write_le32(word, commit);
    return reference(reference(reference(0, word, 4), header + 8, 24), payload, bytes);
}

static void check_impl(const chron__crc32c_impl *impl, const char *what, size_t bytes, size_t at, uint32_t actual,
                       uint32_t expected)
{
    if (actual == expected)
        return;
    fprintf(stderr, "%s:%d: failed: %s: %s of %zu bytes at %zu is %08" PRIx32 ", not %08" PRIx32 "\n", __FILE__,
            __LINE__, impl->name, what, bytes, at, actual, expected);
    exit(1);
}

static void table_is_in_order(void)
{
    const chron__crc32c_impl *impl = chron__crc32c_impls;

    while (!impl->available())
        impl++;
    CHECK(chron__crc32c_best() == impl); /* the first that there is */
    CHECK_STR(chron_crc32c_name(), impl->name);
    while (impl[1].name)
        impl++;
    CHECK_STR(impl->name, "portable");
    CHECK(impl->available());
}

static void rfc_3720_vectors(void)
{
    static const uint8_t read_command[48] = {
        0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0,    0,
    };
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];

    for (int i = 0; i < 32; i++) {
        ones[i] = 0xFF;
        up[i] = (uint8_t)i;
        down[i] = (uint8_t)(31 - i);
    }
    FOR_EACH(impl)
    {
        CHECK_EQ(impl->update(0, zeros, 32), 0x8a9136aau);
        CHECK_EQ(impl->update(0, ones, 32), 0x62a8ab43u);
        CHECK_EQ(impl->update(0, up, 32), 0x46dd794eu);
        CHECK_EQ(impl->update(0, down, 32), 0x113fdb5cu);
        CHECK_EQ(impl->update(0, read_command, 48), 0xd9963a56u);
        CHECK_EQ(impl->update(0, "123456789", 9), 0xe3069283u); /* the usual check value */
        CHECK_EQ(impl->update(0, NULL, 0), 0);
    }
    CHECK_EQ(chron_crc32c(0, read_command, 48), 0xd9963a56u);
    CHECK_EQ(reference(0, read_command, 48), 0xd9963a56u);
}

static void shift_constants(void)
{
    uint32_t v = 0x80000000u; /* x^0 */

    for (int i = 0; i < 64 - 33; i++)
        v = times_x(v);
    for (size_t words = 1; words <= CHRON__CRC32C_SHIFTS; words++) {
        CHECK_EQ(chron__crc32c_shift[words - 1], v);
        for (int i = 0; i < 64; i++)
            v = times_x(v);
    }
}

/* That of a record whose header lies in memory. */
static uint32_t record_of(chron__crc32c_record_fn record, uint32_t commit, const uint8_t *front, const void *payload,
                          size_t bytes)
{
    return record(commit, chron__read_le64(front + 8), chron__read_le64(front + 16), chron__read_le64(front + 24),
                  payload, bytes);
}

/* `bytes` at data + at, whose reference is `crc` after `seed`: plain, and as the payload of a record. */
static void check_all(size_t at, size_t bytes, uint32_t seed, uint32_t crc, uint32_t commit, uint32_t record)
{
    const uint8_t *p = data + at;

    FOR_EACH(impl)
    {
        check_impl(impl, "update", bytes, at, impl->update(seed, p, bytes), crc);
        check_impl(impl, "record", bytes, at, record_of(impl->record, commit, header, p, bytes), record);
    }
    check_impl(chron__crc32c_best(), "chron_crc32c", bytes, at, chron_crc32c(seed, p, bytes), crc);
    check_impl(chron__crc32c_best(), "chron__crc32c_record", bytes, at,
               record_of(chron__crc32c_record, commit, header, p, bytes), record);
}

static void all_lengths_at_all_alignments(void)
{
    for (size_t at = 0; at < 16; at++) {
        uint32_t seed = (uint32_t)next_random(), commit = (uint32_t)next_random();
        uint32_t crc = seed, record = reference_record(commit, NULL, 0);

        for (size_t bytes = 0; bytes <= 1100; bytes++) {
            check_all(at, bytes, seed, crc, commit, record);
            crc = reference(crc, data + at + bytes, 1);
            record = reference(record, data + at + bytes, 1);
        }
    }
}

/* put writes what a record must hold, and nothing around it. */
static void put_is_copy_and_sum(void)
{
    static uint8_t place[32 + 3000 + 32];

    for (size_t bytes = 0; bytes <= 3000; bytes += bytes < 300 ? 1 : 37) {
        const uint8_t *from = data + bytes % 16;
        uint32_t length = (uint32_t)bytes;

        FOR_EACH(impl)
        {
            memset(place, 0xA5, sizeof place);
            impl->put(place, length, 11, 22, 33, from);
            CHECK(place[0] == 0xA5 && place[3] == 0xA5); /* the commit word is for the caller */
            CHECK(place[8] == 11 && place[16] == 22 && place[24] == 33 && place[31] == 0);
            CHECK(memcmp(place + 32, from, bytes) == 0);
            CHECK_EQ(place[32 + bytes], 0xA5);
            check_impl(impl, "put", bytes, 0,
                       (uint32_t)place[4] | (uint32_t)place[5] << 8 | (uint32_t)place[6] << 16 |
                           (uint32_t)place[7] << 24,
                       record_of(chron__crc32c_impls[0].record, length + 1u, place, from, bytes));
        }
    }
}

/*
 * The data changes while it is copied, as it may if another thread writes to the caller's buffer: what is summed up is
 * what was written all the same, else the record would be damaged and the log end in front of it. Here the data lies
 * one byte in front of the copy, so that each word that is written changes the data behind the ones that were read.
 */
static void put_sums_up_what_it_wrote(void)
{
    static uint8_t place[32 + 128];

    for (uint32_t bytes = 1; bytes < 128; bytes++) {
        FOR_EACH(impl)
        {
            if (strcmp(impl->name, "portable") == 0)
                continue; /* it copies all in one memcpy, which may not overlap, and sums up the copy */
            memcpy(place, data, sizeof place);
            impl->put(place, bytes, 11, 22, 33, place + 31);
            check_impl(impl, "put of data that changes", bytes, 0,
                       (uint32_t)place[4] | (uint32_t)place[5] << 8 | (uint32_t)place[6] << 16 |
                           (uint32_t)place[7] << 24,
                       record_of(impl->record, bytes + 1u, place, place + 32, bytes));
        }
    }
}

/* Where one block of lanes is full and the next begins, several times over. */
static void all_lengths_around_blocks(void)
{
    uint32_t crc = 0, record = reference_record(7, NULL, 0);

    for (size_t bytes = 0; bytes <= 10000; bytes++) {
        if (bytes > 2900)
            check_all(3, bytes, 0, crc, 7, record);
        crc = reference(crc, data + 3 + bytes, 1);
        record = reference(record, data + 3 + bytes, 1);
    }
}

static void large_ones(void)
{
    static const size_t sizes[] = {65536, 65537, 100003, LARGE - 1, LARGE};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t at = (size_t)(next_random() % 16);

        check_all(at, sizes[i], 0, reference(0, data + at, sizes[i]), 1, reference_record(1, data + at, sizes[i]));
    }
}

static void updates_in_pieces(void)
{
    for (int round = 0; round < 200; round++) {
        size_t bytes = (size_t)(next_random() % 20000), first = (size_t)(next_random() % (bytes + 1));
        size_t second = first + (size_t)(next_random() % (bytes - first + 1));
        uint32_t whole = reference(0, data, bytes);

        FOR_EACH(impl)
        {
            uint32_t crc = impl->update(0, data, first);

            crc = impl->update(crc, data + first, second - first);
            crc = impl->update(crc, data + second, bytes - second);
            check_impl(impl, "update in pieces", bytes, first, crc, whole);
        }
    }
}

/* A byte before or behind the data is a fault here. */
static void nothing_outside_is_read(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *map = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *first = map + page, *end = first + page;

    CHECK(map != MAP_FAILED);
    memcpy(first, data, page);
    CHECK_EQ(mprotect(map, page, PROT_NONE), 0);
    CHECK_EQ(mprotect(end, page, PROT_NONE), 0);
    for (size_t bytes = 0; bytes <= 1100; bytes++) {
        const uint8_t *last = data + page - bytes;
        uint32_t at_start = reference(0, data, bytes), at_end = reference(0, last, bytes);
        uint32_t record_at_start = reference_record(9, data, bytes);
        uint32_t record_at_end = reference_record(9, last, bytes);

        FOR_EACH(impl)
        {
            CHECK_EQ(impl->update(0, first, bytes), at_start);
            CHECK_EQ(impl->update(0, end - bytes, bytes), at_end);
            CHECK_EQ(record_of(impl->record, 9, header, first, bytes), record_at_start);
            CHECK_EQ(record_of(impl->record, 9, header, end - bytes, bytes), record_at_end);
        }
    }
    CHECK_EQ(munmap(map, 3 * page), 0);
}

int main(void)
{
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)next_random();
    for (size_t i = 0; i < sizeof header; i++)
        header[i] = (uint8_t)next_random();
    RUN(table_is_in_order);
    RUN(rfc_3720_vectors);
    RUN(shift_constants);
    RUN(put_is_copy_and_sum);
    RUN(put_sums_up_what_it_wrote);
    RUN(all_lengths_at_all_alignments);
    RUN(all_lengths_around_blocks);
    RUN(large_ones);
    RUN(updates_in_pieces);
    RUN(nothing_outside_is_read);
    return 0;
}
