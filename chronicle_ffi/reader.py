# SPDX-License-Identifier: MIT
"""`QueueReader`: reading, waiting, committing, seeking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from chronicle_ffi._binding import EBUFFER, EINTR, SLICE_NS, check, deadline_ns, error, ffi, lib, optional_seq
from chronicle_ffi.errors import InvalidArgument
from chronicle_ffi.handle import Handle
from chronicle_ffi.model import Message, ReaderStats, to_ns
from chronicle_ffi.reports import fields_of

FIRST_BUFFER_BYTES = 4096


class QueueReader(Handle):
    """One place in a queue, moving forward. Made by `Queue.open_subscriber`.

    With a name it has a position that is stored by `commit`, from which the next reader of that name resumes, and
    retention waits for it. Without one it writes nothing anywhere.

    A reader belongs to one thread at a time (another one meets `ConcurrentUse`) and to the process that opened it
    (a forked child meets `ForkedHandle`).
    """

    def __init__(self, handle: Any, path: str, name: str | None) -> None:
        super().__init__(handle, lib.chron_reader_shut, lib.chron_reader_close, path)
        self._name = name
        self._view = ffi.new("chron_view *")
        self._buffer = ffi.new("char[]", FIRST_BUFFER_BYTES)
        self._capacity = FIRST_BUFFER_BYTES

    # -------------------------------------------------------------------------------------- reading

    def next(self) -> Message | None:
        """The record at the position, which moves on by one; None if there is none yet. Never blocks.

        The payload is a copy, and it is the copy whose CRC was checked. After an exception the position is where
        it was: SegmentGone (retention was faster), Corrupt (see `skip_damaged`), HistoryRewritten, StorageError.
        """
        view = self._view
        status = lib.chron_reader_next_copy(self._handle, self._buffer, self._capacity, view)
        if status == EBUFFER:
            status = self._next_large()
        if status == 1:
            payload = ffi.unpack(self._buffer, view.length)
            return Message(view.seq, view.timestamp_ns, view.type_id, view.flags, payload)
        check(status)
        return None

    def _next_large(self) -> int:
        """The payload needs a larger buffer, which is kept: others like it will follow."""
        status = EBUFFER
        while status == EBUFFER:
            self._capacity = 1 << (self._view.length - 1).bit_length()
            self._buffer = ffi.new("char[]", self._capacity)
            status = lib.chron_reader_next_copy(self._handle, self._buffer, self._capacity, self._view)
        return status

    def previous(self) -> Message | None:
        """The record before the position, which moves back by one; None at the oldest one."""
        view = self._view
        if check(lib.chron_reader_previous(self._handle, view)) == 0:
            return None
        # The position is on it now: fetch it with the check over the copy, and step back again.
        message = self.next()
        if message is not None:
            check(lib.chron_reader_previous(self._handle, view))
        return message

    def __iter__(self) -> Iterator[Message]:
        """What is there now, up to the end of the log; then it stops. A later loop goes on from there."""
        while (message := self.next()) is not None:
            yield message

    def follow(self, timeout: float | None = None) -> Iterator[Message]:
        """All records, waiting for more: for ever, or until none has come for `timeout` seconds."""
        while True:
            message = self.next()
            if message is not None:
                yield message
            elif not self.wait(timeout):
                return

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until `next` would return a record; False if that took longer than `timeout` seconds.

        None waits without limit, 0 only looks. Ctrl-C works: it waits in slices of at most 100 ms.
        """
        now = time.monotonic_ns()
        deadline = deadline_ns(timeout, now)
        while True:
            left = SLICE_NS if deadline is None else min(max(deadline - now, 0), SLICE_NS)
            status = lib.chron_reader_wait(self._handle, left)
            if status == 1:
                return True
            if status < 0 and status != EINTR:
                raise error()
            now = time.monotonic_ns()
            if deadline is not None and now >= deadline:
                return False

    # --------------------------------------------------------------------------------------- moving

    def commit(self, sync: bool = False) -> None:
        """Store the position: what start="resume" begins from. No system call; survives process death.

        With `sync` it is on disk before this returns. Raises ReadOnly for a reader without a name.
        """
        check(lib.chron_reader_commit(self._handle, sync))

    def seek(self, seq: int) -> None:
        """Move to a seq: from the oldest there is up to the next one to be appended.

        Raises SegmentGone below (unless on_gap says otherwise) and SeqOutOfRange above.
        """
        if not 0 <= seq < 1 << 63:
            raise InvalidArgument(f"{seq} cannot be a sequence number")
        check(lib.chron_reader_seek(self._handle, seq))

    def seek_time(self, when: int | datetime) -> None:
        """Move to the first record, in order of seq, whose timestamp is not below `when`; or to the end."""
        ns = to_ns(when)
        if not 0 <= ns < 1 << 64:
            raise InvalidArgument(f"{when} lies outside of what a timestamp can say")
        check(lib.chron_reader_seek_time(self._handle, ns))

    def seek_earliest(self) -> None:
        """Move to the oldest record there is."""
        check(lib.chron_reader_seek_earliest(self._handle))

    def seek_latest(self) -> None:
        """Move behind the newest record."""
        check(lib.chron_reader_seek_latest(self._handle))

    def skip_damaged(self) -> int:
        """After Corrupt: move to the next readable record; returns how many seqs were passed over."""
        return check(lib.chron_reader_skip_damaged(self._handle))

    # ---------------------------------------------------------------------------------------- state

    @property
    def name(self) -> str | None:
        """None: this reader is not registered."""
        return self._name

    @property
    def position(self) -> int:
        """seq of the record that `next` returns next."""
        self._check_open()
        seq: int = lib.chron_reader_position(self._handle)
        return seq

    @property
    def committed(self) -> int | None:
        """The position stored by the last commit, under this name; None if there is none."""
        self._check_open()
        return optional_seq(lib.chron_reader_committed(self._handle))

    @property
    def lag(self) -> int:
        """How many records there are from the position on. Some microseconds: it looks for the newest one."""
        return check(lib.chron_reader_lag(self._handle))

    def writer_alive(self) -> bool:
        """Whether some process has the queue open for writing."""
        return check(lib.chron_reader_writer_alive(self._handle)) == 1

    def stats(self) -> ReaderStats:
        """Counters since the reader was opened."""
        self._check_open()
        out = ffi.new("chron_reader_stats *")
        check(lib.chron_reader_stats_get(self._handle, out))
        return fields_of(ReaderStats, out)

    def _check_open(self) -> None:
        if self._closed:
            check(lib.chron_reader_wait(self._handle, 0))  # answers "closed", in its own words
