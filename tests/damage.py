# SPDX-License-Identifier: MIT
"""A small queue to damage, and ways to do it."""

from __future__ import annotations

import struct
from pathlib import Path

from chronicle_ffi import Queue

SEGMENT = 1 << 16


def crc32c(data: bytes) -> int:
    from chronicle_ffi._chronicle import lib

    return int(lib.chron_crc32c(0, data, len(data)))


def make(path: Path, segments: int = 3) -> list[bytes]:
    """A small queue with a reader named "me" in the middle; returns its payloads."""
    payloads: list[bytes] = []
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        while writer.stats().rolls < segments - 1 or len(payloads) % 7:
            payloads.append(b"%d:" % len(payloads) + b"p" * (len(payloads) * 977 % 9000))
            writer.append(payloads[-1], timestamp_ns=len(payloads))
    with Queue.open_subscriber(path, "me", start=len(payloads) // 2) as reader:
        reader.commit()
    return payloads


def patch(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as out:
        out.seek(offset)
        out.write(data)


def patch_header(file: Path, offset: int, data: bytes) -> None:
    """Change a header and make its CRC right again."""
    head = bytearray(file.read_bytes()[:128])
    head[offset : offset + len(data)] = data
    head[124:128] = struct.pack("<I", crc32c(bytes(head[:124])))
    patch(file, 0, bytes(head))


def restart(path: Path) -> None:
    """As another boot of the machine finds the queue: where it lay when its state was stored is not known."""
    for slot in (512, 1024):
        patch(path / "queue.meta", slot + 64, bytes(64))


def segment(path: Path, index: int = 0) -> Path:
    return sorted(path.glob("*.seg"))[index]


def read_all(path: Path) -> list[bytes]:
    with Queue.open_subscriber(path) as reader:
        return [message.payload for message in reader]
