# SPDX-License-Identifier: MIT
"""The bytes of an object: a segment file as independent zstd frames, and where each begins. docs/FORMAT.md, section 17.

The first frame holds what comes before the records, each further one a whole number of blocks. Then a skippable frame
with what is in each frame, then the seek table of zstd's seekable format. Tools of zstd skip both: ``zstd -d`` gives
the segment.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import zstandard

BLOCK: Final = 65536
NONE: Final = 0xFFFFFFFF

_SKIPPABLE: Final = struct.Struct("<II")
_INDEX_MAGIC: Final = 0x184D2A50
_TABLE_MAGIC: Final = 0x184D2A5E
_TABLE_END: Final = struct.Struct("<IBI")
_SEEKABLE: Final = 0x8F92EAB1
_HEAD: Final = struct.Struct("<8sIIQQ")
_ROW: Final = struct.Struct("<QQQIIQ")
_MAGIC: Final = b"CHRONIDX"
_DIGEST: Final = 32


class Malformed(Exception):
    """These bytes are not what they should be."""


@dataclass(frozen=True)
class Frame:
    """One frame, and the records that begin in it."""

    begin: int  #: in the segment, bytes
    end: int
    at: int  #: in the object, bytes
    stored: int  #: bytes there
    first_seq: int  #: of the first record that begins in it or behind it
    first_offset: int | None  #: of that record, if it begins in it
    max_ts: int  #: the highest timestamp of those that begin in it; 0: none does


def data_offset(segment_size: int) -> int:
    """Where the records of a segment begin."""
    index = segment_size // BLOCK * 4
    return 4096 + -(-index // 4096) * 4096


def bounds(segment_size: int, frame_bytes: int) -> list[tuple[int, int]]:
    """[begin, end) of each frame in the segment."""
    data = data_offset(segment_size)
    starts = [0, *range(data, segment_size, frame_bytes)]
    return list(zip(starts, [*starts[1:], segment_size], strict=True))


def index_frame(segment_size: int, base_seq: int, frames: Sequence[Frame]) -> bytes:
    body = _HEAD.pack(_MAGIC, 1, len(frames), segment_size, base_seq)
    for one in frames:
        offset = NONE if one.first_offset is None else one.first_offset // 32
        body += _ROW.pack(one.begin, one.at, one.first_seq, one.stored, offset, one.max_ts)
    body += hashlib.sha256(body).digest()
    return _SKIPPABLE.pack(_INDEX_MAGIC, len(body)) + body


def seek_table(stored: Sequence[tuple[int, int]]) -> bytes:
    """zstd's: for each frame of the object how many bytes it has, and how many come out of it."""
    body = b"".join(struct.pack("<II", *one) for one in stored) + _TABLE_END.pack(len(stored), 0, _SEEKABLE)
    return _SKIPPABLE.pack(_TABLE_MAGIC, len(body)) + body


def read_index(data: bytes | None, segment_size: int, base_seq: int) -> list[Frame]:
    """What `index_frame` made; raises Malformed."""
    if data is None:
        raise Malformed("it is missing")
    least = _SKIPPABLE.size + _HEAD.size + _DIGEST
    if len(data) < least or _SKIPPABLE.unpack_from(data) != (_INDEX_MAGIC, len(data) - _SKIPPABLE.size):
        raise Malformed("its index is cut off, or none")
    body = data[_SKIPPABLE.size : -_DIGEST]
    if hashlib.sha256(body).digest() != data[-_DIGEST:]:
        raise Malformed("its index is damaged")
    magic, version, count, size, base = _HEAD.unpack_from(body)
    if magic != _MAGIC or version != 1:
        raise Malformed(f"its index is of version {version}, which this program does not know")
    if (size, base) != (segment_size, base_seq) or len(body) != _HEAD.size + count * _ROW.size:
        raise Malformed("its index is that of another segment")
    rows = [_ROW.unpack_from(body, _HEAD.size + i * _ROW.size) for i in range(count)]
    if not rows or rows[0][0] or rows[0][1]:
        raise Malformed("its index makes no sense")
    ends = [*(row[0] for row in rows[1:]), segment_size]
    frames = [
        Frame(begin, end, at, stored, seq, None if offset == NONE else offset * 32, max_ts)
        for (begin, at, seq, stored, offset, max_ts), end in zip(rows, ends, strict=True)
    ]
    last = Frame(0, 0, 0, 0, base_seq, None, 0)
    for one in frames:
        inside = one.first_offset is None or one.begin <= one.first_offset < one.end
        if (
            one.begin != last.end
            or one.end <= one.begin
            or one.first_seq < last.first_seq
            or one.at != last.at + last.stored
            or not inside
        ):
            raise Malformed("its index makes no sense")
        last = one
    return frames


def compressor(level: int) -> Any:
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)


def unpack(frame: Frame, data: Any) -> bytes:
    """The bytes of the segment that a frame holds; raises Malformed. zstd checks its checksum."""
    size = frame.end - frame.begin
    try:
        if zstandard.frame_content_size(data) != size:
            raise Malformed(f"the frame at byte {frame.at} does not hold {size} bytes")
        found = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise Malformed(f"the frame at byte {frame.at} is damaged: {error}") from None
    return bytes(found)


def frames_of(
    cuts: Sequence[tuple[int, int]], stored: Sequence[int], marks: Sequence[tuple[int, int | None, int]]
) -> list[Frame]:
    at = list(accumulate(stored, initial=0))
    return [Frame(begin, end, at[i], stored[i], *marks[i]) for i, (begin, end) in enumerate(cuts)]
