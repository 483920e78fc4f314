# SPDX-License-Identifier: MIT
"""`Discovery`: the queues below a directory, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from chronicle_ffi import ChronicleError, Queue, QueueNotFound
from chronicle_ffi.merge import inotify

META: Final = "queue.meta"  # docs/FORMAT.md: what makes a directory a queue
SETTLE_SECONDS: Final = 0.02  # between two looks at everything, however much changes


class Sighting(NamedTuple):
    """What became of a queue.

    >>> next(iter(Queue.discover(".", watch=False)))
    Sighting(kind='appeared', path='q', writer=True)
    """

    kind: str  #: "appeared", "writer", "writer_gone" or "gone"
    path: str  #: the queue's directory, below the root as that was given
    writer: bool  #: whether it has one now


class Discovery:
    """The queues below a directory: an iterator of `Sighting`, also an asynchronous one.

    Made by `chronicle_ffi.Queue.discover`.
    First all that are there appear, in order of their paths; with `watch` it goes on, with what changes. Directories
    that are no queues, or cannot be read, are passed over; links are followed, and each directory is looked into once.
    What lies inside of a queue is its own business. Of a queue that goes and comes back between two looks nothing is
    told.

    >>> with Queue.discover(".") as discovery:
    ...     print(discovery.next(timeout=1))
    ...     writer.close()
    ...     print(discovery.next(timeout=5).kind)
    Sighting(kind='appeared', path='q', writer=True)
    writer_gone
    """

    def __init__(self, root: str, pattern: str, *, watch: bool, interval: float, depth: int) -> None:
        if not os.path.isdir(root):
            raise QueueNotFound(f"{root} is no directory: queues are looked for below one")
        self._root = root
        self._pattern = pattern
        self._watching = watch
        self._interval = max(interval, 0.001)
        self._depth = depth
        self._known: dict[
            str, tuple[tuple[int, int], bool]
        ] = {}  # path: which directory it is, and whether it has a writer
        self._pending: deque[Sighting] = deque()
        self._looked = float("-inf")
        self._changed = True
        self._closed = False
        self._notify: inotify.Watch | None = None
        if watch:
            with suppress(OSError):  # then it looks every `interval` seconds
                self._notify = inotify.Watch()

    # --------------------------------------------------------------------------------------- looking

    def _look(self) -> None:
        """Compare what is there with what is known."""
        self._changed = False
        self._looked = time.monotonic()
        found = dict(sorted(self._queues()))
        for path in [path for path in self._known if path not in found]:
            self._pending.append(Sighting("gone", path, False))
            del self._known[path]
        for path, identity in found.items():
            try:
                alive = Queue.info(path).writer_alive
            except QueueNotFound:  # not yet, or not any more
                continue
            except ChronicleError:  # it is one, and damaged: whoever reads it will be told
                alive = False
            known = self._known.get(path)
            if known is not None and known[0] != identity:
                self._pending.append(Sighting("gone", path, False))
                known = None
            if known is None:
                self._pending.append(Sighting("appeared", path, alive))
            elif known[1] != alive:
                self._pending.append(Sighting("writer" if alive else "writer_gone", path, alive))
            self._known[path] = (identity, alive)

    def _queues(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Directories that look like queues, and which they are. Each is visited once, by whatever name comes first."""
        seen: set[tuple[int, int]] = set()
        waiting = deque([(self._root, 0)])
        while waiting:
            path, depth = waiting.popleft()
            try:
                status = os.stat(path)
                identity = (status.st_dev, status.st_ino)
                if identity in seen:
                    continue
                seen.add(identity)
                is_queue = os.path.lexists(os.path.join(path, META))
                if self._notify is not None:
                    self._notify.add(path, inotify.IN_QUEUE if is_queue else inotify.IN_DIRECTORY)
                if is_queue:
                    if self._matches(path):
                        yield path, identity
                elif depth <= self._depth:
                    with os.scandir(path) as entries:
                        below = sorted(entry.path.removeprefix("./") for entry in entries if entry.is_dir())
                    waiting.extend((inner, depth + 1) for inner in below)
            except OSError:  # it went away meanwhile, or is closed to this user
                continue

    def _matches(self, path: str) -> bool:
        below = os.path.relpath(path, self._root)
        return fnmatchcase(below if "/" in self._pattern else os.path.basename(os.path.abspath(path)), self._pattern)

    def _due(self) -> float:
        """Seconds until the next look at everything."""
        after = SETTLE_SECONDS if self._changed else self._interval
        return self._looked + after - time.monotonic()

    # --------------------------------------------------------------------------------------- waiting

    def next(self, timeout: float | None = None) -> Sighting | None:
        """The next one; None: none within `timeout` seconds, or, without `watch`, no more.

        >>> discovery = Queue.discover(".", watch=False)
        >>> discovery.next().path, discovery.next()
        ('q', None)
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._pending and not self._closed:
            if self._looked == float("-inf") or self._due() <= 0:
                self._look()
                continue
            left = deadline - time.monotonic()
            if not self._watching or left <= 0:
                return None
            pause = min(self._due(), left)
            if self._notify is None or self._changed:
                time.sleep(max(pause, 0))
            elif self._notify.wait(pause):
                self._changed = True
        return self._pending.popleft() if self._pending else None

    async def next_async(self, timeout: float | None = None) -> Sighting | None:
        """`next` on the running event loop. ``await discovery`` is the same without a timeout.

        >>> async def first() -> str:
        ...     with Queue.discover(".") as discovery:
        ...         return (await discovery).path
        >>> asyncio.run(first())
        'q'
        """
        loop = asyncio.get_running_loop()
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._pending and not self._closed:
            if self._looked == float("-inf") or self._due() <= 0:
                await loop.run_in_executor(None, self._look)
                continue
            left = deadline - time.monotonic()
            if not self._watching or left <= 0:
                return None
            pause = max(min(self._due(), left), 0)
            if self._notify is None or self._changed:
                await asyncio.sleep(pause)
            else:
                await self._notified(pause)
        return self._pending.popleft() if self._pending else None

    async def _notified(self, seconds: float) -> None:
        assert self._notify is not None
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        descriptor = self._notify.fd
        loop.add_reader(descriptor, told.set)
        try:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(told.wait(), seconds)
        finally:
            loop.remove_reader(descriptor)
        self._changed = self._notify.drain() or self._changed

    def __await__(self) -> Any:
        return self.next_async().__await__()

    def __iter__(self) -> Iterator[Sighting]:
        while (found := self.next()) is not None:
            yield found

    async def __aiter__(self) -> AsyncIterator[Sighting]:
        while (found := await self.next_async()) is not None:
            yield found

    @property
    def paths(self) -> list[str]:
        """The queues that it knows of now, in order.

        >>> discovery = Queue.discover(".", watch=False)
        >>> discovery.next().path, discovery.paths
        ('q', ['q'])
        """
        return sorted(self._known)

    def close(self) -> None:
        """End it. May be called again.

        >>> Queue.discover(".").close()
        """
        self._closed = True
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def __enter__(self) -> Discovery:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_notify"):
            self.close()

    def __repr__(self) -> str:
        return f"<Discovery below {self._root!r}, {len(self._known)} queues>"
