/* SPDX-License-Identifier: MIT */
/* check.c - what has to hold when a queue is opened, and after. See rules.h for the rules, life.h for the calls. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fiber.h"
#include "known.h"
#include "life.h"
#include "look.h"
#include "runtime.h"

#define NAME_OF(name, when, text) #name,
#define TEXT_OF(name, when, text) text,
#define WHEN_OF(name, when, text) when,
const char *const sim_rule_names[SIM_RULE_COUNT] = {SIM_RULES(NAME_OF)};
const char *const sim_rule_texts[SIM_RULE_COUNT] = {SIM_RULES(TEXT_OF)};
const int sim_rule_now[SIM_RULE_COUNT] = {SIM_RULES(WHEN_OF)};

#define KNOWN_RULE(name, part, least, what) SIM_RULE_##name,
#define KNOWN_PART(name, part, least, what) part,
#define KNOWN_LEAST(name, part, least, what) least,
#define KNOWN_TEXT(name, part, least, what) what,
static const enum sim_rule known_rules[] = {SIM_KNOWN(KNOWN_RULE)};
static const char *const known_parts[] = {SIM_KNOWN(KNOWN_PART)};
static const uint32_t known_least[] = {SIM_KNOWN(KNOWN_LEAST)};
const char *const sim_known_texts[] = {SIM_KNOWN(KNOWN_TEXT) NULL};

static int which_known(const sim_life *life)
{
    for (size_t i = 0; sim_known_texts[i]; i++)
        if (life->rule == known_rules[i] && life->cruelty >= known_least[i] && strstr(life->text, known_parts[i]))
            return (int)i + 1;
    return 0;
}

int sim_is_excused(const sim_life *life)
{
    return life->known != 0 || !sim_rule_now[life->rule];
}

void sim_fail(sim_life *life, enum sim_rule rule, const char *format, ...)
{
    va_list arguments;

    life->failed = 1;
    life->rule = rule;
    va_start(arguments, format);
    (void)vsnprintf(life->text, sizeof life->text, format, arguments);
    va_end(arguments);
    life->known = which_known(life);
    sim_process_die();
}

void sim_expect(sim_life *life, enum sim_rule rule, int holds)
{
    if (!holds && sim_rule_now[rule])
        sim_fail(life, rule, "it does not");
    if (!holds)
        life->later |= 1ull << rule;
}

/* What was there before, but for what retention may have deleted, is there still. */
static void check_kept(sim_life *life, const sim_found *before, const sim_found *now, const char *when)
{
    for (uint32_t seq = life->truth.oldest; seq < SIM_SEQS; seq++) {
        uint64_t gone = before->lives[seq] & ~now->lives[seq];

        if (gone && seq != life->rotten)
            sim_fail(life, SIM_RULE_KEPT,
                     "record %u of life %d was whole on disk %s, and is neither in a segment nor in quarantine/", seq,
                     __builtin_ctzll(gone), when);
    }
}

void sim_check_disk(sim_life *life)
{
    uint32_t seq;
    uint16_t of;
    uint16_t newer;
    sim_mark mark;

    life->sum = sim_look_sum(life);
    (void)sim_look_mark(life->disk, &mark);
    life->mark = mark.durable_next;
    sim_expect(life, SIM_RULE_MARK,
               life->truth.acked == 0 || sim_look_segment(life, life->truth.acked - 1u) <=
                                             (life->mark > life->truth.oldest ? life->mark : life->truth.oldest));
    sim_look_segments(life, &life->in_segments);
    life->found = life->in_segments;
    sim_look_quarantine(life, &life->found);
    if (sim_look_remnant(life, &seq, &of))
        sim_fail(life, SIM_RULE_REMNANTS,
                 "record %u of life %u was cut off, and is on disk behind what was appended since", seq, of);
    if (sim_look_epochs(life, &of, &newer))
        sim_fail(life, SIM_RULE_EPOCHS, "records of life %u have no lower epoch than those of life %u", of, newer);
    if (life->before)
        check_kept(life, life->before, &life->found, "at the boot before");
}

/* --------------------------------------------------------------------------------- after an opening */

static void check_report(sim_life *life, const chron_writer *w, uint32_t end)
{
    chron_recovery report = {.struct_size = sizeof report};
    uint32_t cut = 0;

    if (chron_writer_recovery_get(w, &report) < 0)
        sim_fail(life, SIM_RULE_CALLS, "chron_writer_recovery_get: %s", chron_last_error()->text);
    life->cut = report.cut_segments ? 2 : report.cut_bytes ? 1 : 0;
    for (uint32_t seq = end; seq < life->truth.started; seq++)
        cut += (life->in_segments.lives[seq] >> life->truth.life_of[seq] & 1u) != 0;
    if (cut && report.cut_records == 0 && report.cut_segments == 0)
        sim_fail(life, SIM_RULE_TOLD,
                 "the log ends at %u, %u whole records behind were cut off, and the report tells of none", end, cut);
    sim_expect(life, SIM_RULE_CUTS,
               life->cuts || life->rotten != SIM_NO_POSITION || cut <= end - (end < life->mark ? end : life->mark));
    if (cut && !report.quarantined)
        sim_fail(life, SIM_RULE_TOLD,
                 "the log ends at %u, %u whole records behind were cut off, and none is said to be kept", end, cut);
}

static void check_end(sim_life *life, uint32_t end, int first)
{
    sim_truth *truth = &life->truth;
    uint32_t lower = first ? life->lower : truth->returned;
    uint32_t upper = first ? life->upper : truth->started;

    if (end > truth->started && sim_look_oldest(life->disk) == end)
        sim_fail(life, SIM_RULE_BACK, "next_seq is %u in an empty log, but only %u records were ever begun", end,
                 truth->started);
    if (end > truth->started)
        sim_fail(life, SIM_RULE_CONTENT, "next_seq is %u, but only %u records were ever begun", end, truth->started);
    if (end < truth->durable && life->rotten == SIM_NO_POSITION)
        sim_fail(life, truth->oldest < truth->durable ? SIM_RULE_DURABLE : SIM_RULE_BACK,
                 "next_seq is %u, but %u records were durable (and those below %u deleted)", end, truth->durable,
                 truth->oldest);
    if (end < truth->on_disk && life->rotten == SIM_NO_POSITION)
        sim_fail(life, truth->oldest < truth->on_disk ? SIM_RULE_STAYS : SIM_RULE_BACK,
                 "next_seq is %u, but %u records were on disk at the boot before", end, truth->on_disk);
    if (end < lower || end > upper)
        sim_fail(life,
                 !first || !life->after_power ? SIM_RULE_RETURNED
                 : upper == lower             ? SIM_RULE_SAME
                                              : SIM_RULE_DURABLE,
                 "next_seq is %u, not %u to %u", end, lower, upper);
    if ((!first || !life->after_power) && end != truth->returned && end != truth->started)
        sim_fail(life, SIM_RULE_BATCH, "next_seq is %u: a part of the batch [%u, %u)", end, truth->returned,
                 truth->started);
}

void sim_check_opened(sim_life *life, chron_writer *w, int first)
{
    sim_truth *truth = &life->truth;
    uint32_t end = (uint32_t)chron_writer_next_seq(w);

    if (life->rotten != SIM_NO_POSITION && first && end <= life->rotten)
        sim_fail(life, life->rotten_is_marked ? SIM_RULE_DAMAGE : SIM_RULE_DAMAGE_ABOVE,
                 "record %u was durable and got damaged; the opening cut the log off at %u", life->rotten, end);
    check_end(life, end, first);
    if (first && life->after_power)
        check_report(life, w, end);
    if (first)
        life->recovered = end;
    sim_truth_cut(truth, end);
}

static void check_view(sim_life *life, const chron_view *v, uint32_t seq)
{
    uint8_t expected[SIM_PAYLOAD_MAX];
    uint16_t of = life->truth.life_of[seq];
    uint32_t length = sim_record_fill(seq, of, expected);

    if (v->seq != seq)
        sim_fail(life, SIM_RULE_SEQS, "record %u comes where %u is due", (uint32_t)v->seq, seq);
    if (seq >= life->truth.started)
        sim_fail(life, SIM_RULE_CONTENT, "record %u is there, though the log ends at %u", seq, life->truth.started);
    if (v->length != length || memcmp(v->payload, expected, length) != 0 ||
        v->timestamp_ns != sim_record_time(seq, of) || v->type_id != sim_record_type(of) ||
        v->flags != sim_record_flags(seq))
        sim_fail(life, SIM_RULE_CONTENT,
                 "record %u is not that of life %u but has %u bytes, type %u, time %llu (life %llu)", seq, of,
                 v->length, v->type_id, (unsigned long long)v->timestamp_ns,
                 (unsigned long long)v->timestamp_ns % 1000000u);
}

/* Is the record that the reader had consumed last still that one? */
static int is_history(const sim_life *life, const sim_commit *one, uint32_t oldest)
{
    return one->seq <= life->truth.started &&
           (one->seq == 0 || one->seq - 1u < oldest || life->truth.life_of[one->seq - 1u] == one->life);
}

/* Of the records that were consumed then: up to where are they still those? */
static uint32_t still_there(const sim_truth *truth, const sim_commit *one)
{
    uint32_t seq = 0;

    while (seq < one->seq && seq < truth->started && truth->life_of[seq] <= one->life)
        seq++;
    return seq;
}

void sim_check_oldest(sim_life *life)
{
    sim_truth *truth = &life->truth;
    uint32_t oldest = sim_look_oldest(life->disk);
    uint32_t committed = 0; /* of records that the log holds, or held until they were deleted */
    uint32_t claimed = 0;   /* of others as well: those that a loss of power undid */

    if (oldest <= truth->oldest || oldest == SIM_SEQS)
        return;
    for (uint32_t i = 0; i < truth->commit_count; i++) {
        const sim_commit *one = &truth->commits[i];

        if (one->seq == SIM_NO_POSITION)
            continue;
        if (still_there(truth, one) > committed)
            committed = still_there(truth, one);
        if (one->seq > claimed)
            claimed = one->seq;
    }
    if (claimed < life->claimed)
        claimed = life->claimed; /* the keeper may have looked before the reader went back */
    life->claimed = claimed;
    if (oldest > claimed)
        sim_fail(life, SIM_RULE_RETENTION, "the log begins at %u, but the reader has committed up to %u only", oldest,
                 claimed);
    if (oldest > committed)
        sim_fail(
            life, SIM_RULE_RETENTION,
            "the log begins at %u, because the reader had committed up to %u before that was undone: of these records it "
            "has seen those up to %u",
            oldest, claimed, committed);
    truth->oldest = oldest;
}

/* Reads on, to the end or for `count` records. */
static uint32_t read_on(sim_life *life, chron_reader *r, uint32_t seq, uint32_t count)
{
    chron_view v;
    int status = 1;

    while (count-- && (status = chron_reader_next(r, &v)) == 1)
        check_view(life, &v, seq++);
    if (status == -CHRON_ECORRUPT && seq == life->rotten) {
        int64_t passed = chron_reader_skip_damaged(r);

        return passed > 0 ? read_on(life, r, seq + (uint32_t)passed, count) : seq;
    }
    if (status == -CHRON_EGONE && seq < sim_look_oldest(life->disk)) { /* the keeper cleans up meanwhile */
        sim_check_oldest(life);
        if (chron_reader_seek_earliest(r) < 0)
            sim_fail(life, SIM_RULE_CALLS, "seek: %s", chron_last_error()->text);
        return read_on(life, r, (uint32_t)chron_reader_position(r), count);
    }
    if (status < 0)
        sim_fail(life, SIM_RULE_CONTENT, "record %u cannot be read: %s", seq, chron_last_error()->text);
    return seq;
}

void sim_check_some(sim_life *life, chron_reader *r, uint32_t count)
{
    (void)read_on(life, r, (uint32_t)chron_reader_position(r), count);
}

uint32_t sim_check_records(sim_life *life)
{
    chron_reader *r;
    uint32_t oldest;
    uint32_t end;

    sim_check_oldest(life);
    if (chron_reader_open(SIM_QUEUE, NULL, &r) < 0)
        sim_fail(life, SIM_RULE_CALLS, "a reader cannot open: %s", chron_last_error()->text);
    oldest = (uint32_t)chron_reader_position(r);
    end = read_on(life, r, oldest, UINT32_MAX);
    if (end != life->truth.started)
        sim_fail(life, SIM_RULE_SEQS, "a reader comes to %u, but next_seq is %u", end, life->truth.started);
    (void)chron_reader_close(r);
    sim_check_oldest(life);
    return sim_look_oldest(life->disk);
}

/* Positions may lead beyond the log after a loss of power: readers are told, and sim_check_resume() sees to that. */
static int note_problem(void *context, const chron_problem *problem)
{
    chron_problem *first = context;

    if (problem->kind != 0 && problem->kind < CHRON_NOTES && problem->kind != CHRON_PROBLEM_POSITION &&
        first->kind == 0)
        *first = *problem;
    return 0;
}

void sim_check_verify(sim_life *life)
{
    chron_problem problem = {.kind = 0};
    chron_verify_summary summary = {.struct_size = sizeof summary};
    sim_found now;

    sim_look_segments(life, &now);
    sim_look_quarantine(life, &now);
    sim_check_oldest(life);
    check_kept(life, &life->found, &now, "at this boot");
    if (life->rotten != SIM_NO_POSITION)
        return;
    if (chron_queue_verify(SIM_QUEUE, note_problem, &problem, &summary) < 0)
        sim_fail(life, SIM_RULE_CALLS, "chron_queue_verify: %s", chron_last_error()->text);
    if (problem.kind)
        sim_fail(life, SIM_RULE_VERIFY, "verify finds in %s: %s", problem.file, problem.text);
    if (summary.next_seq != life->truth.started)
        sim_fail(life, SIM_RULE_VERIFY, "verify comes to %u, but next_seq is %u", (uint32_t)summary.next_seq,
                 life->truth.started);
}

void sim_check_refused(sim_life *life, int status)
{
    if (status == -CHRON_ECORRUPT && sim_look_sum(life) != life->sum)
        sim_fail(life, SIM_RULE_UNCHANGED, "the opening was refused, but it changed something: %s",
                 chron_last_error()->text);
    if (life->rotten != SIM_NO_POSITION && status == -CHRON_ECORRUPT)
        return;
    if (status != -CHRON_ECORRUPT || !life->after_power || !strstr(chron_last_error()->text, "may have torn"))
        sim_check_shut(life);
}

/* Damage that is none: within one sector a disk tears nothing, says docs/FORMAT.md, so what the cruel ones do is no fault. */
void sim_check_shut(sim_life *life)
{
    if (life->cruelty >= SIM_BY_WORD && chron_last_error()->code == CHRON_ECORRUPT)
        sim_fail(life, SIM_RULE_TEARS, "opening says %s", chron_last_error()->text);
    sim_fail(life, SIM_RULE_OPENS, "opening says %s", chron_last_error()->text);
}

/* ------------------------------------------------------------------------------------- positions */

static int may_be_gone(const sim_life *life)
{
    for (uint32_t i = 0; i < life->truth.commit_count; i++)
        if (life->truth.commits[i].seq != SIM_NO_POSITION && !is_history(life, &life->truth.commits[i], 0))
            return 1;
    return 0;
}

static int may_be_lapped(const sim_life *life, uint32_t oldest)
{
    for (uint32_t i = 0; i < life->truth.commit_count; i++)
        if (life->truth.commits[i].seq < oldest)
            return 1;
    return 0;
}

/*
 * Which of the commits it is. After the death of a process the last one, or the one before if it died in the midst of the
 * last; after the loss of power any of those since the last sync.
 */
static void check_position(sim_life *life, const chron_reader *r, uint32_t oldest)
{
    sim_truth *truth = &life->truth;
    uint64_t found = chron_reader_committed(r);
    uint32_t seq = found == CHRON_SEQ_NONE ? SIM_NO_POSITION : (uint32_t)found;
    uint32_t first = life->after_power && !life->resumed ? 0 : truth->commit_count < 2u ? 0 : truth->commit_count - 2u;

    for (uint32_t i = first; i < truth->commit_count; i++) {
        const sim_commit one = truth->commits[i];

        if (one.seq != seq || (seq != SIM_NO_POSITION && !is_history(life, &one, oldest)))
            continue;
        if (life->after_power && !life->resumed) {
            /* This is what is on disk now. But a file that is registered anew may hold more than it shows. */
            if (seq != SIM_NO_POSITION)
                truth->commit_count = 0;
            if (truth->commit_count < SIM_COMMITS)
                truth->commits[truth->commit_count++] = one;
        }
        life->resumed = 1;
        return;
    }
    sim_fail(life, SIM_RULE_POSITION,
             "the reader resumes at %d, which it never committed, or behind which history changed (log: %u to %u)",
             (int)seq, oldest, truth->started);
}

chron_reader *sim_check_resume(sim_life *life, uint32_t oldest)
{
    chron_reader_options options = {.struct_size = sizeof options};
    chron_reader *r;
    int status;

    options.name = SIM_READER;
    status = chron_reader_open(SIM_QUEUE, &options, &r);
    if (status == 0) {
        check_position(life, r, oldest);
        sim_log_truth(&life->truth);
        return r;
    }
    if (!(status == -CHRON_EREWRITTEN && may_be_gone(life)) &&
        !(status == -CHRON_EGONE && may_be_lapped(life, oldest) && life->profile->durability == CHRON_DURABILITY_NONE))
        sim_fail(life, SIM_RULE_POSITION, "the reader cannot resume: %s", chron_last_error()->text);
    life->resumed = 1;
    options.start = CHRON_START_EARLIEST;
    if (chron_reader_open(SIM_QUEUE, &options, &r) < 0)
        sim_fail(life, SIM_RULE_CALLS, "the reader cannot begin anew: %s", chron_last_error()->text);
    return r;
}

void sim_check_commit(sim_life *life, chron_reader *r, int sync)
{
    sim_truth *truth = &life->truth;
    uint32_t seq = (uint32_t)chron_reader_position(r);
    sim_commit one = {.seq = seq, .life = seq ? truth->life_of[seq - 1u] : 0};

    if (truth->commit_count == SIM_COMMITS)
        return;
    for (uint32_t i = 0; i < truth->commit_count; i++)
        if (truth->commits[i].seq != SIM_NO_POSITION && truth->commits[i].seq > life->claimed)
            life->claimed = truth->commits[i].seq;
    truth->commits[truth->commit_count++] = one;
    sim_log_truth(truth);
    if (chron_reader_commit(r, sync) < 0)
        sim_fail(life, SIM_RULE_CALLS, "commit: %s", chron_last_error()->text);
    if (sync) {
        truth->commits[0] = one;
        truth->commit_count = 1;
        sim_log_truth(truth);
    }
}
