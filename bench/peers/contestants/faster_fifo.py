# SPDX-License-Identifier: MIT
"""faster-fifo: a ring of bytes in shared memory, behind a mutex."""

from __future__ import annotations

from collections.abc import Sequence
from queue import Full
from typing import Any

import faster_fifo

from bench.peers import interface
from bench.peers.interface import LOG_TASKS, MEMORY, PAIR_TASKS, Contestant

RING_BYTES = 1 << 30  # holds what a run appends before anybody reads; pages that are not used are not there
LONG = 3600.0  # the harness bounds the run


class Writer(interface.Writer):
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def append_one(self, payloads: Sequence[bytes]) -> None:
        put = self._queue.put
        for payload in payloads:
            put(payload, timeout=LONG)

    def append_batch(self, payloads: list[bytes]) -> None:
        while True:
            try:
                self._queue.put_many(payloads, timeout=LONG)
                return
            except Full:
                continue


class Reader(interface.Reader):
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def read_one(self, count: int) -> list[bytes]:
        get = self._queue.get
        return [get(timeout=LONG) for _ in range(count)]

    def read_batch(self, count: int) -> list[bytes]:
        got: list[bytes] = self._queue.get_many(timeout=LONG, max_messages_to_get=count)
        return got


class FasterFifo(Contestant):
    name = "faster-fifo"
    packages = ("faster-fifo",)
    promise = MEMORY
    settings = (
        "a ring of 1 GiB, bytes as they are instead of pickled (`loads`, `dumps`); `put`, `get`, `put_many` and "
        "`get_many` of 1000 records"
    )
    tasks = (*LOG_TASKS, *PAIR_TASKS)

    def start(self, channels: Sequence[str]) -> None:
        self._queues: dict[str, Any] = {
            channel: faster_fifo.Queue(max_size_bytes=RING_BYTES, loads=bytes, dumps=bytes) for channel in channels
        }

    def writer(self, channel: str) -> Writer:
        return Writer(self._queues[channel])

    def reader(self, channel: str) -> Reader:
        return Reader(self._queues[channel])
