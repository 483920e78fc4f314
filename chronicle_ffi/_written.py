# SPDX-License-Identifier: MIT
"""What a writer says of itself."""

from __future__ import annotations

from chronicle_ffi._binding import check, lib, new_struct, optional_seq
from chronicle_ffi._handle import Handle
from chronicle_ffi._structs import fields_of
from chronicle_ffi.model import Recovery, WriterStats


class Written(Handle):
    """The part of QueueWriter that changes nothing."""

    @property
    def next_seq(self) -> int:
        """The seq that the next append will return.

        >>> writer.append_many([b"one", b"two"])
        (0, 2)
        >>> writer.next_seq
        2
        """
        self._check_open()
        seq: int = lib.chron_writer_next_seq(self._handle)
        return seq

    @property
    def durable_seq(self) -> int:
        """The last seq that survives a loss of power; -1 if there is none.

        >>> seq = writer.append(b"one")
        >>> writer.durable_seq
        -1
        """
        self._check_open()
        seq = optional_seq(lib.chron_writer_durable_seq(self._handle))
        return -1 if seq is None else seq

    @property
    def recovery(self) -> Recovery:
        """What was found when this writer opened the queue.

        >>> writer.recovery.clean
        True
        """
        self._check_open()
        out = new_struct("chron_recovery")
        check(lib.chron_writer_recovery_get(self._handle, out))
        return fields_of(Recovery, out)

    def stats(self) -> WriterStats:
        """Counters since the writer was opened.

        >>> seq = writer.append(b"one")
        >>> writer.stats().records
        1
        """
        self._check_open()
        out = new_struct("chron_writer_stats")
        check(lib.chron_writer_stats_get(self._handle, out))
        return fields_of(WriterStats, out)

    def _check_open(self) -> None:
        if self._closed:
            check(lib.chron_writer_abort(self._handle))  # answers "closed", in its own words
