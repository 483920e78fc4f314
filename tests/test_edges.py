# SPDX-License-Identifier: MIT
"""Small promises at the edges, each of which was broken once."""

from __future__ import annotations

import asyncio
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests.children import in_child, let_others_pass

SEGMENT = 1 << 16


def test_an_event_comes_before_its_message_is_taken(queue: Path) -> None:
    """So a commit at the event does not cover the message."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([bytes(1000)] * 200)
        with Queue.open_subscriber(queue, "me") as reader:
            events = 0
            taken = 0
            for one in reader.follow(timeout=0, events=True):
                if isinstance(one, c.Event):
                    events += 1
                else:
                    taken = one.seq + 1
                assert reader.position == taken
            assert (events > 0, taken) == (True, 200)


def test_two_threads_meet(queue: Path) -> None:
    """Each record goes to one of them, or somebody hears of the misuse."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"x" * 100] * 20_000)
    taken: list[int] = []

    def take() -> None:
        try:
            for message in reader:
                taken.append(message.seq)
        except c.ConcurrentUse:
            pass

    with Queue.open_subscriber(queue) as reader:
        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rest = [message.seq for message in reader]
    assert sorted(taken + rest) == list(range(20_000))


def test_two_tasks_of_one_reader(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue, keeper=False) as writer, Queue.open_subscriber(queue) as reader:
            tasks = [asyncio.create_task(reader.next_async(timeout=10)) for _ in range(2)]
            for _ in tasks:
                await asyncio.sleep(0.01)
                writer.append(b"x")
            assert {message.seq for message in await asyncio.gather(*tasks) if message} == {0, 1}

    asyncio.run(main())


def test_a_large_payload_does_not_lift_what_is_fetched_ahead(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 24, keeper=False) as writer:
        writer.append(bytes(8 << 20))
        writer.append_many([bytes(60_000)] * 200)
    with Queue.open_subscriber(queue) as reader:
        assert len(reader.next().payload) == 8 << 20  # type: ignore[union-attr]
        tracemalloc.start()
        for _ in range(100):
            reader.next()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_sealed_segments_that_nobody_may_write(queue: Path) -> None:
    """As a careful operator leaves them. It is no failed sync, and poisons nobody."""

    def as_nobody() -> None:
        os.setgid(65534)
        os.setuid(65534)
        with Queue.open_publisher(queue / "q", segment_size=SEGMENT, keeper=False, durability="none") as writer:
            writer.append_many([bytes(1000)] * 200)
            for segment in sorted((queue / "q").glob("*.seg"))[:-1]:
                segment.chmod(0o444)
            writer.append_many([bytes(1000)] * 200)
            writer.sync()
            assert writer.durable_seq == 399
        assert Queue.verify(queue / "q").ok

    let_others_pass(queue)
    queue.mkdir()
    queue.chmod(0o777)
    in_child(as_nobody)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_descriptors_of_segments_that_wait_for_a_sync_are_bounded(queue: Path) -> None:
    """As the guide says: 64, and a few for the queue itself."""
    before = len(os.listdir("/proc/self/fd"))
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False, durability="none") as writer:
        for _ in range(100):
            writer.append_many([bytes(1000)] * 60)
        assert writer.stats().rolls >= 90
        assert len(os.listdir("/proc/self/fd")) - before <= 64 + 10
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_relative_path_and_another_directory(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles keep the directory that they have opened."""
    queue.parent.mkdir(exist_ok=True)
    monkeypatch.chdir(queue.parent)
    with Queue.open_publisher(queue.name, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([bytes(1000)] * 100)
        with Queue.open_subscriber(queue.name, "me") as reader:
            os.chdir("/")
            writer.append_many([bytes(1000)] * 100)  # rolls
            assert len(list(reader)) == 200
            reader.commit()
