# SPDX-License-Identifier: MIT
"""From a segment to an object, and back: what an archiver does before it notes one."""

from __future__ import annotations

import hashlib
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Final, TypeAlias

from chronicle_ffi import Batch, SegmentInfo
from chronicle_ffi.archive import _object
from chronicle_ffi.archive._errors import ArchiveDamaged, ArchiveMismatch
from chronicle_ffi.archive._manifest import Entry, object_name
from chronicle_ffi.archive._object import Frame, Malformed
from chronicle_ffi.archive._store import Store

IN_MEMORY: Final = 256 << 20  # bytes of an object; a larger one waits in a temporary file
RECORD_HEADER: Final = 32
ALIGNMENT: Final = 32
TWICE: Final = (
    "a loss of power, or a copy of the queue that was written to, gave seqs away twice. Archive this queue to"
    " another place"
)

Mark: TypeAlias = "tuple[int, int | None, int]"


class Packed:
    """A segment, made into an object: in memory, or a temporary file."""

    def __init__(self, segment: memoryview, size: int, frame_bytes: int, level: int) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.cuts = _object.bounds(size, frame_bytes)
        compress = _object.compressor(level).compress
        self.stored = [self._add(compress(segment[begin:end])) for begin, end in self.cuts]

    def _add(self, data: bytes) -> int:
        self.file.write(data)
        self._digest.update(data)
        self.bytes += len(data)
        return len(data)

    def finish(self, base_seq: int, marks: list[Mark]) -> None:
        frames = _object.frames_of(self.cuts, self.stored, marks)
        self.index_at = self.bytes
        self.index_bytes = self._add(_object.index_frame(frames[-1].end, base_seq, frames))
        sizes = [(one.stored, one.end - one.begin) for one in frames]
        self._add(_object.seek_table([*sizes, (self.index_bytes, 0)]))
        self.sha256 = self._digest.hexdigest()
        self.name = object_name(base_seq, self.sha256)


@dataclass
class Seen:
    """What reading a segment, with every CRC, has told of it."""

    segment: memoryview  # the mapped file
    records: int
    end_offset: int
    min_ts: int
    max_ts: int
    marks: list[Mark]  # of each frame
    next_seq: int
    gaps: bool
    check: Callable[[], None]


def seen_of(segment: SegmentInfo, columns: list[Batch], gaps: bool, frame_bytes: int) -> Seen:
    last = columns[-1]
    end = last.offset[-1] + last.length[-1]
    cuts = _object.bounds(segment.bytes, frame_bytes)
    return Seen(
        segment=last.segment,
        records=sum(map(len, columns)),
        end_offset=-(-end // ALIGNMENT) * ALIGNMENT,
        min_ts=min(min(batch.timestamp_ns) for batch in columns),
        max_ts=max(max(batch.timestamp_ns) for batch in columns),
        marks=[_mark(columns, begin, end, segment.next_seq) for begin, end in cuts],
        next_seq=segment.next_seq,
        gaps=gaps,
        check=last.check,
    )


def _mark(columns: list[Batch], begin: int, end: int, next_seq: int) -> Mark:
    """(first seq, its offset, highest timestamp) of the records whose headers lie in [begin, end)."""
    first: tuple[int, int | None] | None = None
    highest = 0
    for batch in columns:
        low = bisect_left(batch.offset, begin + RECORD_HEADER)
        high = bisect_left(batch.offset, end + RECORD_HEADER)
        if low < len(batch) and first is None:
            at = batch.offset[low] - RECORD_HEADER
            first = batch.seq[low], at if at < end else None
        if low < high:
            highest = max(highest, max(batch.timestamp_ns[low:high]))
    return (*(first or (next_seq, None)), highest)


def frames_in(store: Store, entry: Entry) -> Iterator[tuple[Frame, bytes]]:
    """Every frame of an object, unpacked, with its digest checked at the end. Raises ArchiveDamaged."""
    name = entry.object

    def damaged(why: object) -> ArchiveDamaged:
        return ArchiveDamaged(
            f"{name} is damaged: {why}: records {entry.base_seq} to {entry.next_seq - 1} are in there",
            file=name,
            seq=entry.base_seq,
            next_seq=entry.next_seq,
        )

    try:
        index = store.range(name, entry.index_at, entry.index_at + entry.index_bytes)
        frames = _object.read_index(index, entry.segment_size, entry.base_seq)
    except Malformed as why:
        raise damaged(why) from None
    pieces = store.stream(name)
    if pieces is None:
        raise damaged("it is missing")
    digest = hashlib.sha256()
    held = bytearray()
    todo = iter(frames)
    frame = next(todo, None)
    for piece in pieces:
        digest.update(piece)
        held += piece
        while frame is not None and len(held) >= frame.stored:
            try:
                data = _object.unpack(frame, memoryview(held)[: frame.stored].tobytes())
            except Malformed as why:
                raise damaged(why) from None
            del held[: frame.stored]
            yield frame, data
            frame = next(todo, None)
    if frame is not None:
        raise damaged("it is cut off")
    if digest.hexdigest() != entry.sha256:
        raise damaged("its SHA-256 is not that of its entry")


def compare(store: Store, entry: Entry, segment: memoryview | None) -> None:
    """Read an object back. Raises ArchiveDamaged, or ArchiveMismatch if it does not hold these records."""
    begin = _object.data_offset(entry.segment_size)
    for frame, data in frames_in(store, entry):
        # What comes before the records may differ: a repair makes headers, seals and indexes anew.
        if segment is not None and frame.begin >= begin and bytes(segment[frame.begin : frame.end]) != data:
            raise ArchiveMismatch(
                f"{entry.object} holds other records than the queue between {frame.first_seq} and"
                f" {entry.next_seq - 1}: {TWICE}",
                file=entry.object,
                seq=frame.first_seq,
            )
