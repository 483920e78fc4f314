/* SPDX-License-Identifier: MIT */
/*
 * test_power.c - what a loss of power leaves, simulated. A table of system calls (chron__io) passes everything on to
 * the real disk and remembers what has been synced: file contents by msync and fsync, names by fsync of their
 * directory. From that a directory is made as a disk could look afterwards: what was synced is there; of all
 * else, each sector may be there or not, and of the names that changed since, the first so many.
 *
 * The promise: every record up to durable_seq is there and unaltered; the rest is a run of whole records behind
 * them; the queue opens without repair, goes on, and verifies. Run over several generations, so that remnants of
 * an earlier one lie under the next.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "chronicle.h"
#include "platform/platform.h"
#include "records.h"
#include "temporary.h"
#include "write/writer.h"

#define SECTOR 512u
#define FILES_MAX 256
#define CHANGES_MAX 256
#define GENERATIONS 4
#define BATCH 5

/* The content of one file, as far as it is on disk. */
typedef struct synced_file {
    ino_t inode;
    uint8_t *bytes;
    size_t size;
    int kept_fd; /* keeps the inode from being used again */
} synced_file;

typedef struct name {
    char text[64];
    ino_t inode;
} name;

typedef struct change {
    name from; /* inode 0: it was not there */
    name to;   /* inode 0: it is gone */
    ino_t directory;
} change;

static synced_file files[FILES_MAX];
static size_t file_count;
static name names[FILES_MAX]; /* on disk, in the queue's directory */
static size_t name_count;
static change changes[CHANGES_MAX]; /* since, in order */
static size_t change_count;
static uint64_t dice_state;
static chron__io io;
static uint64_t boot;
static uint64_t asked; /* openings that were refused because they might lose too much */
static pthread_mutex_t recording = PTHREAD_MUTEX_INITIALIZER; /* the keeper makes system calls as well */

static uint64_t dice(uint64_t sides)
{
    dice_state = dice_state * 6364136223846793005u + 1442695040888963407u;
    return (dice_state >> 33) % sides;
}

/* ----------------------------------------------------------------------------------------- recording */

static synced_file *file_of(int fd)
{
    struct stat st;

    CHECK_EQ(fstat(fd, &st), 0);
    for (size_t i = 0; i < file_count; i++)
        if (files[i].inode == st.st_ino)
            return &files[i];
    CHECK(file_count < FILES_MAX);
    files[file_count] = (synced_file){.inode = st.st_ino, .kept_fd = dup(fd)};
    return &files[file_count++];
}

static void note_synced(int fd, uint64_t offset, uint64_t bytes)
{
    synced_file *file = file_of(fd);
    struct stat st;
    size_t end = (size_t)(offset + bytes);

    CHECK_EQ(fstat(fd, &st), 0);
    if (file->size < (size_t)st.st_size) {
        file->bytes = realloc(file->bytes, (size_t)st.st_size);
        memset(file->bytes + file->size, 0, (size_t)st.st_size - file->size);
        file->size = (size_t)st.st_size;
    }
    if (end > file->size)
        end = file->size;
    if (end > offset) /* an empty file has no bytes */
        CHECK_EQ(pread(fd, file->bytes + offset, end - offset, (off_t)offset), (ssize_t)(end - offset));
}

/* The real disk is left out: what would be on it is what the page cache holds now. */
static int sync_map(const chron__io *self, int fd, const chron__map *map, uint64_t offset, uint64_t bytes)
{
    uint64_t from = offset / CHRON__PAGE * CHRON__PAGE;

    (void)self;
    (void)map;
    (void)pthread_mutex_lock(&recording);
    note_synced(fd, from, offset + bytes - from);
    (void)pthread_mutex_unlock(&recording);
    return 0;
}

static int sync_file(const chron__io *self, int fd)
{
    (void)self;
    (void)pthread_mutex_lock(&recording);
    note_synced(fd, 0, UINT32_MAX);
    (void)pthread_mutex_unlock(&recording);
    return 0;
}

static ino_t inode_of(int dir, const char *text)
{
    struct stat st;

    return fstatat(dir, text, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_ino : 0;
}

static ino_t inode_of_directory(int dir)
{
    struct stat st;

    CHECK_EQ(fstat(dir, &st), 0);
    return st.st_ino;
}

static void note_change(int dir, const char *from, ino_t from_inode, const char *to, ino_t to_inode)
{
    CHECK(change_count < CHANGES_MAX);
    changes[change_count] = (change){{"", from_inode}, {"", to_inode}, inode_of_directory(dir)};
    (void)snprintf(changes[change_count].from.text, sizeof changes->from.text, "%s", from);
    (void)snprintf(changes[change_count++].to.text, sizeof changes->to.text, "%s", to);
}

static void apply_change(name *list, size_t *count, const change *one)
{
    for (size_t i = 0; i < *count; i++)
        if ((one->from.inode && strcmp(list[i].text, one->from.text) == 0) ||
            (one->to.inode && strcmp(list[i].text, one->to.text) == 0))
            list[i--] = list[--*count];
    if (one->to.inode) {
        CHECK(*count < FILES_MAX);
        list[(*count)++] = one->to;
    }
}

static int sync_dir(const chron__io *self, int dir)
{
    size_t kept = 0;

    (void)self;
    (void)pthread_mutex_lock(&recording);
    for (size_t i = 0; i < change_count; i++) {
        if (changes[i].directory == inode_of_directory(dir))
            apply_change(names, &name_count, &changes[i]);
        else
            changes[kept++] = changes[i];
    }
    change_count = kept;
    (void)pthread_mutex_unlock(&recording);
    return 0;
}

static int open_file(const chron__io *self, int dir, const char *text, int flags, unsigned mode)
{
    ino_t before;
    int fd;

    (void)pthread_mutex_lock(&recording);
    before = inode_of(dir, text);
    fd = chron__io_posix.open_file(self, dir, text, flags, mode);
    if (fd >= 0 && !before && !strchr(text, '/'))
        note_change(dir, "", 0, text, inode_of(dir, text));
    (void)pthread_mutex_unlock(&recording);
    return fd;
}

static int rename_file(const chron__io *self, int from_dir, const char *from, int to_dir, const char *to)
{
    ino_t inode;
    int status;

    (void)pthread_mutex_lock(&recording);
    inode = inode_of(from_dir, from);
    status = chron__io_posix.rename(self, from_dir, from, to_dir, to);
    if (status == 0)
        note_change(from_dir, from, inode, to, strchr(to, '/') ? 0 : inode);
    (void)pthread_mutex_unlock(&recording);
    return status;
}

static int rename_new(const chron__io *self, int dir, const char *from, const char *to)
{
    CHECK_EQ(inode_of(dir, to), 0u);
    return rename_file(self, dir, from, dir, to);
}

/* The disk, as it would be read past the page cache. */
static int64_t read_device(const chron__io *self, int dir, const char *text, void *buffer, size_t bytes,
                           uint64_t offset)
{
    size_t n = 0;

    (void)self;
    (void)pthread_mutex_lock(&recording);
    for (size_t i = 0; i < file_count; i++) {
        if (files[i].inode != inode_of(dir, text) || offset >= files[i].size)
            continue;
        n = files[i].size - (size_t)offset < bytes ? files[i].size - (size_t)offset : bytes;
        memcpy(buffer, files[i].bytes + offset, n);
    }
    (void)pthread_mutex_unlock(&recording);
    return (int64_t)n;
}

/* One file for good, on a machine that was started once for each loss of power. */
static int place(const chron__io *self, int fd, chron__place *out)
{
    (void)self;
    (void)fd;
    *out = (chron__place){.device = 1, .inode = 2, .birth_ns = 3};
    memcpy(out->boot, &boot, sizeof boot);
    return 0;
}

static int unlink_file(const chron__io *self, int dir, const char *text)
{
    ino_t inode;
    int status;

    (void)pthread_mutex_lock(&recording);
    inode = inode_of(dir, text);
    status = chron__io_posix.unlink(self, dir, text);
    if (status == 0)
        note_change(dir, text, inode, "", 0);
    (void)pthread_mutex_unlock(&recording);
    return status;
}

static void start_recording(const char *path)
{
    DIR *stream;

    for (size_t i = 0; i < file_count; i++) {
        free(files[i].bytes);
        close(files[i].kept_fd);
    }
    file_count = name_count = change_count = 0;
    io = chron__io_posix;
    io.sync_map = sync_map;
    io.sync_file = sync_file;
    io.sync_dir = sync_dir;
    io.open_file = open_file;
    io.rename = rename_file;
    io.rename_new = rename_new;
    io.read_device = read_device;
    io.place = place;
    io.unlink = unlink_file;
    stream = opendir(path);
    for (struct dirent *entry; stream && (entry = readdir(stream));) { /* what survived the last one is on disk */
        int fd = openat(dirfd(stream), entry->d_name, O_RDONLY);
        struct stat st;

        CHECK_EQ(fstat(fd, &st), 0);
        if (S_ISREG(st.st_mode)) {
            note_synced(fd, 0, UINT32_MAX);
            names[name_count] = (name){.inode = st.st_ino};
            (void)snprintf(names[name_count++].text, sizeof names->text, "%.63s", entry->d_name);
        }
        close(fd);
    }
    if (stream)
        closedir(stream);
}

/* -------------------------------------------------------------------------------------- losing power */

/*
 * A sector as it was, as it became, or, if it was being written for the first time just then, as nobody ever wrote it. That
 * one which holds something already keeps at least that, as disks promise: what SQLite calls a powersafe overwrite.
 */
static const uint8_t *one_outcome(const uint8_t *now, const uint8_t *synced)
{
    static uint8_t garbage[SECTOR];

    if (memcmp(now, synced, SECTOR) == 0 || dice(2))
        return now;
    if (dice(4) || !chron__is_zero(synced, SECTOR))
        return synced;
    for (size_t i = 0; i < SECTOR; i++)
        garbage[i] = (uint8_t)dice(256);
    return garbage;
}

static void write_survivor(int dir, const name *one)
{
    static uint8_t zeros[SECTOR];
    synced_file *file = NULL;
    struct stat st;
    uint8_t *now;
    int fd;

    for (size_t i = 0; i < file_count; i++)
        if (files[i].inode == one->inode)
            file = &files[i];
    fd = openat(dir, one->text, O_CREAT | O_RDWR | O_TRUNC, 0600);
    CHECK(fd >= 0);
    if (file) {
        CHECK_EQ(fstat(file->kept_fd, &st), 0);
        now = malloc((size_t)st.st_size + 1);
        CHECK_EQ(pread(file->kept_fd, now, (size_t)st.st_size, 0), st.st_size);
        CHECK_EQ(ftruncate(fd, st.st_size), 0);
        for (size_t at = 0; at < (size_t)st.st_size; at += SECTOR) {
            const uint8_t *synced = at < file->size ? file->bytes + at : zeros;
            size_t bytes = (size_t)st.st_size - at < SECTOR ? (size_t)st.st_size - at : SECTOR;

            if (bytes == SECTOR)
                CHECK_EQ(pwrite(fd, one_outcome(now + at, synced), bytes, (off_t)at), (ssize_t)bytes);
        }
        free(now);
    }
    close(fd);
}

/* Make at `to` what the disk could hold if the power went now. */
static void lose_power(const char *to)
{
    name left[FILES_MAX];
    size_t count = name_count;
    size_t applied = dice(change_count + 1);
    int dir;

    memcpy(left, names, sizeof left);
    for (size_t i = 0; i < applied; i++)
        apply_change(left, &count, &changes[i]);
    boot++;
    CHECK_EQ(mkdir(to, 0700), 0);
    dir = open(to, O_RDONLY | O_DIRECTORY);
    CHECK(mkdirat(dir, "readers", 0700) == 0 && mkdirat(dir, "quarantine", 0700) == 0);
    for (size_t i = 0; i < count; i++)
        write_survivor(dir, &left[i]);
    close(dir);
}

/* ------------------------------------------------------------------------------------------ the work */

static void append_some(chron_writer *w)
{
    static uint8_t payloads[BATCH][RECORD_PAYLOAD_MAX];
    chron_record batch[BATCH];
    uint64_t seq = chron_writer_next_seq(w);
    void *room;

    switch (dice(3)) {
    case 0:
        CHECK_EQ(chron_writer_append_at(w, payloads[0], record_fill(seq, payloads[0]), 1, 2, seq), (int64_t)seq);
        break;
    case 1:
        for (unsigned n = 0; n < BATCH; n++)
            batch[n] = (chron_record){payloads[n], record_fill(seq + n, payloads[n]), seq + n, 1, 2};
        CHECK_EQ(chron_writer_append_batch(w, batch, BATCH), (int64_t)seq);
        break;
    default:
        CHECK_EQ(chron_writer_claim(w, RECORD_PAYLOAD_MAX, &room), 0);
        CHECK_EQ(chron_writer_publish(w, record_fill(seq, room), 1, 2, seq), (int64_t)seq);
    }
}

/* One process's life with the queue at `path`. Returns the seq that must survive, exclusive. */
static uint64_t live(const char *path, uint64_t must_be_there, chron_writer **out)
{
    static const uint32_t durabilities[] = {CHRON_DURABILITY_NONE, CHRON_DURABILITY_BATCH, CHRON_DURABILITY_ALWAYS};
    chron_writer_options options = {.struct_size = sizeof options};
    chron_writer *w;
    uint64_t operations = dice(120);
    uint64_t durable;

    options.segment_size = CHRON_SEGMENT_SIZE_MIN;
    options.durability = durabilities[dice(3)];
    options.durability_n = 7;
    options.flags = CHRON_TORN_CUT | (dice(2) ? CHRON_KEEPER : 0);
    CHECK_EQ(chron__writer_open_with(&io, path, &options, &w), 0);
    CHECK(chron_writer_next_seq(w) >= must_be_there);
    for (uint64_t i = 0; i < operations; i++) {
        append_some(w);
        if (dice(10) == 0)
            CHECK_EQ(chron_writer_sync(w), 0);
    }
    CHECK_EQ(chron_writer_keeper_stop(w), 0);
    durable = chron_writer_durable_seq(w) + 1u; /* none: CHRON_SEQ_NONE + 1 = 0 */
    *out = w;
    return durable > must_be_there ? durable : must_be_there;
}

/* The process ends without closing: nothing is synced, nor marked as closed. What it wrote is in the page cache. */
static void die(chron_writer *w)
{
    chron__set32(&w->poisoned, 1);
    w->was_told = 1;
    CHECK_EQ(chron_writer_close(w), 0);
}

/*
 * One generation: writers come and die at `path`, the last one loses power, into `next`. Returns the seq that must
 * survive, exclusive.
 */
static uint64_t generation(const char *path, const char *next, uint64_t must_be_there)
{
    chron_writer *w;

    start_recording(path);
    while (dice(2)) {
        must_be_there = live(path, must_be_there, &w);
        die(w);
    }
    must_be_there = live(path, must_be_there, &w);
    if (dice(4) == 0) {
        if (w->options.durability != CHRON_DURABILITY_NONE)
            must_be_there = chron_writer_next_seq(w);
        CHECK_EQ(chron_writer_close(w), 0);
        lose_power(next);
    } else {
        lose_power(next);
        CHECK_EQ(chron_writer_close(w), 0);
    }
    return must_be_there;
}

static void check_survivor(const char *path, uint64_t durable)
{
    chron_verify_summary summary = {.struct_size = sizeof summary};
    chron_writer *w;
    char command[TEMPORARY_BYTES * 3];
    uint64_t end;

    /* On a copy: the next generation meets the survivor as it is. */
    (void)snprintf(command, sizeof command, "cp -r '%s' '%s.check'", path, path);
    CHECK_EQ(system(command), 0);
    (void)snprintf(command, sizeof command, "%s.check", path);
    if (chron__writer_open_with(&io, command, NULL, &w) < 0) {
        const chron_writer_options options = {.struct_size = sizeof options, .flags = CHRON_TORN_CUT};

        /* More lies behind a torn record than in front of it: that is for people to decide. */
        CHECK_EQ(chron_last_error()->code, CHRON_ECORRUPT);
        if (!strstr(chron_last_error()->text, "torn=cut"))
            fprintf(stderr, "%s\n", chron_last_error()->text);
        CHECK(strstr(chron_last_error()->text, "torn=cut") != NULL);
        asked++;
        if (chron__writer_open_with(&io, command, &options, &w) < 0)
            fprintf(stderr, "%s\n", chron_last_error()->text);
    }
    CHECK(w != NULL);
    end = chron_writer_next_seq(w);
    CHECK(end >= durable);
    append_some(w);
    CHECK_EQ(chron_writer_close(w), 0);
    CHECK(records_check(command, end + 1u) >= end + 1u);
    CHECK_EQ(chron_queue_verify(command, NULL, NULL, &summary), 0);
    CHECK_EQ(summary.problems, 0u);
}

static void test_loss_of_power(void)
{
    const char *wanted = getenv("CHRON_POWER_RUNS");
    uint64_t runs = wanted ? strtoull(wanted, NULL, 10) : 40;

    for (uint64_t seed = 1; seed <= runs; seed++) {
        char path[TEMPORARY_BYTES];
        char places[GENERATIONS + 1][TEMPORARY_BYTES + 16];
        uint64_t durable = 0;

        dice_state = seed;
        temporary_directory(path);
        for (int g = 0; g <= GENERATIONS; g++)
            (void)snprintf(places[g], sizeof places[g], "%s%d", path, g);
        for (int g = 0; g < GENERATIONS; g++) {
            durable = generation(places[g], places[g + 1], durable);
            if (access(places[g + 1], F_OK) != 0)
                break;
            check_survivor(places[g + 1], durable);
        }
        temporary_remove(path);
    }
    printf("    %llu of %llu openings had to ask\n", (unsigned long long)asked,
           (unsigned long long)(runs * GENERATIONS));
}

int main(void)
{
    RUN(test_loss_of_power);
    return 0;
}
