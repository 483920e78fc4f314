# SPDX-License-Identifier: MIT
"""`Merge`: many queues, read as one."""

from __future__ import annotations

import os
import threading
import time
import warnings
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, islice, takewhile
from typing import Any, Final, SupportsIndex

from chronicle_ffi import _arguments
from chronicle_ffi._arguments import Duration, Path, Time, is_time, number, time_ns
from chronicle_ffi._binding import SLICE_NS, check, deadline_ns, ffi, lib, new_struct, optional_seq, path_bytes, string
from chronicle_ffi._merged import MergedBatch, merged_schema
from chronicle_ffi.errors import ClosedHandle, ConcurrentUse, InvalidArgument
from chronicle_ffi.model import MergedMessage, MergeSource

COLUMNS: Final[tuple[tuple[str, str, Any, int], ...]] = (
    ("seq", "uint64_t", "Q", 8),
    ("timestamp_ns", "uint64_t", "Q", 8),
    ("offset", "uint64_t", "Q", 8),
    ("length", "uint32_t", "I", 4),
    ("type_id", "uint16_t", "H", 2),
    ("flags", "uint8_t", "B", 1),
    ("source", "uint32_t", "I", 4),
    ("late", "uint8_t", "B", 1),
)
BATCH_RECORDS: Final = 16384
BATCH_BYTES: Final = 1 << 20  # of payloads, unless one alone is longer
AT_ONCE: Final = 1024  # records that are fetched for who goes through them one by one
TURN: Final = 256  # records that a loop on an event loop takes before other tasks get their turn


class Merge:
    """Many queues, read as one, in one order. Made by `Queue.merge`.

    A merge belongs to one thread at a time (another one meets `ConcurrentUse`) and to the process that opened it.

    >>> with Queue.open_publisher("trades") as trades:
    ...     trades.append(b"bought", timestamp_ns=2)
    ...     writer.append(b"offer", timestamp_ns=1), writer.append(b"offer", timestamp_ns=3)
    0
    (0, 1)
    >>> with Queue.merge(["q", "trades"], name="strategy") as merge:
    ...     for message in merge:
    ...         print(message.timestamp_ns, merge.sources[message.source].path, message.payload)
    ...     merge.commit()
    1 q b'offer'
    2 trades b'bought'
    3 q b'offer'
    """

    def __init__(self, options: Any, keep: Any, name: str | None, live: bool) -> None:
        out = ffi.new("chron_merge **")
        self._merge: Any = ffi.NULL
        check(lib.chron_merge_open(options, out))
        self._merge = out[0]
        self._keep = keep
        self._name = name
        self._live = live
        self._lock = threading.Lock()
        self._rest: Iterator[MergedMessage] = iter(())  # of the last batch, for who goes through them one by one
        self._scratch: dict[str, Any] = {}
        self._room = 0
        self._copy: Any = None
        self._paths: list[str] = []

    @contextmanager
    def _using(self) -> Iterator[Any]:
        if not self._lock.acquire(blocking=False):
            raise ConcurrentUse(
                "the merge is in use by another thread: give each thread its own, or take a lock around it",
                code=lib.CHRON_EBUSY,
            )
        try:
            if self._merge == ffi.NULL:
                raise ClosedHandle("this merge is closed", code=lib.CHRON_ECLOSED)
            yield self._merge
        finally:
            self._lock.release()

    # -------------------------------------------------------------------------------------- sources

    def add(self, path: Path, *, start: str | Time = "resume", stop: Time | None = None) -> int:
        """Add a queue; returns its index. A live merge takes further ones at any time: their older records are late.

        :param start: "resume" (at the merge's stored position; at the oldest record if there is none), "earliest",
            "latest", a seq, or a time.
        :param stop: where reading it ends: a seq, or a time (before the first record not older than it). None: its end
            as it is now or, in a live merge, nowhere.

        Raises InvalidArgument (it is a source already, or a copy of one), ReaderAlreadyActive (a merge of this
        name is active), and what `Queue.open_subscriber` does.

        >>> with Queue.merge([], live=True) as merge:
        ...     merge.add("q")
        0
        """
        how = new_struct("chron_merge_source")
        how.start, how.start_value = _place("start", start)
        if stop is not None:
            how.has_stop = 1
            how.stop = _seq_of(path, stop) if is_time(stop) else number("stop", stop)
        with self._using() as merge:
            index = check(lib.chron_merge_add(merge, path_bytes(path), how))
            self._paths = [string(lib.chron_merge_path(merge, i)) for i in range(lib.chron_merge_sources(merge))]
        return index

    def drop(self, source: SupportsIndex | Path) -> None:
        """Take a source out: one that was removed, or whose records are not wanted any more. By index or path.

        What was read of it and not handed out goes. Its stored position stays.

        >>> with Queue.merge(["q"], live=True) as merge:
        ...     merge.drop("q")
        ...     merge.sources[0].present
        False
        """
        index = self._index(source)
        with self._using() as merge:
            check(lib.chron_merge_drop(merge, index))

    def skip_damaged(self, source: SupportsIndex | Path | None = None) -> int:
        """After Corrupt: pass over the damage, in the source that it was met in; returns how many seqs that were.

        >>> with Queue.merge(["q"]) as merge:
        ...     merge.skip_damaged("q")
        0
        """
        with self._using() as merge:
            index = int(lib.chron_merge_failed(merge)) if source is None else self._index(source)
            if index < 0:
                raise InvalidArgument("the last call met no error of a source: say which one is meant")
            return check(lib.chron_merge_skip_damaged(merge, index))

    @property
    def sources(self) -> list[MergeSource]:
        """How each source fares, by index.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.merge(["q"]) as merge:
        ...     message = merge.next()
        ...     [(source.path, source.stop) for source in merge.sources]
        [('q', 2)]
        """
        out = new_struct("chron_merge_source_info")
        found = []
        with self._using() as merge:
            for index, path in enumerate(self._paths):
                check(lib.chron_merge_source_get(merge, index, out))
                found.append(
                    MergeSource(
                        path=path,
                        present=bool(out.present),
                        ended=bool(out.ended),
                        idle=bool(out.idle),
                        position=out.position,
                        stop=optional_seq(out.stop),
                        records=out.records,
                        late=out.late,
                        skipped=out.skipped,
                    )
                )
        return found

    def _index(self, source: Any) -> int:
        if isinstance(source, str | os.PathLike):
            path = _arguments.path(source)
            if path not in self._paths:
                raise InvalidArgument(f"{path} is no source of this merge")
            return self._paths.index(path)
        return number("source", source, 0xFFFFFFFF)

    # -------------------------------------------------------------------------------------- reading

    def read_batch(self, max_records: SupportsIndex = BATCH_RECORDS) -> MergedBatch:
        """Up to so many records as columns, and up to a MiB of payloads. Never waits.

        An empty batch: there are none now, or all sources have `ended`. Raises as `QueueReader.next`; the error names
        the queue, and the next call tries again: nothing is lost.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.merge(["q"]) as merge:
        ...     merge.read_batch().payloads()
        [b'one', b'two']
        """
        wanted = number("max_records", max_records, 1 << 24, least=1)
        if rest := list(self._rest):
            return _batch_of(rest, self._paths)
        return self._fetch(wanted)

    def _fetch(self, wanted: int) -> MergedBatch:
        columns = new_struct("chron_columns")
        with self._using() as merge:
            while True:
                self._make_room(wanted, columns)
                arrays = self._scratch
                status = lib.chron_merge_next_columns(merge, columns, arrays["source"], arrays["late"], wanted)
                if status != -lib.CHRON_EBUFFER:
                    break
                self._copy = ffi.new("uint8_t[]", columns.length_max)
            count = check(status)
            arrays["offset"][count] = columns.payload_bytes
            views = {
                name: memoryview(bytes(ffi.buffer(arrays[name], (count + (name == "offset")) * size))).cast(form)
                for name, _, form, size in COLUMNS
            }
            return MergedBatch(views, bytes(ffi.buffer(self._copy, columns.payload_bytes)), self._paths)

    def _make_room(self, wanted: int, columns: Any) -> None:
        if self._room < wanted:
            self._scratch = {name: ffi.new(f"{kind}[]", wanted + 1) for name, kind, _, _ in COLUMNS}
            self._room = wanted
        if self._copy is None:
            self._copy = ffi.new("uint8_t[]", BATCH_BYTES)
        for name in ("seq", "timestamp_ns", "offset", "length", "type_id", "flags"):
            setattr(columns, name, self._scratch[name])
        columns.copy = self._copy
        columns.bytes_max = ffi.sizeof(self._copy)

    def next(self) -> MergedMessage | None:
        """The next record; None: there is none now, or all sources have `ended`. Never waits.

        >>> seq = writer.append(b"one")
        >>> with Queue.merge(["q"]) as merge:
        ...     merge.next().payload, merge.next()
        (b'one', None)
        """
        found = next(self._rest, None)
        if found is None:
            self._rest = iter(list(self._fetch(AT_ONCE)))
            found = next(self._rest, None)
        return found

    def __iter__(self) -> Iterator[MergedMessage]:
        """What is there now; a closed merge: all of it. A later loop goes on from there."""
        yield from self._rest
        while len(batch := self._fetch(AT_ONCE)):
            self._rest = iter(list(batch))
            yield from self._rest

    def follow(self, timeout: Duration | None = None) -> Iterator[MergedMessage]:
        """All records, waiting for more: until the merge has ended, or none has come for `timeout` seconds.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.merge(["q"], live=True, idle=0.001, lateness=0) as merge:
        ...     [message.payload for message in merge.follow(timeout=0.05)]
        [b'one', b'two']
        """
        while True:
            yield from self
            if self.ended or not self.wait(timeout):
                return

    def wait(self, timeout: Duration | None = None) -> bool:
        """Wait until there are records, or the merge has ended; False if that took longer than `timeout` seconds.

        None waits without limit. Ctrl-C works.

        >>> with Queue.merge(["q"], live=True) as merge:
        ...     merge.wait(timeout=0.01)
        False
        """
        now = time.monotonic_ns()
        deadline = deadline_ns(timeout, now)
        while True:
            if self._wait_ns(SLICE_NS if deadline is None else min(max(deadline - now, 0), SLICE_NS)):
                return True
            now = time.monotonic_ns()
            if deadline is not None and now >= deadline:
                return False

    def _wait_ns(self, ns: int) -> bool:
        if self._left():
            return True
        with self._using() as merge:
            status = int(lib.chron_merge_wait(merge, ns))
            return status != -lib.CHRON_EINTR and check(status) == 1

    @property
    def ended(self) -> bool:
        """Whether all sources were read up to their ends, and all records were handed out.

        >>> with Queue.merge(["q"]) as merge:
        ...     merge.next(), merge.ended
        (None, True)
        """
        with self._using() as merge:
            return bool(lib.chron_merge_ended(merge)) and not self._left()

    def _left(self) -> int:
        """Of the last batch, what nobody has got."""
        return int(getattr(self._rest, "__length_hint__", int)())

    @property
    def late(self) -> int:
        """How many late records were handed out: with timestamps older than their place in the order.

        >>> first, count = writer.append_many([b"one", b"two"], timestamp_ns=[2_000_000_000, 1_000_000_000])
        >>> with Queue.merge(["q"], lateness=0.5) as merge:
        ...     [(message.payload, message.late) for message in merge], merge.late
        ([(b'two', True), (b'one', False)], 1)
        """
        return sum(source.late for source in self.sources)

    # ------------------------------------------------------------------------------- on an event loop

    async def wait_async(self, timeout: Duration | None = None) -> bool:
        """`wait`, in a thread of the event loop's executor: other tasks go on, and cancelling works at once.

        >>> with Queue.merge(["q"], live=True) as merge:
        ...     asyncio.run(merge.wait_async(timeout=0.01))
        False
        """
        import asyncio

        waiting = asyncio.get_running_loop().run_in_executor(None, partial(self._wait_slices, timeout))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._cancelled = True
            lib.chron_merge_wake(self._merge)
            await asyncio.wait({waiting})  # until nobody is in there any more: some microseconds
            raise
        finally:
            self._cancelled = False

    _cancelled = False

    def _wait_slices(self, timeout: Duration | None) -> bool:
        now = time.monotonic_ns()
        deadline = deadline_ns(timeout, now)
        while not self._cancelled and (deadline is None or now < deadline):
            if self._wait_ns(SLICE_NS if deadline is None else min(deadline - now, SLICE_NS)):
                return True
            now = time.monotonic_ns()
        return not self._cancelled and self._wait_ns(0)

    async def __aiter__(self) -> AsyncIterator[MergedMessage]:
        """All records, on the running event loop, waiting for more until the merge has ended."""
        import asyncio

        while not self.ended:
            some = False
            for message in islice(self, TURN):
                some = True
                yield message
            if some:
                await asyncio.sleep(0)
            else:
                await self.wait_async()

    # -------------------------------------------------------------------------------------- the rest

    def commit(self, *, sync: bool = False) -> None:
        """Store the position of all sources together: behind what was handed out. All of it or nothing, whatever
        happens.

        A loop over the merge has each message that was counted, the last one included. Survives the death of the
        process; with `sync` it is on disk before this returns. Raises ReadOnly for a merge without a name.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> for _ in range(2):
        ...     with Queue.merge(["q"], name="strategy") as merge:
        ...         print(merge.next().payload)
        ...         merge.commit()
        b'one'
        b'two'
        """
        with self._using() as merge:
            check(lib.chron_merge_commit(merge, self._left(), bool(sync)))

    def to_arrow(self) -> Any:
        """A pyarrow.RecordBatchReader over `MergedBatch.to_arrow` of what is there: of a closed merge, all of it.

        >>> import pyarrow
        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.merge(["q"]) as merge:
        ...     merge.to_arrow().read_all().num_rows
        2
        """
        import pyarrow as pa

        batches = (batch.to_arrow() for batch in takewhile(len, iter(self.read_batch, None)))
        return pa.RecordBatchReader.from_batches(merged_schema(), batches)

    @property
    def name(self) -> str | None:
        """None: no position is stored.

        >>> with Queue.merge(["q"], name="strategy") as merge:
        ...     merge.name
        'strategy'
        """
        return self._name

    @property
    def live(self) -> bool:
        """Whether it follows its sources.

        >>> with Queue.merge(["q"]) as merge:
        ...     merge.live
        False
        """
        return self._live

    @property
    def closed(self) -> bool:
        """Whether `close` has been called.

        >>> with Queue.merge(["q"]) as merge:
        ...     merge.closed
        False
        """
        return bool(self._merge == ffi.NULL)

    def close(self) -> None:
        """Close it, and the readers of its sources. Does not commit. May be called again.

        >>> merge = Queue.merge(["q"])
        >>> merge.close()
        """
        if self.closed:
            return
        lib.chron_merge_wake(self._merge)
        with self._using() as merge:
            self._merge = ffi.NULL
            lib.chron_merge_close(merge)

    def __enter__(self) -> Merge:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_merge", ffi.NULL) != ffi.NULL:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)
            self.close()

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        return f"<Merge{name} of {len(self._paths)} queues{' (closed)' if self.closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Merge cannot be pickled: open the queues in the other process")


def _place(what: str, start: Any) -> tuple[int, int]:
    words = {
        "resume": lib.CHRON_START_RESUME,
        "earliest": lib.CHRON_START_EARLIEST,
        "latest": lib.CHRON_START_LATEST,
    }
    if isinstance(start, str):
        if start not in words:
            raise InvalidArgument(f'{what} is {start!r}; it can be "resume", "earliest", "latest", a seq or a time')
        return words[start], 0
    if is_time(start):
        return lib.CHRON_START_TIME, time_ns(what, start)
    return lib.CHRON_START_SEQ, number(what, start)


def _seq_of(path: Path, when: Time) -> int:
    """The first record not older than that."""
    options = new_struct("chron_reader_options")
    options.start, options.start_value = _place("stop", when)
    out = ffi.new("chron_reader **")
    check(lib.chron_reader_open(path_bytes(path), options, out))
    seq = int(lib.chron_reader_position(out[0]))
    lib.chron_reader_close(out[0])
    return seq


def _batch_of(messages: list[MergedMessage], paths: list[str]) -> MergedBatch:
    payloads = [message.payload for message in messages]
    values: dict[str, Any] = {
        "seq": [message.seq for message in messages],
        "timestamp_ns": [message.timestamp_ns for message in messages],
        "offset": accumulate(map(len, payloads), initial=0),
        "length": map(len, payloads),
        "type_id": [message.type_id for message in messages],
        "flags": [message.flags for message in messages],
        "source": [message.source for message in messages],
        "late": [message.late for message in messages],
    }
    views = {name: memoryview(array(form, values[name])) for name, _, form, _ in COLUMNS}
    return MergedBatch(views, b"".join(payloads), paths)
