/* SPDX-License-Identifier: MIT */
/*
 * abi_program.c - uses most of the API and prints what it sees. tests/test_abi.py compiles it with headers of other
 * versions, one of which lacks the last field of every struct that grows: these are left alone here.
 */
#include <chronicle.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *path;

#define SAY(what, value) printf("%s %" PRIu64 "\n", what, (uint64_t)(value))

/* A call that has to succeed: what it returns. */
#define DO(call) done(#call, call)

static int64_t done(const char *call, int64_t status)
{
    if (status >= 0)
        return status;
    printf("%s: %s: %s\n", call, chron_strerror((int)status), chron_last_error()->text);
    exit(1);
}

static chron_writer *open_writer(void)
{
    chron_retention retention = {.struct_size = sizeof retention, .max_segments = 3};
    chron_writer_options options = {
        .struct_size = sizeof options,
        .flags = CHRON_CHECKED,
        .segment_size = CHRON_SEGMENT_SIZE_MIN,
        .durability = CHRON_DURABILITY_BATCH,
        .durability_n = 100,
        .max_segments = 5,
        .retention = &retention,
    };
    chron_writer *w;

    DO(chron_writer_open(path, &options, &w));
    return w;
}

static void append(chron_writer *w)
{
    static const char rows[] = "abcdef";
    const uint32_t offsets[] = {0, 1, 3, 6};
    const uint64_t stamps[] = {5, 6, 7};
    const chron_record batch[] = {{"one", 3, 3, 1, 0}, {"two", 3, 4, 2, 9}};
    chron_source source = {.struct_size = sizeof source,
                           .bytes = rows,
                           .bytes_size = 6,
                           .row_bytes = 2,
                           .type_id = 4,
                           .timestamps = stamps};
    void *room;

    SAY("append", DO(chron_writer_append(w, "hello", 5, 7, 1)));
    SAY("append_at", DO(chron_writer_append_at(w, "at", 2, 0, 0, 2)));
    SAY("not ready", chron_writer_try_append(w, "try", 3, 0, 0, 2) == CHRON_NOT_READY);
    SAY("batch", DO(chron_writer_append_batch(w, batch, 2)));
    SAY("rows", DO(chron_writer_append_source(w, &source, 0, 3)));
    source.offsets = offsets;
    source.offset_size = 4;
    SAY("offsets", DO(chron_writer_append_source_whole(w, &source, 0, 3)));
    DO(chron_writer_claim(w, 100, &room));
    memcpy(room, "claimed", 7);
    SAY("publish", DO(chron_writer_publish(w, 7, 0, 0, 8)));
    DO(chron_writer_claim(w, 100, &room));
    DO(chron_writer_abort(w));
    DO(chron_writer_sync(w));
    SAY("durable", chron_writer_durable_seq(w));
}

static void look_at_writer(chron_writer *w)
{
    chron_writer_stats stats = {.struct_size = sizeof stats};
    chron_recovery recovery = {.struct_size = sizeof recovery};

    DO(chron_writer_stats_get(w, &stats));
    SAY("stats.records", stats.records);
    SAY("stats.payload_bytes", stats.payload_bytes);
    SAY("stats.syncs", stats.syncs);
    SAY("stats.keeper_running", stats.keeper_running);
    DO(chron_writer_recovery_get(w, &recovery));
    SAY("recovery.next_seq", recovery.next_seq);
    SAY("recovery.epoch", recovery.epoch);
    SAY("recovery.clean", recovery.clean);
}

static void read_some(chron_reader *r)
{
    uint64_t seqs[8];
    uint32_t lengths[8];
    char copy[64];
    chron_columns columns = {
        .struct_size = sizeof columns, .seq = seqs, .length = lengths, .copy = copy, .bytes_max = sizeof copy};
    chron_segment *segment;
    chron_view v[3];
    char buffer[16];

    DO(chron_reader_next(r, v));
    printf("next %.*s type %u flags %u\n", (int)v->length, (const char *)v->payload, v->type_id, v->flags);
    DO(chron_reader_next_copy(r, buffer, sizeof buffer, v));
    printf("next_copy %.*s at %" PRIu64 "\n", (int)v->length, buffer, v->timestamp_ns);
    SAY("next_batch", DO(chron_reader_next_batch(r, v, 3)));
    printf("of type %u flags %u\n", v[2].type_id, v[2].flags);
    SAY("peek", DO(chron_reader_peek_columns(r, &columns, 8, &segment)));
    SAY("first seq", seqs[0]);
    SAY("shortest", columns.length_min);
    SAY("longest", columns.length_max);
    printf("copies %.17s\n", copy);
    SAY("segment", chron_segment_size(segment));
    SAY("faulted", chron_segment_faulted(segment));
    chron_segment_release(segment);
    DO(chron_reader_advance(r, 2));
    DO(chron_reader_previous(r, v));
    SAY("previous", v->seq);
    DO(chron_reader_seek_time(r, 7));
    SAY("seek_time", chron_reader_position(r));
    DO(chron_reader_seek(r, 3));
    DO(chron_reader_commit(r, 1));
    SAY("committed", chron_reader_committed(r));
    SAY("lag", DO(chron_reader_lag(r)));
    SAY("wait", DO(chron_reader_wait(r, 0)));
    SAY("writer_alive", DO(chron_reader_writer_alive(r)));
}

static void ring(chron_reader *r)
{
    uint32_t counts[2] = {0, 0};
    chron_bell *bells[2];

    DO(chron_reader_bell(r, &bells[0]));
    DO(chron_bell_new(&bells[1]));
    counts[0] = chron_bell_count(bells[0]);
    DO(chron_bell_ring(bells[1]));
    SAY("armed", DO(chron_reader_arm(r)));
    SAY("rung", DO(chron_bells_wait(bells, counts, 2, 0)));
    SAY("count", counts[1]);
    chron_bell_release(bells[0]);
    chron_bell_release(bells[1]);
}

static void look_at_queue(void)
{
    chron_queue_info info = {.struct_size = sizeof info};
    chron_segment_info segments[8] = {{.struct_size = sizeof *segments}};
    chron_reader_info readers[2] = {{.struct_size = sizeof *readers}};
    int64_t count;

    DO(chron_queue_info_get(path, &info));
    SAY("info.segment_size", info.segment_size);
    SAY("info.next_seq", info.next_seq);
    SAY("info.writer_alive", info.writer_alive);
    SAY("info.format_version", info.format_version);
    count = DO(chron_queue_segments(path, segments, 8));
    for (int64_t i = 0; i < count; i++)
        printf("segment %" PRIu64 " to %" PRIu64 " sealed %u\n", segments[i].base_seq, segments[i].next_seq,
               segments[i].sealed);
    count = DO(chron_queue_readers(path, readers, 2));
    for (int64_t i = 0; i < count; i++)
        printf("reader %s at %" PRIu64 " lag %" PRIu64 " alive %u\n", readers[i].name, readers[i].position,
               readers[i].lag, readers[i].alive);
}

static void clean(chron_writer *w)
{
    chron_retention retention = {.struct_size = sizeof retention, .max_segments = 4};
    chron_segment_fate fates[8] = {{.struct_size = sizeof *fates}};
    chron_cleanup plan = {.struct_size = sizeof plan};

    DO(chron_queue_cleanup_plan(path, &retention, &plan, fates, 8));
    SAY("plan.deleted_segments", plan.deleted_segments);
    for (uint64_t i = 0; i < plan.segments; i++)
        printf("fate of %" PRIu64 ": %u\n", fates[i].base_seq, fates[i].reason);
    DO(chron_writer_cleanup(w, &plan, fates, 8));
    SAY("cleanup.deleted_segments", plan.deleted_segments);
    SAY("cleanup.oldest_seq", plan.oldest_seq);
}

static int report(void *context, const chron_problem *problem)
{
    if (problem->kind)
        printf("%s\n", problem->text);
    ++*(int *)context;
    return 0;
}

static void fail(chron_reader *r)
{
    const chron_error *error = chron_last_error();

    printf("seek: %s\n", chron_strerror(chron_reader_seek(r, 1000)));
    printf("%d seq %" PRIu64 " next_seq %" PRIu64 "\n", error->code, error->seq, error->next_seq);
    printf("seek: %s\n", chron_strerror(chron_reader_seek(r, 0)));
    printf("%d seq %" PRIu64 " oldest %" PRIu64 "\n", error->code, error->seq, error->oldest);
}

int main(int argc, char **argv)
{
    chron_verify_summary summary = {.struct_size = sizeof summary};
    chron_reader_options options = {.struct_size = sizeof options, .name = "me"};
    chron_reader_stats stats = {.struct_size = sizeof stats};
    static char payload[20000];
    chron_writer *w;
    chron_reader *r;
    int reports = 0;

    if (argc != 2)
        return 2;
    path = argv[1];
    DO(chron_guard_install());
    SAY("crc", chron_crc32c(0, "123456789", 9));
    w = open_writer();
    append(w);
    look_at_writer(w);
    DO(chron_reader_open(path, &options, &r));
    read_some(r);
    ring(r);
    for (int i = 0; i < 12; i++)
        DO(chron_writer_append_at(w, payload, sizeof payload, 0, 0, 9));
    look_at_queue();
    clean(w);
    fail(r);
    DO(chron_reader_stats_get(r, &stats));
    SAY("stats.records", stats.records);
    DO(chron_reader_close(r));
    DO(chron_writer_close(w));
    DO(chron_queue_reader_remove(path, "me"));
    DO(chron_queue_verify(path, report, &reports, &summary));
    SAY("verify.records", summary.records);
    SAY("verify.problems", summary.problems);
    SAY("verify.segments", summary.segments);
    SAY("reports", reports > 0);
    return 0;
}
