# SPDX-License-Identifier: MIT
"""Queues for tests of the archive, and what has to hold of one."""

from __future__ import annotations

import random
from pathlib import Path

from chronicle_ffi import Queue
from tests.interop import need

need("obstore")
need("zstandard")

from chronicle_ffi.archive import Archive, open_subscriber  # noqa: E402

SEGMENT = 1 << 18
FRAME = 1 << 16
START_NS = 1_700_000_000 * 10**9


def fill(queue: Path, records: int = 1500, seed: int = 1, first: int = 0, **options: object) -> list[bytes]:
    """Some records of all sizes, a second apart, about seven segments; what they are."""
    rng = random.Random(seed)
    sizes = (0, 10, 100, 400, 2000)
    payloads = [rng.randbytes(90_000 if rng.random() < 0.004 else rng.choice(sizes)) for _ in range(records)]
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False, **options) as writer:  # type: ignore[arg-type]
        for i, payload in enumerate(payloads, first):
            writer.append(payload, i % 7, timestamp_ns=START_NS + i * 10**9)
    return payloads


def objects(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in (place / "segments").glob("*")}


def check(place: Path, queue: Path | None, payloads: list[bytes]) -> None:
    """All of it is there, once, and nothing else is."""
    found = Archive(None, place).verify()
    assert found.ok, found
    assert not found.orphans
    assert objects(place) == {entry.object for entry in Archive(None, place).entries}
    with open_subscriber(queue, place, start="earliest") as reader:
        seen = list(reader)
    assert [message.seq for message in seen] == list(range(len(seen)))
    assert [message.payload for message in seen] == payloads[: len(seen)]
    assert queue is None or len(seen) == len(payloads)
