# SPDX-License-Identifier: MIT
"""huey: the queue of tasks that its workers take from, on SQLite, without what it does around a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huey.storage import SqliteStorage

from bench.peers import interface
from bench.peers.interface import PROCESS, Contestant


class Writer(interface.Writer):
    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def append_one(self, payloads: Sequence[bytes]) -> None:
        enqueue = self._storage.enqueue
        for payload in payloads:
            enqueue(payload)

    def close(self) -> None:
        self._storage.close()


class Reader(interface.Reader):
    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def work(self) -> list[bytes]:
        got: list[bytes] = []
        while (payload := self._storage.dequeue()) is not None:
            got.append(payload)
        return got

    def close(self) -> None:
        self._storage.close()


class Huey(Contestant):
    name = "huey"
    packages = ("huey",)
    promise = PROCESS
    settings = (
        "its SqliteStorage (WAL, no fsync, timeout 30 s): `enqueue` and `dequeue`, which deletes the task: it has no "
        "acknowledgement, and what a worker had that died is gone"
    )
    tasks = ("share",)

    def _open(self, channel: str) -> Any:
        return SqliteStorage(filename=f"{channel}.db", fsync=False, timeout=30)

    def start(self, channels: Sequence[str]) -> None:
        for channel in channels:
            self._open(channel).close()

    def writer(self, channel: str) -> Writer:
        return Writer(self._open(channel))

    def reader(self, channel: str) -> Reader:
        return Reader(self._open(channel))
