/* SPDX-License-Identifier: MIT */
/* records.h - records whose content follows from their seq, so that nobody has to remember it. */
#ifndef RECORDS_H
#define RECORDS_H

#include "check.h"
#include "chronicle.h"

#define RECORD_PAYLOAD_MAX 3000

/* Fill `payload` for `seq`; returns its length. Timestamp is the seq, type 1, flags 2. */
static inline uint32_t record_fill(uint64_t seq, uint8_t *payload)
{
    uint32_t length = (uint32_t)(seq * 2654435761u % RECORD_PAYLOAD_MAX);

    if (seq % 5 == 0)
        length %= 40;
    for (uint32_t i = 0; i < length; i++)
        payload[i] = (uint8_t)(seq * 31u + i);
    return length;
}

/* Read a queue from its oldest record to the end and check it; returns the seq behind, which is `at_least`. */
static inline uint64_t records_check(const char *path, uint64_t at_least)
{
    static uint8_t expected[RECORD_PAYLOAD_MAX];
    chron_reader *r;
    chron_view v;
    uint64_t seq = 0;
    int status;

    CHECK_EQ(chron_reader_open(path, NULL, &r), 0);
    while ((status = chron_reader_next(r, &v)) == 1) {
        CHECK_EQ(v.seq, seq);
        CHECK_EQ(v.timestamp_ns, seq);
        CHECK_EQ(v.type_id, 1);
        CHECK_EQ(v.flags, 2);
        CHECK_EQ(v.length, record_fill(seq, expected));
        CHECK(memcmp(v.payload, expected, v.length) == 0);
        seq++;
    }
    CHECK_EQ(status, 0);
    CHECK(seq >= at_least);
    chron_reader_close(r);
    return seq;
}

#endif
