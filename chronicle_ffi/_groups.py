# SPDX-License-Identifier: MIT
"""What `Queue` can do with groups of workers: joining them, and looking at them from outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, SupportsIndex

from chronicle_ffi import _arguments
from chronicle_ffi._arguments import Duration, Path, Time, number, seconds
from chronicle_ffi._binding import check, ffi, lib, new_struct, path_bytes
from chronicle_ffi._group import Group, Key, set_key
from chronicle_ffi._handle import open_into
from chronicle_ffi._options import MODE_MAX, ON_GAP, U32_MAX, choice, start_of
from chronicle_ffi._structs import all_of, fields_of
from chronicle_ffi.model import GroupInfo, HeldJob, Message

_JOB: Final = {
    lib.CHRON_JOB_READY: "ready",
    lib.CHRON_JOB_RUNNING: "running",
    lib.CHRON_JOB_DELAYED: "delayed",
    lib.CHRON_JOB_DEADING: "deading",
}
_NEVER: Final = (1 << 63) - 1  # due_ns of a job without a lease


class Groups:
    """The part of `Queue` that is about groups."""

    @staticmethod
    def open_group(
        path: Path,
        name: str,
        *,
        max_deliveries: SupportsIndex = 5,
        lease: Duration | None = None,
        key: Callable[[Message], Key] | None = None,
        window: SupportsIndex | None = None,
        start: Literal["resume", "earliest", "latest"] | Time = "resume",
        on_gap: Literal["error", "oldest"] = "error",
        durable_only: bool = False,
        mode: SupportsIndex | None = None,
        create: bool = True,
    ) -> Group:
        """Join a group of workers, which share out the records of a queue as jobs; make it if it is not there.

        :param name: as a reader's: to retention the group is a reader of this name, at its floor: all below is done.
        :param max_deliveries: a job that was handed out so often (1 to 4000) and not acknowledged goes to the queue
            ``<path>.dead``.
        :param lease: seconds that a job may run before others may have it; None: as long as its worker lives.
        :param key: called with a message, in any worker, gives a str, bytes or int: jobs of a key are handed out in
            order, one at a time. All workers of a group have one, or none has.
        :param window: jobs between the oldest that is not done and the newest that was handed out, a power of two from
            64, by default 65536; counts when the group is made.
        :param start: where a new group begins: "resume" at the position of a reader of its name, if there is one, or
            the oldest record; else as in `open_subscriber`.
        :param on_gap: jobs that a limit of retention deleted undone: "error" raises SegmentGone, "oldest" counts them.
        :param durable_only: hand out only what survives a loss of power.
        :param create: False raises QueueNotFound instead of making a group.

        Raises QueueNotFound, ReaderAlreadyActive (a reader of this name), HeldElsewhere, NotSupported (an overlay file
        system, or not Linux), Corrupt, HistoryRewritten, UnsupportedFormat, AccessDenied, InvalidArgument.

        >>> seq = writer.append(b"17.jpg")
        >>> with Queue.open_group("q", "resize") as group:
        ...     with group.take() as job:
        ...         job.payload
        b'17.jpg'
        """
        options = new_struct("chron_group_options")
        options.flags = lib.CHRON_CHECKED | (lib.CHRON_DURABLE_ONLY if durable_only else 0)
        if not create:
            options.flags |= lib.CHRON_MUST_EXIST
        options.max_deliveries = number("max_deliveries", max_deliveries, lib.CHRON_GROUP_DELIVERIES_MAX, least=1)
        options.window = 0 if window is None else number("window", window, U32_MAX, least=1)
        if lease is not None:
            options.lease_ns = max(int(seconds("lease", lease) * 1e9), 1)
        options.start, options.start_value = start_of(start)
        options.on_gap = choice("on_gap", ON_GAP, on_gap)
        options.mode = 0 if mode is None else number("mode", mode, MODE_MAX)
        where = os.path.abspath(_arguments.path(path))  # its dead queue is opened later, from whatever directory
        encoded = ffi.new("char[]", _arguments.name(name))
        group = Group(where, name, options.lease_ns, key)
        set_key(group, options)
        try:
            check(open_into(group, lambda out: lib.chron_group_open(os.fsencode(where), encoded, options, out)))
        except BaseException:
            group.close()
            raise
        return group

    @staticmethod
    def groups(path: Path) -> list[GroupInfo]:
        """The groups of workers, by name.

        >>> seq = writer.append(b"17.jpg")
        >>> with Queue.open_group("q", "resize") as group:
        ...     job = group.take()
        ...     [(known.name, known.floor, known.running) for known in Queue.groups("q")]
        [('resize', 0, 1)]
        """
        where = path_bytes(path)
        return all_of(
            partial(fields_of, GroupInfo), "chron_group_info", lambda out, n: lib.chron_queue_groups(where, out, n)
        )

    @staticmethod
    def group_jobs(path: Path, name: str) -> list[HeldJob]:
        """The jobs of a group that were handed out and are not done: who has what, and since when.

        >>> seq = writer.append(b"17.jpg")
        >>> with Queue.open_group("q", "resize") as group:
        ...     job = group.take()
        ...     [(held.seq, held.state, held.pid == os.getpid()) for held in Queue.group_jobs("q", "resize")]
        [(0, 'running', True)]
        """
        where, encoded = path_bytes(path), _arguments.name(name)
        return all_of(_held_job, "chron_group_held", lambda out, n: lib.chron_queue_group_jobs(where, encoded, out, n))

    @staticmethod
    def remove_group(path: Path, name: str) -> None:
        """Remove a group that no worker is in, and its position. HeldElsewhere if one is.

        >>> Queue.open_group("q", "resize").close()
        >>> Queue.remove_group("q", "resize")
        >>> Queue.groups("q")
        []
        """
        check(lib.chron_queue_group_remove(path_bytes(path), _arguments.name(name)))


def _held_job(struct: Any) -> HeldJob:
    return HeldJob(
        seq=struct.seq,
        state=_JOB[struct.state],
        deliveries=struct.deliveries,
        pid=struct.pid or None,
        alive=bool(struct.alive),
        for_seconds=struct.for_ns / 1e9,
        due_seconds=None if struct.due_ns == _NEVER else struct.due_ns / 1e9,
    )
