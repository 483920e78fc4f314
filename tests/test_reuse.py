# SPDX-License-Identifier: MIT
"""Files of deleted segments become next segments, while processes read, and die.

What the steps of one reuse promise, tests/c/test_reuse.c shows one by one; here everything happens at the same time.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from chronicle_ffi import Queue, Retention, SegmentGone, SeqOutOfRange
from tests import decoder
from tests.kill import fork, reap
from tests.test_crashes import program

MIB = 1 << 20
SEGMENTS = 3  # that retention leaves
KILLS = 12
RECORDS = 200  # of a batch
PAYLOAD = 18000  # in the C programs: three to a segment


def can_reuse(path: Path) -> bool:
    """Whether the file system is one of those that tell who has a file open."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout.strip()
    return kind in ("ext2/ext3", "xfs", "tmpfs")


@pytest.fixture(autouse=True)
def only_there(tmp_path: Path) -> None:
    if not can_reuse(tmp_path):
        pytest.skip("files are reused on ext4, xfs and tmpfs only")


def payload(seq: int) -> bytes:
    return b"%d:" % seq + bytes([seq % 251]) * (seq * 7919 % 4000)


# ------------------------------------------------------------------------------------ processes that are killed


def write(path: Path, told: int, keeper: bool) -> None:
    with Queue.open_publisher(
        path, segment_size=MIB, reuse=True, keeper=keeper, retention=Retention(max_segments=SEGMENTS)
    ) as writer:
        assert writer.recovery.cut_bytes == 0
        while True:
            writer.append_many([payload(writer.next_seq + i) for i in range(RECORDS)], timestamp_ns=writer.next_seq)
            state = (writer.next_seq, writer.stats().reused_segments)
            os.write(told, b"".join(number.to_bytes(8, "little") for number in state))


def read_here_and_there(path: Path, seed: int) -> None:
    """Opens at any seq, seeks to others and to times; what it gets is right, or gone."""
    dice = random.Random(seed)
    while True:
        end = Queue.info(path).next_seq
        with (
            contextlib.suppress(SegmentGone, SeqOutOfRange),
            Queue.open_subscriber(path, start=dice.randrange(end + 1)) as reader,
        ):
            for _ in range(4):
                for message, _count in zip(reader, range(dice.randrange(60)), strict=False):
                    assert message.payload == payload(message.seq)
                reader.seek(max(0, reader.position - dice.randrange(-900, 900)))


def follow(path: Path, seed: int) -> None:
    """Is lapped now and then, and goes on with the oldest."""
    dice = random.Random(seed)
    with Queue.open_subscriber(path, f"follower-{seed}", on_gap="oldest") as reader:
        for message in reader.follow():
            assert message.payload == payload(message.seq)
            if dice.randrange(100) == 0:
                reader.commit()
            if dice.randrange(5000) == 0:
                time.sleep(0.02)


def states(pipe: int) -> list[tuple[int, int]]:
    os.set_blocking(pipe, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(pipe, 1 << 16):
            data += chunk
    numbers = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data) // 16 * 16, 8)]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_readers_beside_a_writer_that_reuses_and_dies(queue: Path) -> None:
    dice = random.Random(seed := random.randrange(1 << 30))
    print("seed", seed)
    Queue.open_publisher(queue, segment_size=MIB, reuse=True, keeper=False).close()
    readers = [
        fork(read_here_and_there, queue, seed),
        fork(read_here_and_there, queue, seed + 1),
        fork(follow, queue, seed),
        fork(follow, queue, seed + 1),
    ]
    reused = end = 0
    for round_ in range(KILLS):
        reading, writing = os.pipe()
        writer = fork(write, queue, writing, round_ % 3 > 0)
        os.close(writing)
        time.sleep(0.05 + dice.random() * 0.2)
        reap(writer)
        seen = states(reading)
        os.close(reading)
        reused += seen[-1][1] if seen else 0
        end = seen[-1][0] if seen else end
        assert Queue.info(queue).next_seq >= end
    for reader in readers:
        reap(reader)
    assert reused > KILLS
    with Queue.open_publisher(queue, reuse=True):
        pass
    assert Queue.verify(queue).ok
    decoded = decoder.open_queue(queue)
    assert all(record.payload == payload(record.seq) for record in decoded.records)


# ------------------------------------------------------------------------------- a writer that dies at each step


def die(path: Path, operation: int, step: int, words: list[str]) -> tuple[str, list[int]]:
    """Where it died ("" if it did not), and what it had acknowledged."""
    done = subprocess.run(
        [program(), path, str(operation), str(step), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CHRON_TEST_REUSE": "1"},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    said = done.stdout.split("\n")[:-1]
    return next((line for line in said if not line.isdigit()), ""), [int(line) for line in said if line.isdigit()]


def check(path: Path, acknowledged: int) -> None:
    """Before anybody has recovered the queue, and afterwards."""
    for _ in range(2):
        with Queue.open_subscriber(path, start="earliest") as reader:
            seen = list(reader)
        assert [message.seq for message in seen] == list(range(seen[0].seq, seen[0].seq + len(seen)))
        assert all(message.payload[1] == (message.seq * 31 + 1) & 0xFF for message in seen)
        assert seen[-1].seq + 1 >= acknowledged
        assert seen[0].seq <= 6
        with Queue.open_publisher(path, reuse=True) as writer:
            assert writer.next_seq == seen[-1].seq + 1
            assert not writer.recovery.quarantined
            assert not (path / "spare.tmp").exists()
    assert Queue.verify(path).ok


def test_a_writer_that_dies_at_each_step_of_a_reuse(queue: Path) -> None:
    """From the cleanup that gives a file up to the record behind the roll to it."""
    begun = queue / "begun"
    queue.mkdir()
    append = f"append:{PAYLOAD}"
    assert die(begun, 0, 0, [*[append] * 6, "close"])[0] == ""
    with Queue.open_subscriber(begun, "r") as reader:
        assert len(list(reader)) == 6
        reader.commit()
    words = [append, "cleanup", *[append] * 3, "close"]
    places = set()
    for operation in range(2, 6):
        for step in range(1, 200):
            path = queue / f"{operation}-{step}"
            shutil.copytree(begun, path)
            place, acknowledged = die(path, operation, step, words)
            places.add(place)
            check(path, acknowledged[-1])
            shutil.rmtree(path)
            if not place or len(acknowledged) > operation:  # what comes behind is the next one's turn
                break
    assert {"call: rename", "reuse: renamed", "reuse: owned", "call: sync_dir", "reuse: on disk"} <= places
    assert {"call: own", "reuse: next", "roll: header written", "roll: renamed", "roll: END published"} <= places
