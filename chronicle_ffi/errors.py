# SPDX-License-Identifier: MIT
"""Every failure of the library, as a class.

All derive from `ChronicleError`, and each also from the built-in exception that one would catch for it, so
``except FileNotFoundError`` finds a missing queue and ``except OSError`` a full disk. The message says what
was tried and what to do. Attributes that do not apply are None. Exceptions can be pickled, so they cross
process pools.
"""

from __future__ import annotations

from typing import Any


class ChronicleError(Exception):
    """What all failures of this package have in common."""

    def __init__(
        self,
        message: str,
        *,
        code: int = 0,
        sys_errno: int | None = None,
        file: str | None = None,
        offset: int | None = None,
        seq: int | None = None,
        oldest: int | None = None,
        pid: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code  #: the C library's CHRON_E... code
        self.sys_errno = sys_errno  #: errno of the system call that failed
        self.file = file  #: the file concerned, relative to the queue's directory
        self.offset = offset  #: where in that file, in bytes
        self.seq = seq  #: the sequence number concerned
        self.oldest = oldest  #: the oldest seq that can still be read
        self.pid = pid  #: the process that stands in the way

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, {name: getattr(self, name) for name in _FIELDS}))


_FIELDS = ("code", "sys_errno", "file", "offset", "seq", "oldest", "pid")


def _rebuild(kind: type[ChronicleError], message: str, fields: dict[str, Any]) -> ChronicleError:
    return kind(message, **fields)


class InvalidArgument(ChronicleError, ValueError):
    """An argument is out of its range."""


class OutOfMemory(ChronicleError, MemoryError):
    """The system has no memory left."""


class StorageError(ChronicleError, OSError):
    """Reading or writing failed, or a file was truncated under its mapping. Nothing read since then counts."""


class NoSpace(ChronicleError, OSError):
    """The disk is full: make room and try again. Nothing was lost."""


class AccessDenied(ChronicleError, PermissionError):
    """The directory or a file cannot be opened, or written."""


class QueueNotFound(ChronicleError, FileNotFoundError):
    """There is no queue, or no reader of this name."""


class WriterAlreadyActive(ChronicleError, BlockingIOError):
    """Another process (`pid`) has the queue open for writing."""


class ReaderAlreadyActive(ChronicleError, BlockingIOError):
    """A reader of this name is open somewhere."""


class QueueFull(ChronicleError, BlockingIOError):
    """Back-pressure: max_bytes or max_segments are reached, and readers still need the oldest segment."""


class PayloadTooLarge(ChronicleError, ValueError):
    """The payload, or the batch, does not fit one segment."""


class SegmentGone(ChronicleError, LookupError):
    """The record wanted was deleted by retention; `oldest` is the oldest seq there is."""


class Corrupt(ChronicleError, OSError):
    """Data is damaged: `file`, `offset` and `seq` say where."""


class HistoryRewritten(ChronicleError, LookupError):
    """A loss of power undid records that this reader had consumed, and others took their place."""


class UnsupportedFormat(ChronicleError, ValueError):
    """The file was written by a later version, or uses a feature this one does not know."""


class ForkedHandle(ChronicleError, RuntimeError):
    """The handle was opened before a fork, in the parent process: open a new one."""


class ClosedHandle(ChronicleError, ValueError):
    """The handle is closed."""


class NotDurable(ChronicleError, OSError):
    """The file system (tmpfs) keeps nothing over a loss of power, so durability cannot be promised."""


class Poisoned(ChronicleError, OSError):
    """An earlier sync failed: what the disk holds is not known. Close the writer and open the queue again."""


class Interrupted(ChronicleError, InterruptedError):
    """A signal arrived, or a callback asked to stop."""


class ConcurrentUse(ChronicleError, RuntimeError):
    """Another thread is using this handle at this moment."""


class BufferTooSmall(ChronicleError, BufferError):
    """The payload does not fit the buffer given."""


class NetworkFileSystem(ChronicleError, OSError):
    """Network file systems are refused: mapped memory and locks are not coherent between hosts."""


class SeqOutOfRange(ChronicleError, IndexError):
    """There is no record with this seq yet; `oldest` is the next seq that will be appended."""


class ReadOnly(ChronicleError, PermissionError):
    """A reader without a name has no stored position."""


class ClaimError(ChronicleError, RuntimeError):
    """A claim is open where none may be, or none is where one must be."""


class NotSupported(ChronicleError, NotImplementedError):
    """This system cannot do that."""


#: By the name of the C code, without "CHRON_".
BY_CODE: dict[str, type[ChronicleError]] = {
    "EINVAL": InvalidArgument,
    "ENOMEM": OutOfMemory,
    "EIO": StorageError,
    "ENOSPC": NoSpace,
    "EACCESS": AccessDenied,
    "ENOQUEUE": QueueNotFound,
    "EWRITER": WriterAlreadyActive,
    "EREADER": ReaderAlreadyActive,
    "EFULL": QueueFull,
    "ETOOBIG": PayloadTooLarge,
    "EGONE": SegmentGone,
    "ECORRUPT": Corrupt,
    "EREWRITTEN": HistoryRewritten,
    "EFORMAT": UnsupportedFormat,
    "EFORKED": ForkedHandle,
    "ECLOSED": ClosedHandle,
    "ENOTDURABLE": NotDurable,
    "EPOISONED": Poisoned,
    "EINTR": Interrupted,
    "EBUSY": ConcurrentUse,
    "EBUFFER": BufferTooSmall,
    "ENETFS": NetworkFileSystem,
    "ERANGE": SeqOutOfRange,
    "EREADONLY": ReadOnly,
    "ECLAIM": ClaimError,
    "ENOTSUP": NotSupported,
}
