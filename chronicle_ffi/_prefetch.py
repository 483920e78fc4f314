# SPDX-License-Identifier: MIT
"""Records fetched ahead of the loop that consumes them, many with one call of C.

C peeks, which does not move the reader; what the loop has consumed is told to C when something asks for the position
(`catch_up`), or all of it before the next fetch. The consumed ones are known without counting: a list's iterator knows
how many it still holds.

Between two calls of C it is Python's objects that say what was fetched, so a lock stands around them: a second thread
meets ConcurrentUse here as it does in C.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from operator import length_hint
from typing import Any, Final

from chronicle_ffi import _fast
from chronicle_ffi._batch import COLUMNS
from chronicle_ffi._binding import EBUFFER, EINVAL, address_of, check, ffi, lib, new_struct
from chronicle_ffi.errors import ConcurrentUse
from chronicle_ffi.model import Message

RECORDS_MAX: Final = 256  # of one fetch
RECORDS_MIN: Final = 2  # after a jump: who reads here and there should not pay for many
BY_NEW: Final = sys.version_info >= (3, 14)  # _fast.c knows what a tuple is made of before that
BYTES: Final = 1 << 18  # payloads of one fetch; grows if one payload needs more


class Prefetch:
    """What one reader has fetched and not handed out yet."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self.pending: Iterator[Any] = iter(())
        self.messages: Iterator[Message] = iter(())  # `pending`, if it holds messages; else nothing
        self._fetched = 0  # of `pending`: how many C's position has not moved over
        self._payloads_only = False
        self._want = RECORDS_MIN
        self._columns = columns = new_struct("chron_columns")
        self._address = address_of(columns)
        self._kept = {name: ffi.new(f"{ctype}[]", RECORDS_MAX) for name, ctype, _ in COLUMNS if name != "offset"}
        for name, array in self._kept.items():
            setattr(columns, name, array)
        self._room(BYTES)

    def _room(self, size: int) -> None:
        self._copy = ffi.new("char[]", size)
        self._columns.copy = self._copy
        self._columns.bytes_max = size

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise ConcurrentUse(
                "the reader is in use by another thread: give each thread its own handle, or take a lock around it"
            )

    def __exit__(self, *why: object) -> None:
        self._lock.release()

    def fill(self, payloads_only: bool) -> bool:
        """Fetch more, if everything was handed out; False if nothing is there. Raises what reading raises."""
        with self:
            return self._fill(payloads_only)

    def _fill(self, payloads_only: bool) -> bool:
        if length_hint(self.pending):
            if payloads_only == self._payloads_only:
                return True
            self._drop()
        self._catch_up()
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
            self.pending = self.messages = iter(_fast.messages(Message, self._address, count, BY_NEW))
        self._fetched = count
        return True

    def look(self) -> Message | None:
        """The record at the position, which stays. After `drop`."""
        with self:
            message = next(self.messages, None) if self._fill(False) else None
            self.forget()
            return message

    def catch_up(self) -> None:
        """Move C's position over what was handed out; the rest stays fetched."""
        if self._fetched != length_hint(self.pending):
            with self:
                self._catch_up()

    def _catch_up(self) -> None:
        consumed = self._fetched - length_hint(self.pending)
        if consumed > 0:
            status = lib.chron_reader_advance(self._handle, consumed)
            if status == EINVAL:  # another thread has moved it: what was fetched is of somewhere else
                self.forget()
            check(status)
            self._fetched -= consumed

    def drop(self) -> None:
        """Catch up, and forget the rest, before something else moves the reader."""
        with self:
            self._drop()

    def _drop(self) -> None:
        try:
            self._catch_up()
        finally:
            self.forget()

    def forget(self) -> None:
        """Forget what was fetched; a loop that still holds the iterator finds it empty."""
        for _ in self.pending:
            pass
        self._fetched = 0
        self._want = RECORDS_MIN
