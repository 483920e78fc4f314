# SPDX-License-Identifier: MIT
"""Makes tests/golden/: run once for a version of the format, never again for the same one.

``python -m tests.make_golden NAME ...`` writes only what is named, and refuses to overwrite.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from chronicle_ffi import Queue
from tests import decoder

GOLDEN = Path(__file__).parent / "golden"
SEGMENT = 1 << 16


def rolled(path: Path) -> None:
    """Several segments, the first one deleted; two readers."""
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        for i in range(260):
            writer.append(b"%d:" % i + bytes([i % 256]) * (i * 37 % 900), i % 7, timestamp_ns=10**18 + i)
        with Queue.open_subscriber(path, "fast", start="latest") as reader:
            reader.commit()
        with Queue.open_subscriber(path, "slow.one", start=Queue.segments(path)[1].base_seq + 3) as reader:
            reader.commit()
        writer.cleanup()


def mixed(path: Path) -> None:
    """Batches, empty payloads, times that go back, three epochs, a durable mark."""
    for epoch in range(3):
        with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
            writer.append_many(
                [b"", b"batch", b"x" * 31, b"y" * 32, b"z" * 33], 9, timestamp_ns=50 - epoch, flags=3, atomic=True
            )
            with writer.claim(5, 0xFFFE, timestamp_ns=0, flags=255) as buffer:
                buffer[:] = b"claim"
            if epoch == 1:
                writer.sync()


def killed(path: Path) -> None:
    """The writer died in a batch: all its records are there but the first commit word."""
    child = os.fork()
    if child == 0:
        writer = Queue.open_publisher(path, segment_size=SEGMENT, keeper=False)
        for i in range(5):
            writer.append(b"record %d" % i, timestamp_ns=i)
        os._exit(0)
    os.waitpid(child, 0)
    with (path / f"{0:020}.seg").open("r+b") as file:
        file.seek(8192 + 2 * 64)
        batch = bytearray(file.read(3 * 64))
        for i in range(3):
            batch[64 * i + 8] += 3  # their seqs: 5, 6, 7
        batch[:4] = bytes(4)
        file.seek(8192 + 5 * 64)
        file.write(batch)


def reused(path: Path) -> None:
    """The last segment's file was another one before."""
    with Queue.open_publisher(path, segment_size=1 << 20, keeper=False, reuse=True) as writer:
        with Queue.open_subscriber(path, "r", start="latest") as reader:
            while writer.stats().reused_segments == 0:
                writer.append_many([b"%d" % writer.next_seq + bytes(50000)] * 10, timestamp_ns=writer.next_seq)
                reader.seek_latest()
                reader.commit()
                writer.cleanup()
        writer.append(b"the last", timestamp_ns=1)


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()[:16]


def pack(name: str, make: Callable[[Path], None]) -> None:
    archive = GOLDEN / f"{name}.tar.xz"
    if archive.exists():
        raise SystemExit(f"{archive} is there: golden queues are made once")
    with tempfile.TemporaryDirectory() as directory:
        queue = Path(directory) / "queue"
        make(queue)
        decoded = decoder.open_queue(queue)
        expected = {
            "records": [[r.seq, r.timestamp_ns, r.type_id, r.flags, digest(r.payload)] for r in decoded.records],
            "positions": {reader: slot.next_seq for reader, slot in decoded.positions.items()},
            "problems": [problem.kind for problem in Queue.verify(queue).problems],
        }
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(queue, "queue", filter=anonymous)
        (GOLDEN / f"{name}.json").write_text(json.dumps(expected) + "\n")


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        pack(name, {"rolled": rolled, "mixed": mixed, "killed": killed, "reused": reused}[name])
