# SPDX-License-Identifier: MIT
"""What the package hands out: messages, and reports about queues. Plain values, without a tie to a handle."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Message(NamedTuple):
    """One record."""

    seq: int
    timestamp_ns: int  #: nanoseconds since 1970-01-01 UTC
    type_id: int  #: 0 to 65534, the application's
    flags: int  #: 0 to 255, the application's
    payload: bytes

    @property
    def time(self) -> datetime:
        """The timestamp as an aware datetime, cut to microseconds."""
        return _EPOCH + timedelta(microseconds=self.timestamp_ns // 1000)


class Event(NamedTuple):
    """What `QueueReader.follow` met beside messages."""

    kind: str  #: "idle", "writer_gone", "writer_back", "rolled" or "gap"
    seq: int  #: the reader's position
    skipped: int = 0  #: records passed over by a gap


def to_ns(when: int | datetime) -> int:
    """Nanoseconds since 1970, from those or from a datetime (a naive one is local time)."""
    if isinstance(when, datetime):
        since = when.astimezone(timezone.utc) - _EPOCH
        return ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000
    return when


@dataclass(frozen=True)
class Retention:
    """Which segments a cleanup may delete. Every limit is off unless set.

    Without limits, those that every registered reader has committed past; with no registered reader, none. A
    limit deletes in spite of the readers. With a `Retention` given to `Queue.open_publisher` the keeper also
    cleans up by itself; without one nothing is deleted until `QueueWriter.cleanup`.
    """

    max_bytes: int | None = None  #: keep at most this much in segment files
    max_segments: int | None = None  #: keep at most so many, the active one included
    max_age: float | timedelta | None = None  #: delete what was sealed longer ago than this (seconds)
    reader_ttl: float | timedelta | None = None  #: ignore readers gone, and silent for so long (seconds)
    max_reader_lag: int | None = None  #: ignore readers that are more than so many records behind


@dataclass(frozen=True)
class WriterStats:
    """Counters of one `QueueWriter`, since it was opened."""

    records: int
    payload_bytes: int
    rolls: int
    rolls_unprepared: int  #: at which the next segment was not ready, and was made on the spot
    full_waits: int  #: appends that met back-pressure
    syncs: int
    wakes: int  #: system calls made to wake sleeping readers
    touched_bytes: int  #: pages prepared ahead
    deleted_segments: int
    keeper_running: bool
    keeper_errors: int  #: background work that failed, and is tried again
    keeper_last_error: int  #: the last of them: a CHRON_E... code, or 0


@dataclass(frozen=True)
class Recovery:
    """What the writer found when it opened. All zero, and `clean`, after a proper close."""

    next_seq: int
    epoch: int  #: how often the queue has been opened for writing
    scanned_records: int
    scanned_bytes: int
    cut_bytes: int  #: cut off behind the last good record
    cut_records: int  #: whole records among them
    cut_segments: int  #: later segments, moved to quarantine/ as a whole
    lost_records: int  #: that the last writer had when it closed properly, and that are not there
    repaired_rolls: int
    clean: bool  #: the last writer closed properly
    quarantined: bool  #: what was cut off is in quarantine/


@dataclass(frozen=True)
class ReaderStats:
    """Counters of one `QueueReader`, since it was opened."""

    records: int
    payload_bytes: int
    skipped: int  #: records passed over by on_gap or skip_damaged
    gaps: int  #: how often that happened
    rolls: int
    sleeps: int


@dataclass(frozen=True)
class SegmentFate:
    """What became of one segment in a cleanup, and why."""

    base_seq: int
    next_seq: int
    bytes: int
    reason: str  #: a sentence
    deleted: bool
    reader: str | None  #: the one that holds it


@dataclass(frozen=True)
class CleanupReport:
    """What a cleanup did, or would do."""

    deleted_segments: int
    deleted_bytes: int
    oldest_seq: int  #: afterwards
    readers: int
    readers_ignored: int  #: because of reader_ttl or max_reader_lag
    readers_behind: int  #: that lost records they had not committed past
    segments: list[SegmentFate] = field(repr=False)


@dataclass(frozen=True)
class QueueInfo:
    """A queue, seen from outside."""

    uuid: uuid.UUID
    segment_size: int
    created_ns: int
    oldest_seq: int
    next_seq: int
    durable_seq: int  #: -1: none
    epoch: int
    segments: int
    bytes: int
    writer_pid: int | None
    writer_start_ns: int
    writer_host: str | None
    writer_alive: bool
    clean: bool  #: no writer, and the last one closed properly
    format_version: int


@dataclass(frozen=True)
class SegmentInfo:
    """One segment file."""

    base_seq: int
    next_seq: int
    bytes: int
    used_bytes: int
    first_ts_ns: int
    last_ts_ns: int
    created_ns: int
    epoch: int
    sealed: bool
    damaged: bool  #: its header cannot be read: the other fields are 0


@dataclass(frozen=True)
class ReaderInfo:
    """One registered reader."""

    name: str
    position: int  #: committed: the seq it will resume from
    lag: int
    updated_ns: int
    alive: bool
    damaged: bool  #: its position file cannot be read


@dataclass(frozen=True)
class Problem:
    """One thing that a verification found."""

    kind: str  #: record, header, chain, seal, index, tail, position, meta, doorbell or file
    file: str
    offset: int
    seq: int | None
    seq_end: int | None  #: behind the last seq concerned
    text: str


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found."""

    ok: bool
    records: int  #: good ones
    payload_bytes: int
    segments: int
    readers: int
    oldest_seq: int
    next_seq: int
    problems: list[Problem]
