# SPDX-License-Identifier: MIT
"""From a reader to frames: records are copied as they lie in the segment, and no object is made for any of them."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import numpy as np

from chronicle_ffi import Batch, QueueReader
from chronicle_ffi.mirror.frame import ALIGNMENT, HEAD_BYTES, RECORD, Frame

BATCH_RECORDS: Final = 65536


class Images:
    """The records of a batch as byte ranges of its segment. docs/FORMAT.md, section 7: a header in front of each."""

    def __init__(self, batch: Batch) -> None:
        columns = batch.numpy()
        self.batch = batch
        self.first = int(columns["seq"][0])
        self.begin = columns["offset"].astype(np.int64) - RECORD.size
        self.end = (
            self.begin + (RECORD.size + columns["length"].astype(np.int64) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        )
        self.stamps = columns["timestamp_ns"]
        breaks = np.flatnonzero((self.begin[1:] != self.end[:-1]) | (np.diff(columns["seq"]) != 1))
        self.runs = [*(breaks + 1).tolist(), len(batch)]  # where a run of neighbours ends: a gap lies behind it

    def bytes_of(self, begin: int, end: int) -> bytes:
        """Those from number `begin` of the batch up to, not including, `end`. StorageError if the file went away."""
        found = bytes(self.batch.segment[int(self.begin[begin]) : int(self.end[end - 1])])
        self.batch.check()
        return found


class Cutter:
    """Makes frames of up to `limit` bytes of what a reader has. A record beyond `largest` comes in pieces."""

    def __init__(
        self, reader: QueueReader, queue: UUID, sender: int, *, limit: int, largest: int, framed: bool
    ) -> None:
        self._reader = reader
        self._queue = queue
        self._sender = sender
        self._limit = limit - HEAD_BYTES
        self._largest = largest - HEAD_BYTES
        self._framed = framed
        self._images: Images | None = None
        self._at = 0  # of the next record in the batch
        self._piece = 0  # of that, what was given already
        self.next_seq = 0
        self.highest_ns = 0
        self.took_little = False  #: the last look found less than a frame: there is no backlog

    def begin(self, seq: int, piece: int, highest_ns: int) -> None:
        """Where the stream ends: the reader stands at `seq`, of which `piece` bytes have been sent."""
        self.next_seq, self._piece, self.highest_ns = seq, piece, highest_ns
        self._images = None

    @property
    def has_more(self) -> bool:
        """Of what was taken from the reader."""
        return self._images is not None

    def next(self) -> Frame | None:
        """None: there is nothing now. Raises as `QueueReader.read_batch`."""
        if self._images is None:
            batch = self._reader.read_batch(BATCH_RECORDS)
            if not len(batch):
                self.took_little = True
                return None
            self._images, self._at = Images(batch), 0
            size = self._images.end[-1] - self._images.begin[0]
            self.took_little = bool(size < self._limit)
        images, at = self._images, self._at
        size = int(images.batch.length[at]) + RECORD.size
        if size > self._largest:
            frame = self._next_piece(images, at, size)
            if frame.end < size:
                return frame
            end = at + 1
        else:
            end = self._end_of_frame(images, at)
            frame = self._frame(images, at, end)
        self._at = end
        if end == len(images.batch):
            self._images = None
        return frame

    def _end_of_frame(self, images: Images, at: int) -> int:
        if not self._framed:
            return at + 1
        most = int(np.searchsorted(images.end, images.begin[at] + self._limit, "right"))
        run = next(run for run in images.runs if run > at)
        return max(at + 1, min(most, run))

    def _frame(self, images: Images, at: int, end: int) -> Frame:
        first = int(images.batch.seq[at])
        skipped, following = first - self.next_seq, int(images.batch.seq[end - 1]) + 1
        found = images.bytes_of(at, end)
        last = int(images.begin[end - 1] - images.begin[at])
        crc = int.from_bytes(found[last + 4 : last + 8], "little")
        self.highest_ns = max(self.highest_ns, int(images.stamps[at:end].max()))
        self.next_seq = following
        return Frame(self._queue, first, following, skipped, self.highest_ns, self._sender, crc, found)

    def _next_piece(self, images: Images, at: int, size: int) -> Frame:
        first = int(images.batch.seq[at])
        skipped = first - self.next_seq
        begin = int(images.begin[at])
        end = min(self._piece + self._largest, size)
        found = bytes(images.batch.segment[begin + self._piece : begin + end])
        crc = int.from_bytes(images.batch.segment[begin + 4 : begin + 8], "little")
        images.batch.check()
        self.highest_ns = max(self.highest_ns, int(images.stamps[at]))
        following = first + (end == size)
        frame = Frame(
            self._queue, first, following, 0 if self._piece else skipped, self.highest_ns, self._sender, crc, found,
            size, self._piece,
        )  # fmt: skip
        self.next_seq, self._piece = following, end % size
        return frame
