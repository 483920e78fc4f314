# SPDX-License-Identifier: MIT
"""Contestants for tests/test_peers.py: one that works, and some that do not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers import interface
from bench.peers.interface import LOG_TASKS, MEMORY, Contestant
from bench.peers.records import Ring


class Writer(interface.Writer):
    def __init__(self, log: list[bytes]) -> None:
        self.log = log

    def append_one(self, payloads: Sequence[bytes]) -> None:
        self.log += payloads


class Reader(interface.Reader):
    def __init__(self, log: list[bytes]) -> None:
        self.rest = iter(log)

    def read_one(self, count: int) -> list[bytes]:
        return [next(self.rest) for _ in range(count)]


class Listed(Contestant):
    """A list in memory."""

    name = "list"
    settings = "none"
    promise = MEMORY
    tasks = LOG_TASKS

    def start(self, channels: Sequence[str]) -> None:
        self.log: list[bytes] = []

    def writer(self, channel: str) -> Writer:
        return Writer(self.log)

    def reader(self, channel: str) -> Reader:
        return Reader(self.log)


class Altering(Listed):
    """Gives back one record with other bytes."""

    def reader(self, channel: str) -> Reader:
        self.log[len(self.log) // 2] = bytes(self.size)
        return Reader(self.log)


class Generous(Listed):
    """Gives a record more than was asked for."""

    def reader(self, channel: str) -> Reader:
        reader = Reader(self.log)
        reader.read_one = lambda count: [next(reader.rest) for _ in range(count + 1)]  # type: ignore[method-assign]
        return reader


class Doubling(Listed):
    """Gives every job to every worker."""

    def reader(self, channel: str) -> Reader:
        reader = Reader([])
        reader.work = lambda: Ring(self.size).payloads[:100]  # type: ignore[method-assign]
        return reader


class Failing(Listed):
    def start(self, channels: Sequence[str]) -> None:
        raise OSError("no luck today")


class Hung(Listed):
    """Starts a server, notes its pid, and never gets any further."""

    def start(self, channels: Sequence[str]) -> None:
        server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path("server.tmp").write_text(str(server.pid))
        Path("server.tmp").rename("server.pid")
        time.sleep(600)
