# SPDX-License-Identifier: MIT
"""`QueueReader.follow`: messages as they come, and what else happens to the log meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from chronicle_ffi._arguments import Duration, seconds
from chronicle_ffi.errors import InvalidArgument
from chronicle_ffi.model import Event, Message

if TYPE_CHECKING:
    from chronicle_ffi._reader import QueueReader

LOOK_SECONDS = 0.25  # how often a follower without messages asks whether the writer is there


class _Watch:
    """Notices what changed since it was asked last."""

    def __init__(self, reader: QueueReader) -> None:
        self._reader = reader
        stats = reader.stats()
        self._rolls, self._gaps, self._skipped = stats.rolls, stats.gaps, stats.skipped
        self._alive = reader.writer_alive()

    def changes(self) -> Iterator[Event]:
        stats = self._reader.stats()
        seq = self._reader.position
        if stats.gaps != self._gaps:
            yield Event("gap", seq, stats.skipped - self._skipped)
        if stats.rolls != self._rolls:
            yield Event("rolled", seq)
        self._rolls, self._gaps, self._skipped = stats.rolls, stats.gaps, stats.skipped

    def writer(self) -> Iterator[Event]:
        alive = self._reader.writer_alive()
        if alive != self._alive:
            yield Event("writer_back" if alive else "writer_gone", self._reader.position)
        self._alive = alive


def follow(
    reader: QueueReader,
    fetch: Callable[[], bool],
    fetched: Callable[[], Iterator[Message]],
    timeout: Duration | None,
    heartbeat: Duration | None,
    events: bool,
) -> Iterator[Any]:
    """See `QueueReader.follow`. `fetch` says whether there is a record, which stays; `fetched` hands out what is."""
    limit = float("inf") if timeout is None else seconds("timeout", timeout)
    beat = float("inf") if heartbeat is None else seconds("heartbeat", heartbeat)
    if not beat:
        raise InvalidArgument(f"heartbeat is {heartbeat}: a time above 0, or None")
    return _follow(reader, fetch, fetched, limit, beat, _Watch(reader) if events else None)


def _follow(
    reader: QueueReader,
    fetch: Callable[[], bool],
    fetched: Callable[[], Iterator[Message]],
    limit: float,
    beat: float,
    watch: _Watch | None,
) -> Iterator[Any]:
    while True:
        while fetch():
            if watch:  # what happened in front of the next record, which the reader has not passed yet
                yield from watch.changes()
            yield from fetched()
        quiet = time.monotonic()
        sounded = quiet
        while True:
            now = time.monotonic()
            left = min(limit - (now - quiet), beat - (now - sounded))
            if watch:
                left = min(left, LOOK_SECONDS)
            if reader.wait(None if left == float("inf") else max(left, 0.0)):
                break
            now = time.monotonic()
            if watch:
                yield from watch.writer()
            if now - sounded >= beat:
                sounded = now
                yield Event("idle", reader.position)
            if now - quiet >= limit:
                return
