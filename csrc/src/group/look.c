/* SPDX-License-Identifier: MIT */
/* look.c - groups seen from outside: which there are, how far they are, who has what; and removing one. No lock is taken to look. */
#include <stdlib.h>

#include "base/error.h"
#include "base/struct.h"
#include "format/group.h"
#include "format/segment.h"
#include "queue/rebuild.h"

#define DECISECOND_NS 100000000u

static int open_path(const char *path, chron__queue *q)
{
    if (path)
        return chron__remains_open(q, &chron__io_posix, path, CHRON_ALLOW_NETFS);
    memset(q, 0, sizeof *q);
    q->dir = q->meta_fd = -1;
    return chron__fail(CHRON_EINVAL, "the path is NULL");
}

typedef struct names {
    char (*at)[72];
    size_t count;
    size_t capacity;
} names;

static int add_name(void *context, const char *name)
{
    names *list = context;

    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2u : 16u;
        char(*at)[72] = realloc(list->at, capacity * sizeof *at);

        if (!at)
            return -12; /* as ENOMEM */
        list->at = at;
        list->capacity = capacity;
    }
    memset(list->at[list->count], 0, sizeof *list->at);
    memcpy(list->at[list->count++], name, strlen(name) + 1u);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static uint64_t next_of(const chron__group_file *file, uint64_t floor)
{
    uint64_t next = chron__group_word(file, CHRON__GROUP_NEXT);

    return next < floor || next > floor + file->window ? floor : next;
}

static uint32_t count_members(const chron__group_file *file)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < CHRON__GROUP_SLOTS; i++) {
        /* [TURN] a number for people */
        uint32_t one = chron__load_acquire_le32(file->members.table + (size_t)i * CHRON__TURN_ENTRY);

        if (one != 0 && chron__turn_is_dead(&file->members, (one & 0x1FFFFFu) << CHRON__TURN_SLOT_BITS | i) == 0)
            count++;
    }
    return count;
}

static void count_jobs(const chron__group_file *file, chron_group_info *out)
{
    for (uint64_t seq = out->floor; seq < out->next_new; seq++)
        switch (chron__cell_state_of(file, seq, chron__cell_load(file, seq))) {
        case CHRON__CELL_RESERVED:
        case CHRON__CELL_RUNNING:
            out->running++;
            break;
        case CHRON__CELL_DELAYED:
            out->delayed++;
            break;
        case CHRON__CELL_DEADING:
            out->deading++;
            break;
        case CHRON__CELL_DONE:
            out->done++;
            break;
        default:
            out->ready++;
        }
}

/* Damage is an answer. */
static void describe_group(const chron__queue *q, uint64_t end, const char *name, chron_group_info *out)
{
    chron__group_file file;
    chron__slot_value floor;

    memset(out, 0, sizeof *out);
    memcpy(out->name, name, strlen(name) + 1u);
    out->end = end;
    if (chron__group_look(q, name, &file) < 0) {
        out->damaged = 1;
        return;
    }
    if (chron__slots_load(file.map.base, &floor) && floor.next_seq != CHRON_SEQ_NONE) {
        out->window = file.window;
        out->keyed = (file.flags & CHRON__GROUP_KEYED) != 0;
        out->members = count_members(&file);
        out->floor = floor.next_seq;
        out->next_new = next_of(&file, floor.next_seq);
        count_jobs(&file, out);
    }
    chron__group_close(q, &file);
}

int64_t chron_queue_groups(const char *path, chron_group_info *out, size_t capacity)
{
    names list = {0};
    chron__array array;
    chron__queue q;
    uint64_t end = 0;
    int status = chron__array_take("chron_group_info", out, capacity, &array);

    if (status < 0)
        return status;
    status = open_path(path, &q);
    if (status == 0)
        status = chron__log_end(&q, NULL, &end);
    if (status == 0)
        status = chron__groups_list(&q, add_name, &list);
    if (status == 0 && list.count > 0)
        qsort(list.at, list.count, sizeof *list.at, compare_names);
    for (size_t i = 0; status == 0 && i < list.count; i++) {
        chron_group_info info;

        describe_group(&q, end, list.at[i], &info);
        chron__array_put(&array, i, &info, sizeof info);
    }
    chron__queue_close(&q);
    free(list.at);
    return status < 0 ? status : (int64_t)list.count;
}

static uint32_t state_for_people(uint32_t state)
{
    return state == CHRON__CELL_RESERVED ? CHRON_JOB_RUNNING : state;
}

/* 1, or 0: it is done, or was never handed out. */
static int fill_held(const chron__group_file *file, uint64_t seq, chron_group_held *out)
{
    uint64_t word = chron__cell_load(file, seq);
    uint32_t state = chron__cell_state_of(file, seq, word);
    uint64_t arg = chron__cell_arg(file, seq);
    uint64_t mono = chron__monotonic_ns();
    chron__member member = {0};

    if (state == CHRON__CELL_NEW || state == CHRON__CELL_DONE)
        return 0;
    *out = (chron_group_held){
        .state = state_for_people(state), .seq = seq, .deliveries = chron__cell_count(word), .due_ns = INT64_MAX};
    chron__turn_owner(&file->members, chron__cell_owner(word), &member);
    out->pid = member.pid;
    out->alive = member.pid != 0 && chron__turn_is_dead(&file->members, chron__cell_owner(word)) == 0;
    if (state == CHRON__CELL_RUNNING || state == CHRON__CELL_RESERVED) {
        uint64_t since = chron__cell_field(file, seq, offsetof(chron__cell, aux)) * (uint64_t)DECISECOND_NS;

        out->for_ns = mono > since ? mono - since : 0;
        if (arg)
            out->due_ns = (int64_t)(arg - mono);
    } else if (state == CHRON__CELL_DELAYED) {
        out->due_ns = (int64_t)(arg - chron__clock_ns(0));
    }
    return 1;
}

int64_t chron_queue_group_jobs(const char *path, const char *name, chron_group_held *out, size_t capacity)
{
    chron__array array;
    chron__queue q;
    chron__group_file file;
    chron__slot_value floor;
    int64_t count = 0;
    int status = name ? chron__reader_name_check(name) : chron__fail(CHRON_EINVAL, "the name is NULL");

    if (status == 0)
        status = chron__array_take("chron_group_held", out, capacity, &array);
    if (status < 0)
        return status;
    status = open_path(path, &q);
    if (status == 0)
        status = chron__group_look(&q, name, &file);
    if (status == 0) {
        if (chron__slots_load(file.map.base, &floor) && floor.next_seq != CHRON_SEQ_NONE)
            for (uint64_t seq = floor.next_seq, next = next_of(&file, floor.next_seq); seq < next; seq++) {
                chron_group_held held;

                if (fill_held(&file, seq, &held))
                    chron__array_put(&array, (size_t)count++, &held, sizeof held);
            }
        chron__group_close(&q, &file);
    }
    chron__queue_close(&q);
    return status < 0 ? status : count;
}

int chron_queue_group_remove(const char *path, const char *name)
{
    chron__queue q;
    chron__position position;
    int status = name ? chron__reader_name_check(name) : chron__fail(CHRON_EINVAL, "the name is NULL");

    if (status < 0)
        return status;
    status = open_path(path, &q);
    if (status == 0)
        status = chron__group_remove(&q, name);
    if (status == 0)
        status = chron__position_share(&q, name, 0600, &position);
    if (status == 0) {
        position.is_new = 1; /* as if it had never been */
        chron__position_withdraw(&q, &position, name);
        chron__position_close(&q, &position);
    }
    chron__queue_close(&q);
    return status;
}
