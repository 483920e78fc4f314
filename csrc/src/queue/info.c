/* SPDX-License-Identifier: MIT */
/*
 * info.c - looking at a queue from outside, without a handle: geometry and state, segments, registered
 * readers. Reads only, except for chron_queue_reader_remove. Works beside a live writer: what is returned was
 * true at some moment of the call, though not all of it at the same one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/struct.h"
#include "format/header.h"
#include "format/position.h"
#include "format/segment.h"
#include "queue/kept.h"
#include "queue/rebuild.h"

/* `checked`: 0, or what was found wrong with the other arguments. Afterwards chron__queue_close in every case. */
static int open_path(const char *path, int checked, chron__queue *q)
{
    if (checked == 0 && path)
        return chron__remains_open(q, &chron__io_posix, path, CHRON_ALLOW_NETFS);
    memset(q, 0, sizeof *q);
    q->dir = q->meta_fd = -1;
    return checked < 0 ? checked : chron__fail(CHRON_EINVAL, "the path is NULL");
}

/* The oldest seq and how many segments there are; a directory of many is looked at only if no writer tells. */
static int log_front(const chron__queue *q, uint64_t *oldest, uint64_t *segments)
{
    chron__told told;
    chron__bases bases;
    int status = chron__queue_told(q, &told) ? 1 : chron__queue_list(q, &bases);

    *oldest = told.oldest;
    *segments = told.segments;
    if (status != 0)
        return status < 0 ? status : 0;
    *segments = bases.count;
    *oldest = bases.count ? bases.at[0] : 0;
    chron__bases_free(&bases);
    return 0;
}

static int fill_info(const chron__queue *q, chron_queue_info *out)
{
    chron__slot_value state;
    chron__writer_line line;
    chron__kept_list kept;
    int known = chron__queue_state(q, &state);
    int status;
    int alive;

    memcpy(out->uuid, q->uuid, sizeof out->uuid);
    out->segment_size = q->segment_size;
    out->created_ns = q->created_ns;
    out->format_version = CHRON_FORMAT_VERSION;
    out->meta_lost = q->meta_lost || !known;
    out->durable_seq = known && state.durable_next ? state.durable_next - 1u : CHRON_SEQ_NONE;
    out->epoch = state.epoch;
    alive = chron__queue_writer_alive(q);
    if (alive < 0)
        return alive;
    out->writer_alive = (uint32_t)alive;
    out->clean = !alive && (state.flags & CHRON__SLOT_CLEAN);
    if (alive) {
        chron__queue_writer_line(q, &line);
        out->writer_pid = line.pid;
        out->writer_start_ns = line.start_ns;
        memcpy(out->writer_host, line.host, sizeof out->writer_host);
    }
    if (chron__kept_load(q, &kept) == 0) { /* who may not look into it finds nothing there */
        out->quarantine_files = kept.count;
        out->quarantine_bytes = kept.bytes;
        chron__kept_free(&kept);
    }
    status = log_front(q, &out->oldest_seq, &out->segments);
    if (status < 0)
        return status;
    out->bytes = out->segments * q->segment_size;
    out->next_seq = state.next_seq;
    if (out->segments == 0)
        out->oldest_seq = state.next_seq;
    return out->segments ? chron__log_end(q, NULL, &out->next_seq) : 0;
}

int chron_queue_info_get(const char *path, chron_queue_info *out)
{
    chron_queue_info info = {0};
    chron__queue q;
    int status = open_path(path, chron__struct_check("chron_queue_info", out), &q);

    if (status == 0)
        status = fill_info(&q, &info);
    if (status == 0)
        chron__struct_give(&info, sizeof info, out);
    chron__queue_close(&q);
    return status;
}

/* --------------------------------------------------------------------------------------- segments */

static void fill_open(const chron__seg *seg, uint64_t known, chron_segment_info *out)
{
    chron__rec rec;
    uint64_t offset = seg->data_offset;
    uint64_t from;

    if (chron__rec_load(seg->map.base, seg->size, offset, &rec) == CHRON__REC_DATA)
        out->first_ts_ns = chron__rec_timestamp(&rec);
    (void)chron__seg_find(seg, CHRON_SEQ_NONE, known, &out->used_bytes, &out->next_seq);
    if (out->next_seq == seg->base_seq)
        return;
    /* The last record: a walk from the block in front of the end. */
    if (chron__seg_find_before(seg, out->next_seq, &from, &rec))
        out->last_ts_ns = chron__rec_timestamp(&rec);
}

/* 1; 0 if it was deleted since it was listed. */
static int fill_segment(const chron__queue *q, uint64_t base_seq, chron_segment_info *out)
{
    chron__slot_value state;
    chron__seal_value seal;
    chron__seg *seg;
    int status = chron__seg_open(q, base_seq, 0, &seg);

    memset(out, 0, sizeof *out);
    out->base_seq = base_seq;
    if (status < 0) {
        out->damaged = 1;
        return status != -CHRON_EGONE;
    }
    out->bytes = seg->size;
    out->created_ns = seg->created_ns;
    out->epoch = seg->epoch;
    if (chron__seg_seal_load(seg, &seal) == 1) {
        out->sealed = 1;
        out->next_seq = seal.last_seq + 1u;
        out->used_bytes = seal.end_offset;
        out->first_ts_ns = seal.first_ts;
        out->last_ts_ns = seal.last_ts;
    } else {
        (void)chron__queue_state(q, &state);
        fill_open(seg, chron__known_end(&state), out);
    }
    if (chron__map_faulted(&seg->map))
        *out = (chron_segment_info){.base_seq = base_seq, .damaged = 1};
    chron__seg_release(seg);
    return 1;
}

int64_t chron_queue_segments(const char *path, chron_segment_info *out, size_t capacity)
{
    chron__array array;
    chron__bases bases;
    chron__queue q;
    int64_t count = 0;
    int status = open_path(path, chron__array_take("chron_segment_info", out, capacity, &array), &q);

    if (status == 0)
        status = chron__queue_list(&q, &bases);
    if (status == 0) {
        for (size_t i = 0; i < bases.count; i++) {
            chron_segment_info info;

            if ((size_t)count < capacity) {
                if (!fill_segment(&q, bases.at[i], &info))
                    continue;
                chron__array_put(&array, (size_t)count, &info, sizeof info);
            }
            count++;
        }
        chron__bases_free(&bases);
    }
    chron__queue_close(&q);
    return status < 0 ? status : count;
}

/* ---------------------------------------------------------------------------------------- readers */

/* Where a reader that never committed would begin, and the end of the log. */
static int log_bounds(const chron__queue *q, uint64_t *oldest, uint64_t *next_seq)
{
    uint64_t segments;
    int status = log_front(q, oldest, &segments);

    *next_seq = 0;
    return status < 0 ? status : chron__log_end(q, NULL, next_seq);
}

static int fill_readers(const chron__queue *q, const chron__array *array, int64_t *count)
{
    chron__registered_list readers;
    uint64_t oldest;
    uint64_t next_seq;
    int status = chron__registered_load(q, &readers);

    if (status < 0)
        return status;
    *count = (int64_t)readers.count;
    /* After the positions: so that none of them lies beyond it. */
    status = log_bounds(q, &oldest, &next_seq);
    for (size_t i = 0; status == 0 && i < readers.count; i++) {
        const chron__registered *one = &readers.at[i];
        chron_reader_info info = {
            .alive = (uint32_t)one->alive, .damaged = (uint32_t)one->damaged, .updated_ns = one->value.time_ns};

        memcpy(info.name, one->name, sizeof info.name);
        info.sys_errno = chron__registered_errno(one);
        if (!one->damaged) {
            info.position = one->value.next_seq == CHRON_SEQ_NONE ? oldest : one->value.next_seq;
            info.lag = next_seq > info.position ? next_seq - info.position : 0;
            if (one->value.flags & CHRON__SLOT_UNDONE)
                info.lag = next_seq - one->value.segment_base;
        }
        chron__array_put(array, i, &info, sizeof info);
    }
    chron__registered_free(&readers);
    return status;
}

int64_t chron_queue_readers(const char *path, chron_reader_info *out, size_t capacity)
{
    chron__array array;
    chron__queue q;
    int64_t count = 0;
    int status = open_path(path, chron__array_take("chron_reader_info", out, capacity, &array), &q);

    if (status == 0)
        status = fill_readers(&q, &array, &count);
    chron__queue_close(&q);
    return status < 0 ? status : count;
}

/* The lock is taken through a second descriptor: `fd` proves that the name still leads to the same file. */
static int lock_and_unlink(const chron__queue *q, int fd, const char *file)
{
    const chron__io *io = q->io;
    chron__lock lock = {.map = NULL, .fd = -1};
    int status;
    int second = io->open_file(io, q->dir, file, CHRON__OPEN_WRITE, 0);

    if (second < 0)
        return second;
    status = io->lock(io, second, &lock);
    if (status < 0) {
        io->close_file(io, second);
        return status;
    }
    status = io->same_file(io, fd, q->dir, file);
    if (status == 0)
        status = -ENOENT; /* somebody else removed it, and perhaps registered anew */
    if (status > 0)
        status = io->unlink(io, q->dir, file);
    io->unlock(io, &lock); /* afterwards: whoever opened it meanwhile sees that the name is gone */
    return status;
}

static int remove_reader(const chron__queue *q, const char *name)
{
    char file[sizeof CHRON__DIR_READERS + CHRON__POSITION_NAME_BYTES];
    int status;
    int fd;

    (void)snprintf(file, sizeof file, CHRON__DIR_READERS "/%s.pos", name);
    fd = q->io->open_file(q->io, q->dir, file, CHRON__OPEN_WRITE, 0);
    status = fd;
    if (fd >= 0) {
        status = lock_and_unlink(q, fd, file);
        q->io->close_file(q->io, fd);
    }
    if (status == -ENOENT)
        return chron__fail(CHRON_ENOQUEUE, "there is no reader named %s", name);
    if (status == -EAGAIN)
        return chron__fail(CHRON_EREADER, "reader %s is active: close it first", name);
    return status < 0 ? chron__fail_sys(status, file, "cannot remove reader %s", name) : 0;
}

int chron_queue_reader_remove(const char *path, const char *name)
{
    chron__queue q;
    int status =
        open_path(path, name ? chron__reader_name_check(name) : chron__fail(CHRON_EINVAL, "the name is NULL"), &q);

    if (status == 0)
        status = remove_reader(&q, name);
    chron__queue_close(&q);
    return status;
}
