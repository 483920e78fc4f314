# SPDX-License-Identifier: MIT
"""Records fetched ahead of the loop that consumes them, many with one call of C.

C peeks, which does not move the reader; what the loop has consumed is told to C when something asks for the position
(`catch_up`), or all of it before the next fetch. The consumed ones are known without counting: a list's iterator knows
how many it still holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import length_hint
from typing import Any, Final

from chronicle_ffi import _fast
from chronicle_ffi._binding import EBUFFER, address_of, check, ffi, lib
from chronicle_ffi.model import Message

RECORDS_MAX: Final = 256  # of one fetch
RECORDS_MIN: Final = 2  # after a jump: who reads here and there should not pay for many
COLUMNS: Final = {  # what a Message needs, but for its payload
    "seq": "uint64_t",
    "timestamp_ns": "uint64_t",
    "length": "uint32_t",
    "type_id": "uint16_t",
    "flags": "uint8_t",
}
BYTES: Final = 1 << 18  # payloads of one fetch; grows if one payload needs more


class Prefetch:
    """What one reader has fetched and not handed out yet."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.pending: Iterator[Any] = iter(())
        self.messages: Iterator[Message] = iter(())  # `pending`, if it holds messages; else nothing
        self._fetched = 0  # of `pending`: how many C's position has not moved over
        self._payloads_only = False
        self._want = RECORDS_MIN
        self._columns = columns = ffi.new("chron_columns *")
        self._address = address_of(columns)
        self._kept = {name: ffi.new(f"{ctype}[]", RECORDS_MAX) for name, ctype in COLUMNS.items()}
        for name, array in self._kept.items():
            setattr(columns, name, array)
        self._room(BYTES)

    def _room(self, size: int) -> None:
        self._copy = ffi.new("char[]", size)
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
        self._payloads_only = payloads_only
        if payloads_only:
            self.pending, self.messages = iter(_fast.payloads(self._address, count)), iter(())
        else:
            self.pending = self.messages = iter(_fast.messages(Message, self._address, count))
        self._fetched = count
        return True

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
