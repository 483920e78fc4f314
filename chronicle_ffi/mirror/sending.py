# SPDX-License-Identifier: MIT
"""One session's stream of messages: some under way, each with the number it must get, their answers in order."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import nats.js.errors

from chronicle_ffi import QueueReader
from chronicle_ffi.mirror.cutter import Cutter
from chronicle_ffi.mirror.frame import Frame, encode, encode_record
from chronicle_ffi.mirror.server import ANSWER_SECONDS, WRONG_LAST_SEQUENCE

LINGER_SECONDS: Final = 0.002  # how long what is less than a frame waits, while others are under way
REST_SECONDS: Final = 0.002  # that a mirror without records sleeps, before it can be woken
AHEAD: Final = 8  # messages that are made while the server has enough to do
LOOK_SECONDS: Final = 0.25  # how often a mirror without records looks whether it is to stop
EXPECTED_LAST: Final = "Nats-Expected-Last-Sequence"
EXPECTED_STREAM: Final = "Nats-Expected-Stream"


class Conflict(Exception):
    """The stream is not where it was thought to be: look again."""


@dataclass(frozen=True)
class Target:
    """What is sent where, and up to which seq (None: for ever)."""

    stream: str
    subject: str
    framed: bool
    in_flight: int
    goal: int | None


@dataclass(frozen=True)
class Acknowledged:
    """What one answer of the server means."""

    next_seq: int
    lag: int
    records: int = 0
    messages: int = 0
    payload_bytes: int = 0
    skipped: int = 0


@dataclass
class _Sent:
    frame: Frame
    sequence: int  # that the stream is to give it
    payload_bytes: int
    at: float
    answered: bool = False


class Sending:
    """See `run`."""

    def __init__(
        self,
        client: Any,
        reader: QueueReader,
        cutter: Cutter,
        target: Target,
        sequence: int,
        progressed: Callable[[Acknowledged], None],
    ) -> None:
        self._client = client
        self._reader = reader
        self._cutter = cutter
        self._target = target
        self._sequence = sequence  # of the last message in the stream, with those that are under way
        self._progressed = progressed
        self._loop = asyncio.get_running_loop()
        self._inbox = client.new_inbox()
        self._ready: deque[tuple[Frame, dict[str, str], bytes]] = deque()  # made while nothing more may be under way
        self._sent: deque[_Sent] = deque()
        self._by_sequence: dict[int, _Sent] = {}
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._done = cutter.next_seq

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping`, or the goal is reached, and all that was sent is acknowledged.

        Raises Conflict, what the client raises, and what reading raises.
        """
        await self._client.subscribe(f"{self._inbox}.*", cb=self._take)
        cutter, goal = self._cutter, self._target.goal
        while True:
            self._look()
            ending = stopping() or (goal is not None and cutter.next_seq >= goal)
            if len(self._sent) >= self._target.in_flight or (ending and self._sent and not self._ready):
                if ending or len(self._ready) == AHEAD or not self._prepare():
                    await self._progress(LOOK_SECONDS)
            elif self._ready:
                await self._send(*self._ready.popleft())
            elif ending:
                return
            else:
                if self._sent and cutter.took_little and not cutter.has_more:
                    await self._progress(LINGER_SECONDS)  # more may come meanwhile, and go with it
                if not self._prepare():
                    self._progressed(Acknowledged(self._done, self._lag()))
                    await self._rest()

    async def _rest(self) -> None:
        """Until there may be something. A writer that appends wakes whoever sleeps at its bell, which costs it a system
        call, also for records that are not durable yet: so it finds somebody there now and then only.
        """
        await asyncio.sleep(REST_SECONDS)
        await self._reader.wait_async(LOOK_SECONDS)

    def _lag(self) -> int:
        return max(self._reader.position + self._reader.lag - self._done, 0)

    def _look(self) -> None:
        if self._failure:
            raise self._failure
        if not self._client.is_connected:
            raise self._client.last_error or ConnectionError("the connection to the server broke")
        if self._sent and self._loop.time() - self._sent[0].at > ANSWER_SECONDS:
            raise asyncio.TimeoutError(f"the stream did not answer for {ANSWER_SECONDS:g} seconds")

    async def _progress(self, seconds: float) -> None:
        """Until an answer comes, or the time is over."""
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _prepare(self) -> bool:
        """Make the next message; False if there is nothing to make it of now."""
        frame = self._cutter.next()
        if frame is None:
            return False
        headers, payload = ({}, encode(frame)) if self._target.framed else encode_record(frame)
        self._ready.append((frame, headers, payload))
        return True

    async def _send(self, frame: Frame, headers: dict[str, str], payload: bytes) -> None:
        headers |= {EXPECTED_LAST: str(self._sequence), EXPECTED_STREAM: self._target.stream}
        self._sequence += 1
        sent = _Sent(frame, self._sequence, len(payload), self._loop.time())
        self._sent.append(sent)
        self._by_sequence[self._sequence] = sent
        await self._client.publish(self._target.subject, payload, f"{self._inbox}.{self._sequence}", headers)

    async def _take(self, message: Any) -> None:
        """An answer; called by the client."""
        try:
            self._answered(int(message.subject.rpartition(".")[2]), message)
        except Exception as failure:
            self._failure = self._failure or failure
        self._wake()

    def _answered(self, sequence: int, message: Any) -> None:
        if message.headers and message.headers.get("Status") == "503":
            raise nats.js.errors.NoStreamResponseError
        answer = json.loads(message.data)
        if wrong := answer.get("error"):
            if wrong.get("err_code") in WRONG_LAST_SEQUENCE:
                raise Conflict(f"the stream {self._target.stream} had gone on when message {sequence} came")
            nats.js.errors.APIError.from_error(wrong)
        if answer.get("duplicate") or answer["seq"] != sequence:
            raise Conflict(f"message {sequence} of the stream {self._target.stream} was there already")
        self._by_sequence.pop(sequence).answered = True
        while self._sent and self._sent[0].answered:
            self._acknowledge(self._sent.popleft())

    def _acknowledge(self, sent: _Sent) -> None:
        frame = sent.frame
        before, self._done = self._done, frame.next_seq
        self._reader.commit(self._done)
        self._progressed(
            Acknowledged(
                self._done, self._reader.position - self._done, self._done - before - frame.skipped, 1,
                sent.payload_bytes, frame.skipped,
            )
        )  # fmt: skip
