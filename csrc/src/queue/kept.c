/* SPDX-License-Identifier: MIT */
/*
 * kept.c - see kept.h. What a file is says its name (quarantine.c); a .cut tells more in its first page.
 */
#include "queue/kept.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/endian.h"
#include "base/error.h"
#include "base/step.h"
#include "format/header.h"
#include "queue/rebuild.h"

#define NS_PER_MS 1000000u
#define SHARE 4u /* of the queue's limits, a quarter */

/* ----------------------------------------------------------------------------------------- names */

static int take_number(const char **text, const char *prefix, uint64_t *out)
{
    size_t length = strlen(prefix);
    char *end;

    if (strncmp(*text, prefix, length) != 0 || (*text)[length] < '0' || (*text)[length] > '9')
        return 0;
    errno = 0;
    *out = strtoull(*text + length, &end, 10);
    *text = end;
    return errno == 0;
}

/* "<base>-e<epoch>.<n>.seg", "<base>-<offset>-e<epoch>.<n>.cut", "<file>-e<epoch>.<n>.damaged": 1. */
static int parse_name(const char *name, chron_quarantine_file *out)
{
    const char *rest = name;
    uint64_t number;

    out->base_seq = out->seq = out->first_seq = out->records = CHRON_SEQ_NONE;
    if (take_number(&rest, "", &out->base_seq) && rest == name + 20) {
        out->kind = take_number(&rest, "-", &out->offset) ? CHRON_QUARANTINE_CUT : CHRON_QUARANTINE_SEGMENT;
    } else {
        out->base_seq = CHRON_SEQ_NONE;
        out->kind = CHRON_QUARANTINE_FILE;
        rest = strstr(name, "-e");
    }
    return rest && take_number(&rest, "-e", &out->epoch) && take_number(&rest, ".", &number) &&
           strcmp(rest, out->kind == CHRON_QUARANTINE_CUT       ? ".cut"
                        : out->kind == CHRON_QUARANTINE_SEGMENT ? ".seg"
                                                                : ".damaged") == 0;
}

/* ---------------------------------------------------------------------------------------- listing */

static void read_cut(const chron__queue *q, int dir, chron_quarantine_file *one)
{
    uint8_t page[CHRON__CUT_AT + sizeof(chron__cut)] = {0};
    const uint8_t *cut = page + CHRON__CUT_AT;
    chron__file_header header;

    if (chron__read_file(q->io, dir, one->name, page, sizeof page) < (int64_t)sizeof page ||
        chron__header_decode(page, CHRON__MAGIC_CUT, q->uuid, one->name, &header) < 0 ||
        chron__read_le32(cut + offsetof(chron__cut, crc)) != chron_crc32c(0, cut, offsetof(chron__cut, crc)))
        return;
    one->seq = chron__read_le64(cut + offsetof(chron__cut, seq));
    one->first_seq = chron__read_le64(cut + offsetof(chron__cut, first_seq));
    one->records = chron__read_le64(cut + offsetof(chron__cut, records));
}

static int add_file(void *context, const char *name)
{
    chron__kept_list *list = context;
    chron_quarantine_file one = {.struct_size = sizeof one};

    if (strlen(name) >= sizeof one.name || !parse_name(name, &one))
        return 0;
    (void)snprintf(one.name, sizeof one.name, "%s", name);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2u : 16u;
        chron_quarantine_file *at = realloc(list->at, capacity * sizeof *at);

        if (!at)
            return -ENOMEM;
        list->at = at;
        list->capacity = capacity;
    }
    list->at[list->count++] = one;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const chron_quarantine_file *x = a;
    const chron_quarantine_file *y = b;

    if (x->epoch != y->epoch)
        return (x->epoch > y->epoch) - (x->epoch < y->epoch);
    return strcmp(x->name, y->name);
}

/* What the file system says of it. 0: it is gone, or no file. */
static int look_at(const chron__queue *q, int dir, chron_quarantine_file *one)
{
    chron__stat st;

    if (q->io->stat_name(q->io, dir, one->name, &st) < 0)
        return 0;
    one->bytes = st.allocated;
    one->kept_ns = st.changed_ns;
    if (st.is_regular && one->kind == CHRON_QUARANTINE_CUT)
        read_cut(q, dir, one);
    return 1;
}

int chron__kept_load(const chron__queue *q, chron__kept_list *out)
{
    size_t kept = 0;
    int status;
    int dir = q->io->open_dir(q->io, q->dir, CHRON__DIR_QUARANTINE);

    memset(out, 0, sizeof *out);
    if (dir == -ENOENT)
        return 0;
    if (dir < 0)
        return chron__fail_sys(dir, CHRON__DIR_QUARANTINE, "cannot open the directory quarantine");
    status = q->io->list(q->io, dir, add_file, out);
    for (size_t i = 0; status >= 0 && i < out->count; i++) {
        if (!look_at(q, dir, &out->at[i]))
            continue;
        out->bytes += out->at[i].bytes;
        out->at[kept++] = out->at[i];
    }
    q->io->close_file(q->io, dir);
    if (status < 0) {
        chron__kept_free(out);
        return chron__fail_sys(status, CHRON__DIR_QUARANTINE, "cannot list quarantine");
    }
    out->count = kept;
    if (kept)
        qsort(out->at, kept, sizeof *out->at, compare);
    return 0;
}

void chron__kept_free(chron__kept_list *list)
{
    free(list->at);
    memset(list, 0, sizeof *list);
}

void chron__kept_describe(const chron_quarantine_file *one, char *text, size_t capacity)
{
    size_t length;

    if (one->kind == CHRON_QUARANTINE_FILE)
        length = (size_t)snprintf(text, capacity, "a file of the queue, as it was");
    else if (one->kind == CHRON_QUARANTINE_SEGMENT)
        length = (size_t)snprintf(text, capacity, "the segment that began with seq %" PRIu64, one->base_seq);
    else
        length = (size_t)snprintf(text, capacity, "cut from the segment that begins with seq %" PRIu64, one->base_seq);
    if (one->records == CHRON_SEQ_NONE || length >= capacity)
        return;
    if (one->records)
        (void)snprintf(text + length, capacity - length, ": %" PRIu64 " whole records, from seq %" PRIu64 " on",
                       one->records, one->first_seq);
    else
        (void)snprintf(text + length, capacity - length, ": no whole record");
}

int64_t chron_queue_quarantine(const char *path, chron_quarantine_file *out, size_t capacity)
{
    chron__kept_list list = {0};
    chron__array array;
    chron__queue q;
    int64_t count;
    int status = path ? 0 : chron__fail(CHRON_EINVAL, "the path is NULL");

    if (status == 0)
        status = chron__array_take("chron_quarantine_file", out, capacity, &array);
    if (status < 0)
        return status;
    status = chron__remains_open(&q, &chron__io_posix, path, CHRON_ALLOW_NETFS);
    if (status == 0)
        status = chron__kept_load(&q, &list);
    for (size_t i = 0; status == 0 && i < list.count; i++)
        chron__array_put(&array, i, &list.at[i], sizeof list.at[i]);
    count = (int64_t)list.count;
    chron__kept_free(&list);
    chron__queue_close(&q);
    return status < 0 ? status : count;
}

/* --------------------------------------------------------------------------------------- bounding */

chron__kept_limits chron__kept_limits_of(const chron__queue *q, const chron_retention *retention, uint64_t segments)
{
    chron__kept_limits limits = {.max_bytes = retention->quarantine_max_bytes,
                                 .max_age_ms = retention->quarantine_max_age_ms};
    uint64_t all = retention->max_bytes;

    if (retention->max_segments && (!all || retention->max_segments < all / q->segment_size))
        all = retention->max_segments * q->segment_size;
    if (segments && (!all || segments < all / q->segment_size))
        all = segments * q->segment_size;
    if (!limits.max_bytes && all)
        limits.max_bytes = all / SHARE > q->segment_size + CHRON__PAGE ? all / SHARE : q->segment_size + CHRON__PAGE;
    return limits;
}

/* `left_bytes` are there, with it. */
static int is_beyond(const chron__kept_limits *limits, const chron_quarantine_file *one, int is_newest,
                     uint64_t left_bytes, uint64_t now_ns)
{
    if (limits->max_bytes && left_bytes > limits->max_bytes && !is_newest)
        return 1;
    return limits->max_age_ms && now_ns > one->kept_ns && (now_ns - one->kept_ns) / NS_PER_MS >= limits->max_age_ms;
}

static int delete_file(const chron__queue *q, const char *name)
{
    char path[sizeof CHRON__DIR_QUARANTINE + sizeof((chron_quarantine_file *)0)->name];
    int status;

    (void)snprintf(path, sizeof path, CHRON__DIR_QUARANTINE "/%s", name);
    CHRON__STEP("quarantine: before unlink");
    status = q->io->unlink(q->io, q->dir, path);
    return status < 0 && status != -ENOENT ? chron__fail_sys(status, path, "cannot delete %s", path) : 0;
}

int chron__kept_trim(const chron__queue *q, const chron__kept_limits *limits, int delete_too, chron_cleanup *out)
{
    uint64_t now_ns = chron__clock_ns(0);
    chron__kept_list list;
    int status = chron__kept_load(q, &list);

    if (status < 0)
        return status;
    out->quarantine_files = list.count;
    out->quarantine_bytes = list.bytes;
    for (size_t i = 0; status == 0 && i < list.count; i++) {
        const chron_quarantine_file *one = &list.at[i];

        int is_newest = one->epoch == list.at[list.count - 1u].epoch;

        if (!is_beyond(limits, one, is_newest, out->quarantine_bytes, now_ns))
            continue;
        if (delete_too)
            status = delete_file(q, one->name);
        if (status < 0)
            break;
        out->quarantine_files--;
        out->quarantine_bytes -= one->bytes;
        out->quarantine_deleted_files++;
        out->quarantine_deleted_bytes += one->bytes;
    }
    chron__kept_free(&list);
    return status;
}

void chron__kept_report(const chron_cleanup *kept, chron_cleanup *out)
{
    out->quarantine_files = kept->quarantine_files;
    out->quarantine_bytes = kept->quarantine_bytes;
    out->quarantine_deleted_files = kept->quarantine_deleted_files;
    out->quarantine_deleted_bytes = kept->quarantine_deleted_bytes;
}

void chron__kept_count(chron_retention *limits, uint64_t kept_bytes)
{
    if (limits->max_bytes)
        limits->max_bytes = limits->max_bytes > kept_bytes ? limits->max_bytes - kept_bytes : 1u;
}
