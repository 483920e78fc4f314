# SPDX-License-Identifier: MIT
"""Messages of a stream: frames of records, or one record each. The layout is in docs/FORMAT.md, section 20."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import google_crc32c

from chronicle_ffi.errors import Corrupt
from chronicle_ffi.model import Message

MAGIC: Final = b"CHFR"
VERSION: Final = 1
PART: Final = 1  # flag: a piece of one record

HEAD: Final = struct.Struct("<4sHH16sQQQQQIII")  # and behind it the CRC
HEAD_BYTES: Final = HEAD.size + 4
RECORD: Final = struct.Struct("<IIQQHHI")  # in front of each payload, as in a segment
ALIGNMENT: Final = 32

SEQ: Final = "Chronicle-Seq"  # the headers of a message that is one record
QUEUE: Final = "Chronicle-Queue"
TIMESTAMP: Final = "Chronicle-Timestamp"
TYPE: Final = "Chronicle-Type"
FLAGS: Final = "Chronicle-Flags"
EPOCH: Final = "Chronicle-Epoch"
CRC: Final = "Chronicle-Crc"
SKIPPED: Final = "Chronicle-Skipped"
HIGHEST: Final = "Chronicle-Highest"
SENDER: Final = "Chronicle-Sender"
SIZE: Final = "Chronicle-Size"
OFFSET: Final = "Chronicle-Offset"


def up(size: int) -> int:
    """To a multiple of what records are aligned to."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Frame:
    """One message: whole records, or (`size` is not 0) a piece of one that is too large for a message."""

    queue: UUID
    first_seq: int
    next_seq: int  #: behind the last record that is complete with this message
    skipped: int  #: seqs in front of `first_seq` that the queue did not have any more
    highest_ns: int  #: no record up to here has a higher timestamp
    sender: int  #: a number for each run of a mirror
    last_crc: int  #: the CRC field of the last record, or of the one that this is a piece of
    images: bytes  #: the records as they lie in a segment; of a piece, these bytes of it
    size: int = 0  #: of a piece: bytes of the whole record, its header included
    offset: int = 0  #: of a piece: where in those it begins

    @property
    def is_part(self) -> bool:
        return self.size != 0

    @property
    def end(self) -> int:
        """Of a piece: where the next one begins."""
        return self.offset + len(self.images)


def encode(frame: Frame) -> bytes:
    """The message's payload."""
    head = HEAD.pack(
        MAGIC, VERSION, PART if frame.is_part else 0, frame.queue.bytes, frame.first_seq, frame.next_seq,
        frame.skipped, frame.highest_ns, frame.sender, frame.size, frame.offset, frame.last_crc,
    )  # fmt: skip
    crc = google_crc32c.extend(google_crc32c.value(head), frame.images)
    return b"".join((head, crc.to_bytes(4, "little"), frame.images))


def encode_record(frame: Frame) -> tuple[dict[str, str], bytes]:
    """Headers and payload of a message that is one record, or a piece of one."""
    headers = {
        QUEUE: str(frame.queue),
        SEQ: str(frame.first_seq),
        HIGHEST: str(frame.highest_ns),
        SENDER: str(frame.sender),
        CRC: str(frame.last_crc),
    }
    if frame.skipped:
        headers[SKIPPED] = str(frame.skipped)
    if frame.is_part:
        headers |= {SIZE: str(frame.size - RECORD.size), OFFSET: str(max(frame.offset - RECORD.size, 0))}
    if frame.offset:
        return headers, frame.images
    commit, _, _, timestamp, type_id, flags, epoch = RECORD.unpack_from(frame.images)
    headers |= {TIMESTAMP: str(timestamp), TYPE: str(type_id), FLAGS: str(flags), EPOCH: str(epoch)}
    length = len(frame.images) - RECORD.size if frame.is_part else commit - 1
    return headers, frame.images[RECORD.size : RECORD.size + length]


def decode(data: bytes, headers: Mapping[str, str] | None, where: str) -> Frame:
    """A message of a stream; Corrupt if it is none of ours, or damaged. `where` names it in the error."""
    if headers and SEQ in headers:
        return _decode_record(data, headers, where)
    if len(data) < HEAD_BYTES or data[:4] != MAGIC:
        raise Corrupt(f"{where} was not written by a mirror: it is no frame, and has no header {SEQ}")
    _, version, flags, queue, first, following, skipped, highest, sender, size, offset, crc = HEAD.unpack_from(data)
    if version != VERSION:
        raise Corrupt(f"{where} is a frame of version {version}; this program reads version {VERSION}: update it")
    images = data[HEAD_BYTES:]
    if google_crc32c.extend(google_crc32c.value(data[: HEAD.size]), images) != _u32(data, HEAD.size):
        raise Corrupt(f"{where} is damaged: its CRC does not match", seq=first)
    if flags & PART:
        return Frame(UUID(bytes=queue), first, following, skipped, highest, sender, crc, images, size, offset)
    return Frame(UUID(bytes=queue), first, following, skipped, highest, sender, crc, images)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _decode_record(data: bytes, headers: Mapping[str, str], where: str) -> Frame:
    def number(name: str) -> int:
        return int(headers[name])

    try:
        seq, crc = number(SEQ), number(CRC)
        size = number(SIZE) + RECORD.size if SIZE in headers else 0
        offset = number(OFFSET) if size else 0
        frame = Frame(
            UUID(headers[QUEUE]), seq, seq + 1, int(headers.get(SKIPPED, 0)), number(HIGHEST), number(SENDER), crc, data
        )
        if offset:
            offset += RECORD.size
            return replace(
                frame, size=size, offset=offset, next_seq=seq + (offset + len(data) == size), images=bytes(data)
            )
        length = size - RECORD.size if size else len(data)
        head = RECORD.pack(
            length + 1, crc, seq, number(TIMESTAMP), number(TYPE), number(FLAGS), number(EPOCH)
        )  # fmt: skip
    except (KeyError, ValueError, struct.error) as wrong:
        raise Corrupt(f"{where} was not written by a mirror, or is damaged: {wrong!r} in its headers") from None
    if size:
        return replace(frame, size=size, next_seq=seq + (len(head) + len(data) == size), images=head + data)
    image = head + data
    check_record(image, where)
    return replace(frame, images=image + bytes(up(len(image)) - len(image)))


def check_record(image: bytes, where: str) -> None:
    """Its own CRC: over the commit word, what stands behind the CRC, and the payload."""
    length = _u32(image, 0) - 1
    summed = google_crc32c.extend(google_crc32c.value(image[:4]), image[8 : RECORD.size + length])
    if summed != _u32(image, 4):
        raise Corrupt(f"{where} is damaged: the CRC of its record does not match", seq=_u32(image, 8))


def headers_of(frame: Frame, where: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Where each record's payload begins in `images`, and its fields as RECORD has them. Corrupt if they do not fit."""
    images = frame.images
    at, seq = 0, frame.first_seq
    unpack, size, end = RECORD.unpack_from, RECORD.size, len(images)
    while at < end:
        if at + size > end:
            raise Corrupt(f"{where} ends within a record", seq=seq)
        fields = unpack(images, at)
        if fields[0] == 0 or at + size + fields[0] - 1 > end or fields[2] != seq:
            raise Corrupt(f"{where} does not hold record {seq} where it should", seq=seq)
        yield at + size, fields
        at += up(size + fields[0] - 1)
        seq += 1
    if seq != frame.next_seq:
        raise Corrupt(f"{where} ends with seq {seq}, and says {frame.next_seq}", seq=seq)


def messages_of(frame: Frame, where: str) -> list[Message]:
    """The records of a frame that is no piece."""
    images = frame.images
    if found := _of_one_length(frame):
        return found
    return [
        Message(seq, timestamp, type_id, flags & 0xFF, images[at : at + commit - 1])
        for at, (commit, _, seq, timestamp, type_id, flags, _) in headers_of(frame, where)
    ]


def _of_one_length(frame: Frame) -> list[Message]:
    """The same, where all payloads are as long as the first one, which takes a fifth of the time; or nothing."""
    images = frame.images
    commit = _u32(images, 0) if len(images) >= RECORD.size else 0
    length = commit - 1
    step = up(RECORD.size + length)
    if not length >= 0 or step * (frame.next_seq - frame.first_seq) != len(images):
        return []
    row = struct.Struct(f"<I4xQQHB5x{length}s{step - RECORD.size - length}x")
    found = []
    expected = frame.first_seq
    for its, seq, timestamp, type_id, flags, payload in row.iter_unpack(images):
        if its != commit or seq != expected:
            return []
        found.append(Message(seq, timestamp, type_id, flags, payload))
        expected += 1
    return found


class Assembler:
    """Puts pieces together, and holds every frame against the one before it."""

    def __init__(self, expected: int | None = None) -> None:
        self._queue: UUID | None = None
        self._expected = expected  #: seq of the next record; None: whatever comes
        self._pieces: list[bytes] = []
        self._first: Frame | None = None

    def add(self, frame: Frame, where: str) -> Frame | None:
        """The frame, or the whole record that it completes; None: more pieces have to come."""
        if self._queue not in (None, frame.queue):
            raise Corrupt(f"{where} is of the queue {frame.queue}, those before it are of {self._queue}")
        self._queue = frame.queue
        if frame.is_part:
            return self._add_piece(frame, where)
        self._begin(frame, where)
        self._expected = frame.next_seq
        return frame

    def _begin(self, frame: Frame, where: str) -> None:
        if self._first is not None:
            raise Corrupt(f"{where} does not go on with record {self._first.first_seq}", seq=self._first.first_seq)
        if self._expected is not None and frame.first_seq != self._expected + frame.skipped:
            raise Corrupt(
                f"{where} begins with record {frame.first_seq}, where {self._expected} was to come: messages are "
                "missing in the stream, or do not belong there",
                seq=self._expected,
            )

    def _add_piece(self, frame: Frame, where: str) -> Frame | None:
        if frame.offset == 0:
            self._begin(frame, where)
            self._first, self._pieces = frame, []
        first = self._first
        if first is None:
            if self._expected is None:
                return None  # its beginning went with what the stream has deleted
            raise Corrupt(f"{where} goes on with record {frame.first_seq}, whose beginning is missing")
        held = sum(map(len, self._pieces))
        if (frame.first_seq, frame.size, frame.last_crc, frame.offset) != (
            first.first_seq, first.size, first.last_crc, held,
        ):  # fmt: skip
            raise Corrupt(f"{where} does not go on with record {first.first_seq} at byte {held}", seq=first.first_seq)
        self._pieces.append(frame.images)
        if frame.end < first.size:
            return None
        image = b"".join(self._pieces)
        check_record(image, where)
        self._first, self._pieces, self._expected = None, [], frame.next_seq
        padding = bytes(up(len(image)) - len(image))
        return replace(frame, skipped=first.skipped, size=0, offset=0, images=image + padding)
