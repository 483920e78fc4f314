# SPDX-License-Identifier: MIT
"""A persistent, brokerless message log for one host.

One process appends records to memory-mapped segment files, any number of processes read them, live or later,
each from its own committed position::

    with Queue.open_publisher("/tmp/q") as writer:
        writer.append(b"hello", type_id=1)

    with Queue.open_subscriber("/tmp/q", "me") as reader:
        for message in reader:
            print(message.seq, message.payload)
        reader.commit()
"""

from chronicle_ffi._batch import Batch
from chronicle_ffi._group import Group, Job
from chronicle_ffi._locked import LockedWriter
from chronicle_ffi._merge import Merge
from chronicle_ffi._merged import MergedBatch
from chronicle_ffi._queue import SEGMENT_SIZE, Queue
from chronicle_ffi._reader import QueueReader
from chronicle_ffi._scan import Scan
from chronicle_ffi._stage import Stage
from chronicle_ffi._version import __version__
from chronicle_ffi._writer import QueueWriter
from chronicle_ffi.errors import (
    AccessDenied,
    BufferTooSmall,
    ChronicleError,
    ClaimError,
    ClosedHandle,
    ConcurrentUse,
    Corrupt,
    ForkedHandle,
    GroupFull,
    HeldElsewhere,
    HistoryRewritten,
    Interrupted,
    InvalidArgument,
    NetworkFileSystem,
    NoSpace,
    NotDurable,
    NotSupported,
    NotSynced,
    OutOfMemory,
    PayloadTooLarge,
    Poisoned,
    QueueFull,
    QueueNotFound,
    QueueRemoved,
    ReaderAlreadyActive,
    ReadOnly,
    RecoveryWarning,
    SchemaError,
    SegmentGone,
    SeqOutOfRange,
    StaleReceipt,
    StorageError,
    TimedOut,
    TurnTimeout,
    UnsupportedFormat,
    WriterAlreadyActive,
    WrongType,
)
from chronicle_ffi.model import (
    CleanupReport,
    DeadLetter,
    Event,
    GroupInfo,
    GroupStats,
    HeldJob,
    MergedMessage,
    MergeSource,
    Message,
    Problem,
    QuarantineFile,
    QueueInfo,
    ReaderInfo,
    ReaderStats,
    Recovery,
    RepairReport,
    Retention,
    SegmentFate,
    SegmentInfo,
    VerifyReport,
    WriterStats,
)

__all__ = [
    "SEGMENT_SIZE",
    "AccessDenied",
    "Batch",
    "BufferTooSmall",
    "ChronicleError",
    "ClaimError",
    "CleanupReport",
    "ClosedHandle",
    "ConcurrentUse",
    "Corrupt",
    "DeadLetter",
    "Event",
    "ForkedHandle",
    "Group",
    "GroupFull",
    "GroupInfo",
    "GroupStats",
    "HeldElsewhere",
    "HeldJob",
    "HistoryRewritten",
    "Interrupted",
    "InvalidArgument",
    "Job",
    "LockedWriter",
    "Merge",
    "MergeSource",
    "MergedBatch",
    "MergedMessage",
    "Message",
    "NetworkFileSystem",
    "NoSpace",
    "NotDurable",
    "NotSupported",
    "NotSynced",
    "OutOfMemory",
    "PayloadTooLarge",
    "Poisoned",
    "Problem",
    "QuarantineFile",
    "Queue",
    "QueueFull",
    "QueueInfo",
    "QueueNotFound",
    "QueueReader",
    "QueueRemoved",
    "QueueWriter",
    "ReadOnly",
    "ReaderAlreadyActive",
    "ReaderInfo",
    "ReaderStats",
    "Recovery",
    "RecoveryWarning",
    "RepairReport",
    "Retention",
    "Scan",
    "SchemaError",
    "SegmentFate",
    "SegmentGone",
    "SegmentInfo",
    "SeqOutOfRange",
    "Stage",
    "StaleReceipt",
    "StorageError",
    "TimedOut",
    "TurnTimeout",
    "UnsupportedFormat",
    "VerifyReport",
    "WriterAlreadyActive",
    "WriterStats",
    "WrongType",
    "__version__",
]
