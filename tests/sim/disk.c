/* SPDX-License-Identifier: MIT */
/* disk.c - see disk.h. What the library asks of a real disk, and the same errors. */
#define _DEFAULT_SOURCE /* anonymous mappings */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "disk.h"
#include "fiber.h"
#include "log.h"
#include "platform/platform.h"
#include "runtime.h"

#define FILES_OPEN 128

static sim_disk *used;
static struct {
    int16_t node;  /* -1: not open */
    int8_t holds;  /* the lock of this node */
    int8_t shares; /* or shares it */
} open_files[FILES_OPEN];
static chron__a32 no_fault;

/* ---------------------------------------------------------------------------------------- names */

static int find_entry(const sim_names *names, int directory, const char *name)
{
    for (unsigned i = 0; i < names->count; i++)
        if (names->at[i].directory == directory && strcmp(names->at[i].name, name) == 0)
            return (int)i;
    return -1;
}

int sim_names_find(const sim_names *names, int directory, const char *name)
{
    int i = find_entry(names, directory, name);

    return i < 0 ? -1 : names->at[i].node;
}

static void remove_entry(sim_names *names, int i)
{
    if (i >= 0)
        names->at[i] = names->at[--names->count];
}

void sim_names_apply(sim_names *names, const sim_change *change)
{
    if (change->removed.node >= 0)
        remove_entry(names, find_entry(names, change->removed.directory, change->removed.name));
    if (change->added.node < 0)
        return;
    remove_entry(names, find_entry(names, change->added.directory, change->added.name));
    if (names->count == SIM_ENTRIES)
        sim_broken("more than %u names", SIM_ENTRIES);
    names->at[names->count++] = change->added;
}

static void set_entry(sim_entry *entry, int directory, const char *name, int node)
{
    if (strlen(name) >= sizeof entry->name)
        sim_broken("a long name: %s", name);
    memset(entry, 0, sizeof *entry);
    entry->directory = (int16_t)directory;
    entry->node = (int16_t)node;
    (void)snprintf(entry->name, sizeof entry->name, "%s", name);
}

static void change_names(const sim_change *change)
{
    sim_names_apply(&used->names, change);
    sim_log_names(change);
}

/* ---------------------------------------------------------------------------------------- disks */

uint8_t *sim_arena(void)
{
    void *arena = mmap(NULL, (size_t)SIM_NODES * SIM_SLOT_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (arena == MAP_FAILED)
        sim_broken("no memory for a disk");
    return arena;
}

void sim_disk_clear(sim_disk *disk)
{
    if (!disk->bytes)
        disk->bytes = sim_arena();
    memset(disk->nodes, 0, sizeof disk->nodes);
    disk->nodes[SIM_ROOT].kind = SIM_DIRECTORY;
    disk->node_count = SIM_ROOT + 1;
    disk->names.count = 0;
    disk->boot = 1;
    disk->log = NULL;
}

void sim_disk_use(sim_disk *disk)
{
    used = disk;
    for (int fd = 0; fd < FILES_OPEN; fd++)
        open_files[fd].node = -1;
    for (int node = 0; node < disk->node_count; node++) {
        disk->nodes[node].locked = 0;
        disk->nodes[node].maps = 0;
        disk->nodes[node].shared = 0;
    }
    sim_watch.begin = (uintptr_t)disk->bytes;
    sim_watch.bytes = (uintptr_t)SIM_NODES * SIM_SLOT_BYTES;
}

sim_disk *sim_disk_used(void)
{
    return used;
}

int sim_disk_queue(const sim_disk *disk)
{
    return sim_names_find(&disk->names, SIM_ROOT, &SIM_QUEUE[1]);
}

void sim_disk_walk(const sim_disk *disk, int directory, void (*visit)(void *context, const char *name, int node),
                   void *context)
{
    for (unsigned i = 0; i < disk->names.count; i++)
        if (disk->names.at[i].directory == directory)
            visit(context, disk->names.at[i].name, disk->names.at[i].node);
}

static int new_node(enum sim_kind kind)
{
    if (used->node_count == (int)SIM_NODES)
        sim_broken("more than %u files in one life", SIM_NODES);
    used->nodes[used->node_count] = (sim_node){.kind = (uint8_t)kind};
    return used->node_count++;
}

/* ------------------------------------------------------------------------------------ resolving */

static void begin_call(void)
{
    sim_runtime_flush();
    sim_log_check();
    sim_point_call();
}

static int node_of(int fd)
{
    if (fd < 0 || fd >= FILES_OPEN || open_files[fd].node < 0)
        sim_broken("a system call on descriptor %d, which is not open", fd);
    return open_files[fd].node;
}

static int open_node(int node)
{
    for (int fd = 0; fd < FILES_OPEN; fd++) {
        if (open_files[fd].node >= 0)
            continue;
        open_files[fd].node = (int16_t)node;
        open_files[fd].holds = 0;
        open_files[fd].shares = 0;
        return fd;
    }
    sim_broken("more than %d open files", FILES_OPEN);
}

static int parent_of(int directory)
{
    for (unsigned i = 0; i < used->names.count; i++)
        if (used->names.at[i].node == directory)
            return used->names.at[i].directory;
    return SIM_ROOT;
}

/* The directory that `path` lies in, and its last component. -ENOENT if there is no such directory. */
static int resolve(int at, const char *path, const char **last)
{
    int directory = at < 0 ? SIM_ROOT : node_of(at);

    for (;;) {
        const char *end;
        char part[SIM_NAME_BYTES];

        while (*path == '/')
            path++;
        end = strchr(path, '/');
        if (!end) {
            *last = path;
            return directory;
        }
        (void)snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
        directory = sim_names_find(&used->names, directory, part);
        if (directory < 0)
            return -ENOENT;
        path = end;
    }
}

static int find(int at, const char *path)
{
    const char *last;
    int directory = resolve(at, path, &last);

    if (directory < 0)
        return directory;
    if (*last == '\0' || strcmp(last, ".") == 0)
        return directory;
    if (strcmp(last, "..") == 0)
        return parent_of(directory);
    directory = sim_names_find(&used->names, directory, last);
    return directory < 0 ? -ENOENT : directory;
}

/* ------------------------------------------------------------------------------- names and files */

static int open_dir(const chron__io *io, int at, const char *path)
{
    int node;

    (void)io;
    begin_call();
    node = find(at, path);
    if (node < 0)
        return node;
    return used->nodes[node].kind == SIM_DIRECTORY ? open_node(node) : -ENOTDIR;
}

static int add_node(int directory, const char *name, enum sim_kind kind)
{
    sim_change change = {.removed.node = -1};
    int node = new_node(kind);

    set_entry(&change.added, directory, name, node);
    change_names(&change);
    return node;
}

static int make_dir(const chron__io *io, int at, const char *path, unsigned mode)
{
    const char *last;
    int directory;

    (void)io;
    (void)mode;
    begin_call();
    directory = resolve(at, path, &last);
    if (directory < 0)
        return directory;
    if (sim_names_find(&used->names, directory, last) >= 0)
        return -EEXIST;
    (void)add_node(directory, last, SIM_DIRECTORY);
    return 0;
}

static int open_file(const chron__io *io, int at, const char *path, int flags, unsigned mode)
{
    const char *last;
    int directory;
    int node;

    (void)io;
    (void)mode;
    begin_call();
    directory = resolve(at, path, &last);
    if (directory < 0)
        return directory;
    node = sim_names_find(&used->names, directory, last);
    if (node >= 0 && (flags & CHRON__OPEN_EXCLUSIVE))
        return -EEXIST;
    if (node < 0 && !(flags & CHRON__OPEN_CREATE))
        return -ENOENT;
    if (node < 0)
        node = add_node(directory, last, SIM_FILE);
    return used->nodes[node].kind == SIM_FILE ? open_node(node) : -EINVAL;
}

static void close_file(const chron__io *io, int fd)
{
    (void)io;
    sim_runtime_flush();
    if (open_files[fd].holds)
        used->nodes[node_of(fd)].locked = 0;
    if (open_files[fd].shares)
        used->nodes[node_of(fd)].shared--;
    open_files[fd].node = -1;
}

static int file_size(const chron__io *io, int fd, uint64_t *bytes)
{
    (void)io;
    *bytes = used->nodes[node_of(fd)].size;
    return 0;
}

static int rename_file(const chron__io *io, int from_dir, const char *from, int to_dir, const char *to)
{
    sim_change change;
    const char *from_last;
    const char *to_last;
    int from_directory;
    int to_directory;
    int node;

    (void)io;
    begin_call();
    from_directory = resolve(from_dir, from, &from_last);
    to_directory = resolve(to_dir, to, &to_last);
    if (from_directory < 0 || to_directory < 0)
        return -ENOENT;
    node = sim_names_find(&used->names, from_directory, from_last);
    if (node < 0)
        return -ENOENT;
    set_entry(&change.removed, from_directory, from_last, node);
    set_entry(&change.added, to_directory, to_last, node);
    change_names(&change);
    return 0;
}

static int rename_new(const chron__io *io, int dir, const char *from, const char *to)
{
    return find(dir, to) >= 0 ? -EEXIST : rename_file(io, dir, from, dir, to);
}

static int unlink_file(const chron__io *io, int dir, const char *path)
{
    sim_change change = {.added.node = -1};
    const char *last;
    int directory;
    int node;

    (void)io;
    begin_call();
    directory = resolve(dir, path, &last);
    node = directory < 0 ? -1 : sim_names_find(&used->names, directory, last);
    if (node < 0)
        return -ENOENT;
    set_entry(&change.removed, directory, last, node);
    change_names(&change);
    return 0;
}

static int remove_dir(const chron__io *io, int at, const char *path)
{
    int node = find(at, path);

    if (node < 0 || used->nodes[node].kind != SIM_DIRECTORY)
        return node < 0 ? node : -ENOTDIR;
    for (unsigned i = 0; i < used->names.count; i++)
        if (used->names.at[i].directory == node)
            return -ENOTEMPTY;
    return unlink_file(io, at, path);
}

static int list(const chron__io *io, int dir, int (*visit)(void *context, const char *name), void *context)
{
    static sim_names names; /* as they are now, whatever visit does */
    int directory = node_of(dir);

    (void)io;
    begin_call();
    names = used->names;
    for (unsigned i = 0; i < names.count; i++) {
        int status = names.at[i].directory == directory ? visit(context, names.at[i].name) : 0;

        if (status != 0)
            return status;
    }
    return 0;
}

static int same_file(const chron__io *io, int fd, int dir, const char *path)
{
    (void)io;
    begin_call();
    return find(dir, path) == node_of(fd);
}

/* Nothing here depends on times, and all belongs to one user. */
static int stat_name(const chron__io *io, int dir, const char *path, chron__stat *out)
{
    int node;

    (void)io;
    begin_call();
    node = find(dir, path);
    if (node < 0)
        return -ENOENT;
    *out =
        (chron__stat){.bytes = used->nodes[node].size, .allocated = used->nodes[node].size, .mode = 0600, .is_ours = 1};
    out->is_regular = used->nodes[node].kind == SIM_FILE;
    return 0;
}

static int link_file(const chron__io *io, int dir, const char *from, const char *to)
{
    sim_change change = {.removed.node = SIM_LINK};
    const char *from_last;
    const char *to_last;
    int from_directory;
    int to_directory;
    int node;

    (void)io;
    begin_call();
    from_directory = resolve(dir, from, &from_last);
    to_directory = resolve(dir, to, &to_last);
    node = from_directory < 0 ? -1 : sim_names_find(&used->names, from_directory, from_last);
    if (node < 0 || to_directory < 0)
        return -ENOENT;
    if (sim_names_find(&used->names, to_directory, to_last) >= 0)
        return -EEXIST;
    set_entry(&change.added, to_directory, to_last, node);
    change_names(&change);
    return 0;
}

/* A mapping is the file itself, and every page of it can be read. */
int chron__map_blank(chron__map *map, uint64_t offset, uint64_t bytes)
{
    (void)map;
    (void)offset;
    (void)bytes;
    return -ENOTSUP;
}

/* A machine that is started again has another boot; all else of a disk stays. */
static int place(const chron__io *io, int fd, chron__place *out)
{
    (void)io;
    begin_call();
    *out = (chron__place){.device = 1, .inode = (uint64_t)node_of(fd) + 1u, .birth_ns = 1, .disk_seq = 1};
    sim_raw_copy(out->boot, &used->boot, sizeof used->boot);
    return 0;
}

static int64_t links(const chron__io *io, int fd)
{
    int64_t count = 0;

    (void)io;
    begin_call();
    for (unsigned i = 0; i < used->names.count; i++)
        count += used->names.at[i].node == node_of(fd);
    return count;
}

static int copy_fd(const chron__io *io, int fd)
{
    (void)io;
    begin_call();
    return open_node(node_of(fd));
}

/* ------------------------------------------------------------------------------------- contents */

static void set_size(int node, uint64_t bytes)
{
    sim_node *one = &used->nodes[node];

    if (bytes > SIM_SLOT_BYTES)
        sim_broken("a file of %llu bytes", (unsigned long long)bytes);
    if (bytes > one->size)
        sim_raw_zero(sim_disk_file(used, node) + one->size, (size_t)(bytes - one->size));
    one->size = (uint32_t)bytes;
    sim_log_size(node, one->size);
}

static int allocate(const chron__io *io, int fd, uint64_t bytes)
{
    int node = node_of(fd);

    (void)io;
    begin_call();
    if (bytes > used->nodes[node].size)
        set_size(node, bytes);
    return 0;
}

static int fill(const chron__io *io, int fd, uint64_t bytes)
{
    (void)io;
    (void)fd;
    (void)bytes;
    return 0; /* nothing here has holes */
}

static int64_t read_at(const chron__io *io, int fd, void *buffer, size_t bytes, uint64_t offset)
{
    int node = node_of(fd);
    uint64_t size = used->nodes[node].size;

    (void)io;
    begin_call();
    if (offset >= size)
        return 0;
    if (bytes > size - offset)
        bytes = (size_t)(size - offset);
    sim_raw_copy(buffer, sim_disk_file(used, node) + offset, bytes);
    return (int64_t)bytes;
}

/* Called behind a sync: what it has covered is what the file holds. */
static int64_t read_device(const chron__io *io, int dir, const char *name, void *buffer, size_t bytes, uint64_t offset)
{
    int64_t n;
    int fd = open_file(io, dir, name, CHRON__OPEN_READ, 0);

    if (fd < 0)
        return fd;
    n = read_at(io, fd, buffer, bytes, offset);
    close_file(io, fd);
    return n;
}

static int64_t write_at(const chron__io *io, int fd, const void *buffer, size_t bytes, uint64_t offset)
{
    int node = node_of(fd);

    (void)io;
    begin_call();
    if (offset + bytes > used->nodes[node].size)
        set_size(node, offset + bytes);
    sim_raw_copy(sim_disk_file(used, node) + offset, buffer, bytes);
    sim_log_store(SIM_WRITE, node, (uint32_t)offset, (uint32_t)bytes);
    return (int64_t)bytes;
}

static int64_t next_data(const chron__io *io, int fd, uint64_t offset)
{
    static const uint8_t zeros[SIM_PAGE];
    int node = node_of(fd);
    const uint8_t *file = sim_disk_file(used, node);
    uint64_t size = used->nodes[node].size;

    (void)io;
    begin_call();
    for (uint64_t at = offset; at < size; at = (at / SIM_PAGE + 1u) * SIM_PAGE) {
        uint64_t end = (at / SIM_PAGE + 1u) * SIM_PAGE < size ? (at / SIM_PAGE + 1u) * SIM_PAGE : size;

        if (memcmp(file + at, zeros, (size_t)(end - at)) != 0)
            return (int64_t)at;
    }
    return (int64_t)size;
}

static int fs_kind(const chron__io *io, int fd)
{
    (void)io;
    (void)fd;
    return CHRON__FS_LARGE_PAGES | CHRON__FS_REUSE; /* so that what is prewritten is tried, too, and what is reused */
}

/* -------------------------------------------------------------------------- mappings and syncs */

static int map_file(const chron__io *io, int fd, size_t bytes, int flags, chron__map *out)
{
    int node = node_of(fd);

    (void)io;
    (void)flags;
    begin_call();
    memset(out, 0, sizeof *out);
    if (used->nodes[node].size < bytes)
        return -ERANGE;
    used->nodes[node].maps++;
    out->base = sim_disk_file(used, node);
    out->bytes = bytes;
    out->fault = &no_fault;
    if (open_files[fd].shares) { /* as long as the mapping is there, too */
        used->nodes[node].shared++;
        out->guard_slot = out;
    }
    return 0;
}

static int node_of_map(const chron__map *map)
{
    return (int)((size_t)(map->base - used->bytes) / SIM_SLOT_BYTES);
}

static void unmap(const chron__io *io, chron__map *map)
{
    (void)io;
    sim_runtime_flush();
    used->nodes[node_of_map(map)].maps--;
    if (map->guard_slot)
        used->nodes[node_of_map(map)].shared--;
    memset(map, 0, sizeof *map);
}

/* Others may run during a sync, and what they store meanwhile is not covered by it. */
static void sync_node(int node, uint32_t offset, uint32_t bytes)
{
    uint32_t began;

    begin_call();
    began = sim_log_sync(SIM_SYNC_BEGIN, node, offset, bytes, 0);
    sim_point_call();
    sim_runtime_flush();
    (void)sim_log_sync(SIM_SYNC_END, node, offset, bytes, began);
}

static int sync_map(const chron__io *io, int fd, const chron__map *map, uint64_t offset, uint64_t bytes)
{
    uint64_t from = offset / SIM_PAGE * SIM_PAGE;
    uint64_t to = (offset + bytes + SIM_PAGE - 1u) / SIM_PAGE * SIM_PAGE;

    (void)io;
    if (node_of_map(map) != node_of(fd))
        sim_broken("a mapping is synced with the descriptor of another file");
    if (offset + bytes > map->bytes)
        sim_broken("a sync beyond the end of a mapping");
    sync_node(node_of(fd), (uint32_t)from, (uint32_t)(to - from));
    return 0;
}

static int sync_whole(const chron__io *io, int fd)
{
    (void)io;
    sync_node(node_of(fd), 0, SIM_WHOLE);
    return 0;
}

static void start_sync(const chron__io *io, int fd)
{
    (void)io; /* any page may be written at any time: it changes nothing */
    (void)node_of(fd);
}

/* ---------------------------------------------------------------------------------------- locks */

static int lock(const chron__io *io, int fd, chron__lock *out)
{
    int node = node_of(fd);

    (void)io;
    begin_call();
    if (used->nodes[node].locked)
        return -EAGAIN;
    used->nodes[node].locked = 1;
    open_files[fd].holds = 1;
    out->map = NULL;
    out->fd = fd;
    return 0;
}

static void unlock(const chron__io *io, chron__lock *held)
{
    close_file(io, held->fd);
    held->map = NULL;
    held->fd = -1;
}

static int lock_held(const chron__io *io, int fd)
{
    (void)io;
    begin_call();
    return used->nodes[node_of(fd)].locked;
}

static int share(const chron__io *io, int fd)
{
    int node = node_of(fd);

    (void)io;
    begin_call();
    if (used->nodes[node].locked)
        return -EAGAIN;
    open_files[fd].shares = 1;
    used->nodes[node].shared++;
    return 0;
}

/* All that is mapped here is shared, but what its writer made: its own. */
static int own(const chron__io *io, int fd)
{
    int node = node_of(fd);

    if (links(io, fd) != 1 || used->nodes[node].locked || used->nodes[node].shared > open_files[fd].shares)
        return -EAGAIN;
    used->nodes[node].locked = 1;
    open_files[fd].holds = 1;
    return 0;
}

static void disown(const chron__io *io, int fd)
{
    (void)io;
    begin_call();
    used->nodes[node_of(fd)].locked = 0;
    open_files[fd].holds = 0;
}

/* No process dies here while others go on: shared writers are not simulated. */
static int lock_byte(const chron__io *io, int fd, uint64_t byte, int kind)
{
    (void)io;
    (void)fd;
    (void)byte;
    (void)kind;
    return -ENOTSUP;
}

static int byte_held(const chron__io *io, int fd, uint64_t byte)
{
    return lock_byte(io, fd, byte, CHRON__BYTE_OURS);
}

static int hold(const chron__io *io, int fd, int other, chron__lock *out)
{
    (void)other;
    (void)out;
    close_file(io, fd);
    return -ENOTSUP;
}

const chron__io chron__io_posix = {
    .open_dir = open_dir,
    .make_dir = make_dir,
    .open_file = open_file,
    .close_file = close_file,
    .file_size = file_size,
    .allocate = allocate,
    .fill = fill,
    .map = map_file,
    .unmap = unmap,
    .sync_map = sync_map,
    .sync_file = sync_whole,
    .sync_dir = sync_whole,
    .rename = rename_file,
    .rename_new = rename_new,
    .unlink = unlink_file,
    .list = list,
    .lock = lock,
    .unlock = unlock,
    .lock_held = lock_held,
    .lock_byte = lock_byte,
    .byte_held = byte_held,
    .hold = hold,
    .read_at = read_at,
    .write_at = write_at,
    .fs_kind = fs_kind,
    .next_data = next_data,
    .same_file = same_file,
    .stat_name = stat_name,
    .link = link_file,
    .place = place,
    .links = links,
    .copy_fd = copy_fd,
    .remove_dir = remove_dir,
    .start_sync = start_sync,
    .read_device = read_device,
    .share = share,
    .own = own,
    .disown = disown,
};
