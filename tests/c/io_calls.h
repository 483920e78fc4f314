/* SPDX-License-Identifier: MIT */
/*
 * io_calls.h - the calls of chron__io for tests that wrap each: X(name, parameters as declared, parameters as passed...).
 * Those that return more than an int, read_at, write_at and next_data, are left to the test.
 */
#ifndef IO_CALLS_H
#define IO_CALLS_H

#include "platform/platform.h"

/* That change what is on disk, or prepare it. */
#define IO_CALLS_THAT_CHANGE(X)                                                                                      \
    X(make_dir, (const chron__io *io, int at, const char *path, unsigned mode), io, at, path, mode)                  \
    X(open_file, (const chron__io *io, int dir, const char *name, int flags, unsigned mode), io, dir, name, flags,   \
      mode)                                                                                                          \
    X(allocate, (const chron__io *io, int fd, uint64_t bytes), io, fd, bytes)                                        \
    X(fill, (const chron__io *io, int fd, uint64_t bytes), io, fd, bytes)                                            \
    X(map, (const chron__io *io, int fd, size_t bytes, int flags, chron__map *out), io, fd, bytes, flags, out)       \
    X(sync_map, (const chron__io *io, int fd, const chron__map *map, uint64_t offset, uint64_t bytes), io, fd, map,  \
      offset, bytes)                                                                                                 \
    X(sync_file, (const chron__io *io, int fd), io, fd)                                                              \
    X(sync_dir, (const chron__io *io, int dir), io, dir)                                                             \
    X(rename, (const chron__io *io, int from_dir, const char *from, int to_dir, const char *to), io, from_dir, from, \
      to_dir, to)                                                                                                    \
    X(rename_new, (const chron__io *io, int dir, const char *from, const char *to), io, dir, from, to)               \
    X(unlink, (const chron__io *io, int dir, const char *name), io, dir, name)                                       \
    X(own, (const chron__io *io, int fd), io, fd)

/* The others that may fail. */
#define IO_CALLS_THAT_LOOK(X)                                                                                      \
    X(open_dir, (const chron__io *io, int at, const char *path), io, at, path)                                     \
    X(file_size, (const chron__io *io, int fd, uint64_t *bytes), io, fd, bytes)                                    \
    X(list, (const chron__io *io, int dir, int (*visit)(void *context, const char *name), void *context), io, dir, \
      visit, context)                                                                                              \
    X(lock, (const chron__io *io, int fd, chron__lock *out), io, fd, out)                                          \
    X(fs_kind, (const chron__io *io, int fd), io, fd)                                                              \
    X(place, (const chron__io *io, int fd, chron__place *out), io, fd, out)                                        \
    X(copy_fd, (const chron__io *io, int fd), io, fd)                                                              \
    X(share, (const chron__io *io, int fd), io, fd)

#endif
