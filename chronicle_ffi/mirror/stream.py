# SPDX-License-Identifier: MIT
"""The stream of a queue: made, looked at, and its messages as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StorageType, StreamConfig

from chronicle_ffi.errors import Corrupt
from chronicle_ffi.mirror.errors import StreamMismatch, StreamNotFound
from chronicle_ffi.mirror.frame import Frame, decode
from chronicle_ffi.mirror.server import ANSWER_SECONDS

OF_QUEUE: Final = "chronicle-queue"  # metadata of the stream
OF_MESSAGES: Final = "chronicle-messages"
FRAMES, RECORDS = "frames", "records"

HEARTBEAT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 5.0
PREFETCH: Final = 64  # messages


@dataclass(frozen=True)
class Wanted:
    """What a mirror asks of its stream."""

    stream: str
    subject: str | None
    queue: UUID
    framed: bool
    replicas: int
    create: bool


@dataclass(frozen=True)
class Tail:
    """Where a stream ends."""

    sequence: int  #: the stream's number of its last message; 0: there has never been one
    frame: Frame | None  #: None: it is empty


async def open_stream(js: Any, wanted: Wanted) -> str:
    """Make sure that there is a stream, and that it is for this queue; returns the subject to publish on."""
    try:
        info = await js.stream_info(wanted.stream)
    except nats.js.errors.NotFoundError:
        if not wanted.create:
            raise StreamNotFound(f"there is no stream {wanted.stream}: make it, or let the mirror do so") from None
        info = await js.add_stream(_config(wanted))
    refuse_foreign(info.config, wanted)
    return str(info.config.subjects[0])


def _config(wanted: Wanted) -> Any:
    return StreamConfig(
        name=wanted.stream,
        description="mirror of a chronicle queue",
        subjects=[wanted.subject or f"chronicle.{wanted.stream}"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=wanted.replicas,
        deny_delete=True,
        allow_direct=True,
        metadata={OF_QUEUE: str(wanted.queue), OF_MESSAGES: FRAMES if wanted.framed else RECORDS},
    )


def refuse_foreign(config: Any, wanted: Wanted) -> None:
    """StreamMismatch if the stream is another queue's, or loses or takes in what it should not."""
    known = config.metadata or {}
    name = f"the stream {wanted.stream}"
    if (queue := known.get(OF_QUEUE, str(wanted.queue))) != str(wanted.queue):
        raise StreamMismatch(f"{name} is of the queue {queue}, this is {wanted.queue}: name another stream")
    messages = FRAMES if wanted.framed else RECORDS
    if (found := known.get(OF_MESSAGES, messages)) != messages:
        raise StreamMismatch(f"{name} has {found} as messages, and {messages} were to be sent: as it was begun, please")
    if not config.subjects or len(config.subjects) != 1 or set(config.subjects[0]) & set("*>"):
        raise StreamMismatch(
            f"{name} takes {config.subjects or 'no subject'}: one subject, without wildcards, is meant"
        )
    if wanted.subject not in (None, config.subjects[0]):
        raise StreamMismatch(f"{name} takes the subject {config.subjects[0]}, not {wanted.subject}")
    if config.retention != RetentionPolicy.LIMITS or config.max_msgs_per_subject > 0:
        raise StreamMismatch(
            f"{name} deletes what was consumed, or all but the newest messages of a subject: its retention has to be "
            "limits, and max_msgs_per_subject -1"
        )
    if config.mirror or config.sources:
        raise StreamMismatch(f"{name} is filled from other streams: the mirror of a queue is written by nobody else")


async def tail_of(js: Any, stream: str) -> Tail:
    """As the stream's leader has it. StreamMismatch if the last message is none of a mirror's."""
    while True:
        state = (await js.stream_info(stream)).state
        if not state.messages:
            return Tail(state.last_seq, None)
        try:
            return Tail(state.last_seq, await frame_at(js, stream, state.last_seq))
        except nats.js.errors.NotFoundError:
            if (await js.stream_info(stream)).state.last_seq == state.last_seq:
                raise StreamMismatch(
                    f"the last message of the stream {stream}, {state.last_seq}, was deleted"
                ) from None
        except Corrupt as foreign:
            raise StreamMismatch(f"{foreign}: somebody else writes to this stream, or it was damaged") from None


async def frame_at(js: Any, stream: str, sequence: int) -> Frame:
    """One message, asked for by its number in the stream."""
    found = await js.get_msg(stream, sequence)
    return decode(found.data or b"", found.headers, place(stream, sequence))


def place(stream: str, sequence: int) -> str:
    return f"message {sequence} of the stream {stream}"


class Incoming:
    """Messages of a stream from one on, in order; ends with TimeoutError when the server is silent."""

    def __init__(self, client: Any, stream: str) -> None:
        self.stream = stream
        self._client = client
        self.heard = asyncio.get_running_loop().time()
        self._queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(PREFETCH)
        self._expected = 1
        self._failure: BaseException | None = None

    async def take(self, message: Any) -> None:
        """Called by the client, one by one; waits while there is no room, and so does the server then."""
        self.heard = asyncio.get_running_loop().time()
        if message.headers and "Status" in message.headers:
            if message.reply:  # flow control
                await message.respond(b"")
            elif stalled := message.headers.get("Nats-Consumer-Stalled"):
                await self._client.publish(stalled)
            return
        met = message.metadata.sequence
        if met.consumer != self._expected:
            self._failure = ConnectionError(f"delivery {self._expected} of {self.stream} did not come")
            return
        self._expected += 1
        await self._queue.put((met.stream, message))

    async def __aiter__(self) -> AsyncIterator[tuple[int, Frame]]:
        """(number in the stream, frame)"""
        loop = asyncio.get_running_loop()
        while True:
            if self._queue.empty():
                if self._failure:
                    raise self._failure
                if loop.time() - self.heard > SILENCE_SECONDS:
                    raise asyncio.TimeoutError(f"nothing was heard of {self.stream} for {SILENCE_SECONDS:g} seconds")
                try:
                    number, message = await asyncio.wait_for(self._queue.get(), HEARTBEAT_SECONDS)
                except asyncio.TimeoutError:
                    continue
            else:
                number, message = self._queue.get_nowait()
            yield number, decode(message.data, message.headers, place(self.stream, number))


@asynccontextmanager
async def incoming(client: Any, stream: str, begin: int) -> AsyncIterator[Incoming]:
    """An ordered consumer of its own, which stores nothing and ends with the connection."""
    js = client.jetstream(timeout=ANSWER_SECONDS)
    inbox = client.new_inbox()
    found = Incoming(client, stream)
    subscription = await client.subscribe(inbox, cb=found.take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    config = ConsumerConfig(
        name=f"chronicle-{uuid4().hex[:12]}",
        deliver_subject=inbox,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=max(begin, 1),
        ack_policy=AckPolicy.NONE,
        max_deliver=1,
        flow_control=True,
        idle_heartbeat=HEARTBEAT_SECONDS,
        inactive_threshold=30.0,
        mem_storage=True,
        num_replicas=1,
    )
    consumer = await js.add_consumer(stream, config)
    try:
        yield found
    finally:
        if client.is_connected:
            try:
                await subscription.unsubscribe()
                await js.delete_consumer(stream, consumer.name)
            except (nats.errors.Error, asyncio.TimeoutError):
                pass  # it ends by itself, when it has been idle
