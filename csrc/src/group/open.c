/* SPDX-License-Identifier: MIT */
/* open.c - joining a group, and leaving it. */
#include "group/group.h"

#include <stdlib.h>

#include "base/struct.h"

#define DELIVERIES_DEFAULT 5u
#define READ_BITS 0444u

static int check_options(chron_group_options *o)
{
    const uint32_t known = CHRON_CHECKED | CHRON_ALLOW_NETFS | CHRON_DURABLE_ONLY | CHRON_MUST_EXIST;

    if (o->max_deliveries == 0)
        o->max_deliveries = DELIVERIES_DEFAULT;
    if (o->window == 0)
        o->window = CHRON_GROUP_WINDOW_DEFAULT;
    if (o->flags & ~known)
        return chron__fail(CHRON_EINVAL, "unknown flags 0x%x", (unsigned)(o->flags & ~known));
    if (o->max_deliveries > CHRON_GROUP_DELIVERIES_MAX)
        return chron__fail(CHRON_EINVAL, "max_deliveries is %u: it can be 1 to %d", (unsigned)o->max_deliveries,
                           CHRON_GROUP_DELIVERIES_MAX);
    if (o->window < CHRON__GROUP_WINDOW_MIN || o->window > CHRON__GROUP_WINDOW_MAX || (o->window & (o->window - 1u)))
        return chron__fail(CHRON_EINVAL, "window is %u: it can be a power of two from %u to %u", (unsigned)o->window,
                           CHRON__GROUP_WINDOW_MIN, CHRON__GROUP_WINDOW_MAX);
    if (o->start > CHRON_START_TIME)
        return chron__fail(CHRON_EINVAL, "start %u does not exist", (unsigned)o->start);
    if (o->on_gap > CHRON_GAP_OLDEST)
        return chron__fail(CHRON_EINVAL, "on_gap is %u: of groups it can be CHRON_GAP_ERROR or CHRON_GAP_OLDEST",
                           (unsigned)o->on_gap);
    if (o->mode & ~0666u)
        return chron__fail(CHRON_EINVAL, "mode 0%o: only the bits of 0666 make sense for a queue's files",
                           (unsigned)o->mode);
    return 0;
}

static int open_log(chron_group *g)
{
    const chron_reader_options options = {.struct_size = sizeof options,
                                          .flags = g->options.flags & (CHRON_ALLOW_NETFS | CHRON_DURABLE_ONLY),
                                          .start = CHRON_START_EARLIEST};
    int status = chron__reader_open_with(g->io, g->path, &options, &g->tail);

    return status < 0 ? status : chron__reader_open_with(g->io, g->path, &options, &g->jobs);
}

/* Who may read the queue may know how far its groups are. */
static unsigned file_mode(const chron_group *g)
{
    const chron__queue *q = chron__group_queue(g);
    chron__stat meta = {.mode = 0};

    if (g->options.mode)
        return g->options.mode;
    (void)q->io->stat_name(q->io, q->dir, CHRON__FILE_META, &meta);
    return 0600u | (meta.mode & READ_BITS);
}

static int make_keys(chron_group *g)
{
    if ((g->file.flags & CHRON__GROUP_KEYED) != (g->options.key ? CHRON__GROUP_KEYED : 0u))
        return chron__fail(CHRON_EINVAL, "the group %s was made %s a key: open it so, in all of its workers", g->name,
                           g->options.key ? "without" : "with");
    if (!g->options.key)
        return 0;
    g->keys.mask = 2u * g->file.window - 1u;
    g->keys.at = calloc((size_t)g->keys.mask + 1u, sizeof *g->keys.at);
    return g->keys.at ? 0 : chron__fail(CHRON_ENOMEM, "no memory for the keys of %u jobs", (unsigned)g->file.window);
}

/* The opening failed: a group that there never was holds nothing. Others cannot have joined it. */
static void withdraw(chron_group *g)
{
    const chron__queue *q = chron__group_queue(g);

    if (g->mirror.fd >= 0)
        chron__position_withdraw(q, &g->mirror, g->name);
    if (g->file.is_new && g->file.lock_fd >= 0)
        chron__group_unlink(q, &g->file, g->name);
}

static int join(chron_group *g)
{
    const chron__queue *q = chron__group_queue(g);
    const chron__group_birth birth = {.name = g->name,
                                      .window = g->options.window,
                                      .flags = g->options.key ? CHRON__GROUP_KEYED : 0u,
                                      .mode = file_mode(g),
                                      .create = !(g->options.flags & CHRON_MUST_EXIST)};
    int status = chron__group_open(q, &birth, &g->file);

    if (status < 0)
        return status;
    status = make_keys(g);
    if (status == 0)
        status = chron__position_share(q, g->name, birth.mode, &g->mirror);
    if (status == 0 && g->file.is_first)
        status = chron__group_recover(g);
    if (status == 0)
        status = chron__group_admit(q, &g->file, g->name);
    if (status < 0)
        withdraw(g);
    return status;
}

/* Others may have at once what this handle still has. */
static void give_up_jobs(chron_group *g)
{
    chron__group_file *file = &g->file;
    uint64_t floor = g->floor.next_seq;
    uint64_t next = chron__group_word(file, CHRON__GROUP_NEXT);
    uint64_t first = CHRON_SEQ_NONE;

    for (uint64_t seq = floor; seq < next && seq < floor + 2u * (uint64_t)file->window; seq++) {
        uint64_t word = chron__cell_load(file, seq);
        uint32_t state = chron__cell_state_of(file, seq, word);

        if ((state != CHRON__CELL_RESERVED && state != CHRON__CELL_RUNNING) ||
            chron__cell_owner(word) != file->members.me)
            continue;
        (void)chron__cell_swap(file, seq, word,
                               chron__cell_word(file, seq, CHRON__CELL_READY, chron__cell_count(word), 0));
        first = seq < first ? seq : first;
    }
    if (first != CHRON_SEQ_NONE)
        chron__group_ready(g, first);
}

static void part(chron_group *g)
{
    chron__group_take_back_lent(g);
    if (g->tail) {
        if (g->file.members.me) {
            give_up_jobs(g);
            if (g->stats.taken > 0 &&
                chron__group_turn(g) == 0) { /* what is done may be deleted: no reader waits for it */
                (void)chron__group_raise(g);
                chron__group_give(g);
            }
        }
        chron__position_close(chron__group_queue(g), &g->mirror);
        chron__group_close(chron__group_queue(g), &g->file);
    }
    (void)chron_reader_close(g->jobs);
    (void)chron_reader_close(g->tail);
    free(g->lent.at);
    free(g->keys.at);
    free(g->path);
}

static chron_group *new_group(const chron__io *io, const char *path, const char *name)
{
    chron_group *g = calloc(1, sizeof *g);

    if (!g)
        return NULL;
    g->io = io;
    g->fork_count = chron__get32(&chron__fork_count);
    g->file.dir = g->file.fd = g->file.lock_fd = -1;
    g->file.held.fd = -1;
    g->mirror.dir = g->mirror.fd = g->mirror.lock.fd = -1;
    memcpy(g->name, name, strlen(name) + 1u);
    g->path = malloc(strlen(path) + 1u);
    if (!g->path)
        return g;
    memcpy(g->path, path, strlen(path) + 1u);
    for (size_t end = strlen(path); end > 1 && path[end - 1u] == '/'; end--) /* ".dead" comes behind its name */
        g->path[end - 1u] = '\0';
    return g;
}

int chron__group_open_with(const chron__io *io, const char *path, const char *name, const chron_group_options *options,
                           chron_group **out)
{
    chron_group *g;
    int status;

    if (!path || !name || !out)
        return chron__fail(CHRON_EINVAL, "NULL is not allowed here");
    *out = NULL;
    chron__fork_watch();
    status = chron__reader_name_check(name);
    if (status < 0)
        return status;
    g = new_group(io, path, name);
    if (!g || !g->path) {
        free(g);
        return chron__fail(CHRON_ENOMEM, "no memory for a group");
    }
    if (options)
        status = chron__struct_take("chron_group_options", options, &g->options, sizeof g->options);
    if (status == 0)
        status = check_options(&g->options);
    if (status == 0)
        status = open_log(g);
    if (status == 0)
        status = join(g);
    if (status < 0) {
        part(g);
        free(g);
        return status;
    }
    g->checked = (g->options.flags & CHRON_CHECKED) != 0;
    *out = g;
    return 0;
}

int chron_group_open(const char *path, const char *name, const chron_group_options *options, chron_group **out)
{
    return chron__group_open_with(&chron__io_posix, path, name, options, out);
}

/* In a forked child: give back memory and the child's own descriptors; leave all that is the parent's. */
static void forget(chron_group *g)
{
    while (g->lent.count > 0)
        chron__seg_forget(g->lent.at[--g->lent.count]);
    chron__map_forget(&g->mirror.map);
    g->mirror.lock.map = NULL;
    chron__position_close(chron__group_queue(g), &g->mirror);
    chron__group_forget(chron__group_queue(g), &g->file);
    (void)chron_reader_close(g->jobs);
    (void)chron_reader_close(g->tail);
    free(g->lent.at);
    free(g->keys.at);
    free(g->path);
}

int chron_group_shut(chron_group *g)
{
    int status = 0;

    if (!g || chron__get_acquire32(&g->closed)) /* [BUSY] with the end of this function */
        return 0;
    if (g->fork_count != chron__get32(&chron__fork_count)) {
        forget(g);
    } else {
        status = chron__group_enter(g);
        if (status < 0)
            return status;
        part(g);
    }
    chron__set_release32(&g->closed, 1); /* [BUSY] with chron__group_enter */
    return status;
}

int chron_group_close(chron_group *g)
{
    int status = chron_group_shut(g);

    if (status != -CHRON_EBUSY)
        free(g);
    return status;
}

int chron_group_stats_get(const chron_group *g, chron_group_stats *out)
{
    int status = g ? chron__struct_check("chron_group_stats", out) : chron__fail(CHRON_EINVAL, "the group is NULL");

    if (status == 0)
        chron__struct_give(&g->stats, sizeof g->stats, out);
    return status;
}
