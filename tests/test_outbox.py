# SPDX-License-Identifier: MIT
"""examples/outbox under real requests, while its processes are killed and the service is started anew."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import Queue, Stage
from tests.interop import need

need("starlette")
need("uvicorn")

OUTBOX = Path(__file__).parent.parent / "examples" / "outbox"
CUSTOMERS = 4
PAUSE_SECONDS = 0.02  # of a customer between two orders: the senders keep up
PATIENCE_SECONDS = 30


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


@contextmanager
def running(*command: object, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, *map(str, command)], start_new_session=True, **how)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def shop(directory: Path, listening: socket.socket) -> Any:
    """The socket is the test's, as it is systemd's elsewhere: who connects between two lives of the service waits."""
    flags = ["--app-dir", OUTBOX, "--workers", 2, "--fd", listening.fileno(), "--log-level", "warning"]
    environment = {**os.environ, "OUTBOX": str(directory)}
    return running("-m", "uvicorn", "shop:app", *flags, env=environment, pass_fds=[listening.fileno()])


def web_workers(service: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


class Customer(threading.Thread):
    """Orders until it is told to stop, and asks again where it got no answer."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self._port, self._number = port, number
        self.answered: dict[int, str] = {}
        self.refused: list[int] = []
        self.enough = threading.Event()

    def run(self) -> None:
        count = 0
        while not self.enough.wait(PAUSE_SECONDS):
            text = f"{count} pears for {self._number}"
            if (seq := self._order(text)) is not None:
                self.answered[seq] = text
                count += 1

    def _order(self, text: str) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("POST", "/orders", text)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if response.status != 201:
            self.refused.append(response.status)
            return None
        seq: int = json.loads(body)["order"]
        return seq


def records(path: Path, **how: Any) -> list[Any]:
    with Queue.open_subscriber(path, **how) as reader:
        return [json.loads(message.payload) for message in reader if message.type_id != Stage.POSITION_TYPE]


def answers(customers: list[Customer]) -> int:
    return sum(len(customer.answered) for customer in customers)


def kill_at_work(sender: subprocess.Popen[bytes], orders: Path) -> None:
    """When it has taken an order, and not said that it is sent."""

    def has_one() -> bool:
        os.kill(sender.pid, signal.SIGSTOP)
        if any(job.pid == sender.pid and job.state == "running" for job in Queue.group_jobs(orders, "send")):
            return True
        os.kill(sender.pid, signal.SIGCONT)
        return False

    until(has_one)
    sender.kill()
    sender.wait()


def test_what_was_answered_is_sent_whoever_dies(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        service = stack.enter_context(shop(tmp_path, listening))
        senders = [stack.enter_context(running(OUTBOX / "sender.py", tmp_path, "--pause", 0.002)) for _ in range(2)]
        ledger = stack.enter_context(running(OUTBOX / "ledger.py", tmp_path))
        customers = [Customer(listening.getsockname()[1], number) for number in range(CUSTOMERS)]
        for customer in customers:
            customer.start()

        until(lambda: answers(customers) > 20)
        seen = {seq for customer in customers for seq in list(customer.answered)}
        with Queue.open_subscriber(tmp_path / "orders", durable_only=True) as reader:
            assert seen <= {message.seq for message in reader}  # it was on disk before the answer
        os.kill(until(lambda: web_workers(service))[0], signal.SIGKILL)
        kill_at_work(senders[0], tmp_path / "orders")
        ledger.kill()
        ledger.wait()
        stack.enter_context(running(OUTBOX / "ledger.py", tmp_path))

        before = answers(customers)
        until(lambda: answers(customers) > before + 20)
        service.terminate()
        assert service.wait(PATIENCE_SECONDS) in (0, -signal.SIGTERM)
        stack.enter_context(shop(tmp_path, listening))
        gone = answers(customers)
        until(lambda: answers(customers) > gone + 20)
        for customer in customers:
            customer.enough.set()
            customer.join(PATIENCE_SECONDS)
            assert not customer.is_alive()
            assert customer.refused == []

        answered = {seq: text for customer in customers for seq, text in customer.answered.items()}
        assert len(answered) == answers(customers)  # no two customers were given the same number
        taken = Queue.info(tmp_path / "orders").next_seq
        until(lambda: Queue.groups(tmp_path / "orders")[0].floor == taken)
        until(lambda: len(records(tmp_path / "ledger")) >= taken)
    sent = records(tmp_path / "sent")
    assert answered.items() <= {one["order"]: one["text"] for one in sent}.items()
    assert max(one["delivery"] for one in sent) == 2  # the order that the dead sender had
    assert [one["order"] for one in records(tmp_path / "ledger")] == list(range(taken))


@pytest.mark.parametrize("program", ["sender.py", "ledger.py"])
def test_workers_may_come_before_the_shop(tmp_path: Path, program: str) -> None:
    with running(OUTBOX / program, tmp_path) as worker:
        until(lambda: (tmp_path / {"sender.py": "sent", "ledger.py": "ledger"}[program]).exists())
        assert worker.poll() is None
