# SPDX-License-Identifier: MIT
"""Exceptions from signal handlers: a short storm (storm.py), and that it notices what it is for."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import ChronicleError, Queue, QueueReader, QueueWriter, _aio
from tests import storm


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a signal within a destructor
def test_nothing_is_left_behind(tmp_path: Path) -> None:
    storm.run(tmp_path / "q", 1500, seed=1)
    gc.collect()


class CountedInPython(storm.Storm):
    """Takes a message in one step, and has the loop get it in another."""

    def iterate(self) -> None:
        def each() -> Any:
            while (message := self.reader.next()) is not None:
                yield message

        for message in each():
            self.handled = message.seq + 1


class ClaimEndedInPython(storm.Storm):
    """Begins a claim outside of the with block."""

    def claim(self) -> None:
        data = b"%020d" % self.writer.next_seq
        self.kept = self.writer.claim(20)
        view = self.kept.__enter__()
        view[:] = data
        self.kept.__exit__(None, None, None)


def linger() -> None:
    for _ in range(20_000):
        pass


class ReaderOwnedLate(storm.Storm):
    """Somebody else has what was opened, while whoever asked for it has not got it yet."""

    def open_reader(self) -> QueueReader:
        self.kept = super().open_reader()
        linger()
        return self.kept


class WriterOwnedLate(storm.Storm):
    """As above."""

    def open_writer(self) -> QueueWriter:
        self.kept = super().open_writer()
        linger()
        return self.kept


@pytest.mark.parametrize("kind", [CountedInPython, ClaimEndedInPython, ReaderOwnedLate, WriterOwnedLate])
@pytest.mark.filterwarnings("ignore")  # what it has left behind
def test_the_storm_notices(tmp_path: Path, kind: type[storm.Storm]) -> None:
    with pytest.raises((AssertionError, ChronicleError)):
        storm.run(tmp_path / "q", 20_000, seed=2, kind=kind)
    gc.collect()  # here, where its warnings are not believed


def test_a_handler_may_use_the_reader(tmp_path: Path) -> None:
    with Queue.open_publisher(tmp_path / "q", keeper=False) as writer:
        writer.append_many([b"x"] * 20_000)
    with Queue.open_subscriber(tmp_path / "q", "me") as reader:
        before = signal.signal(signal.SIGALRM, lambda *_: reader.commit())
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        try:
            for seq, message in enumerate(reader):
                assert message.seq == seq
                reader.commit()
                assert reader.committed == seq + 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert seq == 19_999


def test_upto(tmp_path: Path) -> None:
    with Queue.open_publisher(tmp_path / "q", keeper=False) as writer:
        writer.append_many([b"x"] * 10)
    with Queue.open_subscriber(tmp_path / "q", "me") as reader:
        list(reader)
        reader.commit(upto=4)
        assert (reader.position, reader.committed) == (10, 4)
        for wrong in (3, 11, -1):
            with pytest.raises(ValueError):
                reader.commit(upto=wrong)
        with pytest.raises(TypeError):
            reader.commit(4, True)  # type: ignore[misc]
        reader.commit(5, sync=True)
    with Queue.open_subscriber(tmp_path / "q", "me") as reader:
        assert reader.position == 5


def test_a_listener_that_could_not_start_is_started_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def wait() -> None:
        with Queue.open_subscriber(tmp_path / "q") as reader:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                assert not await reader.wait_async(0.01)
            assert not [one for one in threading.enumerate() if one.name == "chronicle-listener"]
            assert not await reader.wait_async(0.01)
            assert [one for one in threading.enumerate() if one.name == "chronicle-listener"]

    Queue.open_publisher(tmp_path / "q").close()
    asyncio.run(wait())


def test_fork_with_the_listeners_locks_held(tmp_path: Path) -> None:
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with _aio._listeners_lock, _aio._listeners[0]._lock:
            held.set()
            go.wait()

    async def fork() -> int:
        with Queue.open_subscriber(tmp_path / "q") as reader:
            await reader.wait_async(0.01)
            threading.Thread(target=hold, daemon=True).start()
            held.wait()
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                reader.close()
                os._exit(0)
            go.set()
            return os.waitpid(pid, 0)[1]

    Queue.open_publisher(tmp_path / "q").close()
    assert asyncio.run(fork()) == 0
