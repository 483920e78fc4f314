/* SPDX-License-Identifier: MIT */
/*
 * plan.c - see plan.h. Recovery (write/recovery.c) carries out what the survey says; here the same is put in words. Reads
 * only.
 */
#include "queue/plan.h"

#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "format/header.h"
#include "queue/survey.h"

/* ---------------------------------------------------------------------------------- what was decided */

static void tell_holes(const chron__survey *s, chron__tell *tell)
{
    for (size_t i = 0; i < s->found_count; i++) {
        const chron__found *one = &s->found[i];
        chron_problem found = {.kind = one->kind, .action = one->action, .offset = one->offset};
        char name[CHRON__NAME_BYTES];

        found.seq = one->seq;
        found.seq_end = one->seq_end;
        chron__segment_name(one->base_seq, name);
        if (one->action == CHRON_ACTION_GAP)
            chron__tell_say(tell, &found, name,
                            "record %" PRIu64 " cannot be had (%s): %" PRIu64 " records, up to seq %" PRIu64
                            ", are accepted as gone",
                            one->seq, one->why, one->seq_end - one->seq, one->seq_end - 1u);
        else
            chron__tell_say(tell, &found, name,
                            "record %" PRIu64
                            " cannot be had (%s), and no whole record lies behind it: the log ends there",
                            one->seq, one->why);
    }
}

static void tell_aside(const chron__survey *s, chron__tell *tell, chron_recovery *out)
{
    for (size_t i = s->first; i < s->bases.count; i++) {
        chron_problem found = {.kind = CHRON_PROBLEM_FILE, .action = CHRON_ACTION_MOVE, .seq = s->bases.at[i]};
        char name[CHRON__NAME_BYTES];

        if (!chron__survey_sets_aside(s, i))
            continue;
        out->cut_segments++;
        out->quarantined = 1;
        found.seq_end = CHRON_SEQ_NONE;
        chron__segment_name(s->bases.at[i], name);
        chron__tell_say(tell, &found, name, "%s is moved to quarantine/", name);
    }
}

/* ------------------------------------------------------------------------------- what is made anew */

static void tell_anew(chron__tell *tell, uint32_t kind, const char *file, uint64_t offset, uint64_t seq,
                      const char *what)
{
    chron_problem found = {.kind = kind, .action = CHRON_ACTION_ANEW, .offset = offset, .seq = seq};

    found.seq_end = CHRON_SEQ_NONE;
    chron__tell_say(tell, &found, file, "%s", what);
}

static void tell_stretch(const chron__stretch *one, chron__tell *tell, chron_recovery *out)
{
    char name[CHRON__NAME_BYTES];
    uint64_t seq = one->base_seq;

    chron__segment_name(one->base_seq, name);
    if (one->anew)
        tell_anew(
            tell, CHRON_PROBLEM_FILE, name, 0, seq,
            "the file is too short or too long, or not readable in part: all that can be had of it goes to a new file");
    if (one->header)
        tell_anew(tell, CHRON_PROBLEM_HEADER, name, 0, seq, "the header is damaged: it is made anew");
    if (one->index)
        tell_anew(tell, CHRON_PROBLEM_INDEX, name, CHRON__INDEX_AT, seq,
                  "the block index is not right: it is made anew");
    if (one->end)
        tell_anew(tell, CHRON_PROBLEM_RECORD, name, one->offset, one->next_seq, "END is missing: it is written");
    if (one->seal)
        tell_anew(tell, CHRON_PROBLEM_SEAL, name, CHRON__SEAL_AT, seq,
                  "the seal is missing or damaged: it is made anew");
    out->repaired_files += (uint64_t)one->anew;
    out->repaired_headers += (uint64_t)one->header;
    out->repaired_rolls += one->end || one->seal;
}

/* What the file of accepted gaps, the doorbell and the directories lack. */
static void tell_small_files(const chron__survey *s, chron__tell *tell)
{
    static const char *const directories[] = {CHRON__DIR_READERS, CHRON__DIR_QUARANTINE};
    const chron__io *io = s->q->io;
    uint8_t page[CHRON__PAGE] = {0};
    chron__file_header header;

    if (s->gaps_damaged)
        tell_anew(tell, CHRON_PROBLEM_FILE, CHRON__FILE_GAPS, 0, CHRON_SEQ_NONE,
                  "the list of accepted gaps is damaged: it is made anew, from what can be had of it");
    if (chron__read_file(io, s->q->dir, CHRON__FILE_DOORBELL, page, sizeof page) < (int64_t)sizeof page ||
        chron__header_decode(page, CHRON__MAGIC_DOORBELL, s->q->uuid, CHRON__FILE_DOORBELL, &header) == -CHRON_ECORRUPT)
        tell_anew(tell, CHRON_PROBLEM_DOORBELL, CHRON__FILE_DOORBELL, 0, CHRON_SEQ_NONE,
                  "the doorbell is missing or damaged: it is made anew");
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        int dir = io->open_dir(io, s->q->dir, directories[i]);

        if (dir >= 0)
            io->close_file(io, dir);
        else if (dir == -ENOENT)
            tell_anew(tell, CHRON_PROBLEM_FILE, directories[i], 0, CHRON_SEQ_NONE,
                      "the directory is missing: it is made");
    }
}

/* ------------------------------------------------------------------------------------------ the end */

/* Bytes behind the last record, in the segment that the log ends in. */
static int tell_tail(const chron__survey *s, chron__tell *tell, chron_recovery *out)
{
    const chron__stretch *one = &s->at[s->count - 1u];
    chron_problem found = {.kind = CHRON_PROBLEM_TAIL, .action = CHRON_ACTION_CUT, .offset = one->offset};
    char name[CHRON__NAME_BYTES];
    uint64_t end;
    chron__seg *seg;
    int status = chron__seg_open(s->q, one->base_seq, chron__hole_open_flags(s->wish), &seg);

    if (status < 0)
        return status;
    /* An END that leads nowhere is taken back first. */
    end = chron__seg_end_of_data(seg, one->offset + (one->stop == CHRON__STOP_END ? CHRON__RECORD_HEADER : 0));
    status = chron__map_faulted(&seg->map) ? chron__seg_fail_fault(seg, "") : 0;
    chron__seg_release(seg);
    if (status < 0 || end <= one->offset + (one->stop == CHRON__STOP_END ? CHRON__RECORD_HEADER : 0))
        return status;
    found.seq = one->next_seq;
    found.seq_end = CHRON_SEQ_NONE;
    chron__segment_name(one->base_seq, name);
    chron__tell_say(tell, &found, name, "%" PRIu64 " bytes behind the last record are kept in quarantine/, and erased",
                    end - one->offset);
    out->cut_bytes = end - one->offset;
    out->cut_records = s->cut_records;
    out->quarantined = 1;
    return 0;
}

/* All that carrying out the survey changes; counted in *out (cut_..., repaired_...). */
static int tell_all(const chron__survey *s, chron__tell *tell, chron_recovery *out)
{
    int status;

    tell_holes(s, tell);
    tell_aside(s, tell, out);
    for (size_t i = 0; i < s->count; i++)
        tell_stretch(&s->at[i], tell, out);
    tell_small_files(s, tell);
    status = s->count ? tell_tail(s, tell, out) : 0;
    return status;
}

/* All is told: does the caller want it done? */
static int ask(chron__tell *tell)
{
    chron_problem ready = {.kind = 0, .action = CHRON_ACTION_READY, .seq = CHRON_SEQ_NONE, .seq_end = CHRON_SEQ_NONE};

    chron__tell_say(tell, &ready, "", "%s", "");
    return tell->stopped ? chron__fail(CHRON_EINTR, "the repair was stopped by its caller; nothing was changed") : 0;
}

int chron__plan_offer(const chron__survey *s, chron__tell *tell)
{
    chron_recovery counts = {0};
    int status = tell_all(s, tell, &counts);

    return status < 0 ? status : ask(tell);
}

void chron__plan_report(const chron__survey *s, chron_recovery *report)
{
    const chron__slot_value *state = &s->wish->state;

    report->next_seq = s->next_seq;
    report->clean = (state->flags & CHRON__SLOT_CLEAN) != 0 || state->epoch == 0; /* never opened */
    report->scanned_records = s->scanned_records;
    report->scanned_bytes = s->scanned_bytes;
    if (s->cut_records > report->cut_records)
        report->cut_records = s->cut_records;
    report->lost_records =
        (state->flags & CHRON__SLOT_CLEAN) && state->next_seq > s->next_seq ? state->next_seq - s->next_seq : 0;
    report->gaps = s->accepted;
    report->gap_records = s->accepted_seqs;
    report->copied = s->wish->whence == CHRON__FROM_COPY;
}

int chron__plan_make(const chron__queue *q, chron__remains *r, chron__tell *tell, chron_recovery *out)
{
    chron__wish wish = {.repair = 1, .tell = tell};
    chron__survey s;
    int status = chron__remains_date(q, r);

    if (status < 0)
        return status;
    chron__remains_wish(r, &wish);
    chron__remains_tell(r, tell);
    status = chron__survey_make(q, &wish, &s);
    if (status == 0)
        status = tell_all(&s, tell, out);
    if (status == 0)
        chron__plan_report(&s, out);
    chron__survey_free(&s);
    return status < 0 ? status : ask(tell);
}
