# SPDX-License-Identifier: MIT
"""The end that calls."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chronicle_ffi import ClosedHandle, Corrupt, InvalidArgument, Message, Queue, QueueNotFound, QueueReader, Retention
from chronicle_ffi import WriterAlreadyActive as Active
from chronicle_ffi.channel._wire import (
    DONE,
    FAILED,
    HEAD,
    KEY_BYTES,
    LOST,
    SEGMENT_SIZE,
    TEMPORARY,
    CallTimedOut,
    RemoteError,
    ServerDied,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

COMMIT_EVERY: Final = 256  # replies: how often they are given free to be deleted
LONGEST_SECONDS: Final = 1e10
DEADLINE_MAX: Final = (1 << 64) - 1
NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class Client:
    """Calls the server of a channel. Belongs to one thread, and to one event loop at a time, as handles do.

    :param name: which pair of queues is this client's: one process has it at a time (else WriterAlreadyActive). None
        makes one that the server removes when this client has gone.
    :param segment_size: of the queues when they are made; a payload, or a reply, can be nearly as long.
    :param durability: of the requests, as in `chronicle_ffi.Queue.open_publisher`. By default calls survive the death
        of every process, but not a loss of power.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        segment_size: int = SEGMENT_SIZE,
        durability: Any = "none",
        mode: int | None = None,
    ) -> None:
        if name is None:
            name = f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}"
        elif not isinstance(name, str) or not NAME.fullmatch(name) or name.startswith(TEMPORARY):
            raise InvalidArgument(
                f"a client is named {name!r}: 1 to 64 of A-Z a-z 0-9 . _ -, no dot in front, not {TEMPORARY}..."
            )
        self.name = name
        self.path = Path(path)
        options: dict[str, Any] = {"segment_size": segment_size, "mode": mode}
        place = self.path / "clients" / name
        place.mkdir(parents=True, exist_ok=True)
        self._requests = Queue.open_publisher(
            place / "requests", durability=durability, retention=Retention(), **options
        )
        try:
            self._replies = _replies_of(place / "replies", options)
        except BaseException:
            self._requests.close()
            raise
        self._session = secrets.randbits(64)
        self._number = 0
        self._since_commit = 0
        self._waiting: dict[bytes, asyncio.Future[Message]] = {}
        self._pump: asyncio.Task[None] | None = None

    def call(self, payload: Buffer, type_id: int = 0, *, timeout: float | None = None) -> bytes:
        """Send a request and wait for its reply: its payload. Without a server it waits until one comes.

        `timeout` is in seconds; None waits without limit. A server that comes to a request after that does not do it.
        Ctrl-C works; the request stays sent. Raises CallTimedOut, RemoteError, ServerDied, and as ``append`` (then
        nothing was sent).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        head = self._head(timeout)
        self._requests.append(b"".join((head, payload)), type_id)
        key = head[:KEY_BYTES]
        replies = self._replies
        while True:
            message = self._next_reply()
            if message is None:
                if deadline is None:
                    replies.wait()
                elif (left := deadline - time.monotonic()) <= 0 or not replies.wait(left):
                    raise self._timed_out(timeout)
            elif message.payload[:KEY_BYTES] == key:
                return _result(message)
            else:
                self._deliver(message)

    async def call_async(self, payload: Buffer, type_id: int = 0, *, timeout: float | None = None) -> bytes:
        """`call` on the running event loop. Many may be under way; who is cancelled no longer waits."""
        head = self._head(timeout)
        key = head[:KEY_BYTES]
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message] = loop.create_future()
        deadline = None if timeout is None else loop.time() + timeout
        self._waiting[key] = future
        try:
            await self._requests.append_async(b"".join((head, payload)), type_id)
            if self._pump is None or self._pump.done() or self._pump.get_loop() is not loop:
                self._pump = loop.create_task(self._deliver_all())
            await asyncio.wait([future], timeout=None if deadline is None else max(deadline - loop.time(), 0))
            if not future.done():
                raise self._timed_out(timeout)
            return _result(future.result())
        finally:
            del self._waiting[key]
            future.cancel()

    def server_alive(self) -> bool:
        """Whether some process serves this channel now."""
        try:
            return Queue.info(self.path / "server").writer_alive
        except QueueNotFound:
            return False

    def _head(self, timeout: float | None) -> bytes:
        self._number += 1
        deadline_ns = 0
        if timeout is not None:
            if timeout != timeout:
                raise InvalidArgument("timeout is nan; it is in seconds, or None")
            deadline_ns = min(time.time_ns() + int(min(max(timeout, 0), LONGEST_SECONDS) * 1e9), DEADLINE_MAX)
        return HEAD.pack(self._session, self._number, deadline_ns)

    def _next_reply(self) -> Message | None:
        try:
            message = self._replies.next()
        except Corrupt:  # whose it was cannot be known: all that wait are told
            self._replies.skip_damaged()
            raise
        if message is not None:
            self._since_commit += 1
            if self._since_commit == COMMIT_EVERY:
                self._since_commit = 0
                self._replies.commit()
        return message

    def _deliver(self, message: Message) -> None:
        """To the task that waits for it; nobody does if the call timed out, or was made before this client's time."""
        future = self._waiting.get(message.payload[:KEY_BYTES])
        if future is not None and not future.done():
            future.set_result(message)

    async def _deliver_all(self) -> None:
        """While there is somebody who waits."""
        try:
            while self._waiting:
                message = self._next_reply()
                if message is None:
                    await self._replies.wait_async(1.0)
                else:
                    self._deliver(message)
        except Exception as problem:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(problem)

    def _timed_out(self, timeout: float | None) -> CallTimedOut:
        state = "is alive" if self.server_alive() else "is not running"
        return CallTimedOut(f"no reply within {timeout} seconds; the server of {self.path} {state}")

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._requests.closed

    def close(self) -> None:
        """Close it. What was asked for and not answered is done all the same, if it has not expired."""
        problem = ClosedHandle("this client is closed")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(problem)
        try:
            if not self._replies.closed:
                self._replies.commit()
        finally:
            self._replies.close()
            self._requests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.name!r} of {str(self.path)!r}{' (closed)' if self.closed else ''}>"


def _replies_of(path: Path, options: dict[str, Any]) -> QueueReader:
    """What comes from now on: replies to an earlier session are nobody's."""
    with suppress(Active):  # the server was faster
        Queue.open_publisher(path, **options).close()
    replies = Queue.open_subscriber(path, "client", start="latest")
    replies.commit()
    return replies


def _result(message: Message) -> bytes:
    body = message.payload[KEY_BYTES:]
    if message.flags == DONE:
        return body
    if message.flags == FAILED:
        raise RemoteError(body.decode("utf-8", "replace"))
    if message.flags == LOST:
        raise ServerDied("the server died while it was at this: whether it was done is not known")
    raise CallTimedOut("the server came to this request after its time")
