# SPDX-License-Identifier: MIT
"""iceoryx2: publish and subscribe in shared memory, without copies between the processes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from struct import Struct

import iceoryx2 as iox

from bench.peers import interface
from bench.peers.interface import MEMORY, PAIR_TASKS, Contestant

PREFIX = "chronicle_peers_"  # of its files in /dev/shm
BUFFER = 1024  # samples that a subscriber may lag behind


class _Port:
    """A node and a service, made after the fork."""

    def __init__(self, channel: str, place: str, prefix: str) -> None:
        iox.set_log_level(iox.LogLevel.Error)
        config = iox.config.default()
        config.global_cfg.root_path = iox.Path.new(place)
        config.global_cfg.prefix = iox.FileName.new(prefix)
        self._node = iox.NodeBuilder.new().config(config).create(iox.ServiceType.Ipc)
        self._service = (
            self._node.service_builder(iox.ServiceName.new(channel))
            .publish_subscribe(iox.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(1)
            .subscriber_max_buffer_size(BUFFER)
            .open_or_create()
        )


class Writer(_Port, interface.Writer):
    def __init__(self, channel: str, place: str, prefix: str, size: int) -> None:
        super().__init__(channel, place, prefix)
        self._publisher = (
            self._service.publisher_builder()
            .initial_max_slice_len(size)
            .backpressure_strategy(iox.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )

    def append_one(self, payloads: Sequence[bytes]) -> None:
        loan, copy = self._publisher.loan_slice_uninit, ctypes.memmove
        for payload in payloads:
            sample = loan(len(payload))
            copy(sample.payload_ptr, payload, len(payload))
            sample.assume_init().send()

    def append_batch(self, payloads: list[bytes]) -> None:
        self.append_one([b"".join(payloads)])

    def close(self) -> None:
        del self._publisher, self._service, self._node


class Reader(_Port, interface.Reader):
    def __init__(self, channel: str, place: str, prefix: str, size: int) -> None:
        super().__init__(channel, place, prefix)
        self._subscriber = self._service.subscriber_builder().buffer_size(BUFFER).create()
        self._size = size

    def read_one(self, count: int) -> list[bytes]:
        receive, copy = self._subscriber.receive, ctypes.string_at
        got: list[bytes] = []
        while len(got) < count:
            sample = receive()
            if sample is None:
                os.sched_yield()
                continue
            payload = sample.payload()
            got.append(copy(payload.data_ptr, payload.number_of_elements))
            sample.delete()
        return got

    def read_batch(self, count: int) -> list[bytes]:
        joined = self.read_one(1)[0]
        return list(Struct(f"{self._size}s" * (len(joined) // self._size)).unpack(joined))

    def close(self) -> None:
        del self._subscriber, self._service, self._node


class Iceoryx2(Contestant):
    name = "iceoryx2"
    packages = ("iceoryx2",)
    promise = MEMORY
    settings = (
        "publish and subscribe of byte slices, the publisher waits for a full subscriber (1024 samples); batches are "
        "1000 records joined to one sample, and cut by struct; a waiting reader spins"
    )
    tasks = PAIR_TASKS
    packed = True

    def start(self, channels: Sequence[str]) -> None:
        self._place = os.getcwd()
        self._prefix = f"{PREFIX}{os.getpid()}_"
        self._sweep()

    def _sweep(self) -> None:
        """Remove what a run that was killed could not."""
        for path in Path("/dev/shm").glob(f"{PREFIX}*"):
            path.unlink(missing_ok=True)

    def writer(self, channel: str) -> Writer:
        joined = self.batch if self.task.write == "append_batch" else 1
        return Writer(channel, self._place, self._prefix, self.size * joined)

    def reader(self, channel: str) -> Reader:
        return Reader(channel, self._place, self._prefix, self.size)

    def stop(self) -> None:
        self._sweep()
