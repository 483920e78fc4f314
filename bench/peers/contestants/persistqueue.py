# SPDX-License-Identifier: MIT
"""persist-queue: its queue in files, and where records have to be on disk, its queue on SQLite."""

from __future__ import annotations

import os
from typing import Any

import persistqueue

from bench.peers import interface
from bench.peers.interface import PROCESS, Contestant, PutWriter


class Reader(interface.Reader):
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def read_one(self, count: int) -> list[bytes]:
        get = self._queue.get
        got = [get() for _ in range(count)]
        self._queue.task_done()
        return got


class PersistQueue(Contestant):
    name = "persist-queue"
    packages = ("persist-queue",)
    promise = PROCESS
    settings = (
        "the file-based Queue, 10,000 records a file; `put`, and `get` with a `task_done` every 1000; no batches. "
        "Jobs are not shared: its SQLiteAckQueue, opened by several processes, gives some of them to two"
    )
    durable_settings = "its SQLiteQueue, which is durable by default"
    tasks = ("append_one", "read_one", "sync_one")

    def _open(self, channel: str) -> Any:
        if self.task.durable:
            return persistqueue.SQLiteQueue(channel)
        os.makedirs(channel, exist_ok=True)
        return persistqueue.Queue(channel, chunksize=10_000, tempdir=channel)

    def writer(self, channel: str) -> PutWriter:
        return PutWriter(self._open(channel))

    def reader(self, channel: str) -> Reader:
        return Reader(self._open(channel))
