# SPDX-License-Identifier: MIT
"""`ArchivedReader`: `QueueReader` once more, over a queue and its archive. Where it stands is `Place`'s business."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import astuple
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any, Final, SupportsIndex, TypeAlias

from chronicle_ffi import (
    Batch,
    ClosedHandle,
    Event,
    InvalidArgument,
    Message,
    QueueReader,
    ReaderStats,
    ReadOnly,
    SegmentGone,
    SeqOutOfRange,
)
from chronicle_ffi.archive._errors import ArchiveDamaged
from chronicle_ffi.archive._manifest import Entry
from chronicle_ffi.archive._place import Place

LOOK_SECONDS: Final = 1.0  # how often an archive without its queue is asked whether it has grown
RECORDS_AT_ONCE: Final = 256  # that a loop on an event loop takes before other tasks get their turn
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)

Duration: TypeAlias = "float | timedelta"


class ArchivedReader(Place):
    """As `QueueReader`, over a queue and its archive. Made by ``Queue.open_subscriber(path, archive=url)``.

    What the queue still has is read there, what it has not from the archive: seeking, going back, batches and columns
    are as if everything were local. With a name its position is stored in the queue.

    What cannot be had from the archive raises `ArchiveDamaged`, with the object's name, and `skip_damaged` passes
    over it; a store that does not answer raises `ArchiveError`, and the reader stays where it was. Fetching blocks;
    the next run is fetched by a thread meanwhile. A reader belongs to one thread at a time, and to the process that
    opened it.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> writer.sync()
    >>> report = Archive("q", "archive").run()
    >>> with Queue.open_subscriber("q", archive="archive", start="earliest") as everything:
    ...     len(list(everything))
    100
    """

    # -------------------------------------------------------------------------------------- reading

    def next(self) -> Message | None:
        """As `QueueReader.next`.

        >>> archived.next().seq
        0
        """
        while (reader := self._ready()) is not None:
            at = reader.position
            try:
                message = reader.next()
            except SegmentGone as gone:
                self._meet_gap(at, gone)
                continue
            if message is not None or self._in_queue:
                return message
            self._move(self._limit)  # what was left of the segment was given up
        return None

    def __iter__(self) -> Iterator[Message]:
        """As of `QueueReader`: what is there now, then it stops."""
        return self._each(iter)

    def payloads(self) -> Iterator[bytes]:
        """As `QueueReader.payloads`.

        >>> next(archived.payloads()) == bytes(1000)
        True
        """
        return self._each(QueueReader.payloads)

    def _each(self, records: Callable[[QueueReader], Iterator[Any]]) -> Iterator[Any]:
        while (reader := self._ready()) is not None:
            try:
                if self._in_queue:
                    for one in records(reader):
                        yield one
                        if not self._in_queue:  # it was moved meanwhile
                            break
                    else:
                        return
                    continue
                limit = self._limit
                for one in islice(records(reader), limit - reader.position):
                    yield one
                    if self._limit != limit:
                        break
                else:
                    if self._limit == limit and reader.position < limit:
                        self._move(limit)
            except SegmentGone as gone:
                self._meet_gap(reader.position, gone)

    def read_batch(self, max_records: SupportsIndex = 65536) -> Batch:
        """As `QueueReader.read_batch`.

        >>> len(archived.read_batch())
        54
        """
        wanted = max_records.__index__()
        while (reader := self._ready()) is not None:
            at = reader.position
            try:
                batch = reader.read_batch(wanted if self._in_queue or wanted < 1 else min(wanted, self._limit - at))
            except SegmentGone as gone:
                self._meet_gap(at, gone)
                continue
            if len(batch) or self._in_queue:
                return batch
            self._move(self._limit)
        return self._nothing()

    def _nothing(self) -> Batch:
        """An empty batch, where an archive without its queue ends."""
        entry = self._manifest.entry(self._manifest.bases[-1])
        with self._cache.piece(entry).open_reader() as reader:
            reader.seek_latest()
            return reader.read_batch()

    def previous(self) -> Message | None:
        """As `QueueReader.previous`.

        >>> archived.seek(54)
        >>> archived.previous().seq
        53
        """
        at = before = self.position
        found = None
        if self._in_queue and self._local is not None:
            found = self._local.previous()
            if found is not None and found.seq == at - 1:
                return found
        while (entry := self._manifest.before(at)) is not None and (found is None or entry.next_seq > found.seq + 1):
            behind = min(at, entry.next_seq)
            self._move(behind - 1)
            message = self._step_back(entry, behind)
            if message is not None:
                self._skip(before - 1 - message.seq)
                return message
            at = entry.base_seq
        if found is None:
            self._move(at if self._local is None or before > at else before)
        return found

    def _step_back(self, entry: Entry, behind: int) -> Message | None:
        self._run = 1
        self._enter(entry, behind - 1)
        assert self._inner is not None
        self._inner.seek(behind)
        message = self._inner.previous()
        if message is None:
            self._move(entry.base_seq)
        return message

    def follow(
        self, timeout: Duration | None = None, *, heartbeat: Duration | None = None, events: bool = False
    ) -> Iterator[Message | Event]:
        """As `QueueReader.follow`; events are those of the queue, behind the archive.

        >>> sum(1 for message in archived.follow(timeout=0.01))
        100
        """
        while True:
            yield from self
            if self._local is None:
                if not self.wait(timeout):
                    return
                continue
            if not self._in_queue:
                continue
            try:
                yield from self._local.follow(timeout, heartbeat=heartbeat, events=events)
                return
            except SegmentGone as gone:
                self._meet_gap(self._local.position, gone)

    def wait(self, timeout: Duration | None = None) -> bool:
        """As `QueueReader.wait`. An archive without its queue is looked at once a second.

        >>> archived.wait()
        True
        """
        left = (
            None if timeout is None else timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
        )
        deadline = None if left is None else time.monotonic() + left
        while True:
            reader = self._ready()
            if reader is not None:
                if not self._in_queue:
                    return True
                return reader.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0))
            pause = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - time.monotonic())
            if pause <= 0:
                return False
            time.sleep(pause)

    # ------------------------------------------------------------------------------- on an event loop

    async def next_async(self, timeout: Duration | None = None) -> Message | None:
        """As `QueueReader.next_async`; what has to be fetched is fetched by a thread.

        >>> asyncio.run(archived.next_async()).seq
        0
        """
        await asyncio.to_thread(self._ready)
        if (message := self.next()) is not None:
            return message
        if not await self.wait_async(timeout):
            return None
        return self.next()

    async def wait_async(self, timeout: Duration | None = None) -> bool:
        """As `QueueReader.wait_async`.

        >>> asyncio.run(archived.wait_async())
        True
        """
        await asyncio.to_thread(self._ready)
        if self._in_queue and self._local is not None:
            return await self._local.wait_async(timeout)
        return await asyncio.to_thread(self.wait, timeout)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """All records, on the running event loop, waiting for more for ever: ``async for message in reader``."""
        while True:
            await asyncio.to_thread(self._ready)
            for message in islice(self, RECORDS_AT_ONCE):
                yield message
            if self._in_queue and self._local is not None:
                await self._local.wait_async()
            elif self._limit == 0:
                await asyncio.to_thread(self.wait)
            else:
                await asyncio.sleep(0)

    # --------------------------------------------------------------------------------------- moving

    def commit(self, upto: int | None = None, *, sync: bool = False) -> None:
        """As `QueueReader.commit`, the archived part included. Raises ReadOnly for a reader without a name.

        Where only the archive is, a position below the one that was committed last cannot be stored: InvalidArgument.

        >>> archived.commit()
        Traceback (most recent call last):
        chronicle_ffi.errors.ReadOnly: a reader without a name has no position to store: open it with a name
        """
        if self._local is None:
            raise ReadOnly("an archive alone has no place for a position: open it together with its queue")
        if self._in_queue:
            self._local.commit(upto, sync=sync)
            return
        at = self.position
        wanted = at if upto is None else upto
        committed = self._local.committed
        if self._name is not None and (wanted > at or (committed is not None and wanted < committed)):
            raise InvalidArgument(
                f"cannot commit up to {wanted}: the reader is at {at}, in the archive, and has committed up to"
                f" {committed}"
            )
        self._local.seek_latest()  # a position is stored from further on
        self._local.commit(wanted, sync=sync)

    def seek(self, seq: SupportsIndex) -> None:
        """As `QueueReader.seek`, from the oldest record in the archive on. Fetches what holds it.

        >>> archived.seek(20)
        >>> archived.next().seq
        20
        """
        wanted = seq.__index__()
        before = self.position
        try:
            if wanted < 0:
                raise InvalidArgument(f"seq is {wanted}: 0 or more")
            self._run = 1
            self._move(wanted)
            if self._ready() is None and wanted > (end := self._manifest.end()):
                raise SeqOutOfRange(
                    f"there is no record {wanted} in the archive: it ends before {end}", seq=wanted, next_seq=end
                )
        except BaseException:
            self._move(before)
            raise

    def seek_time(self, when: Any) -> None:
        """As `QueueReader.seek_time`: what is damaged is passed over. Looks at every entry of the archive once.

        >>> archived.seek_time(0)
        >>> archived.position
        0
        """
        wanted = self._nanoseconds(when)
        oldest = None
        if self._local is not None:
            self._local.seek_earliest()
            oldest = self._local.position
        self._manifest.refresh()
        self._run = 1
        for entry in self._manifest.all():
            if isinstance(entry, ArchiveDamaged) or entry.max_ts < wanted:
                continue
            if oldest is not None and entry.base_seq >= oldest:
                break
            with suppress(ArchiveDamaged):
                found = self._cache.piece(entry).find_time(wanted)
                if found is not None:
                    self._move(found)
                    return
        if self._local is None:
            self._move(self._manifest.end())
        else:
            self._local.seek_time(wanted)
            self._in_queue, self._limit = True, 0

    def _nanoseconds(self, when: Any) -> int:
        if isinstance(when, datetime):
            since = when.astimezone(timezone.utc) - _EPOCH
            return max(0, (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000)
        if hasattr(when, "astype"):
            return int(when.astype("datetime64[ns]").astype("int64"))
        return int(when.__index__())

    def seek_earliest(self) -> None:
        """As `QueueReader.seek_earliest`: to the oldest record in the archive, or in the queue.

        >>> archived.seek_earliest()
        >>> archived.position
        0
        """
        self._manifest.reload()
        oldest = self._manifest.oldest()
        self._run = 1
        if self._local is not None:
            self._local.seek_earliest()
            if oldest is None or self._local.position <= oldest:
                self._in_queue, self._limit = True, 0
                return
        self._move(oldest or 0)

    def seek_latest(self) -> None:
        """As `QueueReader.seek_latest`.

        >>> archived.seek_latest()
        >>> archived.position
        100
        """
        self._run = 1
        self._go_to_end()

    def skip_damaged(self) -> int:
        """As `QueueReader.skip_damaged`: after `ArchiveDamaged`, to the next record that can be had.

        >>> archived.skip_damaged()  # nothing is
        0
        """
        at = self.position
        try:
            reader = self._ready()
            return 0 if reader is None else reader.skip_damaged()
        except ArchiveDamaged as damage:
            behind = damage.next_seq
            if behind is None and self._local is not None:
                self._local.seek_earliest()
                behind = self._local.position
            if behind is None or behind <= at:
                raise
            self._move(behind)
            self._skip(behind - at)
            return behind - at

    # ---------------------------------------------------------------------------------------- state

    @property
    def name(self) -> str | None:
        """As of `QueueReader`.

        >>> print(archived.name)
        None
        """
        return self._name

    @property
    def position(self) -> int:
        """As of `QueueReader`.

        >>> archived.position
        0
        """
        if self._closed:
            raise ClosedHandle("this reader is closed")
        return self._where()

    @property
    def committed(self) -> int | None:
        """As of `QueueReader`.

        >>> print(archived.committed)
        None
        """
        return None if self._local is None else self._local.committed

    @property
    def lag(self) -> int:
        """As of `QueueReader`.

        >>> archived.lag
        100
        """
        if self._in_queue and self._local is not None:
            return self._local.lag
        end = self._manifest.end() if self._local is None else self._local.position + self._local.lag
        return max(0, end - self.position)

    def writer_alive(self) -> bool:
        """As of `QueueReader`; False without the queue.

        >>> archived.writer_alive()
        True
        """
        return self._local is not None and self._local.writer_alive()

    def stats(self) -> ReaderStats:
        """As of `QueueReader`.

        >>> len(list(archived)) == archived.stats().records
        True
        """
        readers = [reader for reader in (self._local, self._inner) if reader is not None]
        rows = [self._past, *(astuple(reader.stats()) for reader in readers)]
        return ReaderStats(*map(sum, zip(*rows, strict=True)))

    def close(self) -> None:
        """End it, and remove what was fetched. Batches that were handed out stay good.

        >>> archived.close()
        """
        if self._closed:
            return
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        if self._inner is not None:
            self._inner.close()
        if self._local is not None:
            self._local.close()
        self._cache.close()

    def __enter__(self) -> ArchivedReader:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=1, source=self)
            self.close()

    def __reduce__(self) -> Any:
        raise TypeError("an ArchivedReader cannot be pickled: open one in the other process")

    def __repr__(self) -> str:
        return f"<ArchivedReader {self._path or ''} + {self._manifest.store.url}>"
