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


def lose_power(path: Path, keep: int) -> None:
    """As a loss of power may leave a queue of one segment: all but its first `keep` records never reached the disk."""
    with Queue.open_subscriber(path, start="earliest") as reader:
        sizes = [32 + (len(message.payload) + 31) // 32 * 32 for message in reader]
    assert len(sizes) > keep
    at = 8192 + sum(sizes[:keep])
    file = segment(path)
    patch(file, at, bytes(file.stat().st_size - at))
    for slot in (512, 1024):
        words = bytearray((path / "queue.meta").read_bytes()[slot : slot + 64])
        words[16:24] = bytes(8)  # durable_next
        words[52:56] = bytes(4)  # flags
        if any(words):
            patch(path / "queue.meta", slot, bytes(words[:60]) + crc32c(bytes(words[:60])).to_bytes(4, "little"))
    restart(path)


def segment(path: Path, index: int = 0) -> Path:
    return sorted(path.glob("*.seg"))[index]


def read_all(path: Path) -> list[bytes]:
    with Queue.open_subscriber(path) as reader:
        return [message.payload for message in reader]
