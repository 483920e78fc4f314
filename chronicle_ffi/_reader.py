# SPDX-License-Identifier: MIT
"""`QueueReader`: reading, waiting, committing, seeking."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from operator import length_hint
from typing import Any, Literal, SupportsIndex, overload
from weakref import WeakSet

from chronicle_ffi._arguments import Duration, Time, number, time_ns
from chronicle_ffi._batch import Batch, read_batch
from chronicle_ffi._binding import EINTR, SLICE_NS, check, deadline_ns, error, ffi, lib, new_struct, optional_seq
from chronicle_ffi._fast import Taker
from chronicle_ffi._follow import follow
from chronicle_ffi._handle import Handle
from chronicle_ffi._prefetch import Prefetch
from chronicle_ffi._structs import fields_of
from chronicle_ffi.model import Event, Message, ReaderStats

_open_readers: WeakSet[Any] = WeakSet()


def _after_fork_in_child() -> None:
    """What the parent fetched is the parent's to handle."""
    for reader in list(_open_readers):
        reader._ahead.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


class QueueReader(Handle, Taker):
    """One place in a queue, moving forward. Made by `Queue.open_subscriber`.

    With a name it has a position that is stored by `commit`, from which the next reader of that name resumes, and
    retention waits for it. Without one it writes nothing anywhere.

    A reader belongs to one thread at a time (another one meets `ConcurrentUse`) and to the process that opened it
    (a forked child meets `ForkedHandle`).

    >>> first, count = writer.append_many([b"one", b"two"])
    >>> for message in reader:
    ...     print(message.seq, message.payload)
    0 b'one'
    1 b'two'
    >>> reader.commit()  # the next one named "me" resumes here
    """

    def __init__(self, handle: Any, path: str, name: str | None) -> None:
        super().__init__(handle, lib.chron_reader_shut, lib.chron_reader_close, lib.chron_reader_bell, path)
        self._name = name
        self._view = ffi.new("chron_view *")
        self._ahead = Prefetch(self._handle)
        _open_readers.add(self)

    def close(self) -> None:
        super().close()
        self._ahead.forget()

    close.__doc__ = Handle.close.__doc__

    # -------------------------------------------------------------------------------------- reading

    # Written in C (_fast.c), where its docstring is, too: a frame of Python would double its time.
    # It hands out what `_offer` gave it, and calls `_next` when that is used up.
    next = Taker.next

    def _next(self) -> Message | None:
        """What `next` leaves to Python: fetching more."""
        ahead = self._ahead
        if not ahead.fill(False):
            return None
        self._offer(ahead.messages)
        return next(ahead.messages, None)  # None: another thread was faster

    def __iter__(self) -> Iterator[Message]:
        """What is there now, up to the end of the log; then it stops. A later loop goes on from there.

        Records are fetched many at a time; the position moves with each message that the loop gets.
        """
        ahead = self._ahead
        while ahead.fill(False):
            yield from ahead.pending

    def payloads(self) -> Iterator[bytes]:
        """As iterating over the reader, but with nothing of each record but its payload: twice as fast.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> list(reader.payloads())
        [b'one', b'two']
        """
        ahead = self._ahead
        while ahead.fill(True):
            yield from ahead.pending

    def read_batch(self, max_records: SupportsIndex = 65536) -> Batch:
        """Up to so many records as columns over the mapped segment, without an object per record; see `Batch`.

        The position moves behind them. They lie in one segment, so fewer do not mean that there are no more: only an
        empty batch does. Never blocks. Raises as `next`.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> batch = reader.read_batch()
        >>> list(batch.seq), list(batch.length), batch.payloads()
        ([0, 1, 2], [3, 3, 5], [b'one', b'two', b'three'])
        """
        self._ahead.drop()
        return read_batch(self._handle, max_records)

    def previous(self) -> Message | None:
        """The record before the position, which moves back by one; None at the oldest one.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> reader.seek_latest()
        >>> reader.previous().payload, reader.previous().payload, reader.previous()
        (b'two', b'one', None)
        """
        self._ahead.drop()
        if check(lib.chron_reader_previous(self._handle, self._view)) == 0:
            return None
        # The position is on it now, and stays there: what is fetched has the check over the copy.
        return self._ahead.look()

    @overload
    def follow(
        self, timeout: Duration | None = None, *, heartbeat: None = None, events: Literal[False] = False
    ) -> Iterator[Message]: ...
    @overload
    def follow(
        self, timeout: Duration | None = None, *, heartbeat: Duration | None = None, events: bool = False
    ) -> Iterator[Message | Event]: ...
    def follow(
        self, timeout: Duration | None = None, *, heartbeat: Duration | None = None, events: bool = False
    ) -> Iterator[Any]:
        """All records, waiting for more: for ever, or until none has come for `timeout` seconds.

        With `events` it yields `Event` objects among the messages: what happens to the log, as this reader meets it.
        With `heartbeat` it yields an "idle" event whenever nothing else has come for so many seconds.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> for message in reader.follow(timeout=0.01):
        ...     print(message.payload)
        b'one'
        b'two'
        """
        return follow(self, timeout, heartbeat, events)

    def wait(self, timeout: Duration | None = None) -> bool:
        """Wait until `next` would return a record; False if that took longer than `timeout` seconds.

        None waits without limit, 0 only looks. Ctrl-C works: it waits in slices of at most 100 ms.

        >>> reader.wait(timeout=0.01)
        False
        >>> seq = writer.append(b"one")
        >>> reader.wait()
        True
        """
        now = time.monotonic_ns()
        deadline = deadline_ns(timeout, now)
        if length_hint(self._ahead.pending):
            return True
        self._ahead.catch_up()
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

    # ------------------------------------------------------------------------------- on an event loop

    async def next_async(self, timeout: Duration | None = None) -> Message | None:
        """`next`, waiting for a record to come; None if that took longer than `timeout` seconds.

        Waits on the running event loop: other tasks go on, cancelling works at once, and no thread waits for this
        reader alone.

        >>> async def first() -> bytes:
        ...     message = await reader.next_async(timeout=5)
        ...     return message.payload
        >>> seq = writer.append(b"one")
        >>> asyncio.run(first())
        b'one'
        """
        message = self.next()
        if message is None and await self.wait_async(timeout):
            message = self.next()
        return message

    async def wait_async(self, timeout: Duration | None = None) -> bool:
        """`wait` on the running event loop: True when `next` would return a record, False when the time is over.

        >>> asyncio.run(reader.wait_async(timeout=0.01))
        False
        """
        if length_hint(self._ahead.pending):
            return True
        self._ahead.catch_up()
        return await self._until(lambda: check(lib.chron_reader_arm(self._handle)) == 1, timeout)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """All records, on the running event loop, waiting for more for ever: ``async for message in reader``."""
        import asyncio

        ahead = self._ahead
        while True:
            while ahead.fill(False):
                for message in ahead.pending:
                    yield message
                await asyncio.sleep(0)  # a log that never ends must not stop the other tasks
            await self.wait_async()

    # --------------------------------------------------------------------------------------- moving

    def commit(self, sync: bool = False) -> None:
        """Store the position: what start="resume" begins from. No system call; survives process death.

        With `sync` it is on disk before this returns. Raises ReadOnly for a reader without a name.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> message = reader.next()
        >>> reader.commit()
        >>> reader.committed
        1
        """
        self._ahead.catch_up()
        check(lib.chron_reader_commit(self._handle, sync))

    def seek(self, seq: SupportsIndex) -> None:
        """Move to a seq: from the oldest there is up to the next one to be appended.

        Raises SegmentGone below (unless on_gap says otherwise) and SeqOutOfRange above.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> reader.seek(2)
        >>> reader.next().payload
        b'three'
        """
        wanted = number("seq", seq)
        self._ahead.drop()
        check(lib.chron_reader_seek(self._handle, wanted))

    def seek_time(self, when: Time) -> None:
        """Move to the first record, in order of seq, whose timestamp is not below `when`; or to the end.

        `when` is a datetime (a naive one is local time), a datetime64 of numpy, or nanoseconds since 1970.

        >>> noon = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
        >>> seq = writer.append(b"one", timestamp_ns=int(noon.timestamp()) * 10**9)
        >>> reader.seek_time(noon)
        >>> reader.next().payload
        b'one'
        """
        ns = time_ns("when", when)
        self._ahead.drop()
        check(lib.chron_reader_seek_time(self._handle, ns))

    def seek_earliest(self) -> None:
        """Move to the oldest record there is.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> messages = list(reader)
        >>> reader.seek_earliest()
        >>> reader.next().payload
        b'one'
        """
        self._ahead.drop()
        check(lib.chron_reader_seek_earliest(self._handle))

    def seek_latest(self) -> None:
        """Move behind the newest record.

        >>> seq = writer.append(b"before")
        >>> reader.seek_latest()
        >>> seq = writer.append(b"after")
        >>> reader.next().payload
        b'after'
        """
        self._ahead.drop()
        check(lib.chron_reader_seek_latest(self._handle))

    def skip_damaged(self) -> int:
        """After Corrupt: move to the next readable record; returns how many seqs were passed over.

        >>> first, count = writer.append_many([b"as it was written", b"two"])
        >>> segment = Path("q", f"{0:020}.seg")
        >>> with segment.open("r+b") as file:
        ...     _ = file.seek(segment.read_bytes().find(b"as it was")), file.write(b"as it is")
        >>> try:
        ...     reader.next()
        ... except Corrupt:
        ...     print(reader.skip_damaged(), reader.next().payload)
        1 b'two'
        """
        self._ahead.drop()
        return check(lib.chron_reader_skip_damaged(self._handle))

    # ---------------------------------------------------------------------------------------- state

    @property
    def name(self) -> str | None:
        """None: this reader is not registered.

        >>> reader.name
        'me'
        """
        return self._name

    @property
    def position(self) -> int:
        """seq of the record that `next` returns next.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> message = reader.next()
        >>> reader.position
        1
        """
        self._check_open()
        self._ahead.catch_up()
        seq: int = lib.chron_reader_position(self._handle)
        return seq

    @property
    def committed(self) -> int | None:
        """The position stored by the last commit, under this name; None if there is none.

        >>> print(reader.committed)
        None
        >>> reader.commit()
        >>> reader.committed
        0
        """
        self._check_open()
        return optional_seq(lib.chron_reader_committed(self._handle))

    @property
    def lag(self) -> int:
        """How many records there are from the position on. Some microseconds: it looks for the newest one.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> message = reader.next()
        >>> reader.lag
        2
        """
        self._ahead.catch_up()
        return check(lib.chron_reader_lag(self._handle))

    def writer_alive(self) -> bool:
        """Whether some process has the queue open for writing.

        >>> reader.writer_alive()
        True
        """
        return check(lib.chron_reader_writer_alive(self._handle)) == 1

    def stats(self) -> ReaderStats:
        """Counters since the reader was opened.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> messages = list(reader)
        >>> reader.stats().records
        2
        """
        self._check_open()
        self._ahead.catch_up()
        out = new_struct("chron_reader_stats")
        check(lib.chron_reader_stats_get(self._handle, out))
        return fields_of(ReaderStats, out)

    def _check_open(self) -> None:
        if self._closed:
            check(lib.chron_reader_wait(self._handle, 0))  # answers "closed", in its own words
