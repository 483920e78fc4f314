# SPDX-License-Identifier: MIT
"""What is done with a whole stream: held against its queue, or made a queue again."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from chronicle_ffi import SEGMENT_SIZE, InvalidArgument, Queue, QueueReader, QueueWriter, SegmentGone
from chronicle_ffi.mirror.compare import difference
from chronicle_ffi.mirror.errors import MirrorError, StreamMismatch
from chronicle_ffi.mirror.frame import Assembler, Frame, headers_of
from chronicle_ffi.mirror.locate import Ends, ends_of, find_seq
from chronicle_ffi.mirror.server import ANSWER_SECONDS, TRANSIENT, Access, connection, parse, passing, stream_of
from chronicle_ffi.mirror.stream import incoming, place

RETRY_SECONDS: Final = 0.2
TRIES: Final = 50  # without getting on
SYNC_RECORDS: Final = 1_000_000

Progress = Callable[[int], None]


class _Source:
    """A stream, read once from one seq up to another; connections that break are made again."""

    def __init__(self, url: str, stream: str | None, access: Access | None) -> None:
        self._place = parse(url)
        self.stream = stream_of(self._place, stream)
        self._access = access or Access()

    async def ends(self) -> Ends:
        async with self._connection() as client:
            return await ends_of(client.jetstream(timeout=ANSWER_SECONDS), self.stream)

    def _connection(self) -> Any:
        return connection(self._place, self._access, f"chronicle {self.stream}")

    async def frames(self, ends: Ends, begin: int, end: int) -> AsyncGenerator[tuple[Frame, str], None]:
        """Whole records only; the first and the last frame may hold others, too."""
        if begin >= end:
            return
        number, tries = 0, 0
        assembler = Assembler()
        while True:
            try:
                async with self._connection() as client:
                    if not number:
                        number = await find_seq(client.jetstream(timeout=ANSWER_SECONDS), self.stream, ends, begin)
                    async with incoming(client, self.stream, number) as arriving:
                        async for met, frame in arriving:
                            number, tries = met + 1, 0
                            where = place(self.stream, met)
                            if (whole := assembler.add(frame, where)) is not None:
                                yield whole, where
                                if whole.next_seq >= end:
                                    return
            except TRANSIENT as problem:
                tries += 1
                met_failure = passing(problem, self.stream)
                if tries == TRIES:
                    raise met_failure from None
                await asyncio.sleep(RETRY_SECONDS)


# ------------------------------------------------------------------------------------------- verify


@dataclass(frozen=True)
class MirrorReport:
    """What a comparison of a stream with its queue found."""

    ok: bool  #: nothing differs, and the stream's messages follow one another without a gap of their own
    first_seq: int  #: that the stream has, or the `start` that was asked for
    next_seq: int  #: behind the last one
    compared: int  #: records, byte by byte
    unchecked: int  #: records that the queue does not have any more: whole, and their CRCs right
    behind: int  #: durable records of the queue that are not in the stream yet
    differences: list[str] = field(default_factory=list)  #: sentences; the first of them if there are many


async def verify(
    queue: str,
    url: str,
    *,
    stream: str | None = None,
    start: int | None = None,
    stop: int | None = None,
    access: Access | None = None,
    progress: Progress | None = None,
) -> MirrorReport:
    """Hold a stream against its queue, byte by byte: records from seq `start` up to, not including, `stop`.

    Runs beside writer and mirror. Raises Corrupt at a message that is damaged or not a mirror's, or if the queue itself
    is damaged; StreamMismatch if the stream is another queue's; ServerUnavailable and so on as `Mirror.run`.
    """
    source = _Source(url, stream, access)
    ends = await source.ends()
    begin = max(ends.first, start or 0)
    end = ends.following if stop is None else min(stop, ends.following)
    info = Queue.info(queue)
    compared = unchecked = 0
    found: list[str] = []
    with Queue.open_subscriber(queue) as reader:
        async with aclosing(source.frames(ends, begin, end)) as frames:
            async for frame, where in frames:
                if frame.queue != info.uuid:
                    raise StreamMismatch(f"{where} is of the queue {frame.queue}, and {queue} is {info.uuid}")
                old = min(max(Queue.info(queue).oldest_seq, frame.first_seq), frame.next_seq)
                differing = _compare(reader, frame, old, where)
                if differing is not None:
                    found.append(f"record {differing}, in {where}, is not what the queue has")
                compared += frame.next_seq - old
                unchecked += old - frame.first_seq
                if len(found) == 10:
                    break
                if progress:
                    progress(frame.next_seq)
    behind = max(info.durable_seq + 1 - max(ends.following, begin), 0)
    return MirrorReport(not found, begin, end, compared, unchecked, behind, found)


def _compare(reader: QueueReader, frame: Frame, oldest: int, where: str) -> int | None:
    if frame.next_seq > reader.position + reader.lag:
        return max(frame.first_seq, reader.position + reader.lag)
    try:
        return difference(reader, frame, oldest, where)
    except SegmentGone as gone:  # retention was faster
        return difference(reader, frame, gone.oldest or oldest, where)


# ------------------------------------------------------------------------------------------ restore


async def restore(
    url: str,
    queue: str,
    *,
    stream: str | None = None,
    start: int | None = None,
    segment_size: int | None = None,
    access: Access | None = None,
    progress: Progress | None = None,
) -> int:
    """Make a new queue of what a stream holds; returns how many records that are.

    Each has the seq, timestamp, type_id, flags and bytes that it had; the queue has a uuid of its own, and is
    mirrored to another stream from then on. It appears under its name when all is on disk; cut off before, nothing but
    ``QUEUE.restoring`` is left, which the next try removes.

    :param queue: a path where nothing is yet.
    :param start: the first seq to restore, if not the oldest; behind a gap that the stream has, for example.
    :param segment_size: bytes, as in `Queue.open_publisher`; that of the queue that was, if records are large.

    Raises InvalidArgument (there is something at `queue`, or nothing to restore), Corrupt, MirrorError (records are
    missing in the middle: a queue has no holes), NoSpace, and as `Mirror.run`.
    """
    source = _Source(url, stream, access)
    target = Path(queue)
    if target.exists():
        raise InvalidArgument(f"there is something at {target} already: restore to a new path")
    ends = await source.ends()
    begin = ends.first if start is None else start
    if not ends.first <= begin < ends.following:
        raise InvalidArgument(
            f"the stream {source.stream} has "
            + (f"records {ends.first} to {ends.following - 1}, not {begin}" if ends.following else "no records")
        )
    temporary = target.with_name(f"{target.name}.restoring")
    shutil.rmtree(temporary, ignore_errors=True)
    count = await _fill(source, ends, begin, temporary, segment_size or SEGMENT_SIZE, progress)
    os.rename(temporary, target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return count


async def _fill(
    source: _Source, ends: Ends, begin: int, path: Path, segment_size: int, progress: Progress | None
) -> int:
    expected, synced = begin, begin
    with Queue.open_publisher(path, segment_size=segment_size, first_seq=begin) as writer:
        async with aclosing(source.frames(ends, begin, ends.following)) as frames:
            async for frame, where in frames:
                if frame.skipped and frame.first_seq > expected:
                    raise MirrorError(
                        f"records {expected} to {frame.first_seq - 1} are not in the stream {source.stream}: "
                        f"a queue has no holes. Restore from {frame.first_seq} on (--from), and read what is before "
                        "with a Subscriber",
                        seq=expected,
                    )
                _append(writer, frame, where, expected)
                expected = frame.next_seq
                if expected - synced >= SYNC_RECORDS:
                    writer.sync()
                    synced = expected
                if progress:
                    progress(expected)
            writer.sync()
    return expected - begin


def _append(writer: QueueWriter, frame: Frame, where: str, expected: int) -> None:
    """Those of the frame from seq `expected` on, with one call."""
    found = [(at, fields) for at, fields in headers_of(frame, where) if fields[2] >= expected]
    view = memoryview(frame.images)
    writer.append_many(
        [view[at : at + fields[0] - 1] for at, fields in found],
        np.array([fields[4] for _, fields in found], np.uint16),
        timestamp_ns=np.array([fields[3] for _, fields in found], np.uint64),
        flags=np.array([fields[5] & 0xFF for _, fields in found], np.uint8),
    )
    if writer.next_seq != frame.next_seq:
        raise MirrorError(f"{where} ends with seq {frame.next_seq}, the queue with {writer.next_seq}", seq=expected)
