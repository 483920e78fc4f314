# SPDX-License-Identifier: MIT
"""py-lmdb as a log: the key is the sequence number."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import count as counting
from itertools import islice
from struct import Struct
from typing import Any

import lmdb

from bench.peers import interface
from bench.peers.interface import LOG_TASKS, PAIR_TASKS, PROCESS, SYNC_TASKS, Contestant

KEY = Struct(">Q").pack
MAP_BYTES = 1 << 36  # room in the address space, not on disk


class Writer(interface.Writer):
    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._keys = map(KEY, counting())

    def append_one(self, payloads: Sequence[bytes]) -> None:
        begin, keys = self._environment.begin, self._keys
        for payload in payloads:
            with begin(write=True) as transaction:
                transaction.put(next(keys), payload, append=True)

    def append_batch(self, payloads: list[bytes]) -> None:
        with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(list(zip(islice(self._keys, len(payloads)), payloads, strict=True)), append=True)

    def close(self) -> None:
        self._environment.close()


class Reader(interface.Reader):
    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._next = 0
        self._transaction: Any = None
        self._values: Iterator[bytes] = iter(())

    def close(self) -> None:
        self._values = iter(())
        if self._transaction:
            self._transaction.abort()
        self._environment.close()

    def _look(self) -> None:
        """See what was committed meanwhile."""
        if self._transaction:
            self._transaction.abort()
        self._transaction = self._environment.begin(buffers=False)
        cursor = self._transaction.cursor()
        if cursor.set_range(KEY(self._next)):
            self._values = cursor.iternext(keys=False, values=True)
        else:
            self._values = iter(())
            os.sched_yield()

    def read_one(self, count: int) -> list[bytes]:
        got: list[bytes] = []
        end = self._next + count
        while self._next < end:
            for value in self._values:
                got.append(value)
                self._next += 1
                if self._next == end:
                    break
            else:
                self._look()
        return got

    def read_batch(self, count: int) -> list[bytes]:
        while not (got := list(islice(self._values, count))):
            self._look()
        self._next += len(got)
        return got


class Lmdb(Contestant):
    name = "py-lmdb"
    packages = ("lmdb",)
    promise = PROCESS
    settings = (
        "sync=False, append=True, keys are 8-byte sequence numbers; one by one is a transaction for each record, with "
        "writemap=True; batches are `putmulti` of 10,000 in one transaction, with meminit=False, which is faster for "
        "them; reading iterates over a cursor's values; a waiting reader looks again and again"
    )
    durable_settings = "sync=True, no writemap: each commit is on disk"
    batch = 10_000
    tasks = (*LOG_TASKS, *PAIR_TASKS, *SYNC_TASKS)

    def _open(self, channel: str) -> Any:
        durable = self.task.durable
        return lmdb.open(
            channel,
            map_size=MAP_BYTES,
            sync=durable,
            metasync=durable,
            writemap=not durable and self.task.write == "append_one",
            meminit=False,
            max_spare_txns=1,
        )

    def start(self, channels: Sequence[str]) -> None:
        for channel in channels:
            self._open(channel).close()

    def writer(self, channel: str) -> Writer:
        return Writer(self._open(channel))

    def reader(self, channel: str) -> Reader:
        return Reader(self._open(channel))
