# SPDX-License-Identifier: MIT
"""`Replay`: records at the pace at which they came."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

from chronicle_ffi import InvalidArgument, Merge, MergedMessage, Message, Queue, QueueReader, QueueWriter

SPIN_NS = 150_000  # before a record is due, the time is looked at instead of slept: a sleep may take that much longer
SLICE_NS = 20_000_000  # the longest sleep: a pause begins after it


class Replay:
    """An iterator over a queue's records, or a merge's, each when it is due. Made by `chronicle_ffi.Queue.replay`.

    A record is due when as much time has gone by since the first one as did then, divided by the speed. Due times count
    from the beginning, so delays do not add up; timestamps that go back are due at once. A record that is due is handed
    out at most some tenths of a millisecond late, if the machine has a processor to spare, and never early.

    >>> first, count = writer.append_many([b"one", b"two"], timestamp_ns=[1_000_000_000, 1_020_000_000])
    >>> with Queue.replay("q", speed=2) as replay:
    ...     begin = time.monotonic()
    ...     print([message.payload for message in replay], time.monotonic() - begin >= 0.01)
    [b'one', b'two'] True
    """

    def __init__(self, source: Any, *, speed: float, start: Any, stop: Any, gap: int | None) -> None:
        if not speed > 0 or math.isnan(speed):
            raise InvalidArgument(f"speed is {speed}: a number above 0; inf does not wait")
        self._speed = float(speed)
        self._gap = gap
        self._paused_at: int | None = None
        self._begin = 0  # when the first record went out, by perf_counter_ns; pauses move it
        self._first = 0  # its timestamp; gaps that are cut short move it
        self._last: int | None = None  # the newest timestamp so far
        self._behind = 0
        self._count = 0
        self._source: QueueReader | Merge
        if isinstance(source, Merge):
            if stop is not None or start != "earliest":
                raise InvalidArgument("start and stop are for a queue: a merge was given its own when it was opened")
            self._source = source
            self._ends = [Queue.info(one.path).next_seq if source.live and one.present else 0 for one in source.sources]
            self._total = sum(
                max(0, end - one.position) if source.live else max(0, (one.stop or 0) - one.position)
                for end, one in zip(self._ends, source.sources, strict=True)
            )
        else:
            scan = Queue.scan(source, start=start, stop=stop)
            self._stop = scan.stop
            self._total = max(0, scan.stop - scan.start)
            self._source = Queue.open_subscriber(source, start=scan.start)

    # --------------------------------------------------------------------------------------- the pace

    @property
    def total(self) -> int:
        """How many records there are to replay, as known when it began.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.replay("q") as replay:
        ...     replay.total
        2
        """
        return self._total

    @property
    def count(self) -> int:
        """How many were handed out.

        >>> with Queue.replay("q") as replay:
        ...     replay.count
        0
        """
        return self._count

    @property
    def behind(self) -> float:
        """Seconds by which the last record came after it was due.

        >>> with Queue.replay("q") as replay:
        ...     replay.behind
        0.0
        """
        return self._behind / 1e9

    def pause(self) -> None:
        """Let time stand still, within 20 ms, until `resume`. Any thread may call it.

        >>> with Queue.replay("q") as replay:
        ...     replay.pause()
        """
        if self._paused_at is None:
            self._paused_at = time.perf_counter_ns()

    def resume(self) -> None:
        """Go on after `pause`. Any thread may call it.

        >>> with Queue.replay("q") as replay:
        ...     replay.resume()
        """
        if self._paused_at is not None:
            self._begin += time.perf_counter_ns() - self._paused_at
            self._paused_at = None

    def _wait_until_due(self, timestamp_ns: int) -> None:
        if self._last is None:
            self._begin, self._first, self._last = time.perf_counter_ns(), timestamp_ns, timestamp_ns
        if self._gap is not None and timestamp_ns - self._last > self._gap:
            self._first += timestamp_ns - self._last - self._gap
        self._last = max(self._last, timestamp_ns)
        while True:
            left = self._begin + int((timestamp_ns - self._first) / self._speed) - time.perf_counter_ns()
            if self._paused_at is not None:
                time.sleep(SLICE_NS / 1e9)
            elif left > SPIN_NS:
                time.sleep(min(left - SPIN_NS, SLICE_NS) / 1e9)
            elif left <= 0:
                self._behind = -left
                return

    # --------------------------------------------------------------------------------------- the records

    def __iter__(self) -> Iterator[Message | MergedMessage]:
        """The range that is replayed. A loop that was left goes on in the next one; time has gone on meanwhile."""
        for message in self._records():
            self._wait_until_due(message.timestamp_ns)
            self._count += 1
            yield message

    def _records(self) -> Iterator[Message | MergedMessage]:
        source = self._source
        if isinstance(source, QueueReader):
            while source.position < self._stop and (message := source.next()) is not None:
                yield message
        elif not source.live:
            yield from source
        else:
            while any(one.present and one.position < end for one, end in zip(source.sources, self._ends)):  # noqa: B905
                if (merged := source.next()) is not None:
                    yield merged
                else:
                    source.wait(SLICE_NS / 1e9)

    def then_live(self, timeout: float | None = None) -> Iterator[Message | MergedMessage]:
        """The replay, and from its end on whatever comes, as it comes: no record twice, and none left out.

        For ever, or until none has come for `timeout` seconds. Of a queue all that came behind its end meanwhile
        follows without a pause. A merge has to be a live one.

        >>> seq = writer.append(b"one")
        >>> with Queue.replay("q") as replay:
        ...     for message in replay.then_live(timeout=0.02):
        ...         print(message.payload)
        ...         if message.seq == 0:
        ...             seq = writer.append(b"two")
        b'one'
        b'two'
        """
        if isinstance(self._source, Merge) and not self._source.live:
            raise InvalidArgument("this merge ends where its queues ended: open it with live=True to go on from there")
        return self._then_live(timeout)

    def _then_live(self, timeout: float | None) -> Iterator[Message | MergedMessage]:
        yield from self
        yield from self._source.follow(timeout)

    def into(
        self,
        target: str | os.PathLike[str] | QueueWriter,
        *,
        stamps: Literal["original", "new"] = "original",
        resume: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Append the range to another queue, each record when it is due; returns how many.

        :param stamps: "original" timestamps, or "new" ones: when they are appended.
        :param resume: the target has the first records of this range already, from an earlier run that was ended: go on
            behind them. The last of them is compared; InvalidArgument if it is another one.
        :param progress: called with how many are done, and of how many, now and then.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.replay("q", speed=float("inf")) as replay:
        ...     replay.into("copy")
        2
        >>> Queue.info("copy").next_seq
        2
        """
        if stamps not in ("original", "new"):
            raise InvalidArgument(f'stamps is {stamps!r}; it can be "original" or "new"')
        if isinstance(target, QueueWriter):
            return self._into(target, stamps == "original", resume, progress)
        with Queue.open_publisher(target) as writer:
            return self._into(writer, stamps == "original", resume, progress)

    def _into(
        self, writer: QueueWriter, original: bool, resume: bool, progress: Callable[[int, int], None] | None
    ) -> int:
        if resume:
            self._skip(writer, original)
        count = 0
        told = time.monotonic()
        for message in self:
            stamp = message.timestamp_ns if original else None
            writer.append(message.payload, message.type_id, stamp, message.flags)
            count += 1
            if progress and not count & 0xFF and time.monotonic() - told > 0.2:
                told = time.monotonic()
                progress(self._count, self._total)
        if progress:
            progress(self._count, self._total)
        return count

    def _skip(self, writer: QueueWriter, original: bool) -> None:
        """Pass over what the target has."""
        there = writer.next_seq
        skipped = None
        for _ in range(there):
            skipped = next(self._records(), None)
            if skipped is None:
                raise InvalidArgument(
                    f"the target has {there} records, the range that is replayed {self._count}: it is no copy"
                )
            self._count += 1
        if skipped is None:
            return
        with Queue.open_subscriber(writer.path, start="latest") as reader:
            last = reader.previous()
        if last is not None and _content(last, original) != _content(skipped, original):
            raise InvalidArgument(
                f"record {last.seq} of the target is not the one of the replay: it is no copy of this range"
            )

    def close(self) -> None:
        """Close what it reads: the queue's reader, or the merge. May be called again.

        >>> Queue.replay("q").close()
        """
        self._source.close()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Replay of {self._count} of {self._total} records>"


def _content(message: Message | MergedMessage, with_time: bool) -> tuple[bytes, int, int, int]:
    return message.payload, message.type_id, message.flags, message.timestamp_ns if with_time else 0
