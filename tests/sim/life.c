/* SPDX-License-Identifier: MIT */
/* life.c - see life.h: what a user does. */
#include "life.h"

#include <stdio.h>
#include <string.h>

#include "base/step.h"
#include "clock.h"
#include "fiber.h"
#include "look.h"
#include "runtime.h"

#define BATCH_MAX 5u
#define PROCESSES_MAX 3u
#define CATCH_UP_MAX 24u /* records */

/* The life that is being lived, and its current process. */
static sim_life *life;
static uint64_t dice;
static chron_writer *writer;
static int is_first; /* process of this life */
static int is_last;
static uint64_t dies_after; /* the opening: so many events; 0: it does not die by surprise */

/* ------------------------------------------------------------------------------------- profiles */

void sim_profile_roll(sim_profile *profile, uint64_t seed)
{
    static const uint32_t payloads[] = {40, 400, 1500, 4000};
    uint64_t d = sim_mix(seed ^ 0xC0FFEEu);

    memset(profile, 0, sizeof *profile);
    profile->seed = seed;
    profile->segment_size = CHRON_SEGMENT_SIZE_MIN * (1u + (sim_dice(&d, 4) == 0 ? (uint32_t)sim_dice(&d, 3) : 0));
    profile->durability = (uint32_t)sim_dice(&d, 4);
    profile->durability_n = profile->durability == CHRON_DURABILITY_BATCH ? 2u + (uint32_t)sim_dice(&d, 6) : 1u;
    profile->keeper = profile->durability == CHRON_DURABILITY_INTERVAL || sim_dice(&d, 4) == 0;
    profile->reader = sim_dice(&d, 2) == 0;
    profile->retention = profile->reader && sim_dice(&d, 2) == 0;
    profile->syncs = sim_dice(&d, 3) ? 3 + (int)sim_dice(&d, 10) : 0;
    profile->rolls = sim_dice(&d, 4) ? 2 + (int)sim_dice(&d, 8) : 0;
    profile->operations_max = 4u + (uint32_t)sim_dice(&d, 24);
    profile->reuse = profile->retention ? (int)sim_dice(&d, 3) : 0;
    sim_record_sizes.seed = seed;
    sim_record_sizes.payload_max = payloads[sim_dice(&d, 4)];
    sim_record_sizes.by_life = sim_dice(&d, 4) == 0;
}

void sim_profile_print(const sim_profile *p)
{
    static const char *const durabilities[] = {"none", "interval", "batch", "always"};

    fprintf(
        stderr,
        "  segments of %u KiB, durability %s (%u), keeper %d, reader %d, retention %d, reuse %d, a sync in %d, a roll in %d, "
        "payloads up to %u%s\n",
        p->segment_size / 1024u, durabilities[p->durability], p->durability_n, p->keeper, p->reader, p->retention,
        p->reuse, p->syncs, p->rolls, sim_record_sizes.payload_max,
        sim_record_sizes.by_life ? ", other sizes in each life" : "");
}

/* -------------------------------------------------------------------------------------- appending */

static void begin_records(uint32_t count)
{
    sim_truth *truth = &life->truth;

    if (truth->started + count > SIM_SEQS)
        sim_broken("more than %u records for one seed", SIM_SEQS);
    for (uint32_t i = 0; i < count; i++)
        truth->life_of[truth->started++] = (uint16_t)truth->lives;
    sim_log_truth(truth);
}

static void note_mark(void)
{
    sim_truth *truth = &life->truth;
    uint32_t durable = (uint32_t)(chron_writer_durable_seq(writer) + 1u); /* none: CHRON_SEQ_NONE + 1 = 0 */

    if (durable > truth->durable)
        truth->durable = durable;
    if (durable > truth->acked)
        truth->acked = durable;
}

static void end_records(int64_t seq, uint32_t first, const char *call)
{
    sim_truth *truth = &life->truth;

    if (seq != (int64_t)first)
        sim_fail(life, SIM_RULE_CALLS, "%s gives %lld, not %u: %s", call, (long long)seq, first,
                 seq < 0 ? chron_last_error()->text : "");
    truth->returned = truth->started;
    note_mark();
    if (life->profile->durability == CHRON_DURABILITY_ALWAYS && truth->durable < truth->returned)
        sim_fail(life, SIM_RULE_DURABLE, "%s has returned, and record %u is not said to be durable", call,
                 truth->returned - 1u);
    sim_log_truth(truth);
}

static void append_one(void)
{
    static uint8_t payload[SIM_PAYLOAD_MAX];
    uint32_t seq = life->truth.started;
    uint16_t of = (uint16_t)life->truth.lives;
    uint32_t length = sim_record_fill(seq, of, payload);

    begin_records(1);
    end_records(chron_writer_append_at(writer, payload, length, sim_record_type(of), sim_record_flags(seq),
                                       sim_record_time(seq, of)),
                seq, "append");
}

static void append_batch(void)
{
    static uint8_t payloads[BATCH_MAX][SIM_PAYLOAD_MAX];
    chron_record batch[BATCH_MAX];
    uint32_t first = life->truth.started;
    uint16_t of = (uint16_t)life->truth.lives;
    uint32_t count = 2u + (uint32_t)sim_dice(&dice, BATCH_MAX - 1u);

    for (uint32_t i = 0; i < count; i++)
        batch[i] = (chron_record){payloads[i], sim_record_fill(first + i, of, payloads[i]),
                                  sim_record_time(first + i, of), sim_record_type(of), sim_record_flags(first + i)};
    begin_records(count);
    end_records(chron_writer_append_batch(writer, batch, count), first, "append_batch");
}

/* A claim of `room` bytes, of which a record uses what it needs; or none, and it is given back. */
static void claim(size_t room, int gives_back)
{
    static uint8_t payload[SIM_PAYLOAD_MAX];
    uint32_t seq = life->truth.started;
    uint16_t of = (uint16_t)life->truth.lives;
    uint32_t length = sim_record_fill(seq, of, payload);
    void *to;

    if (chron_writer_claim(writer, room > length ? room : length, &to) < 0)
        sim_fail(life, SIM_RULE_CALLS, "claim: %s", chron_last_error()->text);
    memset(payload + length, 0xC1, sizeof payload - length); /* what a user leaves behind in a claim that was too big */
    sim_runtime_store(to, payload, room < length ? length : room < sizeof payload ? room : sizeof payload);
    if (gives_back) {
        if (chron_writer_abort(writer) < 0)
            sim_fail(life, SIM_RULE_CALLS, "abort: %s", chron_last_error()->text);
        return;
    }
    begin_records(1);
    end_records(
        chron_writer_publish(writer, length, sim_record_type(of), sim_record_flags(seq), sim_record_time(seq, of)), seq,
        "publish");
}

/* More room than there can be behind another record: so it goes to the next segment. */
static void roll(void)
{
    claim(life->profile->segment_size - 8192u - 64u, 0);
}

/* ------------------------------------------------------------------------------------- the others */

static void sync_all(void)
{
    uint32_t returned = life->truth.returned;

    if (chron_writer_sync(writer) < 0)
        sim_fail(life, SIM_RULE_CALLS, "sync: %s", chron_last_error()->text);
    note_mark();
    if (life->truth.durable < returned)
        sim_fail(life, SIM_RULE_DURABLE, "after a sync record %u is not said to be durable", returned - 1u);
    sim_log_truth(&life->truth);
}

/* The named reader comes, reads some, and goes. */
static void read_some(void)
{
    uint32_t oldest = (uint32_t)sim_look_oldest(life->disk);
    chron_reader *r = sim_check_resume(life, oldest);

    sim_check_some(life, r, (uint32_t)sim_dice(&dice, 30));
    if (sim_dice(&dice, 8))
        sim_check_commit(life, r, sim_dice(&dice, 2) == 0);
    (void)chron_reader_close(r);
}

static void clean(void)
{
    chron_cleanup out = {.struct_size = sizeof out};

    if (chron_writer_cleanup(writer, &out, NULL, 0) < 0)
        sim_fail(life, SIM_RULE_CALLS, "cleanup: %s", chron_last_error()->text);
}

/* Up to where a segment began that recovery moved away: if it comes back, it would go on there. */
static void catch_up(void)
{
    uint32_t goal = sim_look_moved(life, life->truth.started);

    while (goal <= life->truth.started + CATCH_UP_MAX && life->truth.started < goal)
        append_one();
}

static void operate(void)
{
    const sim_profile *p = life->profile;

    if (p->syncs && sim_dice(&dice, (uint64_t)p->syncs) == 0) {
        sync_all();
        return;
    }
    if (p->rolls && sim_dice(&dice, (uint64_t)p->rolls) == 0) {
        roll();
        return;
    }
    if (p->reader && sim_dice(&dice, p->retention ? 3 : 5) == 0) {
        read_some();
        return;
    }
    if (p->retention && sim_dice(&dice, 6) == 0) {
        clean();
        return;
    }
    switch (sim_dice(&dice, 5)) {
    case 0:
        append_batch();
        break;
    case 1:
        claim((size_t)sim_dice(&dice, 300), sim_dice(&dice, 3) == 0);
        break;
    default:
        append_one();
    }
}

/* -------------------------------------------------------------------------------------- processes */

static int try_open(uint32_t flags)
{
    const sim_profile *p = life->profile;
    chron_retention retention = {.struct_size = sizeof retention, .automatic = 1};
    chron_writer_options options = {.struct_size = sizeof options};
    int status;

    options.segment_size = p->segment_size;
    options.durability = p->durability;
    options.durability_n = p->durability_n;
    options.flags = flags | (p->keeper ? CHRON_KEEPER : 0);
    options.flags |= p->reuse == 1 || (p->reuse && life->truth.lives > 0) ? CHRON_REUSE : 0;
    options.retention = p->retention ? &retention : NULL;
    sim_process_die_after(dies_after);
    status = chron_writer_open(SIM_QUEUE, &options, &writer);
    sim_process_die_after(0);
    return status;
}

/* As a user would: if there is a hole with more behind it than in front, the rest is set aside. */
static int open_writer(void)
{
    int status = try_open(life->cuts ? CHRON_TORN_CUT : 0);

    if (status == 0)
        return 1;
    sim_check_refused(life, status);
    if (life->rotten != SIM_NO_POSITION)
        return 0;
    life->cuts = 1;
    if (try_open(CHRON_TORN_CUT) == 0)
        return 1;
    sim_check_shut(life);
    return 0;
}

static void close_writer(void)
{
    sim_truth *truth = &life->truth;

    if (chron_writer_close(writer) < 0)
        sim_fail(life, SIM_RULE_CALLS, "close: %s", chron_last_error()->text);
    if (life->profile->durability != CHRON_DURABILITY_NONE)
        truth->durable = truth->acked = truth->returned;
    sim_log_truth(truth);
}

static void note_opened(void)
{
    sim_truth *truth = &life->truth;

    if (is_first) {
        life->was_opened = 1;
        life->opened_event = life->disk->log ? life->disk->log->count : 0;
    }
    truth->lives++; /* what is appended from here on is of this opening */
    if (truth->lives > SIM_LIVES_MAX)
        sim_broken("more than %u openings for one seed", SIM_LIVES_MAX);
    truth->opened = 1;
    sim_log_truth(truth);
}

static void process(void *unused)
{
    uint32_t operations =
        life->works ? (uint32_t)sim_dice(&dice, life->profile->operations_max) : (uint32_t)sim_dice(&dice, 6);
    uint32_t oldest;

    (void)unused;
    if (is_first && life->after_power)
        sim_check_disk(life);
    if (!open_writer())
        return;
    sim_check_opened(life, writer, is_first);
    oldest = sim_check_records(life);
    if (life->rotten != SIM_NO_POSITION)
        return;
    if (is_first && life->after_power && life->truth.started > oldest)
        life->truth.on_disk = life->truth.started;
    note_opened();
    if (life->profile->reader && !life->works)
        (void)chron_reader_close(sim_check_resume(life, oldest));
    if (!life->works && sim_dice(&dice, 2) == 0)
        catch_up();
    for (uint32_t i = 0; i < operations; i++) {
        if (life->works && sim_dice(&dice, 40) == 0)
            sim_process_die_after(1u + sim_dice(&dice, 200));
        operate();
        sim_check_oldest(life);
    }
    if (is_last ? sim_dice(&dice, 2) == 0 : sim_dice(&dice, 3) != 0)
        sim_process_die();
    close_writer();
    sim_check_verify(life);
}

static void on_step(const char *name)
{
    sim_log_step(name);
}

void sim_life_run(sim_life *one)
{
    unsigned processes;

    life = one;
    dice = sim_mix(one->seed);
    processes = one->works ? 1u + (unsigned)sim_dice(&dice, PROCESSES_MAX) : 1u + (unsigned)sim_dice(&dice, 2);
    sim_clock_start(one->seed, one->truth.lives);
    chron__on_step = one->disk->log ? on_step : NULL;
    sim_watch.stored = one->disk->log ? sim_log_stored : NULL;
    sim_watch.before = sim_point_store;
    one->failed = one->was_opened = one->resumed = one->cuts = 0;
    one->claimed = 0;
    one->later = 0;
    for (unsigned p = 0; p < processes && !one->failed; p++) {
        is_first = !one->was_opened;
        is_last = p + 1u == processes;
        /* Now and then an opening dies, at any place: the next one finds what it left. */
        dies_after = !is_last && sim_dice(&dice, 3) == 0 ? 1u + sim_dice(&dice, 400) : 0;
        one->truth.opened = 0;
        sim_heap_reset();
        sim_disk_use(one->disk);
        sim_log_truth(&one->truth);
        (void)sim_process_run(process, NULL, sim_dice(&dice, UINT32_MAX));
    }
    sim_log_stop(one->disk);
    memset(&sim_watch, 0, sizeof sim_watch); /* images are made in the same memory: nobody is to see that */
}
