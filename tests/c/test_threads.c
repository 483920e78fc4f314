/* SPDX-License-Identifier: MIT */
/*
 * test_threads.c - a writer with its keeper, readers that come and go, a looker-on, all threads of one process. For
 * ThreadSanitizer, which sees races on one address only, all handles share one mapping of each file: the table of
 * system calls hands out the same mapping for the same inode. CHRON_STRESS_RECORDS sets how many (default 20,000).
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "read/reader.h"
#include "records.h"
#include "temporary.h"
#include "write/writer.h"

#define READERS 3
#define SHARED_MAX 64

typedef struct shared_map {
    dev_t device;
    ino_t inode;
    int uses;
    chron__map map;
} shared_map;

static shared_map maps[SHARED_MAX];
static pthread_mutex_t maps_lock = PTHREAD_MUTEX_INITIALIZER;
static char path[TEMPORARY_BYTES];
static chron__io io;
static uint64_t records = 20000;

static int map_shared(const chron__io *self, int fd, size_t bytes, int flags, chron__map *out)
{
    struct stat st;
    shared_map *slot = NULL;
    int status = 0;

    CHECK_EQ(fstat(fd, &st), 0);
    (void)pthread_mutex_lock(&maps_lock);
    for (size_t i = 0; i < SHARED_MAX; i++) {
        if (maps[i].uses && maps[i].inode == st.st_ino && maps[i].device == st.st_dev && maps[i].map.bytes == bytes)
            slot = &maps[i];
    }
    for (size_t i = 0; i < SHARED_MAX && !slot; i++) {
        if (maps[i].uses)
            continue;
        slot = &maps[i];
        slot->inode = st.st_ino;
        slot->device = st.st_dev;
        status = chron__io_posix.map(self, fd, bytes, flags | CHRON__MAP_WRITE, &slot->map);
    }
    CHECK(slot != NULL);
    if (status == 0) {
        slot->uses++;
        *out = slot->map;
    }
    (void)pthread_mutex_unlock(&maps_lock);
    return status;
}

static void unmap_shared(const chron__io *self, chron__map *map)
{
    (void)pthread_mutex_lock(&maps_lock);
    for (size_t i = 0; i < SHARED_MAX; i++) {
        if (!maps[i].uses || maps[i].map.base != map->base)
            continue;
        if (--maps[i].uses == 0)
            chron__io_posix.unmap(self, &maps[i].map);
        memset(map, 0, sizeof *map);
        break;
    }
    (void)pthread_mutex_unlock(&maps_lock);
}

/* That whoever opens a name sees what was written before the rename, the kernel sees to; TSan has to be told. */
static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;

static int open_writable(const chron__io *self, int dir, const char *name, int flags, unsigned mode)
{
    int fd;

    (void)pthread_mutex_lock(&names_lock);
    fd = chron__io_posix.open_file(self, dir, name, flags | CHRON__OPEN_WRITE, mode); /* one mapping serves all */
    (void)pthread_mutex_unlock(&names_lock);
    return fd;
}

static int rename_told(const chron__io *self, int from_dir, const char *from, int to_dir, const char *to)
{
    int status;

    (void)pthread_mutex_lock(&names_lock);
    status = chron__io_posix.rename(self, from_dir, from, to_dir, to);
    (void)pthread_mutex_unlock(&names_lock);
    return status;
}

static void *write_all(void *argument)
{
    static uint8_t payloads[4][RECORD_PAYLOAD_MAX];
    chron_writer *w = argument;
    uint64_t seq;
    void *room;

    while ((seq = chron_writer_next_seq(w)) < records) {
        chron_record batch[4];

        switch (seq % 3) {
        case 0:
            CHECK_EQ(chron_writer_append_at(w, payloads[0], record_fill(seq, payloads[0]), 1, 2, seq), (int64_t)seq);
            break;
        case 1:
            for (unsigned n = 0; n < 4; n++)
                batch[n] = (chron_record){payloads[n], record_fill(seq + n, payloads[n]), seq + n, 1, 2};
            CHECK_EQ(chron_writer_append_batch(w, batch, 4), (int64_t)seq);
            break;
        default:
            CHECK_EQ(chron_writer_claim(w, RECORD_PAYLOAD_MAX, &room), 0);
            CHECK_EQ(chron_writer_publish(w, record_fill(seq, room), 1, 2, seq), (int64_t)seq);
        }
        if (seq % 500 == 0)
            CHECK_EQ(chron_writer_cleanup(w, NULL, NULL, 0), 0);
    }
    return NULL;
}

static void *read_all(void *argument)
{
    static _Thread_local uint8_t expected[RECORD_PAYLOAD_MAX];
    chron_reader_options options = {.struct_size = sizeof options};
    chron_reader *r;
    chron_view v;
    uint64_t seq = 0;

    options.name = argument;
    CHECK_EQ(chron__reader_open_with(&io, path, &options, &r), 0);
    while (seq < records) {
        int status = chron_reader_next(r, &v);

        CHECK(status >= 0);
        if (status == 0) {
            CHECK(chron_reader_wait(r, 20000000000) == 1);
            continue;
        }
        CHECK_EQ(v.seq, seq);
        CHECK_EQ(v.length, record_fill(seq, expected));
        CHECK(memcmp(v.payload, expected, v.length) == 0);
        if (++seq % 100 == 0)
            CHECK_EQ(chron_reader_commit(r, 0), 0);
        if (seq % 1000 == 0) {
            CHECK(chron_reader_lag(r) >= 0);
            CHECK_EQ(chron_reader_previous(r, &v), 1);
            CHECK_EQ(chron_reader_next(r, &v), 1);
        }
    }
    CHECK_EQ(chron_reader_close(r), 0);
    return NULL;
}

static void test_writer_keeper_and_readers(void)
{
    static char names[READERS][2] = {"a", "b", "c"};
    chron_writer_options options = {.struct_size = sizeof options};
    chron_retention retention = {.struct_size = sizeof retention, .automatic = 1};
    chron_writer_stats stats = {.struct_size = sizeof stats};
    pthread_t threads[READERS + 1];
    chron_writer *w;

    temporary_directory(path);
    io = chron__io_posix;
    io.map = map_shared;
    io.unmap = unmap_shared;
    io.open_file = open_writable;
    io.rename = rename_told;
    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.flags = CHRON_KEEPER;
    options.durability = CHRON_DURABILITY_INTERVAL;
    options.durability_n = 2;
    options.retention = &retention;
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    for (int i = 0; i < READERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, read_all, names[i]), 0);
    CHECK_EQ(pthread_create(&threads[READERS], NULL, write_all, w), 0);
    for (int i = 0; i <= READERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(chron_writer_stats_get(w, &stats), 0);
    CHECK(stats.rolls > 100);
    CHECK_EQ(stats.keeper_errors, 0);
    CHECK_EQ(chron_writer_close(w), 0);
    for (size_t i = 0; i < SHARED_MAX; i++)
        CHECK_EQ(maps[i].uses, 0);
    temporary_remove(path);
}

int main(void)
{
    const char *wanted = getenv("CHRON_STRESS_RECORDS");

    if (wanted)
        records = strtoull(wanted, NULL, 10);
    RUN(test_writer_keeper_and_readers);
    return 0;
}
