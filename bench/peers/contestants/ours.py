# SPDX-License-Identifier: MIT
"""chronicle-ffi itself, from the working tree, with its defaults but where `settings` says so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal

from bench.peers import interface
from bench.peers.interface import PROCESS, TASKS, Contestant
from chronicle_ffi import Group, Queue, QueueReader, QueueWriter, __version__


class Writer(interface.Writer):
    def __init__(self, writer: QueueWriter, durable: bool) -> None:
        self._writer = writer
        self._durable = durable

    def append_one(self, payloads: Sequence[bytes]) -> None:
        append = self._writer.append
        for payload in payloads:
            append(payload)

    def append_batch(self, payloads: list[bytes]) -> None:
        self._writer.append_many(payloads)
        if self._durable:
            self._writer.sync()

    def append_array(self, rows: Any) -> None:
        self._writer.append_array(rows)

    def close(self) -> None:
        self._writer.close()


class Reader(interface.Reader):
    def __init__(self, reader: QueueReader) -> None:
        self._reader = reader

    def read_one(self, count: int) -> list[bytes]:
        reader = self._reader
        if count == 1:  # a loop would have more to set up than to do
            while (message := reader.next()) is None:
                reader.wait()
            return [message.payload]
        got = [message.payload for message in islice(reader, count)]
        while len(got) < count:
            reader.wait()
            got += [message.payload for message in islice(reader, count - len(got))]
        return got

    def read_batch(self, count: int) -> list[bytes]:
        reader = self._reader
        while not (got := list(islice(reader.payloads(), count))):
            reader.wait()
        return got

    def read_columns(self, count: int) -> Any:
        import numpy as np

        while not len(batch := self._reader.read_batch(count)):
            self._reader.wait()
        rows = batch.to_numpy()
        rows[:, :8].view("<u8").sum(dtype=np.uint64)
        return rows

    def close(self) -> None:
        self._reader.close()


class Worker(interface.Reader):
    def __init__(self, group: Group) -> None:
        self._group = group

    def work(self) -> list[bytes]:
        got = []
        while (job := self._group.take()) is not None:
            got.append(job.payload)
            job.ack()
        return got

    def close(self) -> None:
        self._group.close()


class Ours(Contestant):
    name = "chronicle-ffi"
    settings = (
        "defaults (64 MiB segments, keeper, a timestamp from the clock and a CRC-32C for each record); round trip: no "
        "keeper, the reader spins. One by one is `append` and iterating; batches are `append_many` and `payloads()`; "
        "columns are `read_batch` and `to_numpy`; jobs are `take` and `ack` of a group, "
        "several writers `shared=True`"
    )
    promise = PROCESS
    durable_settings = 'one by one durability="always"; groups `append_many` and `sync`; the reader is durable_only'
    tasks = tuple(TASKS)

    @classmethod
    def version(cls) -> str:
        return f"chronicle-ffi {__version__}"

    def writer(self, channel: str) -> Writer:
        if self.task.kind == "writers":
            return Writer(Queue.open_publisher(channel, shared=True, wait=10), False)
        each = self.task.name == "sync_one"
        made = Queue.open_publisher(channel, durability="always" if each else "none", keeper=self.task.kind != "trip")
        return Writer(made, self.task.durable)

    def reader(self, channel: str) -> Reader | Worker:
        if self.task.kind == "share":
            return Worker(Queue.open_group(channel, "workers"))
        wait: Literal["spin", "hybrid"] = "spin" if self.task.kind == "trip" else "hybrid"
        return Reader(Queue.open_subscriber(channel, waiting=wait, durable_only=self.task.durable))
