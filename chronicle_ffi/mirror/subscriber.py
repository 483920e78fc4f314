# SPDX-License-Identifier: MIT
"""`Subscriber`: a stream read with the API of a `QueueReader`, on any host."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import nats.js.errors
from nats.js.api import KeyValueConfig

from chronicle_ffi import (
    ClosedHandle,
    InvalidArgument,
    Message,
    Queue,
    QueueReader,
    ReaderAlreadyActive,
    ReadOnly,
    SegmentGone,
    SeqOutOfRange,
)
from chronicle_ffi.mirror.errors import ServerUnavailable, StreamNotFound
from chronicle_ffi.mirror.frame import Assembler, Frame, messages_of
from chronicle_ffi.mirror.locate import Ends, ends_of, find_seq, find_time
from chronicle_ffi.mirror.server import (
    ANSWER_SECONDS,
    TRANSIENT,
    Access,
    connection,
    failure,
    is_url,
    parse,
    passing,
    stream_of,
)
from chronicle_ffi.mirror.stream import incoming, place

T = TypeVar("T")
Start = Literal["resume", "earliest", "latest"] | int | datetime

POSITIONS: Final = "chronicle-positions"  # the key-value bucket of named readers
AHEAD: Final = 32  # frames that are fetched before they are asked for
RETRY_SECONDS: Final = 0.2


def open_subscriber(source: str, name: str | None = None, **options: Any) -> QueueReader | Subscriber:
    """A reader of a queue's directory, or of a stream if `source` is a URL: what follows is the same program.

    >>> with open_subscriber("q", "risk") as reader:  # or "nats://host:4222/PRICES"
    ...     reader.position
    0
    """
    return Subscriber(source, name, **options) if is_url(source) else Queue.open_subscriber(source, name, **options)


class Subscriber:
    """One place in a stream that a `Mirror` fills, moving forward, as a `QueueReader` does in a queue.

    It has what a loop over records needs: iterating, `next`, `payloads`, `follow`, `wait`, `seek`, `seek_time`,
    `commit`, `position`, `committed`, `lag`, and the same on an event loop. Not: batches over mapped memory, stepping
    back, and skipping damage. A thread of its own talks to the server; the handle belongs to one thread at a time.

    With a name, `commit` stores the position on the server, in the key-value bucket "chronicle-positions", record by
    record: a consumer of JetStream would know messages only, and deliver again what it delivered, later and out of
    order. Retention does not wait for it: the limits of the stream are what they are.

    Servers that go away are waited for. Raises ServerUnavailable, ServerRefused, StreamNotFound, SegmentGone,
    SeqOutOfRange, InvalidArgument; and while reading Corrupt, if the stream holds what no mirror has written.

    >>> with Subscriber("nats://localhost:4222/PRICES", "risk") as reader:  # doctest: +SKIP
    ...     for message in reader.follow():
    ...         print(message.seq, message.payload)
    ...         reader.commit()
    """

    def __init__(
        self,
        url: str,
        name: str | None = None,
        *,
        stream: str | None = None,
        start: Start = "resume",
        on_gap: Literal["error", "oldest", "latest"] = "error",
        access: Access | None = None,
    ) -> None:
        self._place = parse(url)
        self._stream = stream_of(self._place, stream)
        self._access = access or Access()
        self._name = name
        self._on_gap = on_gap
        self._closed = False
        self._messages: deque[Message] = deque()  # of the frame that is being read
        self._frames: deque[tuple[Frame, str]] = deque()
        self._arrived = threading.Condition()
        self._failure: BaseException | None = None
        self._position = 0
        self._fetched = 0  # number in the stream of the last message that was fetched
        self._committed: int | None = None
        self._revision = 0
        self._client: Any = None
        self._room: asyncio.Event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"chronicle {self._stream}", daemon=True)
        self._thread.start()
        self._task: asyncio.Task[None] | None = None
        self._session: Any = None
        try:
            self._call(self._open(start))
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------- the thread

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise ClosedHandle("this subscriber is closed")
        return asyncio.run_coroutine_threadsafe(self._named(work), self._loop).result()

    async def _named(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except nats.js.errors.NotFoundError as missing:
            raise StreamNotFound(f"there is no stream {self._stream}: {missing.description}") from None
        except TRANSIENT as problem:
            raise failure(problem, self._place.servers[0]) from None

    async def _connected(self) -> Any:
        """A client; a new one if the last one broke."""
        if self._client is None or not self._client.is_connected:
            await self._disconnect()
            self._session = connection(self._place, self._access, f"chronicle reader {self._name or ''}")
            self._client = await self._session.__aenter__()
        return self._client

    async def _disconnect(self) -> None:
        session, self._session, self._client = self._session, None, None
        if session is not None and getattr(session, "gen", None) is not None:
            await session.__aexit__(None, None, None)

    async def _js(self) -> Any:
        return (await self._connected()).jetstream(timeout=ANSWER_SECONDS)

    async def _open(self, start: Start) -> None:
        js = await self._js()
        if self._name is not None:
            await self._load()
        ends = await ends_of(js, self._stream)
        if start == "resume" and self._committed is not None:
            await self._go(self._committed, ends)
        elif start in ("resume", "earliest"):
            await self._go(ends.first, ends)
        elif start == "latest":
            await self._go(ends.following, ends)
        elif isinstance(start, datetime):
            await self._go(await find_time(js, self._stream, ends, _ns(start)), ends)
        elif isinstance(start, int):
            await self._go(start, ends)
        else:
            raise InvalidArgument(f'start is {start!r}; it can be "resume", "earliest", "latest", a seq or a datetime')

    async def _go(self, seq: int, ends: Ends) -> None:
        """Fetch from there on."""
        if seq > ends.following:
            raise SeqOutOfRange(
                f"there is no record {seq} in the stream {self._stream} yet: the next one will be {ends.following}",
                seq=seq, next_seq=ends.following,
            )  # fmt: skip
        if seq < ends.first:
            if self._on_gap == "error":
                raise SegmentGone(
                    f"record {seq} is not in the stream {self._stream} any more, or never was: the oldest there is, is "
                    f"{ends.first}",
                    seq=seq, oldest=ends.first,
                )  # fmt: skip
            seq = ends.first if self._on_gap == "oldest" else ends.following
        number = await find_seq(await self._js(), self._stream, ends, seq)
        await self._stop_fetching()
        self._room = asyncio.Event()
        with self._arrived:
            self._frames.clear()
            self._messages.clear()
            self._failure = None
            self._position, self._fetched = seq, number - 1
        self._task = asyncio.create_task(self._fetch(number))

    async def _stop_fetching(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _fetch(self, number: int) -> None:
        """Into `_frames`, for ever; what cannot be waited for is kept for who reads."""
        assembler = Assembler()
        try:
            while True:
                try:
                    client = await self._connected()
                    async with incoming(client, self._stream, number) as arriving:
                        async for met, frame in arriving:
                            whole = assembler.add(frame, place(self._stream, met))
                            number = met + 1
                            await self._hand_over(met, whole)
                except nats.js.errors.NotFoundError as gone:
                    raise StreamNotFound(f"the stream {self._stream} is gone: {gone.description}") from None
                except TRANSIENT as problem:
                    passing(problem, self._stream)
                    await self._disconnect()
                    await asyncio.sleep(RETRY_SECONDS)
        except Exception as problem:
            with self._arrived:
                self._failure = problem
                self._arrived.notify_all()

    async def _hand_over(self, number: int, frame: Frame | None) -> None:
        while len(self._frames) >= AHEAD:
            self._room.clear()
            await self._room.wait()
        with self._arrived:
            self._fetched = number
            if frame is not None:
                self._frames.append((frame, place(self._stream, number)))
            self._arrived.notify_all()

    # --------------------------------------------------------------------------------------- reading

    def _take(self) -> bool:
        """The next frame that was fetched becomes the one that is read; False if there is none."""
        while not self._messages:
            with self._arrived:
                if not self._frames:
                    if self._failure is not None:
                        raise self._failure
                    return False
                frame, where = self._frames.popleft()
                if len(self._frames) < AHEAD // 2:
                    self._loop.call_soon_threadsafe(self._room.set)
            found = messages_of(frame, where)
            if found and found[0].seq > self._position and self._on_gap == "error" and frame.skipped:
                with self._arrived:
                    self._frames.appendleft((frame, where))
                raise SegmentGone(
                    f"record {self._position} was not in the queue any more when it was mirrored: the next one is "
                    f"{found[0].seq}",
                    seq=self._position, oldest=found[0].seq,
                )  # fmt: skip
            self._messages.extend(message for message in found if message.seq >= self._position)
        return True

    def next(self) -> Message | None:
        """The next record; None if there is none now. Asks the server only if nothing was fetched ahead."""
        self._check_open()
        while not self._messages and not self._take():
            if not self._more():
                return None
        return self._next()

    def _next(self) -> Message:
        message = self._messages.popleft()
        self._position = message.seq + 1
        return message

    def _more(self) -> bool:
        """Whether the stream has more than was fetched; then it waits for some of that."""
        last = self._call(self._last_number())
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._news() or self._fetched >= last, ANSWER_SECONDS):
                raise ServerUnavailable(f"the stream {self._stream} has more, and nothing comes: try again")
            return self._news()

    def _news(self) -> bool:
        return bool(self._frames) or self._failure is not None

    async def _last_number(self) -> int:
        return int((await (await self._js()).stream_info(self._stream)).state.last_seq)

    def _wait_frames(self, seconds: float) -> None:
        with self._arrived:
            self._arrived.wait_for(self._news, seconds)

    def __iter__(self) -> Iterator[Message]:
        """What is there now; then it stops. A later loop goes on from there."""
        while (message := self.next()) is not None:
            yield message
            while self._messages:
                yield self._next()

    def payloads(self) -> Iterator[bytes]:
        """As iterating, but with nothing of each record but its payload."""
        return (message.payload for message in self)

    def follow(self, timeout: float | timedelta | None = None) -> Iterator[Message]:
        """All records, waiting for more: for ever, or until none has come for `timeout` seconds."""
        while self.wait(timeout):
            while self._messages:
                yield self._next()

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Wait until `next` would return a record; False if that took longer than `timeout` seconds. Ctrl-C works."""
        self._check_open()
        deadline = None if timeout is None else time.monotonic() + _seconds(timeout)
        while not self._messages and not self._take():
            left = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
            if left <= 0:
                return False
            self._wait_frames(left)
        return True

    # --------------------------------------------------------------------------------- on an event loop

    async def wait_async(self, timeout: float | timedelta | None = None) -> bool:
        """`wait`, on the running event loop."""
        self._check_open()
        deadline = None if timeout is None else time.monotonic() + _seconds(timeout)
        while not self._messages and not self._take():
            left = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
            if left <= 0:
                return False
            await asyncio.get_running_loop().run_in_executor(None, self._wait_frames, left)
        return True

    async def next_async(self, timeout: float | timedelta | None = None) -> Message | None:
        """`next`, waiting for a record to come; None if that took longer than `timeout` seconds."""
        return self._next() if await self.wait_async(timeout) else None

    async def __aiter__(self) -> AsyncIterator[Message]:
        """All records, waiting for more for ever."""
        while await self.wait_async():
            while self._messages:
                yield self._next()
            await asyncio.sleep(0)

    # ----------------------------------------------------------------------------------------- moving

    def seek(self, seq: int) -> None:
        """Move to a seq. Raises SegmentGone below what the stream has, SeqOutOfRange above."""
        self._call(self._seek(seq))

    def seek_time(self, when: int | datetime) -> None:
        """Move to the first record, in order of seq, whose timestamp is not below `when`; or to the end.

        `when` is a datetime, or nanoseconds since 1970. Timestamps may go back: messages say how high they went.
        """
        self._call(self._seek_time(_ns(when)))

    def seek_earliest(self) -> None:
        """Move to the oldest record that the stream has."""
        self._call(self._seek("earliest"))

    def seek_latest(self) -> None:
        """Move behind the newest record."""
        self._call(self._seek("latest"))

    async def _seek(self, where: int | Literal["earliest", "latest"]) -> None:
        ends = await ends_of(await self._js(), self._stream)
        await self._go({"earliest": ends.first, "latest": ends.following}.get(str(where), where), ends)  # type: ignore[arg-type]

    async def _seek_time(self, when: int) -> None:
        js = await self._js()
        ends = await ends_of(js, self._stream)
        await self._go(await find_time(js, self._stream, ends, when), ends)

    def commit(self, upto: int | None = None, *, sync: bool = False) -> None:
        """Store the position under this reader's name, on the server: one message there, and its answer.

        `sync` is for the sake of `QueueReader.commit`: the server decides when it syncs. Raises ReadOnly without a
        name, and ReaderAlreadyActive if another reader of this name has committed since this one was opened.
        """
        if self._name is None:
            raise ReadOnly("a reader without a name has no position to store: open it with a name")
        seq = self._position if upto is None else upto
        if not (self._committed or 0) <= seq <= self._position and upto is not None:
            raise InvalidArgument(f"upto is {upto}: from {self._committed or 0}, committed, to {self._position}")
        self._call(self._store(seq))

    async def _bucket(self) -> Any:
        js = await self._js()
        try:
            return await js.key_value(POSITIONS)
        except nats.js.errors.NotFoundError:
            info = await js.stream_info(self._stream)
            return await js.create_key_value(
                KeyValueConfig(bucket=POSITIONS, history=1, replicas=info.config.num_replicas or 1)
            )

    async def _load(self) -> None:
        try:
            entry = await (await self._bucket()).get(self._key)
        except nats.js.errors.KeyNotFoundError:
            return
        self._committed, self._revision = int(json.loads(entry.value)["position"]), entry.revision

    async def _store(self, seq: int) -> None:
        bucket = await self._bucket()
        value = json.dumps({"position": seq}).encode()
        try:
            self._revision = await bucket.update(self._key, value, last=self._revision)
        except (nats.js.errors.KeyWrongLastSequenceError, nats.js.errors.BadRequestError):
            entry = await bucket.get(self._key)
            if entry.value != value:  # else the answer to an earlier try was lost
                raise ReaderAlreadyActive(
                    f"another reader named {self._name} has committed meanwhile: a name serves one reader at a time"
                ) from None
            self._revision = entry.revision
        self._committed = seq

    @property
    def _key(self) -> str:
        return f"{self._stream}.{self._name}"

    # ------------------------------------------------------------------------------------------ state

    @property
    def name(self) -> str | None:
        """None: this reader stores no position."""
        return self._name

    @property
    def position(self) -> int:
        """seq of the record that `next` returns next."""
        return self._position

    @property
    def committed(self) -> int | None:
        """The position stored under this name; None if there is none."""
        return self._committed

    @property
    def lag(self) -> int:
        """How many records the stream has from the position on. Asks the server."""
        return max(self._call(self._following()) - self._position, 0)

    async def _following(self) -> int:
        return (await ends_of(await self._js(), self._stream)).following

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedHandle("this subscriber is closed")

    def close(self) -> None:
        """Let go of the connection and the thread. What was not committed comes again. May be called twice."""
        if self._closed:
            return
        try:
            self._call(self._end())
        finally:
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        await self._stop_fetching()
        await self._disconnect()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Subscriber of {self._stream} at seq {self._position}>"


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _ns(when: int | datetime) -> int:
    if isinstance(when, int):
        return when
    return int(when.timestamp()) * 1_000_000_000 + when.microsecond * 1000
