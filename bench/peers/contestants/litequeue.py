# SPDX-License-Identifier: MIT
"""litequeue: a queue of messages with states, on SQLite."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import litequeue

from bench.peers import interface
from bench.peers.interface import POLL_SECONDS, PROCESS, Contestant

PRUNE_EVERY = 100  # messages


class Writer(interface.PutWriter):
    def append_batch(self, payloads: list[bytes]) -> None:
        with self._queue.transaction():
            self.append_one(payloads)

    def close(self) -> None:
        self._queue.close()


class Reader(interface.Reader):
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._done = 0

    def read_one(self, count: int) -> list[bytes]:
        got: list[bytes] = []
        while len(got) < count:
            message = self._queue.pop()
            if message is None:
                time.sleep(POLL_SECONDS)
                continue
            got.append(message.data)
            self._queue.done(message.message_id)
            self._done += 1
            if self._done % PRUNE_EVERY == 0:
                self._queue.prune()
        return got

    def work(self) -> list[bytes]:
        got: list[bytes] = []
        while (message := self._queue.pop()) is not None:
            got.append(message.data)
            self._queue.done(message.message_id)
            if len(got) % PRUNE_EVERY == 0:
                self._queue.prune()
        return got

    def close(self) -> None:
        self._queue.close()


class Checker(interface.Reader):
    """Looks into the table: the time of a `pop` grows with what waits behind it."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._rows = queue.conn.execute(f"SELECT data FROM {queue.table} ORDER BY rowid")

    def read_batch(self, count: int) -> list[bytes]:
        return [row["data"] for row in islice(self._rows, count)]

    def close(self) -> None:
        self._queue.close()


class LiteQueue(Contestant):
    name = "litequeue"
    packages = ("litequeue",)
    promise = PROCESS
    settings = (
        "its defaults (WAL), but PRAGMA synchronous=OFF on its connection; one by one `put`, and `pop` with `done` and "
        "a `prune` every 100; batches are 1000 `put`s in a `transaction`; a waiting reader polls every 0.2 ms"
    )
    durable_settings = "PRAGMA synchronous=FULL"
    tasks = (
        "append_one",
        "append_batch",
        "read_one",
        "pair_one",
        "round_trip",
        "sync_one",
        "sync_group",
        "share",
        "writers",
    )

    def _open(self, channel: str) -> Any:
        queue = litequeue.LiteQueue(f"{channel}.db", timeout=30)
        queue.conn.execute(f"PRAGMA synchronous = {'FULL' if self.task.durable else 'OFF'}")
        return queue

    def start(self, channels: Sequence[str]) -> None:
        for channel in channels:
            self._open(channel).close()

    def writer(self, channel: str) -> Writer:
        return Writer(self._open(channel))

    def reader(self, channel: str) -> Reader:
        return Reader(self._open(channel))

    def checker(self, channel: str) -> Checker:
        return Checker(self._open(channel))
