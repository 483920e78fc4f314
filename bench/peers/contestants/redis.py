# SPDX-License-Identifier: MIT
"""redis streams, over a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import redis

from bench.peers import interface
from bench.peers.contestants.broker import LONG_SECONDS, Broker
from bench.peers.race import ROOT

SOCKET = "redis.sock"
UNPACKED = ROOT / "build" / "peers" / "redis"  # where install.py puts Debian's package


def redis_server() -> str | None:
    unpacked = UNPACKED / "usr" / "bin" / "redis-server"
    return shutil.which("redis-server") or (str(unpacked) if unpacked.exists() else None)


def redis_environment() -> dict[str, str]:
    libraries = [str(path) for path in (UNPACKED / "usr" / "lib").glob("*-linux-gnu*")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}


class Writer(interface.Writer):
    def __init__(self, client: Any, stream: str) -> None:
        self._client = client
        self._stream = stream

    def append_one(self, payloads: Sequence[bytes]) -> None:
        add, stream = self._client.execute_command, self._stream
        for payload in payloads:
            add("XADD", stream, "*", "p", payload)

    def append_batch(self, payloads: list[bytes]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        add, stream = pipeline.execute_command, self._stream
        for payload in payloads:
            add("XADD", stream, "*", "p", payload)
        pipeline.execute()

    def close(self) -> None:
        self._client.close()


class Reader(interface.Reader):
    def __init__(self, client: Any, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._last = b"0"

    def _read(self, count: int) -> list[bytes]:
        found = self._client.xread({self._stream: self._last}, count=count, block=LONG_SECONDS * 1000)
        ((_, entries),) = found
        self._last = entries[-1][0]
        return [fields[b"p"] for _, fields in entries]

    def read_one(self, count: int) -> list[bytes]:
        return [self._read(1)[0] for _ in range(count)]

    def read_batch(self, count: int) -> list[bytes]:
        return self._read(count)

    def close(self) -> None:
        self._client.close()


class RedisStreams(Broker):
    name = "redis streams"
    packages = ("redis", "hiredis")
    settings = (
        "appendonly yes, appendfsync no, no snapshots, a Unix socket; one by one XADD and XREAD COUNT 1, batches are "
        "pipelines of 1000 XADD and XREAD COUNT 1000; a waiting reader blocks in the server"
    )
    durable_settings = "appendfsync always"

    @classmethod
    def missing(cls) -> str | None:
        return None if redis_server() else "there is no redis-server here, neither installed nor from Debian's package"

    @classmethod
    def version(cls) -> str:
        server = redis_server()
        if server is None:
            return super().version()
        said = subprocess.run(
            [server, "--version"], capture_output=True, text=True, env=redis_environment(), check=True
        )
        number = next(word[2:] for word in said.stdout.split() if word.startswith("v="))
        return f"redis-server {number}, {super().version()}"

    def command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": SOCKET,
            "appendonly": "yes",
            "appendfsync": "always" if self.task.durable else "no",
            "save": "",
            "auto-aof-rewrite-percentage": "0",
        }
        return [redis_server() or "", *(word for name, value in options.items() for word in (f"--{name}", value))]

    def environment(self) -> dict[str, str]:
        return redis_environment()

    def ready(self) -> bool:
        try:
            return bool(self._connect().ping())
        except redis.ConnectionError:
            return False

    def _connect(self) -> Any:
        return redis.Redis(unix_socket_path=SOCKET, protocol=2)

    def writer(self, channel: str) -> Writer:
        return Writer(self._connect(), channel)

    def reader(self, channel: str) -> Reader:
        return Reader(self._connect(), channel)
