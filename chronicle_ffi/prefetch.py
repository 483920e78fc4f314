# SPDX-License-Identifier: MIT
"""Records fetched ahead of the loop that consumes them, many with one call of C.

C peeks, which does not move the reader; what the loop has consumed is told to C when something asks for the position
(`catch_up`), or all of it before the next fetch. The consumed ones are known without counting: a list's iterator knows
how many it still holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import repeat
from operator import length_hint
from struct import Struct
from typing import Any, Final

from chronicle_ffi._binding import EBUFFER, check, ffi, lib
from chronicle_ffi.model import Message

RECORDS_MAX: Final = 256  # of one fetch
RECORDS_MIN: Final = 2  # after a jump: who reads here and there should not pay for many
BYTES: Final = 1 << 18  # payloads of one fetch; grows if one payload needs more


@lru_cache(maxsize=512)
def _cutter(length: int, count: int) -> Struct:
    """Cuts `count` payloads of the same length apart in one call: half the time of slicing each."""
    return Struct(f"{length}s" * count)


def cut(buffer: Any, offsets: Any, lengths: Any, columns: Any, count: int) -> list[Any]:
    """Payloads that lie in `buffer` one behind the other, as bytes."""
    if columns.length_min == columns.length_max:
        return list(_cutter(columns.length_max, count).unpack_from(buffer))
    data = buffer[: columns.payload_bytes]
    begins = ffi.unpack(offsets, count)
    return [data[begin : begin + length] for begin, length in zip(begins, ffi.unpack(lengths, count), strict=True)]


class Prefetch:
    """What one reader has fetched and not handed out yet."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.pending: Iterator[Any] = iter(())
        self.messages: Iterator[Message] = iter(())  # `pending`, if it holds messages; else nothing
        self._fetched = 0  # of `pending`: how many C's position has not moved over
        self._payloads_only = False
        self._want = RECORDS_MIN
        self._timestamps = ffi.new("uint64_t[]", RECORDS_MAX)
        self._offsets = ffi.new("uint64_t[]", RECORDS_MAX)
        self._lengths = ffi.new("uint32_t[]", RECORDS_MAX)
        self._types = ffi.new("uint16_t[]", RECORDS_MAX)
        self._flags = ffi.new("uint8_t[]", RECORDS_MAX)
        self._seqs = ffi.new("uint64_t[]", RECORDS_MAX)
        self._columns = columns = ffi.new("chron_columns *")
        columns.seq, columns.timestamp_ns, columns.offset = self._seqs, self._timestamps, self._offsets
        columns.length, columns.type_id, columns.flags = self._lengths, self._types, self._flags
        self._room(BYTES)

    def _room(self, size: int) -> None:
        self._copy = ffi.new("char[]", size)
        self._buffer = ffi.buffer(self._copy)
        self._columns.copy = self._copy
        self._columns.bytes_max = size

    def fill(self, payloads_only: bool) -> bool:
        """Fetch more, if everything was handed out; False if nothing is there. Raises what reading raises."""
        if length_hint(self.pending):
            if payloads_only == self._payloads_only:
                return True
            self.drop()
        self.catch_up()
        self.pending = self.messages = iter(())
        count = lib.chron_reader_peek_columns(self._handle, self._columns, self._want, ffi.NULL)
        while count == EBUFFER:
            self._room(1 << (self._columns.length_max - 1).bit_length())
            count = lib.chron_reader_peek_columns(self._handle, self._columns, self._want, ffi.NULL)
        check(count)
        if count == self._want and count < RECORDS_MAX:
            self._want *= 4 if count < RECORDS_MAX // 4 else 2
        if count == 0:
            return False
        payloads = cut(self._buffer, self._offsets, self._lengths, self._columns, count)
        self._payloads_only = payloads_only
        if payloads_only:
            self.pending, self.messages = iter(payloads), iter(())
        else:  # what Message(...) does, without a call of Python for each
            made = list(map(tuple.__new__, repeat(Message), self._rows(payloads, count)))
            self.pending = self.messages = iter(made)
        self._fetched = count
        return True

    def _rows(self, payloads: list[bytes], count: int) -> Iterator[tuple[Any, ...]]:
        first = self._seqs[0]
        stamps = ffi.unpack(self._timestamps, count)
        types = ffi.unpack(self._types, count)
        return zip(range(first, first + count), stamps, types, ffi.unpack(self._flags, count), payloads, strict=True)

    def catch_up(self) -> None:
        """Move C's position over what was handed out; the rest stays fetched."""
        consumed = self._fetched - length_hint(self.pending)
        if consumed > 0:
            check(lib.chron_reader_advance(self._handle, consumed))
            self._fetched -= consumed

    def drop(self) -> None:
        """Catch up, and forget the rest, before something else moves the reader."""
        try:
            self.catch_up()
        finally:
            self.forget()

    def forget(self) -> None:
        """Forget what was fetched; a loop that still holds the iterator finds it empty."""
        for _ in self.pending:
            pass
        self._fetched = 0
        self._want = RECORDS_MIN
