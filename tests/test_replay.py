# SPDX-License-Identifier: MIT
"""Replay: never early, over into what is live, into another queue and killed in the middle of that; and its command."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from chronicle_ffi import InvalidArgument, Queue
from chronicle_ffi.cli import main
from chronicle_ffi.merge import replay as replay_module

MS = 1_000_000


def fill(path: Path, stamps: list[int]) -> Path:
    with Queue.open_publisher(path, segment_size=1 << 16, keeper=False) as writer:
        for i, stamp in enumerate(stamps):
            writer.append(b"%d" % i, i % 7, timestamp_ns=stamp, flags=i % 3)
    return path


def content(path: Path) -> list[tuple[int, int, int, bytes]]:
    with Queue.open_subscriber(path) as reader:
        return [(one.timestamp_ns, one.type_id, one.flags, one.payload) for one in reader]


class Clock:
    """Instead of the time: a sleep takes a little longer than it was asked for."""

    def __init__(self) -> None:
        self.now = 0
        self.slept = 0

    def perf_counter_ns(self) -> int:
        self.now += 1000
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += int(seconds * 1e9)
        self.now += int(seconds * 1e9) + 60_000

    def monotonic(self) -> float:
        return self.now / 1e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(replay_module, "time", clock)
    return clock


@pytest.mark.parametrize("speed", [0.5, 1.0, 10.0])
def test_records_come_when_they_are_due(queue: Path, clock: Clock, speed: float) -> None:
    chance = random.Random(1)
    stamps = [1000 * MS + int(at * MS) for at in sorted(chance.uniform(0, 5000) for _ in range(300))]
    fill(queue, stamps)
    with Queue.replay(queue, speed=speed) as replay:
        assert replay.total == 300
        for message in replay:
            due = (message.timestamp_ns - stamps[0]) / speed
            error = clock.now - replay._begin - due
            assert -1 <= error < 0.2 * MS
    assert replay.count == 300


def test_stamps_that_go_back_and_gaps_that_are_cut(queue: Path, clock: Clock) -> None:
    fill(queue, [0, 3600_000 * MS, 3600_001 * MS, 5 * MS, 3600_002 * MS])
    with Queue.replay(queue, gap="10ms") as replay:
        came = [clock.now - replay._begin for _ in replay]
    assert [round(at / MS) for at in came] == [0, 10, 11, 11, 12]


def test_without_waiting(queue: Path, clock: Clock) -> None:
    fill(queue, [0, 10**18])
    with Queue.replay(queue, speed=math.inf) as replay:
        assert len(list(replay)) == 2
    assert clock.slept == 0


def test_a_pause(queue: Path) -> None:
    fill(queue, [0, 20 * MS])
    with Queue.replay(queue) as replay:
        records = iter(replay)
        next(records)
        replay.pause()
        begin = time.monotonic()
        threading.Timer(0.2, replay.resume).start()
        next(records)
        assert time.monotonic() - begin >= 0.2


def test_a_range(queue: Path) -> None:
    fill(queue, [i * MS for i in range(10)])
    with Queue.replay(queue, start=3, stop=6, speed=math.inf) as replay:
        assert [message.seq for message in replay] == [3, 4, 5]
    for wrong in (0, -1, math.nan):
        with pytest.raises(InvalidArgument):
            Queue.replay(queue, speed=wrong)


@pytest.mark.parametrize("merged", [False, True])
def test_over_into_what_is_live_nothing_twice_and_nothing_missed(tmp_path: Path, merged: bool) -> None:
    path = fill(tmp_path / "q", [i * MS for i in range(100)])
    with Queue.open_publisher(path) as writer:
        source = Queue.merge([path], live=True, lateness=0, idle=0.01) if merged else path

        def write() -> None:
            for _ in range(300):
                writer.append(b"more")
                time.sleep(0.0005)

        with Queue.replay(source, speed=2) as replay:
            thread = threading.Thread(target=write)
            thread.start()
            assert [message.seq for message in islice(replay.then_live(timeout=20), 400)] == list(range(400))
            thread.join()


def test_a_closed_merge_has_no_life(tmp_path: Path) -> None:
    paths = [fill(tmp_path / "a", [1, 3]), fill(tmp_path / "b", [2])]
    with Queue.replay(Queue.merge(paths), speed=math.inf) as replay:
        assert replay.total == 3
        with pytest.raises(InvalidArgument, match="live=True"):
            replay.then_live()
        assert [message.timestamp_ns for message in replay] == [1, 2, 3]
    with pytest.raises(InvalidArgument), Queue.merge(paths) as merge:
        Queue.replay(merge, stop=3)


def test_into_another_queue(tmp_path: Path) -> None:
    path = fill(tmp_path / "q", [5, 6, 4])
    with Queue.replay(path, speed=math.inf) as replay:
        assert replay.into(tmp_path / "same") == 3
    assert content(tmp_path / "same") == content(path)
    before = time.time_ns()
    with Queue.replay(path, speed=math.inf) as replay:
        replay.into(tmp_path / "new", stamps="new")
    assert all(stamp >= before for stamp, *_ in content(tmp_path / "new"))
    assert [one[1:] for one in content(tmp_path / "new")] == [one[1:] for one in content(path)]
    fill(tmp_path / "other", [1, 2])
    with Queue.replay(path, speed=math.inf) as replay, pytest.raises(InvalidArgument, match="is not the one"):
        replay.into(tmp_path / "other", resume=True)
    fill(tmp_path / "longer", [1, 2, 3, 4])
    with Queue.replay(path, speed=math.inf) as replay, pytest.raises(InvalidArgument, match="no copy"):
        replay.into(tmp_path / "longer", resume=True)


KILLED = """
import sys
from chronicle_ffi import Queue
source = sys.argv[2] if len(sys.argv) == 3 else Queue.merge(sys.argv[2:], lateness="40ns")
with Queue.replay(source, speed=1e-5) as replay:
    replay.into(sys.argv[1], resume=True)
"""


@pytest.mark.parametrize("sources", [1, 3])
def test_killed_and_resumed_the_copy_is_the_same(tmp_path: Path, sources: int) -> None:
    chance = random.Random(sources)
    paths = [
        fill(tmp_path / str(i), [max(0, i * 10 + chance.randrange(-60, 60)) for i in range(1500)])
        for i in range(sources)
    ]
    kills = 0
    while True:
        child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED, tmp_path / "copy", *paths])
        try:
            assert child.wait(chance.uniform(0.25, 0.6)) == 0
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
    if sources == 1:
        assert content(tmp_path / "copy") == content(paths[0])
    else:
        with Queue.merge(paths, lateness="40ns") as merge:
            wanted = [(one.timestamp_ns, one.type_id, one.flags, one.payload) for one in merge]
        assert content(tmp_path / "copy") == wanted
    assert kills > 0


def test_commands(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    paths = [str(fill(tmp_path / "a", [1, 3])), str(fill(tmp_path / "b", [2]))]
    assert main(["replay", paths[0], "--progress"]) == 0
    assert capfdbinary.readouterr().out == b"0\n1\n"
    assert main(["replay", paths[0], "--speed", "inf", "--into", str(tmp_path / "c"), "--progress"]) == 0
    assert b"2 of 2 records, 100 %" in capfdbinary.readouterr().err
    assert main(["replay", paths[0], "--into", str(tmp_path / "c"), "--resume"]) == 0
    assert content(tmp_path / "c") == content(tmp_path / "a")
    assert main(["merge", *paths, "--reader", "me", "--progress"]) == 0
    assert capfdbinary.readouterr().out == b"0\n0\n1\n"
    assert main(["merge", *paths, "--reader", "me"]) == 0
    assert capfdbinary.readouterr().out == b""
    assert main(["merge", *paths, "--into", str(tmp_path / "all")]) == 0
    assert [one[0] for one in content(tmp_path / "all")] == [1, 2, 3]
    for wrong in (
        ["merge", *paths, "--into", paths[0]],
        ["merge", *paths, "--home", paths[0]],
        ["replay", paths[0], "--into", paths[0]],
        ["replay", paths[0], "--resume"],
        ["replay", paths[0], "--into", "x", "-f"],
        ["replay", paths[0], "--speed", "0"],
    ):
        assert main(wrong) == 2
