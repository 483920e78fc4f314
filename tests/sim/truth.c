/* SPDX-License-Identifier: MIT */
/* truth.c - see truth.h. */
#include "truth.h"

#include <string.h>

sim_sizes sim_record_sizes;

void sim_truth_clear(sim_truth *truth)
{
    memset(truth, 0, sizeof *truth);
    truth->commit_count = 1;
    truth->commits[0] = (sim_commit){.seq = SIM_NO_POSITION, .missing = 1};
}

void sim_truth_cut(sim_truth *truth, uint32_t seq)
{
    truth->started = seq;
    truth->returned = seq;
    if (truth->durable > seq)
        truth->durable = seq;
    if (truth->acked > seq)
        truth->acked = seq;
    if (truth->on_disk > seq)
        truth->on_disk = seq;
}

static uint64_t key_of(uint32_t seq, uint16_t life)
{
    return sim_mix(sim_record_sizes.seed ^ ((uint64_t)life << 32 | seq));
}

uint32_t sim_record_length(uint32_t seq, uint16_t life)
{
    uint64_t key = key_of(seq, sim_record_sizes.by_life ? life : 0);

    /* Mostly short: boundaries of sectors and pages are met at all places, and few bytes are stored. */
    if (key % 4u)
        return (uint32_t)(key / 8u % 48u);
    return (uint32_t)(key / 8u % (sim_record_sizes.payload_max + 1u));
}

uint32_t sim_record_fill(uint32_t seq, uint16_t life, uint8_t *payload)
{
    uint32_t length = sim_record_length(seq, life);
    uint64_t key = key_of(seq, life);

    for (uint32_t i = 0; i < length; i += 8) {
        uint64_t word = key * (i + 8u) | 1u; /* no word of it is zero */

        for (uint32_t b = 0; b < 8 && i + b < length; b++)
            payload[i + b] = (uint8_t)(word >> 8u * b);
    }
    return length;
}

uint64_t sim_record_time(uint32_t seq, uint16_t life)
{
    return (uint64_t)seq * 1000000u + life;
}
