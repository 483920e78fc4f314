# SPDX-License-Identifier: MIT
"""What the standard library offers between processes: multiprocessing's Queue and Pipe."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from bench.peers import interface
from bench.peers.interface import MEMORY, PAIR_TASKS, Contestant
from bench.peers.measure import FORK


class PipeWriter(interface.Writer):
    def __init__(self, end: Any) -> None:
        self._end = end

    def append_one(self, payloads: Sequence[bytes]) -> None:
        send = self._end.send_bytes
        for payload in payloads:
            send(payload)

    def append_batch(self, payloads: list[bytes]) -> None:
        self._end.send(payloads)

    def close(self) -> None:
        self._end.close()


class PipeReader(interface.Reader):
    def __init__(self, end: Any) -> None:
        self._end = end

    def read_one(self, count: int) -> list[bytes]:
        receive = self._end.recv_bytes
        return [receive() for _ in range(count)]

    def read_batch(self, count: int) -> list[bytes]:
        got: list[bytes] = self._end.recv()
        return got

    def close(self) -> None:
        self._end.close()


class QueueWriter(interface.PutWriter):
    def append_batch(self, payloads: list[bytes]) -> None:
        self._queue.put(payloads)

    def close(self) -> None:
        self._queue.close()
        self._queue.join_thread()


class QueueReader(interface.Reader):
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def read_one(self, count: int) -> list[bytes]:
        get = self._queue.get
        return [get() for _ in range(count)]

    def read_batch(self, count: int) -> list[bytes]:
        got: list[bytes] = self._queue.get()
        return got


class _Standard(Contestant):
    promise = MEMORY
    tasks = PAIR_TASKS
    packed = True

    @classmethod
    def version(cls) -> str:
        return f"Python {platform.python_version()}"


class MpPipe(_Standard):
    name = "multiprocessing.Pipe"
    settings = "one direction; one by one `send_bytes`, batches are a list of 1000 records in one `send`"

    def start(self, channels: Sequence[str]) -> None:
        self._ends = {channel: FORK.Pipe(duplex=False) for channel in channels}

    def writer(self, channel: str) -> PipeWriter:
        return PipeWriter(self._ends[channel][1])

    def reader(self, channel: str) -> PipeReader:
        return PipeReader(self._ends[channel][0])


class MpQueue(_Standard):
    name = "multiprocessing.Queue"
    settings = "unbounded; batches are a list of 1000 records in one `put`"

    def start(self, channels: Sequence[str]) -> None:
        self._queues: dict[str, Any] = {channel: FORK.Queue() for channel in channels}

    def writer(self, channel: str) -> QueueWriter:
        return QueueWriter(self._queues[channel])

    def reader(self, channel: str) -> QueueReader:
        return QueueReader(self._queues[channel])
