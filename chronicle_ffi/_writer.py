# SPDX-License-Identifier: MIT
"""`QueueWriter`: appending, claims, durability, cleanup."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex
from weakref import ReferenceType, ref

from chronicle_ffi import _fast, _sources
from chronicle_ffi._arguments import FLAGS_MAX, TYPE_ID_MAX, number, time_ns
from chronicle_ffi._binding import EFULL, EINTR, NOW, SLICE_NS, check, error, ffi, lib
from chronicle_ffi._fast import Appender, Claim
from chronicle_ffi._locked import Inside, LockedWriter
from chronicle_ffi._sources import Columns, Runs, buffer_of
from chronicle_ffi._structs import CLEANUP_FATES, cleanup_report
from chronicle_ffi._written import Written
from chronicle_ffi.errors import ChronicleError, PayloadTooLarge, QueueFull, SchemaError, TimedOut
from chronicle_ffi.model import CleanupReport

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from chronicle_ffi._aio import Turns
    from chronicle_ffi._arguments import Duration, Time
    from chronicle_ffi._sources import Column, Stamps
    from chronicle_ffi.schema import Schema

_making_locked = threading.RLock()


class QueueWriter(Written, Appender):
    """The one process that appends to a queue. Made by `Queue.open_publisher`.

    A writer belongs to one thread at a time (another one meets `ConcurrentUse`; `locked` is for many) and to the
    process that opened it (a forked child meets `ForkedHandle`). Close it, best with ``with``: only then is the queue
    marked as properly closed. Nothing is lost without that, but the next writer has more to check.

    >>> with Queue.open_publisher("prices") as prices:
    ...     prices.append(b"EURUSD 1.0842", type_id=7)
    ...     prices.append_many([b"EURUSD 1.0843", b"EURUSD 1.0841"], type_id=7)
    ...     prices.sync()
    0
    (1, 2)
    """

    def __init__(
        self,
        path: str,
        wait_seconds: float,
        *,
        has_keeper: bool,
        append_may_wait: bool,
        cleanup_may_wait: bool,
        shared: bool,
    ) -> None:
        super().__init__("chron_writer", lib.chron_writer_bell, path)
        self._wait_seconds = wait_seconds
        self._has_keeper = has_keeper
        self._shared = shared
        self._append_may_wait = append_may_wait  # for the disk, or another process: nothing for an event loop
        self._cleanup_may_wait = cleanup_may_wait
        self._turns: Turns | None = None  # of the tasks that could not append at once
        self._in_threads = 0  # of their calls
        self._locked: ReferenceType[LockedWriter] | None = None
        self._schemas: dict[int, Schema] = {}
        self._classes: dict[type, int] = {}  # that were given as schemas

    # ------------------------------------------------------------------------------------ appending

    # Written in C (_fast.c), where its docstring is, too: a frame of Python would cost more than the append itself.
    # It calls `_append` for whatever is not plain, and `_fail` to raise.
    append = Appender.append
    close = Appender.close

    def _append(
        self, data: Buffer, type_id: SupportsIndex = 0, timestamp_ns: Time | None = None, flags: SupportsIndex = 0
    ) -> int:
        """What `append` leaves to Python: all but plain calls that need no more than copying."""
        kind, stamp, marks = _options(type_id, timestamp_ns, flags)
        with buffer_of(data) as buffer:
            return self._retried(
                partial(lib.chron_writer_append_at, self._handle, buffer, len(buffer), kind, marks, stamp)
            )

    async def append_async(
        self,
        data: Buffer,
        type_id: SupportsIndex = 0,
        timestamp_ns: Time | None = None,
        flags: SupportsIndex = 0,
        *,
        timeout: Duration | None = None,
    ) -> int:
        """`append` for event loops: under back-pressure it waits for room, and the loop goes on meanwhile.

        Waits without limit, or raises QueueFull after `timeout` seconds; the `backpressure` given at opening is not
        looked at. Tasks that wait for room get it in the order in which they came. Where an append waits for the disk
        (durability "batch", "always"), a thread of the loop's executor makes it; until it has come back, other calls of
        this writer in other tasks meet `ConcurrentUse`, but for `append_async`, `wait_room` and `wait_durable`.
        Leave `data` as it is until then.

        A task that is cancelled while it waits for room has appended nothing; while a thread appends, it ends after
        that, and the record is there.

        Raises as `append`.

        >>> async def publish() -> int:
        ...     return await writer.append_async(b"one", timeout=5)
        >>> asyncio.run(publish())
        0
        """
        if self._turns is None or self._turns.are_free():
            seq = self._try_append(data, type_id, timestamp_ns, flags)
            if seq is not None:
                return seq
        kind, stamp, marks = _options(type_id, timestamp_ns, flags)
        with buffer_of(data) as buffer:
            call = partial(lib.chron_writer_append_at, self._handle, buffer, len(buffer), kind, marks, stamp)
            return await self._append_in_turn(call, timeout)

    async def _append_in_turn(self, call: Callable[[], int], timeout: Duration | None) -> int:
        from chronicle_ffi import _aio

        if self._turns is None:
            self._turns = _aio.Turns()
        end = _aio.end_of(timeout)
        async with self._turns.take(end) as is_mine:
            if not is_mine:
                raise QueueFull(f"the queue is full: after {timeout} seconds tasks that came before wait for room, too")
            while isinstance(done := await self._called(call, self._append_may_wait), QueueFull):
                if not await self._room_before(end):
                    raise done
        if isinstance(done, ChronicleError):
            raise done
        return done

    async def wait_room(self, timeout: Duration | None = None) -> bool:
        """Wait on the running event loop until back-pressure would let the log grow; False after `timeout` seconds.

        For calls that have no asynchronous form: wait, and make the call again that raised QueueFull. Looks every 10 ms
        at most, and deletes what `retention` allows to. Raises as `cleanup`.

        >>> asyncio.run(writer.wait_room())
        True
        """
        from chronicle_ffi import _aio

        self._check_open()
        if self._turns is None:
            self._turns = _aio.Turns()
        end = _aio.end_of(timeout)
        async with self._turns.take(end) as is_mine:
            return is_mine and await self._room_before(end)

    async def _room_before(self, end: float | None) -> bool:
        from chronicle_ffi import _aio

        return await _aio.look_until(self._has_room, end)  # readers that commit ring no bell

    async def _has_room(self) -> bool:
        found = await self._called(partial(lib.chron_writer_wait_room, self._handle, 0), self._cleanup_may_wait)
        if isinstance(found, ChronicleError):
            if found.code == -EINTR:
                return False
            raise found
        return found == 1

    async def _called(self, call: Callable[[], int], may_wait: bool) -> int | ChronicleError:
        """What C answers: here, or if it may wait, in a thread."""
        from chronicle_ffi import _aio

        def called() -> int | ChronicleError:
            status = call()
            return status if status >= 0 else error(status)  # of the thread that called

        if not may_wait:
            return called()
        self._in_threads += 1
        try:
            return await _aio.in_thread(called)
        finally:
            self._in_threads -= 1

    def append_many(
        self,
        payloads: Iterable[Buffer],
        type_id: Column = 0,
        *,
        timestamp_ns: Stamps | None = None,
        flags: Column = 0,
        atomic: bool = False,
    ) -> tuple[int, int]:
        """Append many records, in few calls of C; returns (seq of the first, how many).

        `type_id`, `timestamp_ns` and `flags` hold for all, or give one value a record: a list, or a buffer of unsigned
        integers of 2, 8 and 1 bytes. Timestamps may also be int64, datetimes or numpy.datetime64, from 1970 on. Without
        them a run of records shares one reading of the clock.

        The iterable is consumed in runs of at most 4096 payloads or about 1 MiB, and each run appended before the
        next; with columns, or `atomic`, it is consumed as a whole first. Records become visible one by one. If an
        append fails, or the iterable raises, the records before it stay appended: `next_seq` tells how many. With
        `atomic`, readers, and recovery after a crash, see either all or none; then they must fit one segment together:
        else PayloadTooLarge, and nothing was appended.

        Of a writer that takes turns (`shared`), others' records may stand between these, and before the first: so
        unless `atomic`, the seq that is returned is a lower bound.

        >>> writer.append_many([b"one", b"two", b"three"], type_id=7)
        (0, 3)
        >>> writer.append_many((b"%d" % n for n in range(100)), atomic=True)
        (3, 100)
        """
        with ExitStack() as lent:
            columns = Columns(lent, type_id, timestamp_ns, flags)
            first = self.next_seq
            if atomic or not columns.same_for_all:
                payloads = found = list(payloads)
                columns.check(len(found))
            if atomic:
                lengths: list[int] = []
                _sources.measure(found, lengths)
                return self._append_source(_sources.of_list(lent, found, lengths, columns), True)
            runs = Runs(payloads)
            # In turns, records are appended by runs: each of them alone would take one.
            count = self._append_plain(runs, columns) if columns.same_for_all and not self._shared else 0
            for chunk, lengths in _sources.chunks(runs):
                with ExitStack() as chunk_lent:
                    made = _sources.of_list(chunk_lent, chunk, lengths, columns, count)
                    count += self._append_source(made, False)[1]
            runs.finish()
            return first, count

    def _append_plain(self, runs: Runs, columns: Columns) -> int:
        """Those up to the first that is not `bytes`, from where they are; returns how many."""
        type_id, timestamp_ns, flags = columns.numbers
        count = 0
        while not runs.ended:
            run = runs.take()
            stamp = lib.chron_writer_now(self._handle) if timestamp_ns == NOW else timestamp_ns
            done = 0
            while done < len(run):
                done += self._extend(run, done, type_id, stamp, flags)
                if done == len(run):
                    break
                if type(run[done]) is not bytes:
                    runs.put_back(run[done:])
                    return count + done
                self._append(run[done], type_id, stamp, flags)  # a roll, pages to prepare, or something wrong
                done += 1
            count += done
            if not runs.in_memory:
                runs.weigh(sum(map(len, run)))
        return count

    def append_array(
        self,
        rows: Buffer,
        type_id: Column = 0,
        *,
        row_bytes: int | None = None,
        timestamp_ns: Stamps | None = None,
        flags: Column = 0,
        atomic: bool = False,
    ) -> tuple[int, int]:
        """Append each row of a C-contiguous array as a record, without an object per row; as `append_many`.

        Rows are along the first dimension of a numpy array or another buffer (of a structured array each element is
        one), or `row_bytes` of it each.

        >>> import numpy
        >>> ticks = numpy.zeros(1000, dtype=[("bid", "f8"), ("ask", "f8")])
        >>> writer.append_array(ticks, type_id=1)
        (0, 1000)
        >>> writer.append_array(b"aabbcc", row_bytes=2)
        (1000, 3)
        """
        self._must_fit(rows, type_id)
        with ExitStack() as lent:
            made = _sources.of_rows(lent, rows, row_bytes, Columns(lent, type_id, timestamp_ns, flags))
            return self._append_source(made, atomic)

    def append_buffer(
        self,
        data: Buffer,
        offsets: Buffer | Sequence[int],
        type_id: Column = 0,
        *,
        timestamp_ns: Stamps | None = None,
        flags: Column = 0,
        atomic: bool = False,
    ) -> tuple[int, int]:
        """Append records packed in one buffer: record i is ``data[offsets[i]:offsets[i + 1]]``; as `append_many`.

        `offsets` holds one more integer than there are records, of 4 or 8 bytes each, never going back.

        >>> writer.append_buffer(b"onetwothree", array("Q", [0, 3, 6, 11]), type_id=array("H", [7, 8, 9]))
        (0, 3)
        >>> reader.next()
        Message(seq=0, timestamp_ns=..., type_id=7, flags=0, payload=b'one')
        """
        with ExitStack() as lent:
            made = _sources.of_buffer(lent, data, offsets, Columns(lent, type_id, timestamp_ns, flags))
            return self._append_source(made, atomic)

    def append_arrow(
        self,
        values: Any,
        type_id: Column = 0,
        *,
        timestamp_ns: Stamps | None = None,
        flags: Column = 0,
        atomic: bool = False,
    ) -> tuple[int, int]:
        """Append each value of a binary or string array of Arrow, read in place; as `append_many`. No nulls.

        `values` is an Array or ChunkedArray of pyarrow, or another object with an Arrow C interface, such as a Series
        of polars. Arrays of views (binary_view, string_view) are copied once on the way, and so are several chunks
        with `atomic`.

        >>> import pyarrow
        >>> writer.append_arrow(pyarrow.array(["one", "two", "three"]))
        (0, 3)
        """
        with ExitStack() as lent:
            made = _sources.of_arrow(lent, values, Columns(lent, type_id, timestamp_ns, flags), atomic)
            first = self.next_seq
            return first, sum([self._append_source(one, atomic)[1] for one in made])

    def _must_fit(self, rows: Any, type_id: Column) -> None:
        """Rows of an array, for a type that has a fixed layout, are as long as that says."""
        schema = self._schemas.get(type_id) if self._schemas and type(type_id) is int else None
        size = getattr(rows, "itemsize", None) if getattr(rows, "ndim", 0) == 1 else None
        if schema is not None and schema.size and size is not None and size != schema.size:
            raise SchemaError(f"the rows have {size} bytes, type {type_id} has {schema.size}")

    def _append_source(self, made: _sources.Source, atomic: bool) -> tuple[int, int]:
        handle, struct, count = self._handle, made.struct, made.count
        if atomic:
            first = self._retried(lambda: lib.chron_writer_append_source_whole(handle, struct, 0, count))
            return first, count
        first = self.next_seq
        done = 0
        while done < count:
            at = done
            done += self._retried(lambda: lib.chron_writer_append_source(handle, struct, at, count))  # noqa: B023
        return first, count

    def _retried(self, call: Callable[[], int]) -> int:
        status = call()
        return status if status >= 0 else self._again(status, call)

    def _again(self, status: int, call: Callable[[], int]) -> int:
        """An append failed. If that was back-pressure, try again until there is room or the time is up."""
        deadline = time.monotonic_ns() + int(self._wait_seconds * 1e9)
        while status == EFULL:
            full = error(status)
            left = deadline - time.monotonic_ns()
            if left <= 0:
                raise full
            self._wait_room(min(left, SLICE_NS))
            status = call()
        return check(status)

    def _wait_room(self, ns: int) -> None:
        status = lib.chron_writer_wait_room(self._handle, ns)
        if status < 0 and status != -lib.CHRON_EINTR:
            raise error(status)

    def locked(self) -> LockedWriter:
        """A handle on this writer that many threads of this process may use; each call returns the same one.

        From then on use only that: the writer itself knows nothing of its lock.

        >>> shared = writer.locked()
        >>> with ThreadPoolExecutor(4) as pool:
        ...     sorted(pool.map(shared.append, [b"one", b"two", b"three"]))
        [0, 1, 2]
        """
        with _making_locked:
            locked = None if self._locked is None else self._locked()
            if locked is None:
                is_durable = self._is_durable if self._has_keeper else None
                locked = LockedWriter(self, Inside(self._append_once, self._wait_seconds, is_durable, self._ring_in))
                self._locked = ref(locked)
            return locked

    def _append_once(
        self, data: Buffer, type_id: SupportsIndex, timestamp_ns: Time | None, flags: SupportsIndex
    ) -> int:
        """`append` that does not wait for room."""
        seq = self._try_append(data, type_id, timestamp_ns, flags)
        if seq is not None:
            return seq
        kind, stamp, marks = _options(type_id, timestamp_ns, flags)
        with buffer_of(data) as buffer:
            return check(lib.chron_writer_append_at(self._handle, buffer, len(buffer), kind, marks, stamp))

    def _ring_in(self, bell: _fast.Bell) -> None:
        check(lib.chron_writer_bell(self._handle, ffi.cast("chron_bell **", bell.place)))

    def describe(self, schema: Mapping[int, Any]) -> None:
        """Store what the payloads of these types hold, from now on; as ``open_publisher(schema=...)`` does.

        Raises SchemaError if one contradicts what is stored, and then none is; AccessDenied, NoSpace, StorageError.

        >>> writer.describe({1: "struct point { double x, y; };"})
        >>> writer.append_object({"x": 1.0, "y": 2.0}, type_id=1)
        0
        """
        from chronicle_ffi.schema import Schema, store

        described = {kind: Schema.of(what) for kind, what in schema.items()}
        store(self._path, described, self.next_seq)
        self._schemas.update(described)
        self._classes.update({what: kind for kind, what in schema.items() if isinstance(what, type)})

    def append_object(
        self,
        value: Any,
        type_id: SupportsIndex | None = None,
        timestamp_ns: Time | None = None,
        flags: SupportsIndex = 0,
    ) -> int:
        """Append a value, written by the schema of its type: a dict or a row for a fixed layout, a Struct of msgspec, a
        RecordBatch of pyarrow, what JSON or msgpack can say. Returns its seq.

        `type_id` may be left out for an object of a class that was given as a schema. Raises SchemaError if there is no
        schema, or the value does not fit; NotSupported if a library is missing; and as `append`.

        >>> with Queue.open_publisher("orders", schema={2: "json"}) as orders:
        ...     orders.append_object({"side": "buy"}, type_id=2)
        0
        """
        kind = self._classes.get(type(value)) if type_id is None else number("type_id", type_id, TYPE_ID_MAX)
        schema = self._schemas.get(kind) if kind is not None else None
        if kind is None or schema is None:
            raise SchemaError(
                f"no schema was given to this writer for {type(value).__name__ if kind is None else kind}"
            )
        return self.append(schema.encode(value), kind, timestamp_ns, flags)

    def snapshot(
        self,
        type_id: SupportsIndex,
        payload: Buffer,
        *,
        timestamp_ns: Time | None = None,
        flags: SupportsIndex = 0,
    ) -> int:
        """Append a record that holds a whole state, and mark it as one that reading may begin with; returns its seq.

        ``Queue.open_subscriber(path, start="snapshot")`` begins at the newest one, so that who comes late need not read
        what led to it. ``Retention(keep_snapshot=True)`` keeps it. Raises as `append`.

        >>> first, count = writer.append_many([b"+1", b"+1"], type_id=1)
        >>> seq = writer.snapshot(2, b"2")
        >>> seq = writer.append(b"+1", type_id=1)
        >>> with Queue.open_subscriber("q", start="snapshot") as late:
        ...     [message.payload for message in late]
        [b'2', b'+1']
        """
        kind, stamp, marks = _options(type_id, timestamp_ns, flags)
        with buffer_of(payload) as buffer:
            return self._retried(
                partial(lib.chron_writer_snapshot, self._handle, buffer, len(buffer), kind, marks, stamp)
            )

    def claim(
        self,
        size: SupportsIndex,
        type_id: SupportsIndex = 0,
        *,
        timestamp_ns: Time | None = None,
        flags: SupportsIndex = 0,
    ) -> Claim:
        """Fill a record of `size` bytes piece by piece: ``with writer.claim(64) as buf: buf[:] = ...``

        The block gets a memoryview, writable and zeroed; the record's place in the log is taken before. Leaving the
        block publishes the record; an exception in it aborts the claim, as if it had never been. Other appends are
        refused meanwhile. The view is released at the end. The memory is not the log's: what was kept of it can be
        used on, and changes no record.

        Raises as `append`, at the beginning of the block or, with durability "always" or "batch", at its end.

        >>> with writer.claim(16, type_id=7) as buffer:
        ...     struct.pack_into("<dd", buffer, 0, 1.0842, 1.0843)
        >>> len(reader.next().payload)
        16
        """
        wanted = number("size", size)
        if wanted > lib.CHRON_PAYLOAD_MAX:
            raise PayloadTooLarge(f"a claim of {wanted} bytes")
        kind, stamp, marks = _options(type_id, timestamp_ns, flags)
        return self._claim(Claim, wanted, kind, marks, stamp)

    # ------------------------------------------------------------------------- durability, retention

    def sync(self) -> None:
        """Put everything appended so far on disk; afterwards `durable_seq` is the last seq. Blocks for the disk.

        The first failure poisons the writer for good: close it, and open the queue again.

        >>> seq = writer.append(b"one")
        >>> writer.sync()
        >>> writer.durable_seq
        0
        """
        check(lib.chron_writer_sync(self._handle))

    async def wait_durable(self, seq: SupportsIndex | None = None, timeout: Duration | None = None) -> None:
        """Wait on the running event loop until `seq`, or all that was appended so far, is on disk.

        The keeper syncs in the background, for all tasks that wait together (group commit); appends go on meanwhile.
        Raises TimedOut (a TimeoutError) after `timeout` seconds, and otherwise as `sync`; InvalidArgument without a
        keeper.

        >>> async def safe() -> int:
        ...     with Queue.open_publisher("other") as writer:
        ...         seq = writer.append(b"one")
        ...         await writer.wait_durable(seq)
        ...         return writer.durable_seq
        >>> asyncio.run(safe())
        0
        """
        wanted = self.next_seq - 1 if seq is None else number("seq", seq)
        durable = partial(self._is_durable, wanted)
        if wanted >= 0 and not durable() and not await self._until(durable, timeout):
            raise TimedOut(f"seq {wanted} was not on disk after {timeout} seconds", seq=wanted)

    def _is_durable(self, seq: int) -> bool | None:
        """Asks the keeper for it if not; None: ask again soon, a thread of another task is in there."""
        if self._in_threads:
            return None
        return check(lib.chron_writer_sync_request(self._handle, seq)) == 1

    def cleanup(self, *, explain: bool = True) -> CleanupReport:
        """Delete the segments that the retention given at opening allows to, and tell why each other one stays.

        :param explain: False leaves `CleanupReport.segments` empty: then it costs the same however many segments stay.

        >>> first, count = writer.append_many([bytes(1000)] * 100)
        >>> reader.seek_latest(); reader.commit()
        >>> writer.cleanup().deleted_segments
        1
        """
        capacity = CLEANUP_FATES if explain else 0
        return cleanup_report(lambda out, fates, n: lib.chron_writer_cleanup(self._handle, out, fates, n), capacity)


def _options(type_id: SupportsIndex, timestamp_ns: Time | None, flags: SupportsIndex) -> tuple[int, int, int]:
    """Of one record: type_id, timestamp (or NOW), flags."""
    stamp = NOW if timestamp_ns is None else time_ns("timestamp_ns", timestamp_ns)
    if type(type_id) is not int or not 0 <= type_id <= TYPE_ID_MAX:  # nearly always it is: a call less for each record
        type_id = number("type_id", type_id, TYPE_ID_MAX)
    if type(flags) is not int or not 0 <= flags <= FLAGS_MAX:
        flags = number("flags", flags, FLAGS_MAX)
    return type_id, stamp, flags


def _after_fork_in_child() -> None:
    """A thread that is not there may have held it."""
    global _making_locked
    _making_locked = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
