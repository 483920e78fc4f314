# SPDX-License-Identifier: MIT
"""The end that answers."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from chronicle_ffi import (
    ChronicleError,
    ConcurrentUse,
    Corrupt,
    HistoryRewritten,
    InvalidArgument,
    Message,
    NoSpace,
    PayloadTooLarge,
    Queue,
    QueueNotFound,
    QueueReader,
    ReaderAlreadyActive,
    Retention,
    WriterAlreadyActive,
)
from chronicle_ffi.channel._wire import (
    DONE,
    EXPIRED,
    FAILED,
    HEAD,
    KEY_BYTES,
    LOST,
    TEMPORARY,
    Request,
    records,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

LOOK_SECONDS: Final = 0.02  # how often new clients are looked for
AWAY_SECONDS: Final = 0.25  # how often a silent client is looked at: has it gone?
TEXT_MAX: Final = 8192  # bytes of what an exception says: fits any segment
AGAIN_SECONDS: Final = 1.0  # after a client's queues failed
FINISHED_EVERY: Final = 64  # requests: how often it is written down up to which one all are answered
OPENING_SECONDS: Final = 60.0  # how long a client may be at making its queues

log = logging.getLogger("chronicle_ffi.channel")


class Server:
    """Answers the clients of a channel. One process at a time (else WriterAlreadyActive); `wait` seconds for another.

    :param delivery: what becomes of a request that a server was at when it died. "at-least-once": the next one does it,
        perhaps again; `Request.key` tells a handler which it is. "at-most-once": nobody does it again, and its client
        gets `ServerDied`. Either way a request whose reply is in the log is not done again.
    :param durability: of the replies.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        delivery: Literal["at-least-once", "at-most-once"] = "at-least-once",
        durability: Any = "none",
        mode: int | None = None,
        wait: float | None = 0.0,
    ) -> None:
        if delivery not in ("at-least-once", "at-most-once"):
            raise InvalidArgument(f"delivery is {delivery!r}; it can be 'at-least-once' or 'at-most-once'")
        self.path = Path(path)
        self._once = delivery == "at-most-once"
        self._options: dict[str, Any] = {"durability": durability, "mode": mode}
        (self.path / "clients").mkdir(parents=True, exist_ok=True)
        self._alone = Queue.open_publisher(self.path / "server", segment_size=1 << 16, keeper=False, wait=wait)
        self._stopping = False  # no lock around it: `stop` may interrupt whoever looks at it
        self._known: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._is_short = False  # of descriptors

    # ---------------------------------------------------------------------------------------- serving

    def serve(self, handler: Callable[[Request], Buffer]) -> None:
        """Answer with what ``handler(request)`` returns, bytes or another buffer, until `stop` or Ctrl-C.

        Each client has a thread: its requests are done one after the other, those of several clients at the same time.
        What the handler raises goes to the client as `RemoteError`, and to the log. When this ends, the requests that
        handlers were at have been answered.
        """
        threads: list[threading.Thread] = []
        self._begin()
        try:
            while not self._stopping:
                for name in self._newcomers():
                    thread = threading.Thread(target=self._attend, args=(name, handler), name=f"channel-{name}")
                    try:
                        thread.start()
                    except RuntimeError as limit:
                        log.error("client %s is not served for now: %s", name, limit)
                        self._leave(name, AGAIN_SECONDS)
                        continue
                    threads = [*(other for other in threads if other.is_alive()), thread]
                time.sleep(LOOK_SECONDS)
        finally:
            self._stopping = True
            for thread in threads:
                thread.join()

    async def serve_async(self, handler: Callable[[Request], Awaitable[Buffer]], *, concurrency: int = 64) -> None:
        """`serve` on the running event loop, until `stop`, or the task is cancelled: then so are handlers.

        Up to ``concurrency`` requests of each client are under way at a time; replies come as they are ready.
        """
        if concurrency < 1:
            raise InvalidArgument(f"concurrency is {concurrency}: it can be 1 or more")
        tasks: set[asyncio.Task[None]] = set()
        self._begin()
        try:
            while not self._stopping:
                for name in self._newcomers():
                    task = asyncio.create_task(self._attend_async(name, handler, concurrency))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """End `serve`, for good: one that begins later ends at once. From any thread, or a signal handler."""
        self._stopping = True

    def _begin(self) -> None:
        self._alone.cleanup()  # raises ClosedHandle, ForkedHandle

    def _newcomers(self) -> list[str]:
        now = time.monotonic()
        found = []
        try:
            names = os.listdir(self.path / "clients")
        except OSError as problem:
            if problem.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if not self._is_short:
                log.error("no new clients are served for now: %s", problem)
            self._is_short = True
            return []
        self._is_short = False
        if len(self._not_before) > len(names):  # some have gone
            self._not_before = {name: self._not_before[name] for name in names if name in self._not_before}
        for name in names:
            if name not in self._known and self._not_before.get(name, 0.0) <= now:
                self._known.add(name)
                found.append(name)
        return found

    def _opened(self, name: str) -> _Pair | None:
        place = self.path / "clients" / name
        try:
            return _Pair(place, self._once, self._options)
        except (QueueNotFound, WriterAlreadyActive, ReaderAlreadyActive, NotADirectoryError) as problem:
            # Its client is at it, if it is not dead.
            age = _age(place)
            if age > OPENING_SECONDS and isinstance(problem, QueueNotFound) and _has_died_opening(place):
                shutil.rmtree(place, ignore_errors=True)
            self._leave(name, LOOK_SECONDS if abs(age) < AGAIN_SECONDS else AGAIN_SECONDS)
        except ChronicleError:
            log.exception("the queues of client %s cannot be opened", name)
            self._leave(name, AGAIN_SECONDS)
        return None

    def _leave(self, name: str, seconds: float) -> None:
        """To be looked at again after a while."""
        self._not_before[name] = time.monotonic() + seconds
        self._known.discard(name)

    def _attend(self, name: str, handler: Callable[[Request], Buffer]) -> None:
        pair = self._opened(name)
        if pair is None:
            return
        try:
            while not self._stopping:
                message = pair.next()
                if message is not None:
                    request = pair.begin(message)
                    if request is not None:
                        pair.end(message.seq, request.key, *_done(handler, request), lambda: self._stopping)
                elif not pair.requests.wait(AWAY_SECONDS) and pair.has_gone():
                    break
        except Exception:
            log.exception("client %s is not served for now", name)
        finally:
            pair.close()
            self._leave(name, AGAIN_SECONDS)

    async def _attend_async(self, name: str, handler: Callable[[Request], Awaitable[Buffer]], concurrency: int) -> None:
        pair = self._opened(name)
        if pair is None:
            return
        room = asyncio.Semaphore(concurrency)
        tasks: set[asyncio.Task[None]] = set()
        failed: list[Exception] = []

        async def answer(seq: int, request: Request) -> None:
            try:
                await pair.end_async(seq, request.key, *await _done_async(handler, request))
            except Exception as problem:  # the log's, not the handler's
                failed.append(problem)
            finally:
                room.release()

        try:
            while True:
                await room.acquire()
                while (message := None if failed else pair.next()) is None:
                    if failed:
                        raise failed[0]
                    if not await pair.requests.wait_async(AWAY_SECONDS) and not tasks and pair.has_gone():
                        return
                request = pair.begin(message)
                if request is None:
                    room.release()
                    continue
                task = asyncio.create_task(answer(message.seq, request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except Exception:
            log.exception("client %s is not served for now", name)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            pair.close()
            self._leave(name, AGAIN_SECONDS)

    # ------------------------------------------------------------------------------------------ ending

    def close(self) -> None:
        """Let another process serve. Not while `serve` is under way: `stop` it first."""
        self._stopping = True
        self._alone.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server of {str(self.path)!r}{' (closed)' if self._alone.closed else ''}>"


class _Pair:
    """A client's queues, and which of its requests are to be done."""

    def __init__(self, place: Path, once: bool, options: dict[str, Any]) -> None:
        self._place = place
        self._name = place.name
        self._once = once
        self._unfinished: dict[int, None] = {}  # seqs, lowest first
        self._since_finished = 0
        with ExitStack() as opened:
            self.requests = opened.enter_context(_requests_of(place / "requests", "server"))
            self.replies = opened.enter_context(
                Queue.open_publisher(place / "replies", create=False, retention=Retention(), **options)
            )
            # Of requests that may not be begun twice: behind it all are answered. It keeps those in front, too.
            self._finished = opened.enter_context(_requests_of(place / "requests", "finished")) if once else None
            self._answered = self._look_back()
            opened.pop_all()

    def _look_back(self) -> set[bytes]:
        """What an earlier server has answered and not committed. What it had begun, and nobody may again, is LOST."""
        position = self.requests.position
        begun, coming = [], set()
        start = position
        if self._finished is None:
            with suppress(QueueNotFound):  # one that nobody moves any more would keep all
                Queue.remove_reader(self._place / "requests", "finished")
        elif self._finished.committed is not None:
            start = min(self._finished.position, position)
        with Queue.open_subscriber(self._place / "requests", on_gap="oldest") as reader:
            reader.seek(start)
            for message in records(reader):
                if message.seq < position:
                    begun.append(message.payload[:KEY_BYTES])
                else:
                    coming.add(message.payload[:KEY_BYTES])
        if not begun and not coming:
            return set()
        with Queue.open_subscriber(self._place / "replies", on_gap="oldest", start="earliest") as reader:
            answered = {message.payload[:KEY_BYTES] for message in records(reader)}
        for key in begun:
            if key not in answered and len(key) == KEY_BYTES:
                self.replies.append(key, flags=LOST)
        self._write_down_finished()
        return coming & answered

    def next(self) -> Message | None:
        while True:
            try:
                return self.requests.next()
            except Corrupt as damage:  # whose call it was cannot be known: it times out
                log.error("a request cannot be read: %s", damage)
                self.requests.skip_damaged()

    def begin(self, message: Message) -> Request | None:
        """None if there is nothing to do."""
        payload = message.payload
        key = payload[:KEY_BYTES]
        self._unfinished[message.seq] = None
        if len(payload) < HEAD.size:
            log.error("%s: record %d is no request", self._place, message.seq)
        elif key in self._answered:
            self._answered.discard(key)
        else:
            if self._once:
                self.requests.commit()
            deadline_ns = HEAD.unpack_from(payload)[2]
            return Request(payload[HEAD.size :], message.type_id, key, self._name, deadline_ns)
        self._finish(message.seq)
        return None

    def end(self, seq: int, key: bytes, body: Any, outcome: int, is_stopping: Callable[[], bool]) -> None:
        """Answer. On a full disk: wait for room, and when it is to stop, leave it to the next server."""
        while True:
            try:
                self.replies.append(b"".join((key, body)), 0, None, outcome)
                break
            except PayloadTooLarge as problem:
                body, outcome = _text(problem), FAILED
            except NoSpace as problem:
                log.error("a reply waits for room on the disk: %s", problem)
                if is_stopping():
                    return
                time.sleep(AGAIN_SECONDS / 10)
        self._finish(seq)

    async def end_async(self, seq: int, key: bytes, body: Any, outcome: int) -> None:
        while True:
            try:
                await self.replies.append_async(b"".join((key, body)), 0, None, outcome)
                break
            except PayloadTooLarge as problem:
                body, outcome = _text(problem), FAILED
            except NoSpace as problem:
                log.error("a reply waits for room on the disk: %s", problem)
                await asyncio.sleep(AGAIN_SECONDS / 10)
        self._finish(seq)

    def _finish(self, seq: int) -> None:
        unfinished = self._unfinished
        del unfinished[seq]
        if self._once:
            self._since_finished += 1
            if self._since_finished >= FINISHED_EVERY:
                self._write_down_finished()
        elif unfinished:
            self.requests.commit(next(iter(unfinished)))
        else:
            self.requests.commit()

    def _write_down_finished(self) -> None:
        self._since_finished = 0
        if self._finished is not None:
            self._finished.seek(next(iter(self._unfinished), self.requests.position))
            self._finished.commit()

    def has_gone(self) -> bool:
        """A client that does not come back, with nothing left to do: its queues are removed."""
        if not self._name.startswith(TEMPORARY) or self.requests.writer_alive() or self.requests.lag:
            return False
        self.close()
        shutil.rmtree(self._place, ignore_errors=True)  # what stays is found by the next server
        return True

    def close(self) -> None:
        self.requests.close()
        if self._finished is not None:
            self._finished.close()
        try:
            self.replies.close()
        except ConcurrentUse:
            raise
        except ChronicleError:
            log.exception("the replies to %s could not be closed properly", self._name)


def _requests_of(path: Path, name: str) -> QueueReader:
    try:
        return Queue.open_subscriber(path, name, on_gap="oldest")
    except HistoryRewritten as problem:
        log.warning("requests were undone by a loss of power: %s", problem)
        return Queue.open_subscriber(path, name, on_gap="oldest", start=problem.next_seq or 0)


def _age(place: Path) -> float:
    """Seconds since something was made or removed there; endless if it is not there."""
    try:
        return time.time() - place.stat().st_mtime
    except OSError:
        return math.inf


def _has_died_opening(place: Path) -> bool:
    """A client that does not come back, and has not made all of its queues."""
    try:
        return place.name.startswith(TEMPORARY) and not Queue.info(place / "requests").writer_alive
    except QueueNotFound:
        return True


def _done(handler: Callable[[Request], Buffer], request: Request) -> tuple[Any, int]:
    if _is_late(request):
        return b"", EXPIRED
    try:
        return _answer(handler(request))
    except BaseException as problem:  # SystemExit too: it would end this client's thread, and be raised again and again
        return _failed(request, problem)


async def _done_async(handler: Callable[[Request], Awaitable[Buffer]], request: Request) -> tuple[Any, int]:
    if _is_late(request):
        return b"", EXPIRED
    try:
        return _answer(await handler(request))
    except asyncio.CancelledError as problem:
        if _is_cancelled():
            raise
        return _failed(request, problem)  # the handler's own: of a task that it awaited
    except Exception as problem:
        return _failed(request, problem)


def _is_cancelled() -> bool:
    """Whether this task is, and not only what it awaited. Python 3.10 does not tell."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0


def _is_late(request: Request) -> bool:
    return request.deadline_ns != 0 and time.time_ns() > request.deadline_ns


def _answer(found: Any) -> tuple[Any, int]:
    if type(found) is not bytes:
        memoryview(found).release()  # a TypeError here is the handler's
    return found, DONE


def _failed(request: Request, problem: BaseException) -> tuple[Any, int]:
    log.error("the handler of a request of client %s raised", request.client, exc_info=problem)
    return _text(problem), FAILED


def _text(problem: BaseException) -> bytes:
    return f"{type(problem).__name__}: {problem}".encode("utf-8", "backslashreplace")[:TEXT_MAX]
