# SPDX-License-Identifier: MIT
"""Every failure of the library, as a class.

All derive from `ChronicleError`, and each also from the built-in exception that one would catch for it, so
``except FileNotFoundError`` finds a missing queue and ``except OSError`` a full disk. The message says what
was tried and what to do. Attributes that do not apply are None. Exceptions can be pickled, so they cross
process pools.
"""

from __future__ import annotations

import errno
import os
from typing import Any, ClassVar


class ChronicleError(Exception):
    """What all failures of this package have in common.

    >>> try:
    ...     Queue.open_subscriber("q", start=10)
    ... except ChronicleError as problem:
    ...     print(f"{type(problem).__name__}: {problem} (seq {problem.seq})")
    SeqOutOfRange: there is no record 10 yet: the next one will be 0 (seq 10)
    """

    _errno: ClassVar[int] = errno.EIO  # of those that are an OSError, where no system call has failed

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
        next_seq: int | None = None,
        appended: int | None = None,
        pid: int | None = None,
    ) -> None:
        super().__init__(message)
        if isinstance(self, OSError):
            _describe(self, sys_errno or self._errno, file)
        self.message = message  #: what was tried, and what to do
        self.code = code  #: the C library's CHRON_E... code
        self.sys_errno = sys_errno  #: errno of the system call that failed
        self.file = file  #: the file concerned, relative to the queue's directory
        self.offset = offset  #: where in that file, in bytes
        self.seq = seq  #: the sequence number concerned
        self.oldest = oldest  #: the oldest seq that can still be read, where the record wanted is gone
        self.next_seq = next_seq  #: SeqOutOfRange: of the next append; HistoryRewritten: the first that was undone
        self.appended = appended  #: NotSynced: how many records of the call are in the log
        self.pid = pid  #: the process that stands in the way

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, {name: getattr(self, name) for name in _FIELDS}))


def _describe(error: OSError, number: int, file: str | None) -> None:
    error.errno = number
    error.strerror = os.strerror(number)
    error.filename = file


_FIELDS = ("code", "sys_errno", "file", "offset", "seq", "oldest", "next_seq", "appended", "pid")


def _rebuild(kind: type[ChronicleError], message: str, fields: dict[str, Any]) -> ChronicleError:
    return kind(message, **fields)


class InvalidArgument(ChronicleError, ValueError):
    """An argument is out of its range.

    >>> Queue.open_publisher("other", segment_size=1000)
    Traceback (most recent call last):
    chronicle_ffi.errors.InvalidArgument: segment_size 1000 is not a multiple of 65536 ...
    """


class SchemaError(InvalidArgument):
    """A schema makes no sense, is damaged, contradicts the one that is stored; or a payload does not fit it.

    >>> Queue.open_publisher("other", schema={1: "struct p { double *x; };"})
    Traceback (most recent call last):
    chronicle_ffi.errors.SchemaError: the member 'double *x' is not understood: ...
    """


class WrongType(InvalidArgument, TypeError):
    """An argument is of a type that cannot be what is wanted: a float where records are counted, text as a payload.

    >>> reader.seek(1.5)
    Traceback (most recent call last):
    chronicle_ffi.errors.WrongType: seq is a whole number, not 1.5
    """


class OutOfMemory(ChronicleError, MemoryError):
    """The system has no memory left."""


class StorageError(ChronicleError, OSError):
    """Reading or writing failed, or a file was truncated under its mapping. Nothing read since then counts.

    >>> seq = writer.append(b"here today")
    >>> os.truncate(Path("q", f"{0:020}.seg"), 4096)
    >>> reader.next()
    Traceback (most recent call last):
    chronicle_ffi.errors.StorageError: the segment that begins with seq 0 went away under its mapping: ...
    """


class NoSpace(ChronicleError, OSError):
    """The disk is full: make room and try again. Nothing was lost."""

    _errno = errno.ENOSPC


class AccessDenied(ChronicleError, PermissionError):
    """The directory or a file cannot be opened, or written."""

    _errno = errno.EACCES


class QueueNotFound(ChronicleError, FileNotFoundError):
    """There is no queue, or no reader of this name.

    >>> Queue.open_subscriber("nowhere")
    Traceback (most recent call last):
    chronicle_ffi.errors.QueueNotFound: there is no queue at nowhere: no such directory
    """

    _errno = errno.ENOENT


class WriterAlreadyActive(ChronicleError, BlockingIOError):
    """Another process (`pid`) has the queue open for writing.

    >>> try:
    ...     Queue.open_publisher("q")
    ... except WriterAlreadyActive as problem:
    ...     print(problem.pid == os.getpid())
    True
    """

    _errno = errno.EAGAIN


class ReaderAlreadyActive(ChronicleError, BlockingIOError):
    """A reader of this name is open somewhere.

    >>> Queue.open_subscriber("q", "me")
    Traceback (most recent call last):
    chronicle_ffi.errors.ReaderAlreadyActive: a reader named me is already active: a name serves one reader at a time
    """

    _errno = errno.EAGAIN


class QueueFull(ChronicleError, BlockingIOError):
    """Back-pressure: max_bytes or max_segments are reached, and readers still need the oldest segment.

    >>> with Queue.open_publisher("small", segment_size=65536, max_segments=2) as small:
    ...     while True:
    ...         small.append(bytes(1000))
    Traceback (most recent call last):
    chronicle_ffi.errors.QueueFull: the queue is full: 2 segments are allowed, and no reader is registered ...
    """

    _errno = errno.EAGAIN


class PayloadTooLarge(ChronicleError, ValueError):
    """The payload, or the batch, does not fit one segment.

    >>> writer.append(bytes(1 << 20))
    Traceback (most recent call last):
    chronicle_ffi.errors.PayloadTooLarge: a payload of 1048576 bytes is larger than one segment of this queue holds ...
    """


class SegmentGone(ChronicleError, LookupError):
    """The record wanted was deleted by retention; `oldest` is the oldest seq there is.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> reader.seek_latest(); reader.commit()
    >>> report = writer.cleanup()
    >>> reader.seek(0)
    Traceback (most recent call last):
    chronicle_ffi.errors.SegmentGone: record 0 has been deleted by retention; the oldest there is, is 54: ...
    """


class Corrupt(ChronicleError, OSError):
    """Data is damaged: `file`, `offset` and `seq` say where.

    >>> seq = writer.append(b"as it was written")
    >>> segment = Path("q", f"{0:020}.seg")
    >>> with segment.open("r+b") as file:
    ...     _ = file.seek(segment.read_bytes().find(b"as it was")), file.write(b"as it is")
    >>> reader.next()
    Traceback (most recent call last):
    chronicle_ffi.errors.Corrupt: record 0 in 00000000000000000000.seg at offset 8192 is damaged: ...
    """


class HistoryRewritten(ChronicleError, LookupError):
    """A loss of power, or a repair, undid records that this reader had consumed: `seq` is one of them."""


class UnsupportedFormat(ChronicleError, ValueError):
    """The file was written by a later version, or uses a feature this one does not know.

    >>> with open("q/queue.meta", "r+b") as file:
    ...     _ = file.seek(8), file.write(bytes([9])), file.seek(100), file.write(b"what it has more")
    >>> Queue.info("q")
    Traceback (most recent call last):
    chronicle_ffi.errors.UnsupportedFormat: queue.meta has format version 9; this library reads version 1: ...
    """


class ForkedHandle(ChronicleError, RuntimeError):
    """The handle was opened before a fork, in the parent process: open a new one.

    >>> child = os.fork()
    >>> if child == 0:
    ...     try: writer.append(b"from the child")
    ...     except ForkedHandle: os._exit(7)
    ...     finally: os._exit(0)
    >>> os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    7
    """


class ClosedHandle(ChronicleError, ValueError):
    """The handle is closed.

    >>> reader.close()
    >>> reader.next()
    Traceback (most recent call last):
    chronicle_ffi.errors.ClosedHandle: this reader is closed
    """


class NotDurable(ChronicleError, OSError):
    """The file system (tmpfs) keeps nothing over a loss of power, so durability cannot be promised.

    >>> Queue.open_publisher(memory / "q", durability="always")  # memory is a directory on a tmpfs
    Traceback (most recent call last):
    chronicle_ffi.errors.NotDurable: ... lies on a file system in memory, which keeps nothing over a loss of power: ...
    """

    _errno = errno.EOPNOTSUPP


class Poisoned(ChronicleError, OSError):
    """An earlier sync failed: what the disk holds is not known. Close the writer and open the queue again."""


class TimedOut(ChronicleError, TimeoutError):
    """What was waited for has not happened in the time given: see `QueueWriter.wait_durable`."""

    _errno = errno.ETIMEDOUT


class Interrupted(ChronicleError, InterruptedError):
    """A signal arrived, or a callback asked to stop."""

    _errno = errno.EINTR


class TurnTimeout(ChronicleError, TimeoutError):
    """Another one of several writers (`pid`) keeps its turn, and lives: it is stopped. Nothing was appended.

    When it goes on, or ends, the others go on too.
    """

    _errno = errno.ETIMEDOUT


class ConcurrentUse(ChronicleError, RuntimeError):
    """Another thread is using this handle at this moment.

    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(pool.map(reader.wait, [0.2] * 20))
    Traceback (most recent call last):
    chronicle_ffi.errors.ConcurrentUse: the reader is in use by another thread: give each thread its own handle, ...
    """


class BufferTooSmall(ChronicleError, BufferError):
    """The payload does not fit the buffer given."""


class NetworkFileSystem(ChronicleError, OSError):
    """Network file systems are refused: mapped memory and locks are not coherent between hosts."""

    _errno = errno.EOPNOTSUPP


class SeqOutOfRange(ChronicleError, IndexError):
    """There is no record with this seq yet; `next_seq` is the next seq that will be appended.

    >>> try:
    ...     reader.seek(5)
    ... except SeqOutOfRange as problem:
    ...     print(f"{problem}; next_seq {problem.next_seq}")
    there is no record 5 yet: the next one will be 0; next_seq 0
    """


class ReadOnly(ChronicleError, PermissionError):
    """A reader without a name has no stored position.

    >>> with Queue.open_subscriber("q") as anonymous:
    ...     anonymous.commit()
    Traceback (most recent call last):
    chronicle_ffi.errors.ReadOnly: a reader without a name has no position to store: open it with a name
    """

    _errno = errno.EPERM


class ClaimError(ChronicleError, RuntimeError):
    """A claim is open where none may be, or none is where one must be.

    >>> with writer.claim(10):
    ...     writer.append(b"something else")
    Traceback (most recent call last):
    chronicle_ffi.errors.ClaimError: a claim is open: publish or abort it first
    """


class QueueRemoved(ChronicleError, FileNotFoundError):
    """The queue's files were removed while a handle had them open: what is appended has no name any more.

    A writer sees it at its next sync, and when it goes on to another segment.

    >>> shutil.rmtree("q")
    >>> writer.sync()
    Traceback (most recent call last):
    chronicle_ffi.errors.QueueRemoved: the queue was removed while this writer had it open: ...
    """

    _errno = errno.ENOENT


class NotSynced(ChronicleError, OSError):
    """What was appended is in the log, but not known to be on disk: a sync that `durability` asks for has failed.

    `appended` says how many records of the call that is, `seq` which was the last one. Do not append them again.
    """


class StaleReceipt(ChronicleError, RuntimeError):
    """The job is not this worker's any more: its lease had ended, or it was settled or released. Others may have it.

    >>> seq = writer.append(b"resize 17.jpg")
    >>> with Queue.open_group("q", "resize") as group:
    ...     job = group.take()
    ...     job.ack()
    ...     job.ack()
    Traceback (most recent call last):
    chronicle_ffi.errors.StaleReceipt: the job 0 is not this worker's any more: its lease had ended, ...
    """


class GroupFull(ChronicleError, BlockingIOError):
    """The oldest job that is not done (`seq`) lies a whole window behind the next one: no more are handed out.

    >>> first, count = writer.append_many([b"job"] * 65)
    >>> with Queue.open_group("q", "work", window=64) as group:
    ...     jobs = group.take_many(64)
    ...     group.take()
    Traceback (most recent call last):
    chronicle_ffi.errors.GroupFull: the group work has handed out its window of 64 jobs, from 0 on, ...
    """

    _errno = errno.EAGAIN


class HeldElsewhere(ChronicleError, BlockingIOError):
    """Another process (`pid`, if it is known) has what is needed, and lives: stopped, or not closed yet.

    >>> with Queue.open_group("q", "work"):
    ...     Queue.remove_group("q", "work")
    Traceback (most recent call last):
    chronicle_ffi.errors.HeldElsewhere: the group work has members: close them first
    """

    _errno = errno.EAGAIN


class RecoveryWarning(UserWarning):
    """An opening found that records are missing since the last writer: see `QueueWriter.recovery`."""


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
    "EREMOVED": QueueRemoved,
    "EUNSYNCED": NotSynced,
    "ESTALE": StaleReceipt,
    "EWINDOW": GroupFull,
    "EHELD": HeldElsewhere,
    "ETURN": TurnTimeout,
}
