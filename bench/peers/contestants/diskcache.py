# SPDX-License-Identifier: MIT
"""diskcache.Deque: on SQLite."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import diskcache

from bench.peers import interface
from bench.peers.interface import LOG_TASKS, PAIR_TASKS, POLL_SECONDS, PROCESS, SYNC_TASKS, Contestant


class Writer(interface.Writer):
    def __init__(self, deque: Any) -> None:
        self._deque = deque

    def append_one(self, payloads: Sequence[bytes]) -> None:
        append = self._deque.append
        for payload in payloads:
            append(payload)

    def append_batch(self, payloads: list[bytes]) -> None:
        with self._deque.transact():
            self._deque.extend(payloads)

    def close(self) -> None:
        self._deque.cache.close()


class Reader(interface.Reader):
    def __init__(self, deque: Any) -> None:
        self._deque = deque

    def read_one(self, count: int) -> list[bytes]:
        got: list[bytes] = []
        popleft = self._deque.popleft
        while len(got) < count:
            try:
                got.append(popleft())
            except IndexError:
                time.sleep(POLL_SECONDS)
        return got

    def read_batch(self, count: int) -> list[bytes]:
        got: list[bytes] = []
        popleft = self._deque.popleft
        while not got:
            with self._deque.transact():
                try:
                    while len(got) < count:
                        got.append(popleft())
                except IndexError:
                    pass
            if not got:
                time.sleep(POLL_SECONDS)
        return got

    def close(self) -> None:
        self._deque.cache.close()


class DiskCache(Contestant):
    name = "diskcache.Deque"
    packages = ("diskcache",)
    promise = PROCESS
    settings = (
        "a cache with sqlite_synchronous=0 and no eviction; `append`, `popleft`, batches are 1000 of them in a "
        "`transact`; a waiting reader polls every 0.2 ms"
    )
    durable_settings = "sqlite_synchronous=2"
    tasks = (*LOG_TASKS, *PAIR_TASKS, *SYNC_TASKS)

    def _open(self, channel: str) -> Any:
        level = 2 if self.task.durable else 0
        return diskcache.Deque.fromcache(diskcache.Cache(channel, eviction_policy="none", sqlite_synchronous=level))

    def start(self, channels: Sequence[str]) -> None:
        for channel in channels:
            self._open(channel).cache.close()

    def writer(self, channel: str) -> Writer:
        return Writer(self._open(channel))

    def reader(self, channel: str) -> Reader:
        return Reader(self._open(channel))
