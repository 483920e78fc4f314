# SPDX-License-Identifier: MIT
"""pyzmq over a Unix socket."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import zmq

from bench.peers import interface
from bench.peers.interface import MEMORY, PAIR_TASKS, Contestant


class _End:
    """A socket with a context of its own: neither survives a fork."""

    def __init__(self, kind: int, name: str) -> None:
        self._context = zmq.Context()
        self._socket: Any = self._context.socket(kind)
        self._socket.set_hwm(0)
        if kind == zmq.PUSH:
            self._socket.bind(name)
        else:
            self._socket.connect(name)

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()


class Writer(_End, interface.Writer):
    def append_one(self, payloads: Sequence[bytes]) -> None:
        send = self._socket.send
        for payload in payloads:
            send(payload)

    def append_batch(self, payloads: list[bytes]) -> None:
        self._socket.send_pyobj(payloads)


class Reader(_End, interface.Reader):
    def read_one(self, count: int) -> list[bytes]:
        receive = self._socket.recv
        return [receive() for _ in range(count)]

    def read_batch(self, count: int) -> list[bytes]:
        got: list[bytes] = self._socket.recv_pyobj()
        return got


class ZeroMq(Contestant):
    name = "pyzmq"
    packages = ("pyzmq",)
    promise = MEMORY
    settings = (
        "PUSH and PULL over ipc, no high-water mark; one by one `send` and `recv`, batches are a list of 1000 records "
        "in one `send_pyobj` (`send_multipart` is slower than one by one)"
    )
    tasks = PAIR_TASKS
    packed = True

    @classmethod
    def version(cls) -> str:
        return f"{super().version()}, libzmq {zmq.zmq_version()}"

    def start(self, channels: Sequence[str]) -> None:
        self._unique = os.getpid()

    def _name(self, channel: str) -> str:
        return f"ipc://@chronicle-peers-{self._unique}-{channel}"  # abstract: no file, no limit of a path's length

    def writer(self, channel: str) -> Writer:
        return Writer(zmq.PUSH, self._name(channel))

    def reader(self, channel: str) -> Reader:
        return Reader(zmq.PULL, self._name(channel))
