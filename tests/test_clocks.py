# SPDX-License-Identifier: MIT
"""The wall clock is set while a queue is in use: what retention does, and says. More in tests/c/test_clocks.c."""

from __future__ import annotations

import re
import struct
import time
from datetime import timedelta
from pathlib import Path

import pytest

from chronicle_ffi import Queue, Retention
from tests.damage import crc32c, patch, segment

DAY = 86400 * 10**9


def seal_at(file: Path, sealed_ns: int) -> None:
    """As if the wall clock had said so when the segment was sealed."""
    page = bytearray(file.read_bytes()[:4096])
    struct.pack_into("<Q", page, 128 + 48, sealed_ns)
    struct.pack_into("<I", page, 128 + 60, crc32c(bytes(page[132:188])))
    struct.pack_into("<Q", page, 192, sealed_ns)
    struct.pack_into("<I", page, 212, crc32c(bytes(page[192:212])))
    patch(file, 128, bytes(page[128:216]))


@pytest.mark.parametrize(("days", "when"), [(-1000, r"1000 days, 0:0.* ago"), (1000, r"in 999 days")])
def test_the_reason_says_that_the_clock_was_set(queue: Path, days: int, when: str) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        writer.append_many([bytes(1000)] * 100)
    Queue.open_subscriber(queue, "me").close()
    seal_at(segment(queue), time.time_ns() + days * DAY)
    (sealed, active) = Queue.cleanup_plan(queue, Retention(max_age=timedelta(days=1))).segments
    assert not sealed.deleted
    assert sealed.age_ms < 600_000
    assert sealed.clock_ms // 86_400_000 in (-days - 1, -days)
    assert sealed.reason.startswith("reader me has not committed past it (sealed 0:0")
    assert sealed.reason.endswith(")")
    assert re.search(rf"by the wall clock, which was set since, {when}", sealed.reason)
    assert (active.age_ms, active.clock_ms) == (0, 0)


def test_no_reason_mentions_a_clock_that_was_left_alone(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        writer.append_many([bytes(1000)] * 100)
        sealed = writer.cleanup().segments[0]
    assert sealed.reason == "no reader is registered, and no limit asks for its deletion"
    assert abs(sealed.clock_ms) < 10_000
