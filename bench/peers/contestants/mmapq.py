# SPDX-License-Identifier: MIT
"""mmapq: a queue in memory-mapped files, in C with a binding over cffi; the nearest relative."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmapq import IndexedBatchQueue, IndexedQueue

from bench.peers import interface
from bench.peers.interface import LOG_TASKS, PAIR_TASKS, PROCESS, Contestant


class Writer(interface.Writer):
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._appender = queue.create_appender()

    def append_one(self, payloads: Sequence[bytes]) -> None:
        append = self._appender.append
        for payload in payloads:
            append(payload)

    def close(self) -> None:
        self._appender.close()
        self._queue.close()


class BatchWriter(Writer):
    """Of a queue whose entries are batches."""

    def append_batch(self, payloads: list[bytes]) -> None:
        with self._appender.start_batch() as batch:
            append = batch.append
            for payload in payloads:
                append(payload)
            batch.commit()


class Reader(interface.Reader):
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._reader = queue.create_reader()
        self._next = 0

    def read_one(self, count: int) -> list[bytes]:
        read = self._reader.read
        got = []
        at = self._next
        end = self._next = at + count
        while at < end:
            payload = read(at)
            if payload is None:
                os.sched_yield()
                continue
            got.append(payload)
            at += 1
        return got

    def close(self) -> None:
        self._reader.close()
        self._queue.close()


class BatchReader(Reader):
    """Of a queue whose entries are batches."""

    def read_batch(self, count: int) -> list[bytes]:
        while not (got := self._reader.read(self._next)):
            os.sched_yield()
        self._next += 1
        batch: list[bytes] = got
        return batch


class Mmapq(Contestant):
    name = "mmapq"
    packages = ("mmapq",)
    promise = PROCESS
    settings = (
        "defaults (regions of 4 MiB, files of 1 GiB, mapped synchronously); one by one is `append` and `read` of an "
        "IndexedQueue, batches are 1000 records of an IndexedBatchQueue; a waiting reader spins"
    )
    tasks = (*LOG_TASKS, *PAIR_TASKS, "writers")

    @property
    def _batches(self) -> bool:
        return self.task.read == "read_batch" and self.task.write == "append_batch"

    def _open(self, channel: str) -> Any:
        return (IndexedBatchQueue if self._batches else IndexedQueue).create(".", channel)

    def writer(self, channel: str) -> Writer:
        return (BatchWriter if self._batches else Writer)(self._open(channel))

    def reader(self, channel: str) -> Reader:
        return (BatchReader if self._batches else Reader)(self._open(channel))
