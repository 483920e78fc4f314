# SPDX-License-Identifier: MIT
"""What can go wrong with an archive, beside what can go wrong with a queue."""

from __future__ import annotations

from chronicle_ffi import ChronicleError, Corrupt


class ArchiveError(ChronicleError, OSError):
    """The store refused, or cannot be reached; `file` is the object. Nothing was lost: try again when it is mended.

    >>> Queue.open_subscriber("q", archive="nowhere")
    Traceback (most recent call last):
    chronicle_ffi.archive.ArchiveError: there is no archive at nowhere: ...
    """


class ArchiveDamaged(ArchiveError, Corrupt):
    """An object is missing or damaged: `file` is its name, and `seq` up to `next_seq` are what cannot be had of it.

    `ArchivedReader.skip_damaged` passes over it.
    """


class ArchiveMismatch(ArchiveError):
    """What the archive holds is not this queue, or not this history of it. Nothing was written."""
