# SPDX-License-Identifier: MIT
"""Bells, and waiting at them on an event loop: `QueueReader.wait_async` and `QueueWriter.wait_durable` build on it.
Turns of tasks, and calls in a thread: `QueueWriter.append_async` does.

The loop never sleeps in C. A task that finds nothing arms its handle and awaits a future; one thread of the process,
the listener, sleeps at the bells of all handles that tasks have waited for, and tells their loops which have rung. It
is started by the first wait, and ends when there is no bell left.

Any loop will do that has asyncio's `create_future`, `call_later` and `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from chronicle_ffi import _fast
from chronicle_ffi._arguments import Duration, seconds
from chronicle_ffi._binding import EINTR, check, ffi, lib

LOOK_SECONDS: Final = 0.5  # a bell may fail to ring if a writer dies between publishing and ringing
POLL_SECONDS: Final = (0.0005, 0.01)  # without a doorbell: from the first, doubled up to the second
BELLS_MAX: Final[int] = lib.CHRON_BELLS_MAX - 1  # of one listener; one more is its own


class NoThread(Exception):
    """The listener cannot be started now: look now and then instead."""


class Bell:
    """A handle's bell, and the futures of one loop that wait for it. Its methods belong to the loop's thread."""

    def __init__(self, owned: _fast.Bell) -> None:
        self._owned = owned
        self.pointer = _pointer(owned)
        self.loop = asyncio.get_running_loop()
        self.waiting: set[asyncio.Future[bool]] = set()
        self.is_mute = False  # once it did not ring for what there was: its doorbell may have been replaced
        self._listener: _Listener | None = None

    def is_here(self) -> bool:
        """Whether the running loop is its own."""
        return self.loop is asyncio.get_running_loop()

    def listen(self) -> None:
        """Have a listener wait at it. Raises NoThread."""
        if self._listener is None:
            self._listener = _listener_of(self)

    def rang(self) -> None:
        for future in self.waiting:
            _wake(future, True)

    def close(self) -> None:
        """No more waiting here: who waits looks once more, and finds the handle closed."""
        for listener in list(_listeners):  # in a forked child there are none, and the loop is the parent's
            if listener.remove(self) and not self.loop.is_closed():
                self.loop.call_soon_threadsafe(self.rang)


def _pointer(owned: _fast.Bell) -> Any:
    return ffi.cast("chron_bell **", owned.place)[0]


def _wake(future: asyncio.Future[bool], has_rung: bool) -> None:
    if not future.done():
        future.set_result(has_rung)


class _Listener:
    """The thread, and the bells that it waits at."""

    def __init__(self) -> None:
        self._owned = _fast.Bell()
        check(lib.chron_bell_new(ffi.cast("chron_bell **", self._owned.place)))
        self._changed = _pointer(self._owned)  # rung when the bells are other ones
        self._lock = threading.RLock()  # a bell may be removed by a destructor, anywhere
        self._bells: list[Bell] = []
        self._thread: threading.Thread | None = None

    def add(self, bell: Bell) -> bool:
        """False if there are as many as one thread can wait at. Raises NoThread; then it waits at none."""
        with self._lock:
            if bell not in self._bells:
                if len(self._bells) == BELLS_MAX:
                    return False
                self._bells = [*self._bells, bell]
            if self._thread is None:
                try:
                    threading.Thread(target=self._main, name="chronicle-listener", daemon=True).start()
                except RuntimeError as limit:
                    self.remove(bell)
                    raise NoThread from limit
        check(lib.chron_bell_ring(self._changed))
        return True

    def remove(self, bell: Bell) -> bool:
        """Whether it was there."""
        with self._lock:
            before = self._bells
            self._bells = [other for other in before if other is not bell]
            found = len(self._bells) < len(before)
        check(lib.chron_bell_ring(self._changed))
        return found

    def _main(self) -> None:
        me = threading.current_thread()
        while True:
            changes = lib.chron_bell_count(self._changed)
            with self._lock:
                bells = self._bells
                if self._thread is None:
                    self._thread = me
                if self._thread is not me:  # whoever started this one was interrupted, and started another
                    return
                if not bells:
                    self._thread = None
                    return
            self._listen(bells, changes)

    def _listen(self, bells: list[Bell], changes: int) -> None:
        """Until the bells are other ones."""
        pointers = ffi.new("chron_bell *[]", [self._changed, *(bell.pointer for bell in bells)])
        # From 0: what has rung before is told once too often. From the counts of now, a ring would be lost.
        seen = [changes, *(0 for _ in bells)]
        counts = ffi.new("uint32_t[]", seen)
        while seen[0] == changes:
            status = lib.chron_bells_wait(pointers, counts, len(seen), -1)
            if status != EINTR:  # a signal: the main thread's business
                check(status)
            before, seen = seen, ffi.unpack(counts, len(seen))
            for bell, old, new in zip(bells, before[1:], seen[1:], strict=True):
                if old != new and bell.waiting:
                    self._tell(bell)

    def _tell(self, bell: Bell) -> None:
        try:
            bell.loop.call_soon_threadsafe(bell.rang)
        except RuntimeError:  # the loop is closed, and nobody waits there any more
            self.remove(bell)


_listeners: list[_Listener] = []
_listeners_lock = threading.RLock()


def _listener_of(bell: Bell) -> _Listener:
    with _listeners_lock:
        for listener in _listeners:
            if listener.add(bell):
                return listener
        _listeners.append(_Listener())
        _listeners[-1].add(bell)
        return _listeners[-1]


def _after_fork_in_child() -> None:
    """The threads, the locks that they held, and the loops that they told, are the parent's."""
    global _listeners, _listeners_lock
    _listeners = []
    _listeners_lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


async def until(ready: Callable[[], bool | None], bell: Bell | None, timeout: Duration | None) -> bool:
    """Until `ready()`; False if that took longer than `timeout` seconds.

    It arms the handle if it is not ready, and answers None if the bell may fail to ring all the same.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + seconds("timeout", timeout)
    poll = POLL_SECONDS[0]
    has_rung = True
    while True:
        future = loop.create_future()
        if bell is not None:
            bell.waiting.add(future)  # before arming: then whoever rings afterwards finds it
        try:
            is_there = ready()
            if is_there:
                if bell is not None:
                    bell.is_mute = not has_rung
                return True
            pause = LOOK_SECONDS
            if bell is None or is_there is None:
                pause, poll = poll, min(2 * poll, POLL_SECONDS[1])
            left = pause if deadline is None else min(pause, deadline - loop.time())
            if left <= 0:
                return False
            timer = loop.call_later(left, _wake, future, False)
            try:
                has_rung = await future
            finally:
                timer.cancel()
        finally:
            if bell is not None:
                bell.waiting.discard(future)


# ----------------------------------------------------------------------------------- turns and threads

T = TypeVar("T")


def end_of(timeout: Duration | None) -> float | None:
    """When a wait that begins now ends, by the running loop's clock."""
    return None if timeout is None else asyncio.get_running_loop().time() + seconds("timeout", timeout)


async def look_until(look: Callable[[], Awaitable[bool]], end: float | None) -> bool:
    """For what rings no bell: now, and then again and again, less and less often; False at `end`."""
    loop = asyncio.get_running_loop()
    pause, longest = POLL_SECONDS
    while not await look():
        left = pause if end is None else min(pause, end - loop.time())
        if left <= 0:
            return False
        await asyncio.sleep(left)
        pause = min(2 * pause, longest)
    return True


async def in_thread(call: Callable[[], T]) -> T:
    """Its result, from a thread of the loop's executor. A task that is cancelled ends after it: who comes next finds
    the handle free."""
    future = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise


class Turns:
    """Tasks of a loop, one after the other, in the order in which they came."""

    def __init__(self) -> None:
        self._last: asyncio.Future[None] | None = None  # done when the last one that came has ended

    def are_free(self) -> bool:
        """Whether nobody has one, or waits for one."""
        return self._last is None or self._last.done() or self._last.get_loop().is_closed()

    @asynccontextmanager
    async def take(self, end: float | None) -> AsyncIterator[bool]:
        """Wait for the turn; False if it has not come at `end`."""
        loop = asyncio.get_running_loop()
        before = None if self.are_free() else self._last
        self._last = mine = loop.create_future()
        try:
            if before is not None:
                await asyncio.wait([before], timeout=None if end is None else max(end - loop.time(), 0))
            yield before is None or before.done()
        finally:
            if before is None or before.done():
                mine.set_result(None)
            else:  # given up: those behind wait for those in front
                before.add_done_callback(lambda _: mine.set_result(None))
