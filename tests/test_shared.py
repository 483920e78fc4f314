# SPDX-License-Identifier: MIT
"""Several writers that take turns: one log of many processes and threads. The deaths are in tests/c/test_shared.c."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests import decoder

WRITERS = 4
WRITER = """
import sys, time
from chronicle_ffi import Queue
who, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with Queue.open_publisher(path, segment_size=1 << 16, shared=True, wait=10) as writer:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(count):
        if i % 3 == 0:
            writer.append(b"%d %d" % (who, i), type_id=who)
        elif i % 3 == 1:
            writer.append_many([b"%d %d" % (who, i)], type_id=who)
        else:
            with writer.claim(20, type_id=who) as payload:
                payload[:] = (b"%d %d" % (who, i)).ljust(20)
"""


def counts(path: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    with Queue.open_subscriber(path) as reader:
        for message in reader:
            who, count = message.payload.split()[:2]
            found.setdefault(int(who), []).append(int(count))
    return found


def test_processes_write_one_log_in_their_own_order(queue: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(who), "600", str(queue)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for who in range(WRITERS)
    ]  # fmt: skip
    for child in children:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.communicate("go\n")
        assert child.returncode == 0
    assert counts(queue) == {who: list(range(600)) for who in range(WRITERS)}
    assert Queue.verify(queue).ok
    assert len(decoder.open_queue(queue).records) == WRITERS * 600  # by version 1 of the format, as it was
    with Queue.open_publisher(queue) as writer:  # by one alone, as always
        assert writer.recovery.clean
        assert writer.append(b"0 600") == WRITERS * 600


def test_threads_have_a_handle_each(queue: Path) -> None:
    def work(who: int) -> None:
        with Queue.open_publisher(queue, segment_size=1 << 16, shared=True, wait=10) as writer:
            for i in range(500):
                writer.append_many([b"%d %d" % (who, 2 * i), b"%d %d" % (who, 2 * i + 1)], atomic=True)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(queue) == {who: list(range(1000)) for who in range(WRITERS)}


def test_one_alone_excludes_those_who_share(queue: Path) -> None:
    with Queue.open_publisher(queue):
        with pytest.raises(c.WriterAlreadyActive) as caught:
            Queue.open_publisher(queue, shared=True)
        assert caught.value.pid == os.getpid()
    with Queue.open_publisher(queue, shared=True), Queue.open_publisher(queue, shared=True):
        with pytest.raises(c.WriterAlreadyActive, match="take turns") as caught:
            Queue.open_publisher(queue)
        assert caught.value.pid == os.getpid()


def test_waiting_for_either(queue: Path) -> None:
    for first, second in ((True, False), (False, True)):
        writer = Queue.open_publisher(queue, shared=first)
        threading.Timer(0.2, writer.close).start()
        Queue.open_publisher(queue, shared=second, wait=10).close()


def test_back_pressure_is_the_same_for_all(queue: Path) -> None:
    with (
        Queue.open_publisher(queue, shared=True, max_segments=4),
        pytest.raises(c.InvalidArgument, match="max_segments 4"),
    ):
        Queue.open_publisher(queue, shared=True)


def test_what_one_syncs_is_durable_for_all(queue: Path) -> None:
    with (
        Queue.open_publisher(queue, shared=True, durability="always") as one,
        Queue.open_publisher(queue, shared=True) as other,
        Queue.open_subscriber(queue, durable_only=True) as reader,
    ):
        other.append(b"0 0")
        assert reader.next() is None
        one.append(b"1 0")
        assert one.durable_seq == other.durable_seq == 1
        assert len(list(reader)) == 2
        other.append(b"0 1")
        asyncio.run(other.wait_durable(timeout=10))
        assert one.durable_seq == 2
        assert one.stats().records == 1


def test_a_writer_that_is_stopped_in_its_turn_is_named(queue: Path) -> None:
    """SIGSTOP comes at any moment: so again and again, until it came in a turn."""
    code = """
import sys
from chronicle_ffi import Queue
with Queue.open_publisher(sys.argv[1], segment_size=1 << 26, shared=True, wait=10) as writer:
    print("ready", flush=True)
    while True:
        writer.append_many([bytes(400_000)] * 8)
"""
    with Queue.open_publisher(queue, shared=True, turn_timeout=0.05) as writer:
        child = subprocess.Popen([sys.executable, "-c", code, str(queue)], stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
            for _ in range(2000):
                os.kill(child.pid, signal.SIGSTOP)
                try:
                    writer.append(b"x")
                except c.TurnTimeout as problem:
                    assert problem.pid == child.pid
                    assert "stopped" in str(problem)
                    break
                finally:
                    os.kill(child.pid, signal.SIGCONT)
                time.sleep(0.001)
            else:
                pytest.fail("never in a turn")
        finally:
            child.kill()
            child.communicate()
        writer.append(b"and on it goes")


def test_append_from_the_command_line(queue: Path) -> None:
    with Queue.open_publisher(queue, shared=True) as writer:
        done = subprocess.run(
            [sys.executable, "-m", "chronicle_ffi", "append", "--shared", str(queue)],
            input=b"1 0\n1 1\n", capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"appended 2 records" in done.stderr
        writer.append(b"0 0")
        refused = subprocess.run(
            [sys.executable, "-m", "chronicle_ffi", "append", str(queue)],
            input=b"x\n",
            capture_output=True,
            check=False,
        )
        assert refused.returncode != 0
    assert counts(queue) == {1: [0, 1], 0: [0]}


def test_a_child_of_a_fork_leaves_the_parents_turns_alone(queue: Path) -> None:
    with Queue.open_publisher(queue, shared=True) as writer:
        writer.append(b"0 0")
        child = os.fork()
        if child == 0:
            try:
                writer.append(b"0 1")
            except c.ForkedHandle:
                writer.close()
                with Queue.open_publisher(queue, shared=True) as own:
                    own.append(b"1 0")
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        writer.append(b"0 1")
    assert counts(queue) == {0: [0, 1], 1: [0]}


def test_a_copy_of_a_live_queue_is_opened_as_a_copy(queue: Path, tmp_path: Path) -> None:
    with Queue.open_publisher(queue, shared=True) as writer:
        writer.append(b"0 0")
        shutil.copytree(queue, tmp_path / "copy")
        with Queue.open_publisher(tmp_path / "copy", shared=True) as copy:
            assert copy.recovery.copied
            copy.append(b"0 1")
        writer.append(b"0 9")
    assert counts(tmp_path / "copy") == {0: [0, 1]}
