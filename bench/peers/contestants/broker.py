# SPDX-License-Identifier: MIT
"""What contestants with a server have in common."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers.interface import LOG_TASKS, PAIR_TASKS, PROCESS, SYNC_TASKS, Contestant

START_SECONDS = 10.0
STOP_SECONDS = 5.0
LONG_SECONDS = 60  # of a read that waits: the harness bounds the run


class Broker(Contestant):
    """A server that lives as long as the run, with its files and its log in the run's directory."""

    promise = PROCESS
    tasks = (*LOG_TASKS, *PAIR_TASKS, *SYNC_TASKS)
    _server: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def ready(self) -> bool:
        """Whether the server answers."""
        raise NotImplementedError

    def start(self, channels: Sequence[str]) -> None:
        with open("server.log", "wb") as log:
            self._server = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment()
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if self._server.poll() is not None or time.monotonic() > deadline:
                tail = Path("server.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"the server does not start: {' '.join(tail)}")
            time.sleep(0.005)

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
