/* SPDX-License-Identifier: MIT */
/*
 * queue.h - the queue directory: queue.meta, the list of segments, who writes. Shared by writer, reader,
 * recovery, retention, info and verify. A chron__queue belongs to one handle.
 */
#ifndef CHRON_QUEUE_H
#define CHRON_QUEUE_H

#include "chronicle.h"
#include "base/format.h"
#include "format/slots.h"
#include "platform/platform.h"

/* Room for a segment's file name, or that of anything else directly inside the queue's directory. */
#define CHRON__NAME_BYTES 96

typedef struct chron__queue {
    const chron__io *io;
    int dir;         /* descriptor of the queue's directory */
    int fs;          /* CHRON__FS_... of its file system */
    int meta_fd;     /* writer only, else -1 */
    chron__map meta; /* queue.meta: written by the writer, read-only for everybody else */
    int meta_lost;   /* what follows was taken from a segment: queue.meta is missing or damaged */
    uint8_t uuid[16];
    uint64_t segment_size;
    uint64_t created_ns;
    int reuses; /* files of segments that were deleted may become others (write/reuse.c) */
} chron__queue;

/* First seqs of the segments there are, ascending. Free with chron__bases_free. */
typedef struct chron__bases {
    uint64_t *at;
    size_t count;
    size_t capacity;
} chron__bases;

/* Open the directory only. flags: CHRON_ALLOW_NETFS. Afterwards chron__queue_close in every case. */
int chron__queue_open_dir(chron__queue *q, const chron__io *io, const char *path, uint32_t flags);

/* Open and check queue.meta. writable: for the holder of the writer's lock. ENOQUEUE if it is missing. */
int chron__queue_open_meta(chron__queue *q, const char *path, int writable);

/* Both of them. Who only looks goes on without queue.meta: chron__remains_open. */
int chron__queue_open(chron__queue *q, const chron__io *io, const char *path, uint32_t flags);

/* Write a new queue.meta, synced, under another name; q->uuid is the queue's from then on. Under the writer's lock. */
int chron__queue_prepare_meta(chron__queue *q, uint64_t segment_size, unsigned mode);
/* Give it its name, which must be free, and put that on disk. */
int chron__queue_name_meta(const chron__queue *q);
#define CHRON__FILE_META_NEW CHRON__FILE_META ".tmp"
/* A page of queue.meta, synced, in a new file of that name. */
int chron__queue_write_meta(const chron__queue *q, const uint8_t *page, unsigned mode);
/* It takes the place of queue.meta, in one step, and on disk. */
int chron__queue_swap_meta(const chron__queue *q);
/* Both. */
int chron__queue_replace_meta(const chron__queue *q, const uint8_t *page, unsigned mode);

/* The header of queue.meta, decoded: take the geometry over. ECORRUPT if it is impossible. */
int chron__queue_take_geometry(chron__queue *q, const chron__file_header *header);
/* The same the other way round: what the header of queue.meta says. */
void chron__queue_encode_geometry(const chron__queue *q, uint8_t *page);

void chron__queue_close(chron__queue *q);

/* The writer's state: durable_next, epoch, ... 1, or 0 if both slots are damaged, or queue.meta is not open. */
int chron__queue_state(const chron__queue *q, chron__slot_value *out);
/* As chron__slots_refresh(): as it was, if queue.meta is not open. */
static inline void chron__queue_refresh_state(const chron__queue *q, chron__slot_value *state)
{
    if (__builtin_expect(q->meta.base != NULL, 1))
        chron__slots_refresh(q->meta.base, state);
}

int chron__queue_list(const chron__queue *q, chron__bases *out);
void chron__bases_free(chron__bases *bases);
int chron__bases_add(chron__bases *bases, uint64_t base_seq); /* at the end; 0 or -ENOMEM */
/* Index of the segment that `seq` would be in: the last base not above it; -1 if all are above. */
int64_t chron__bases_find(const chron__bases *bases, uint64_t seq);

/* "00000000000000000042.seg"; `out` has CHRON__NAME_BYTES. */
void chron__segment_name(uint64_t base_seq, char *out);
/* 1 and *base_seq if `name` is a segment's. */
int chron__segment_name_parse(const char *name, uint64_t *base_seq);

/* Does some process hold the writer's lock? 1, 0, or a failure. */
int chron__queue_writer_alive(const chron__queue *q);

/* What the line in writer.lock says. Advice, for people: zeros and "" where it cannot be read. */
typedef struct chron__writer_line {
    int64_t pid;
    uint64_t start_ns;
    char host[64];
} chron__writer_line;
void chron__queue_writer_line(const chron__queue *q, chron__writer_line *out);

/* Everything of one small file. Returns its length, at most capacity, or -errno. */
int64_t chron__read_file(const chron__io *io, int dir, const char *name, void *buffer, size_t capacity);

#endif
