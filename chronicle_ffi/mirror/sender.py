# SPDX-License-Identifier: MIT
"""`Mirror`: what is durable in a queue goes to a stream, exactly once, in order."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from chronicle_ffi import InvalidArgument, Queue, QueueInfo, QueueReader, SegmentGone, SeqOutOfRange
from chronicle_ffi.mirror.compare import difference
from chronicle_ffi.mirror.cutter import Cutter
from chronicle_ffi.mirror.errors import StreamMismatch
from chronicle_ffi.mirror.frame import Frame
from chronicle_ffi.mirror.sending import LOOK_SECONDS, Acknowledged, Conflict, Sending, Target
from chronicle_ffi.mirror.server import ANSWER_SECONDS, TRANSIENT, Access, connection, parse, passing, stream_of
from chronicle_ffi.mirror.stream import Tail, Wanted, open_stream, tail_of

FRAME_BYTES: Final = 64 << 10
IN_FLIGHT: Final = 20
PAUSE_SECONDS: Final = (0.05, 2.0)  # between tries; doubled each time
RATE_SECONDS: Final = 1.0
TRIES_ONCE: Final = 20  # that `once` makes without getting on
HEADERS_BYTES: Final = 1024  # room for the headers of a message, more than ours take
DUELS: Final = 5  # conflicts with the same other sender, before it is told


@dataclass(frozen=True)
class MirrorStats:
    """How far a mirror is, since `Mirror.run` began.

    >>> Mirror("q", "nats://localhost:4222/PRICES").stats()
    MirrorStats(connected=False, next_seq=0, lag=0, records=0, messages=0, payload_bytes=0, rate=0.0, ...)
    """

    connected: bool = False  #: to a server, and the stream was compared
    next_seq: int = 0  #: behind the last record that is in the stream
    lag: int = 0  #: durable records from there on
    records: int = 0  #: acknowledged
    messages: int = 0  #: acknowledged
    payload_bytes: int = 0  #: of those messages
    rate: float = 0.0  #: records a second, over the last second or so
    sessions: int = 0  #: connections that got as far as sending
    conflicts: int = 0  #: messages that were refused, since the stream had gone on
    resent: int = 0  #: records that the stream had acknowledged and lost, and got again
    skipped: int = 0  #: seqs that the queue did not have any more
    last_error: str = ""  #: what ended the last session


class Mirror:
    """Sends the durable records of a queue to a stream of NATS JetStream.

    The stream itself says how far it is: each message carries the number that it must have there, so it is stored
    once, or refused. After any failure the mirror looks at the stream's end, holds it against the queue, and goes on
    there. As a named reader it keeps retention from deleting what was not sent; it commits what was acknowledged.

    :param queue: the queue's directory.
    :param url: ``nats://host:4222/STREAM``; more hosts with commas; tls:// insists on TLS.
    :param stream: instead of the one in the URL.
    :param subject: that the stream takes; "chronicle.STREAM" if it is made now.
    :param reader: the name to read as; by default "mirror-STREAM". Two mirrors of one name cannot run at once.
    :param framed: False sends one message a record, with what belongs to it in headers.
    :param replicas: of the stream, if it is made now.
    :param create: False raises StreamNotFound instead of making a stream.
    :param on_gap: what to do where the queue does not have the next record any more: "error" raises SegmentGone,
        "skip" goes on with the oldest there is, and the message says how many are missing.
    :param access: credentials and certificates.
    :param frame_bytes: how large a frame becomes while there is a backlog, 1 KiB up to what the server takes.
    :param in_flight: how many messages may be unacknowledged.

    >>> mirror = Mirror("q", "nats://localhost:4222/PRICES", replicas=3)
    >>> asyncio.run(mirror.run())  # doctest: +SKIP
    """

    def __init__(
        self,
        queue: str,
        url: str,
        *,
        stream: str | None = None,
        subject: str | None = None,
        reader: str | None = None,
        framed: bool = True,
        replicas: int = 1,
        create: bool = True,
        on_gap: Literal["error", "skip"] = "error",
        access: Access | None = None,
        frame_bytes: int = FRAME_BYTES,
        in_flight: int = IN_FLIGHT,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._place = parse(url)
        self._stream = stream_of(self._place, stream)
        if not frame_bytes >= 1024 or not 1 <= in_flight <= 1000:
            raise InvalidArgument("frame_bytes is at least 1024, and in_flight 1 to 1000")
        if on_gap not in ("error", "skip"):
            raise InvalidArgument(f'on_gap is {on_gap!r}; it can be "error" or "skip"')
        self._queue = queue
        self._subject = subject
        self._reader_name = reader or f"mirror-{self._stream}"
        self._framed = framed
        self._replicas = replicas
        self._create = create
        self._on_gap = on_gap
        self._access = access or Access()
        self._frame_bytes = frame_bytes
        self._in_flight = in_flight
        self._told = told or (lambda text: None)
        self._sender = secrets.randbits(64)
        self._stats = MirrorStats()
        self._rate: deque[tuple[float, int]] = deque()
        self._duels: dict[int, int] = {}
        self._stopping = False

    def stop(self) -> None:
        """Let `run` return, when what is under way is acknowledged. From the loop's thread, or a signal handler."""
        self._stopping = True

    def stats(self) -> MirrorStats:
        """As it is now; from any thread."""
        stats, rate = self._stats, list(self._rate)
        if len(rate) > 1 and time.monotonic() - rate[-1][0] < 2 * RATE_SECONDS:
            seconds = rate[-1][0] - rate[0][0]
            stats = replace(stats, rate=(rate[-1][1] - rate[0][1]) / seconds if seconds else 0.0)
        return stats

    async def run(self, *, once: bool = False) -> None:
        """Send for ever; with `once`, until all records that were durable at the beginning are in the stream.

        Servers that go away later are waited for; the first connection has to succeed.

        Raises ServerUnavailable, ServerRefused, StreamNotFound, StreamMismatch (nothing is sent), and what opening and
        reading the queue raise: ReaderAlreadyActive (a mirror of this name runs), QueueNotFound, SegmentGone, Corrupt.
        """
        info = Queue.info(self._queue)
        goal = info.durable_seq + 1 if once else None
        on_gap: Literal["error", "oldest"] = "error" if self._on_gap == "error" else "oldest"
        with Queue.open_subscriber(
            self._queue, self._reader_name, start="earliest", on_gap=on_gap, durable_only=True
        ) as reader:
            pause, idle = PAUSE_SECONDS[0], 0
            while not self._stopping:
                messages = self._stats.messages
                try:
                    await self._session(reader, info, goal)
                    return
                except Conflict as conflict:
                    self._note(conflicts=self._stats.conflicts + 1)
                    problem: Exception = conflict
                except TRANSIENT as met:
                    problem = passing(met, self._place.servers[0])
                    if not self._stats.sessions:
                        raise problem from None
                idle = 0 if self._stats.messages > messages else idle + 1
                if once and idle == TRIES_ONCE:
                    raise problem
                self._note(connected=False, last_error=str(problem))
                self._told(str(problem))
                await asyncio.sleep(pause := min(2 * pause, PAUSE_SECONDS[1]) if idle else PAUSE_SECONDS[0])

    def _note(self, **changes: Any) -> None:
        self._stats = replace(self._stats, **changes)

    async def _session(self, reader: QueueReader, info: QueueInfo, goal: int | None) -> None:
        """One connection, up to its end. Returns when all is done."""
        async with connection(self._place, self._access, f"chronicle mirror {self._stream}") as client:
            js = client.jetstream(timeout=ANSWER_SECONDS)
            wanted = Wanted(self._stream, self._subject, info.uuid, self._framed, self._replicas, self._create)
            subject = await open_stream(js, wanted)
            tail = await tail_of(js, self._stream)
            self._refuse_duel(tail)
            largest = client.max_payload - HEADERS_BYTES
            cutter = Cutter(
                reader, info.uuid, self._sender, framed=self._framed,
                limit=min(self._frame_bytes, largest), largest=largest,
            )  # fmt: skip
            await self._attach(reader, tail, cutter)
            self._note(connected=True, next_seq=cutter.next_seq, sessions=self._stats.sessions + 1)
            sending = Sending(
                client, reader, cutter, Target(self._stream, subject, self._framed, self._in_flight, goal),
                tail.sequence, self._progressed,
            )  # fmt: skip
            await sending.run(lambda: self._stopping)

    def _progressed(self, done: Acknowledged) -> None:
        now = time.monotonic()
        stats = self._stats
        self._stats = replace(
            stats,
            next_seq=done.next_seq,
            lag=done.lag,
            records=stats.records + done.records,
            messages=stats.messages + done.messages,
            payload_bytes=stats.payload_bytes + done.payload_bytes,
            skipped=stats.skipped + done.skipped,
        )
        self._rate.append((now, self._stats.records))
        while len(self._rate) > 2 and now - self._rate[0][0] > RATE_SECONDS:
            self._rate.popleft()

    def _refuse_duel(self, tail: Tail) -> None:
        """What a mirror that was killed had under way may still arrive; but not for long."""
        if tail.frame is None or tail.frame.sender == self._sender or not self._stats.sessions:
            return
        other = tail.frame.sender
        self._duels[other] = self._duels.get(other, 0) + 1
        if self._duels[other] > DUELS:
            raise StreamMismatch(
                f"another mirror writes to the stream {self._stream} at the same time (its sender number is {other}); "
                "nothing is lost, but one of them has to end"
            )

    # ------------------------------------------------------------------------------------- comparing

    async def _attach(self, reader: QueueReader, tail: Tail, cutter: Cutter) -> None:
        """Move the reader to where the stream ends; refuse a stream that does not belong to the queue."""
        info = Queue.info(self._queue)
        committed = reader.committed
        frame = tail.frame
        if frame is None:
            self._begin_empty(reader, committed, cutter)
            return
        self._refuse_other(frame, info)
        following = frame.next_seq
        await self._seek(reader, following)
        if committed is not None and following < committed:
            self._note(resent=self._stats.resent + committed - following)
            self._told(f"the stream had acknowledged records {following} to {committed - 1}, and lost them: sent again")
        reader.commit()
        unfinished = frame.end if frame.is_part and frame.end < frame.size else 0
        if unfinished and reader.position > following:
            raise StreamMismatch(
                f"the stream {self._stream} ends within record {following}, which the queue does not have any more"
            )
        cutter.begin(following, unfinished, frame.highest_ns)

    def _refuse_other(self, frame: Frame, info: QueueInfo) -> None:
        name = f"the stream {self._stream}"
        last = max(frame.next_seq - 1, frame.first_seq)
        if frame.queue != info.uuid:
            raise StreamMismatch(
                f"{name} holds the queue {frame.queue}, and {self._queue} is {info.uuid}: name another stream"
            )
        if last >= info.next_seq:
            raise StreamMismatch(
                f"{name} goes up to record {last}, and {self._queue} ends before {info.next_seq}: it was put back to "
                "an older state, or its end was lost, and what it gets now would differ. Mirror it to a new stream"
            )
        with Queue.open_subscriber(self._queue) as anyone:  # what is durable may have to be found out again
            differing = difference(anyone, frame, info.oldest_seq, f"the last message of {name}")
        if differing is not None:
            raise StreamMismatch(
                f"record {differing} is not the same in {name} and in {self._queue}: the history of one of them was "
                "rewritten. Mirror the queue to a new stream; chronicle mirror --verify tells how far they agree"
            )

    async def _seek(self, reader: QueueReader, following: int) -> None:
        """To the record that the stream needs next; it may be there and not be durable yet, after a crash."""
        told = False
        while not self._stopping:
            try:
                reader.seek(following)
                return
            except SeqOutOfRange:
                if not told:
                    self._told(f"waiting for record {following} to be durable in {self._queue}: it was, before a crash")
                told = True
                await asyncio.sleep(LOOK_SECONDS)
            except SegmentGone as gone:
                if self._on_gap == "skip":
                    reader.seek_earliest()
                    return
                raise SegmentGone(
                    f"the stream {self._stream} needs record {following} next, and the oldest in {self._queue} is "
                    f'{gone.oldest}: retention went too far; on_gap "skip" (--skip-gap) goes on there',
                    seq=following,
                    oldest=gone.oldest,
                ) from None

    def _begin_empty(self, reader: QueueReader, committed: int | None, cutter: Cutter) -> None:
        reader.seek_earliest()
        if committed:
            if reader.position > 0 and self._on_gap == "error":
                raise StreamMismatch(
                    f"the stream {self._stream} is empty, and had acknowledged all records below {committed}; "
                    f"{self._queue} has them from {reader.position} on: the stream was purged, or lost. "
                    'on_gap "skip" (--skip-gap) begins there'
                )
            self._told(f"the stream had acknowledged all records below {committed}, and is empty: sent again")
            self._note(resent=self._stats.resent + max(committed - reader.position, 0))
            reader.commit()
        cutter.begin(reader.position, 0, 0)
