# SPDX-License-Identifier: MIT
"""`LockedWriter`: one writer for all threads of a process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, SupportsIndex
from weakref import WeakSet

from chronicle_ffi import _fast
from chronicle_ffi._arguments import number
from chronicle_ffi._binding import EINTR, SLICE_NS, check, deadline_ns, ffi, lib
from chronicle_ffi.errors import QueueFull, TimedOut

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

    from chronicle_ffi._arguments import Duration, Time
    from chronicle_ffi._sources import Column, Stamps
    from chronicle_ffi._writer import QueueWriter
    from chronicle_ffi.model import CleanupReport, Recovery, WriterStats

PAUSES_SECONDS: Final = (0.001, 0.01)  # between looks for room, outside of the lock: from the first, up to the second


class Inside(NamedTuple):
    """What a writer lends to its locked handle beyond what everybody may use."""

    append_once: Callable[..., int]  #: raises QueueFull at once
    wait_seconds: float  #: for room, as `backpressure` said
    is_durable: Callable[[int], bool | None] | None  #: asks the keeper for it if not; None: there is no keeper
    ring_in: Callable[[_fast.Bell], None]  #: has the bell ring when a sync has ended


class LockedWriter:
    """A writer that any number of threads of its process may use, made by `QueueWriter.locked`.

    A lock lets one thread in at a time, for as long as its call takes: to append, that is a copy. Nobody waits inside
    for room (`append`) or for the disk (`sync`), so that the others go on. In a forked child it raises `ForkedHandle`,
    as the writer does. For event loops there is `QueueWriter.append_async`.

    >>> with Queue.open_publisher("orders") as orders:
    ...     shared = orders.locked()
    ...     with ThreadPoolExecutor(4) as pool:
    ...         seqs = list(pool.map(shared.append, [b"buy", b"sell", b"hold", b"buy"]))
    ...     shared.sync()
    >>> sorted(seqs)
    [0, 1, 2, 3]
    """

    def __init__(self, writer: QueueWriter, inside: Inside) -> None:
        self._writer = writer
        self._inside = inside
        # One that its thread may take again: a signal handler that appends comes in the middle of anything.
        self._lock = threading.RLock()
        self._bell: _fast.Bell | None = None  # once a thread has waited for the disk
        _all.add(self)

    # ------------------------------------------------------------------------------------ appending

    def append(
        self, data: Buffer, type_id: SupportsIndex = 0, timestamp_ns: Time | None = None, flags: SupportsIndex = 0
    ) -> int:
        """As `QueueWriter.append`. Who waits for room lets others in meanwhile.

        >>> writer.locked().append(b"one", type_id=7)
        0
        """
        try:
            with self._lock:
                return self._inside.append_once(data, type_id, timestamp_ns, flags)
        except QueueFull:
            if not self._inside.wait_seconds:
                raise
        return self._append_once_there_is_room(data, type_id, timestamp_ns, flags)

    def _append_once_there_is_room(self, *record: Any) -> int:
        deadline = time.monotonic() + self._inside.wait_seconds
        pause, longest = PAUSES_SECONDS
        while True:
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(2 * pause, longest)
            try:
                with self._lock:
                    return self._inside.append_once(*record)
            except QueueFull:
                if time.monotonic() >= deadline:
                    raise

    def append_many(
        self,
        payloads: Iterable[Buffer],
        type_id: Column = 0,
        *,
        timestamp_ns: Stamps | None = None,
        flags: Column = 0,
        atomic: bool = False,
    ) -> tuple[int, int]:
        """As `QueueWriter.append_many`. The records have seqs without others in between, so the others wait for all of
        it: for the iterable, and for room.

        >>> writer.locked().append_many([b"one", b"two"])
        (0, 2)
        """
        with self._lock:
            return self._writer.append_many(payloads, type_id, timestamp_ns=timestamp_ns, flags=flags, atomic=atomic)

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
        """As `QueueWriter.append_array`; see `append_many`.

        >>> writer.locked().append_array(b"aabbcc", row_bytes=2)
        (0, 3)
        """
        with self._lock:
            return self._writer.append_array(
                rows, type_id, row_bytes=row_bytes, timestamp_ns=timestamp_ns, flags=flags, atomic=atomic
            )

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
        """As `QueueWriter.append_buffer`; see `append_many`.

        >>> writer.locked().append_buffer(b"onetwo", [0, 3, 6])
        (0, 2)
        """
        with self._lock:
            return self._writer.append_buffer(
                data, offsets, type_id, timestamp_ns=timestamp_ns, flags=flags, atomic=atomic
            )

    def append_arrow(
        self,
        values: Any,
        type_id: Column = 0,
        *,
        timestamp_ns: Stamps | None = None,
        flags: Column = 0,
        atomic: bool = False,
    ) -> tuple[int, int]:
        """As `QueueWriter.append_arrow`; see `append_many`.

        >>> import pyarrow
        >>> writer.locked().append_arrow(pyarrow.array(["one", "two"]))
        (0, 2)
        """
        with self._lock:
            return self._writer.append_arrow(values, type_id, timestamp_ns=timestamp_ns, flags=flags, atomic=atomic)

    @contextmanager
    def claim(
        self,
        size: SupportsIndex,
        type_id: SupportsIndex = 0,
        *,
        timestamp_ns: Time | None = None,
        flags: SupportsIndex = 0,
    ) -> Iterator[memoryview]:
        """As `QueueWriter.claim`; the others wait until the block is left.

        >>> with writer.locked().claim(3) as buffer:
        ...     buffer[:] = b"one"
        >>> reader.next().payload
        b'one'
        """
        with self._lock, self._writer.claim(size, type_id, timestamp_ns=timestamp_ns, flags=flags) as buffer:
            yield buffer

    # ------------------------------------------------------------------------- durability, retention

    def sync(self, seq: SupportsIndex | None = None, timeout: Duration | None = None) -> None:
        """Wait until `seq`, or all that was appended so far by any thread, is on disk.

        Threads that wait at the same time share one sync (group commit), and appends go on meanwhile: the writer's
        keeper does it. Without a keeper a waiting thread does it itself, for all, and appends wait; then `timeout` is
        not looked at.

        Raises TimedOut after `timeout` seconds, and otherwise as `QueueWriter.sync`.

        >>> shared = writer.locked()
        >>> shared.sync(shared.append(b"one"))
        >>> shared.durable_seq
        0
        """
        deadline = deadline_ns(timeout, time.monotonic_ns())
        wanted = self.next_seq - 1 if seq is None else number("seq", seq)
        if wanted < 0:
            return
        if self._inside.is_durable is None:
            with self._lock:
                if self._writer.durable_seq < wanted:  # else somebody did it while this one waited for the lock
                    self._writer.sync()
            return
        bells, counts = self._bells()
        while True:
            counts[0] = lib.chron_bell_count(bells[0])  # before asking: then no ring is lost
            with self._lock:
                if self._inside.is_durable(wanted):
                    return
            left = SLICE_NS if deadline is None else min(deadline - time.monotonic_ns(), SLICE_NS)
            if left <= 0:
                raise TimedOut(f"seq {wanted} was not on disk after {timeout} seconds", seq=wanted)
            if (status := lib.chron_bells_wait(bells, counts, 1, left)) != EINTR:  # handlers run, and it goes on
                check(status)

    def _bells(self) -> tuple[Any, Any]:
        with self._lock:
            if self._bell is None:
                bell = _fast.Bell()
                self._inside.ring_in(bell)
                self._bell = bell
        return ffi.new("chron_bell *[]", [ffi.cast("chron_bell **", self._bell.place)[0]]), ffi.new("uint32_t[]", 1)

    def cleanup(self) -> CleanupReport:
        """As `QueueWriter.cleanup`.

        >>> writer.locked().cleanup().deleted_segments
        0
        """
        with self._lock:
            return self._writer.cleanup()

    # ---------------------------------------------------------------------------------------- state

    @property
    def path(self) -> str:
        """The queue's directory, as given.

        >>> writer.locked().path
        'q'
        """
        return self._writer.path

    @property
    def next_seq(self) -> int:
        """The seq that the next append would return, of whichever thread.

        >>> writer.locked().next_seq
        0
        """
        return self._writer.next_seq

    @property
    def durable_seq(self) -> int:
        """The last seq that survives a loss of power; -1 if there is none.

        >>> writer.locked().durable_seq
        -1
        """
        return self._writer.durable_seq

    @property
    def recovery(self) -> Recovery:
        """As `QueueWriter.recovery`.

        >>> writer.locked().recovery.clean
        True
        """
        return self._writer.recovery

    def stats(self) -> WriterStats:
        """As `QueueWriter.stats`.

        >>> writer.locked().stats().records
        0
        """
        with self._lock:
            return self._writer.stats()

    @property
    def closed(self) -> bool:
        """Whether it, or the writer, was closed.

        >>> writer.locked().closed
        False
        """
        return self._writer.closed

    def close(self) -> None:
        """Close the writer, when no other thread is in it; those who wait for room or the disk meet `ClosedHandle`.

        >>> writer.locked().close()
        >>> writer.closed
        True
        """
        with self._lock:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LockedWriter {self.path!r}{' (closed)' if self.closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError("a LockedWriter cannot be pickled: open the queue in the other process")

    def _forget_the_threads(self) -> None:
        self._lock = threading.RLock()


_all: WeakSet[LockedWriter] = WeakSet()


def _after_fork_in_child() -> None:
    """A lock may be held by a thread that is not there: then who asks would wait, and not be told ForkedHandle."""
    for locked in list(_all):
        locked._forget_the_threads()


os.register_at_fork(after_in_child=_after_fork_in_child)
