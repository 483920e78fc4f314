# SPDX-License-Identifier: MIT
"""`QueueReader`: reading, waiting, committing, seeking."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, SupportsIndex, overload

from chronicle_ffi._arguments import Duration, Time, number, time_ns
from chronicle_ffi._batch import Batch, batch_of
from chronicle_ffi._binding import SLICE_NS, check, deadline_ns, lib, new_struct, optional_seq
from chronicle_ffi._fast import Columns, Records, Segment, Taker
from chronicle_ffi._follow import follow
from chronicle_ffi._handle import Handle
from chronicle_ffi._structs import fields_of
from chronicle_ffi.errors import ConcurrentUse
from chronicle_ffi.model import Event, Message, ReaderStats

if TYPE_CHECKING:
    from chronicle_ffi.schema import Schemas

BY_NEW: Final = sys.version_info >= (3, 14)  # how messages are made: _fetch.c knows what a tuple is made of before that
RECORDS_AT_ONCE: Final = 256  # that a loop on an event loop takes before other tasks get their turn


class QueueReader(Handle, Taker):
    """One place in a queue, moving forward. Made by `Queue.open_subscriber`.

    With a name it has a position that is stored by `commit`, from which the next reader of that name resumes, and
    retention waits for it. Without one it writes nothing anywhere.

    A reader belongs to one thread at a time (another one meets `ConcurrentUse`) and to the process that opened it
    (a forked child meets `ForkedHandle`). Signal handlers of its thread may use it, and may raise.

    >>> first, count = writer.append_many([b"one", b"two"])
    >>> for message in reader:
    ...     print(message.seq, message.payload)
    0 b'one'
    1 b'two'
    >>> reader.commit()  # the next one named "me" resumes here
    """

    def __init__(self, path: str, name: str | None, types: frozenset[int] | None = None) -> None:
        super().__init__("chron_reader", lib.chron_reader_bell, path)
        self._name = name
        self._types = types
        self._schemas: Schemas | None = None
        self._bind(Message, BY_NEW, types is not None)

    def describe(self, schemas: Schemas) -> None:
        """Have what it hands out know its schemas: `Queue.open_subscriber` does so, if the queue has some then.

        >>> from chronicle_ffi.schema import Schemas
        >>> reader.describe(Schemas("q"))  # stored since it was opened
        """
        self._settle()
        self._schemas = schemas
        self._bind(schemas.message_type(), BY_NEW, self._types is not None)

    def _in_use(self) -> NoReturn:
        """Called by what is written in C, when another thread is in there: the library would say the same."""
        text = "the reader is in use by another thread: give each thread its own handle, or take a lock around it"
        raise ConcurrentUse(text, code=lib.CHRON_EBUSY)

    # -------------------------------------------------------------------------------------- reading

    # Written in C (_fetch.c, _taker.c), where its docstring is, too: a frame of Python would double its time.
    next = Taker.next
    close = Taker.close

    def __iter__(self) -> Iterator[Message]:
        """What is there now, up to the end of the log; then it stops. A later loop goes on from there.

        Records are fetched many at a time; the position moves with each message that the loop gets.
        """
        return self._records(Records, False, False)

    def payloads(self) -> Iterator[bytes]:
        """As iterating over the reader, but with nothing of each record but its payload: twice as fast.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> list(reader.payloads())
        [b'one', b'two']
        """
        return self._records(Records, True, False)

    def read_batch(self, max_records: SupportsIndex = 16384) -> Batch:
        """Up to so many records as columns over the mapped segment, without an object per record; see `Batch`.

        The position moves behind them. They lie in one segment, so fewer do not mean that there are no more: only an
        empty batch does. Never blocks. Raises as `next`.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> batch = reader.read_batch()
        >>> list(batch.seq), list(batch.length), batch.payloads()
        ([0, 1, 2], [3, 3, 5], [b'one', b'two', b'three'])
        """
        wanted = number("max_records", max_records, least=1)
        while True:
            segment, columns = Segment(), Columns()
            batch = batch_of(segment, columns, *self._peek(segment, columns, wanted), self._schemas)
            handed_out = self._hand_out(batch, len(batch))
            if handed_out is not None:  # else a signal handler has moved the reader meanwhile
                return handed_out

    def previous(self) -> Message | None:
        """The record before the position, which moves back by one; None at the oldest one.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> reader.seek_latest()
        >>> reader.previous().payload, reader.previous().payload, reader.previous()
        (b'two', b'one', None)
        """
        return self._previous()

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
        return follow(self, self._fetch, lambda: self._records(Records, False, True), timeout, heartbeat, events)

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
        while True:
            if self._wait(SLICE_NS if deadline is None else min(max(deadline - now, 0), SLICE_NS)):
                return True
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
        now = time.monotonic_ns()
        deadline = deadline_ns(timeout, now)
        while (message := self.next()) is None:
            left = None if deadline is None else max(deadline - now, 0) / 1e9
            if not await self.wait_async(left):
                return None
            now = time.monotonic_ns()  # another task of this reader may be faster: then it waits on
        return message

    async def wait_async(self, timeout: Duration | None = None) -> bool:
        """`wait` on the running event loop: True when `next` would return a record, False when the time is over.

        >>> asyncio.run(reader.wait_async(timeout=0.01))
        False
        """
        return self._arm() or await self._until(self._arm, timeout)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """All records, on the running event loop, waiting for more for ever: ``async for message in reader``."""
        import asyncio

        while True:
            while self._fetch():
                for message in islice(self, RECORDS_AT_ONCE):
                    yield message
                await asyncio.sleep(0)  # a log that never ends must not stop the other tasks
            await self.wait_async()

    # --------------------------------------------------------------------------------------- moving

    def commit(self, upto: int | None = None, *, sync: bool = False) -> None:
        """Store the position: what start="resume" begins from. No system call; survives process death.

        With `upto` that seq is stored instead, the first one that was not dealt with: from the seq committed before up
        to the position, or else InvalidArgument. For who may be interrupted between taking and handling: a call of
        `next` or `read_batch` that a signal handler's exception ends may have taken what it did not return. A loop
        over the reader has each message that was counted.

        With `sync` it is on disk before this returns. Raises ReadOnly for a reader without a name.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> message = reader.next()
        >>> reader.commit()
        >>> reader.committed
        1
        >>> messages = list(reader)
        >>> reader.commit(upto=messages[-1].seq)  # all but the last one
        >>> reader.position, reader.committed
        (2, 1)
        """
        self._commit(None if upto is None else number("upto", upto), bool(sync))

    def seek(self, seq: SupportsIndex) -> None:
        """Move to a seq: from the oldest there is up to the next one to be appended.

        Raises SegmentGone below (unless on_gap says otherwise) and SeqOutOfRange above.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> reader.seek(2)
        >>> reader.next().payload
        b'three'
        """
        self._seek(number("seq", seq))

    def seek_time(self, when: Time) -> None:
        """Move to the first record, in order of seq, whose timestamp is not below `when`; or to the end.

        `when` is a datetime (a naive one is local time), a datetime64 of numpy, or nanoseconds since 1970.

        >>> noon = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
        >>> seq = writer.append(b"one", timestamp_ns=int(noon.timestamp()) * 10**9)
        >>> reader.seek_time(noon)
        >>> reader.next().payload
        b'one'
        """
        self._seek_time(time_ns("when", when))

    def seek_earliest(self) -> None:
        """Move to the oldest record there is.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> messages = list(reader)
        >>> reader.seek_earliest()
        >>> reader.next().payload
        b'one'
        """
        self._seek_earliest()

    def seek_latest(self) -> None:
        """Move behind the newest record.

        >>> seq = writer.append(b"before")
        >>> reader.seek_latest()
        >>> seq = writer.append(b"after")
        >>> reader.next().payload
        b'after'
        """
        self._seek_latest()

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
        return self._skip_damaged()

    # ---------------------------------------------------------------------------------------- state

    @property
    def name(self) -> str | None:
        """None: this reader is not registered.

        >>> reader.name
        'me'
        """
        return self._name

    @property
    def types(self) -> frozenset[int] | None:
        """The type_ids that it was opened for; None: all.

        >>> with Queue.open_subscriber("q", types={1, 3}) as some:
        ...     sorted(some.types)
        [1, 3]
        """
        return self._types

    @property
    def position(self) -> int:
        """seq of the record that `next` returns next; of a reader of some types: or of one before it.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> message = reader.next()
        >>> reader.position
        1
        """
        self._check_open()
        return self._position()

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
        self._settle()
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
        self._settle()
        out = new_struct("chron_reader_stats")
        check(lib.chron_reader_stats_get(self._handle, out))
        return fields_of(ReaderStats, out)

    def _check_open(self) -> None:
        if self._closed:
            self._wait(0)  # answers "closed", in its own words
