# SPDX-License-Identifier: MIT
"""Whether a queue has the very bytes that a frame has."""

from __future__ import annotations

from chronicle_ffi import QueueReader
from chronicle_ffi.mirror.cutter import Images
from chronicle_ffi.mirror.frame import RECORD, Frame, headers_of, up


def difference(reader: QueueReader, frame: Frame, oldest: int, where: str) -> int | None:
    """seq of the first record of `frame` that the reader's queue has not, or has otherwise; None: there is none.

    Records below `oldest` are not compared. Moves the reader. Raises as reading does.
    """
    if frame.is_part:
        return _difference_of_piece(reader, frame, oldest)
    seq, at = max(frame.first_seq, oldest), 0
    if seq >= frame.next_seq:
        return None
    if seq > frame.first_seq:
        at = next(begin for begin, fields in headers_of(frame, where) if fields[2] == seq) - RECORD.size
    reader.seek(seq)
    while seq < frame.next_seq:
        batch = reader.read_batch(frame.next_seq - seq)
        if not len(batch) or batch.seq[0] != seq:
            return seq
        images = Images(batch)
        count = images.runs[0]
        found = images.bytes_of(0, count)
        if found != frame.images[at : at + len(found)]:
            return _first_difference(images, count, frame.images[at:])
        seq, at = seq + count, at + len(found)
        reader.seek(seq)
    return None


def _first_difference(images: Images, count: int, other: bytes) -> int | None:
    begin = images.begin - images.begin[0]
    for number in range(count):
        found = images.bytes_of(number, number + 1)
        if found != other[int(begin[number]) :][: len(found)]:
            return images.first + number
    return None


def _difference_of_piece(reader: QueueReader, frame: Frame, oldest: int) -> int | None:
    if frame.first_seq < oldest:
        return None
    reader.seek(frame.first_seq)
    batch = reader.read_batch(1)
    if len(batch) and batch.seq[0] == frame.first_seq and batch.length[0] + RECORD.size == frame.size:
        image = Images(batch).bytes_of(0, 1)
        if len(image) == up(frame.size) and image[frame.offset : frame.end] == frame.images:
            return None
    return frame.first_seq
