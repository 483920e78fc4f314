# SPDX-License-Identifier: MIT
"""What the package hands out: messages, and reports about queues. Plain values, without a tie to a handle."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from chronicle_ffi._arguments import Duration
from chronicle_ffi.errors import SchemaError

if TYPE_CHECKING:
    from chronicle_ffi.schema import Schema

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Message(NamedTuple):
    """One record.

    >>> seq = writer.append(b"EURUSD 1.0842", type_id=7, timestamp_ns=1_700_000_000_000_000_000)
    >>> reader.next()
    Message(seq=0, timestamp_ns=1700000000000000000, type_id=7, flags=0, payload=b'EURUSD 1.0842')
    """

    seq: int  #: its place in the log: 0, 1, 2, ...
    timestamp_ns: int  #: nanoseconds since 1970-01-01 UTC
    type_id: int  #: 0 to 65534, the application's
    flags: int  #: 0 to 255, the application's
    payload: bytes  #: what was appended

    @property
    def time(self) -> datetime:
        """The timestamp as an aware datetime, cut to microseconds.

        >>> seq = writer.append(b"one", timestamp_ns=1_700_000_000_123_456_789)
        >>> print(reader.next().time)
        2023-11-14 22:13:20.123456+00:00
        """
        return _EPOCH + timedelta(microseconds=self.timestamp_ns // 1000)

    @property
    def schema(self) -> Schema | None:
        """What the payload holds, if a schema of its type was stored in the queue; see `chronicle_ffi.schema`.

        A reader that was opened before the queue had any knows of none.

        >>> seq = writer.append(b"one")
        >>> print(reader.next().schema)
        None
        """
        return None

    def decode(self) -> Any:
        """The payload by its schema: a dict of the fields, or what its codec makes of it.

        Raises SchemaError if its type has no schema, or it does not fit; NotSupported if a library is missing.

        >>> with Queue.open_publisher("points", schema={1: "struct p { float x, y; };"}) as points:
        ...     seq = points.append(struct.pack("<2f", 1, 2), type_id=1)
        >>> with Queue.open_subscriber("points") as anyone:
        ...     anyone.next().decode()
        {'x': 1.0, 'y': 2.0}
        """
        schema = self.schema
        if schema is None:
            raise SchemaError(
                f"type {self.type_id} has no schema in this queue (or had none when the reader was opened): give one "
                "to open_publisher(schema=...)"
            )
        try:
            return schema.decode(self.payload)
        except SchemaError as wrong:
            raise SchemaError(f"record {self.seq}, type {self.type_id}: {wrong}") from None


class MergedMessage(NamedTuple):
    """One record of a merge: a `Message`, and where it comes from.

    >>> seq = writer.append(b"one", timestamp_ns=1_700_000_000_000_000_000)
    >>> with Queue.merge(["q"]) as merge:
    ...     merge.next()
    MergedMessage(seq=0, timestamp_ns=1700000000000000000, type_id=0, flags=0, payload=b'one', source=0, late=False)
    """

    seq: int  #: its place in the log of its queue
    timestamp_ns: int  #: nanoseconds since 1970-01-01 UTC
    type_id: int  #: 0 to 65534, the application's
    flags: int  #: 0 to 255, the application's
    payload: bytes  #: what was appended
    source: int  #: index in `Merge.sources`
    late: bool  #: its timestamp is older than its place in the order

    @property
    def time(self) -> datetime:
        """The timestamp as an aware datetime, cut to microseconds.

        >>> seq = writer.append(b"one", timestamp_ns=1_700_000_000_123_456_789)
        >>> with Queue.merge(["q"]) as merge:
        ...     print(merge.next().time)
        2023-11-14 22:13:20.123456+00:00
        """
        return self.message.time

    @property
    def message(self) -> Message:
        """The same as the queue's own readers have it.

        >>> seq = writer.append(b"one")
        >>> with Queue.merge(["q"]) as merge:
        ...     merge.next().message == reader.next()
        True
        """
        return Message(self.seq, self.timestamp_ns, self.type_id, self.flags, self.payload)


@dataclass(frozen=True)
class MergeSource:
    """How one source of a merge fares: `Merge.sources`.

    >>> with Queue.merge(["q"]) as merge:
    ...     merge.sources[0].path, merge.sources[0].records
    ('q', 0)
    """

    path: str  #: the queue's directory, as given
    present: bool  #: False: only the stored position knows it, or it was dropped
    ended: bool  #: all that the merge is to read of it was read
    idle: bool  #: it has been silent for so long that it holds up nobody
    position: int  #: all records below this seq were handed out
    stop: int | None  #: where reading it ends; None: nowhere
    records: int  #: handed out
    late: int  #: of these, with a timestamp older than their place in the order
    skipped: int  #: passed over by `on_gap`, or by `Merge.skip_damaged`


class Event(NamedTuple):
    """What `QueueReader.follow` met beside messages.

    >>> seq = writer.append(b"one")
    >>> for item in reader.follow(timeout=0.02, heartbeat=0.01, events=True):
    ...     if isinstance(item, Event):
    ...         print(item.kind, item.seq)
    ...         break
    idle 1
    """

    kind: str  #: "idle", "writer_gone", "writer_back", "rolled" or "gap"
    seq: int  #: the reader's position
    skipped: int = 0  #: records passed over by a gap


@dataclass(frozen=True)
class Retention:
    """Which segments a cleanup may delete. Every limit is off unless set.

    Without limits, those that every registered reader has committed past; with no registered reader, none. A
    limit deletes in spite of the readers. Ages are counted by the time that has passed: a wall clock that is set
    deletes nothing, and keeps nothing (but what was done before the machine was started has the wall clock's time).

    With a `Retention` given to `Queue.open_publisher` the keeper also cleans up by itself; without one nothing is
    deleted until `QueueWriter.cleanup`.

    >>> keep_a_day = Retention(max_age=timedelta(days=1), max_bytes=10 << 30)
    >>> with Queue.open_publisher("ticks", retention=keep_a_day) as ticks:
    ...     ticks.append(b"one")
    0
    """

    max_bytes: int | None = None  #: keep at most this much in segment files and in quarantine/
    max_segments: int | None = None  #: keep at most so many, the active one included
    max_age: Duration | None = None  #: delete what was sealed longer ago than this (seconds)
    reader_ttl: Duration | None = None  #: ignore readers gone, and silent for so long (seconds)
    max_reader_lag: int | None = None  #: ignore readers that are more than so many records behind
    #: keep at most this much in quarantine/, and always what the newest opening has put there; by default a quarter of
    #: max_bytes and the other limits on all of it, if there are any
    quarantine_max_bytes: int | None = None
    quarantine_max_age: float | timedelta | None = None  #: delete what was put there longer ago than this (seconds)
    keep_snapshot: bool = False  #: keep the newest snapshot, and all behind it, whatever the limits say


@dataclass(frozen=True)
class WriterStats:
    """Counters of one `QueueWriter`, since it was opened.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> stats = writer.stats()
    >>> stats.records, stats.payload_bytes, stats.rolls
    (100, 100000, 1)
    """

    records: int  #: appended
    payload_bytes: int  #: of those
    rolls: int  #: goings on to a new segment
    rolls_unprepared: int  #: at which the next segment was not ready, and was made on the spot
    full_waits: int  #: appends that met back-pressure
    syncs: int  #: that were completed
    wakes: int  #: system calls made to wake sleeping readers
    touched_bytes: int  #: pages prepared ahead
    deleted_segments: int  #: by cleanups
    keeper_running: bool  #: the background thread is there
    keeper_errors: int  #: background work that failed, and is tried again
    keeper_last_error: int  #: the last of them: a CHRON_E... code, or 0
    reused_segments: int  #: rolls to the file of a segment that was deleted (`reuse`)


@dataclass(frozen=True)
class Recovery:
    """What the writer found when it opened. All zero, and `clean`, after a proper close.

    >>> writer.recovery.clean, writer.recovery.next_seq, writer.recovery.cut_bytes
    (True, 0, 0)
    """

    next_seq: int  #: that the first append will return
    epoch: int  #: how often the queue has been opened for writing
    scanned_records: int  #: whose CRC was checked
    scanned_bytes: int  #: of segments read for that
    cut_bytes: int  #: cut off behind the last good record, and kept in quarantine/
    cut_records: int  #: whole records among them
    cut_segments: int  #: later segments, moved to quarantine/ as a whole
    lost_records: int  #: that the last writer had when it closed properly, and that are not there
    repaired_rolls: int  #: that a crash had left half done, or damaged seals
    repaired_headers: int  #: of segments, made anew from what is known elsewhere
    repaired_files: int  #: segments that were cut short, or not readable in part, and got a new file
    unfinished_bytes: int  #: of an append that a dying process had not published: erased
    gaps: int  #: accepted as lost, now
    gap_records: int  #: seqs in those
    clean: bool  #: the last writer closed properly
    copied: bool  #: this is a copy, or the disk is another one: nothing counts as durable yet
    quarantined: bool  #: what was cut off is in quarantine/

    def loss(self) -> str | None:
        """In words, what is missing since the last writer; None if nothing is.

        >>> writer.recovery.loss() is None
        True
        """
        found = []
        if self.cut_bytes or self.cut_segments:
            found.append(
                f"{self.cut_bytes} bytes behind the end of the log, {self.cut_segments} later segments, with"
                f" {self.cut_records} whole records, were cut off: the log goes on at seq {self.next_seq}"
            )
        if self.gaps:
            found.append(f"{self.gap_records} records in {self.gaps} gaps were accepted as lost")
        if self.lost_records:
            found.append(f"{self.lost_records} records that the last writer had appended are missing")
        if not found:
            return None
        kept = (
            ""
            if not (self.cut_bytes or self.cut_segments)
            else ("; a copy is in quarantine/" if self.quarantined else "; there was no room for a copy")
        )
        return "; ".join(found) + kept


@dataclass(frozen=True)
class ReaderStats:
    """Counters of one `QueueReader`, since it was opened.

    >>> first, count = writer.append_many([b"one", b"two"])
    >>> message = reader.next()
    >>> reader.stats()
    ReaderStats(records=1, payload_bytes=3, skipped=0, gaps=0, rolls=0, sleeps=0, filtered=0, unread=0)
    """

    records: int  #: returned
    payload_bytes: int  #: of those
    skipped: int  #: records passed over by on_gap or skip_damaged
    gaps: int  #: how often that happened
    rolls: int  #: segments entered
    sleeps: int  #: waits that went to sleep
    filtered: int  #: records passed over because they are of other types than the reader wants
    unread: int  #: how many of those without being looked at: they lie in blocks that have none of its types


@dataclass(frozen=True)
class SegmentFate:
    """What became of one segment in a cleanup, and why.

    >>> Queue.cleanup_plan("q").segments
    [SegmentFate(base_seq=0, ..., reason='the writer appends to it, or will', deleted=False, reader=None, ...)]
    """

    base_seq: int  #: its first seq
    next_seq: int  #: behind its last seq
    bytes: int  #: of the file
    reason: str  #: a sentence
    deleted: bool  #: or would be, in a plan
    reader: str | None  #: the one that holds it
    age_ms: int  #: since it was sealed, as max_age counts it: by the time that has passed; 0: it is not sealed
    clock_ms: int  #: how much more that would be by the wall clock: a lot if that was set since


@dataclass(frozen=True)
class CleanupReport:
    """What a cleanup did, or would do.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> reader.seek_latest(); reader.commit()
    >>> writer.cleanup()
    CleanupReport(deleted_segments=1, deleted_bytes=65536, oldest_seq=54, readers=1, ...)
    """

    deleted_segments: int  #: or how many would be, in a plan
    deleted_bytes: int  #: of their files
    oldest_seq: int  #: afterwards
    readers: int  #: that are registered
    readers_ignored: int  #: because of reader_ttl or max_reader_lag
    readers_behind: int  #: that lost records they had not committed past
    quarantine_files: int  #: in quarantine/, afterwards
    quarantine_bytes: int  #: of the disk, that those take
    quarantine_deleted_files: int  #: or how many would be, in a plan
    quarantine_deleted_bytes: int  #: of the disk
    segments: list[SegmentFate] = field(repr=False)  #: each one's fate, oldest first


@dataclass(frozen=True)
class QueueInfo:
    """A queue, seen from outside.

    >>> info = Queue.info("q")
    >>> info.segment_size, info.writer_alive, info.clean, info.format_version
    (65536, True, False, 1)
    """

    uuid: uuid.UUID  #: made up when the queue was created
    segment_size: int  #: bytes of each segment file
    created_ns: int  #: nanoseconds since 1970, as all times here
    oldest_seq: int  #: the oldest that can be read; `next_seq` if there is none
    next_seq: int  #: that the next append will return
    durable_seq: int  #: -1: none
    epoch: int  #: how often the queue has been opened for writing; 0: not known
    segments: int  #: how many files
    bytes: int  #: in segment files
    writer_pid: int | None  #: of the active writer; None if there is none, or it is not known
    writer_start_ns: int  #: when the active writer opened the queue
    writer_host: str | None  #: where the active writer runs
    writer_alive: bool  #: some process has the queue open for writing
    clean: bool  #: no writer, and the last one closed properly
    format_version: int  #: of the files: docs/FORMAT.md
    quarantine_files: int  #: what recovery and repairs have set aside: `Queue.quarantine`
    quarantine_bytes: int  #: of the disk, that those take
    meta_lost: bool  #: queue.meta is missing or damaged: no writer opens the queue before `Queue.repair`


@dataclass(frozen=True)
class SegmentInfo:
    """One segment file.

    >>> Queue.segments("q")
    [SegmentInfo(base_seq=0, next_seq=0, bytes=65536, used_bytes=..., sealed=False, damaged=False)]
    """

    base_seq: int  #: its first seq
    next_seq: int  #: behind its last seq
    bytes: int  #: of the file
    used_bytes: int  #: up to the end of its last record
    first_ts_ns: int  #: timestamp of its first record; 0 if it has none
    last_ts_ns: int  #: timestamp of its last record
    created_ns: int  #: when it was made
    epoch: int  #: of the writer that made it
    sealed: bool  #: complete: the writer has gone on to the next one
    damaged: bool  #: its header cannot be read: the other fields are 0


@dataclass(frozen=True)
class ReaderInfo:
    """One registered reader.

    >>> Queue.readers("q")
    [ReaderInfo(name='me', position=0, lag=0, updated_ns=..., alive=True, damaged=False, sys_errno=0)]
    """

    name: str  #: as given to `Queue.open_subscriber`
    position: int  #: committed: the seq it will resume from
    lag: int  #: records from there to the end
    updated_ns: int  #: when it last committed, or was registered; of a damaged one, when the file was last changed
    alive: bool  #: some process has it open
    damaged: bool  #: its position file cannot be read, or what it says cannot be believed
    sys_errno: int  #: then: why it cannot be read, such as EACCES; 0: its content is damaged


@dataclass(frozen=True)
class Problem:
    """One thing that a verification found: a problem, or a note.

    >>> first, count = writer.append_many([b"as it was written", b"two"])
    >>> segment = Path("q", f"{0:020}.seg")
    >>> with segment.open("r+b") as file:
    ...     _ = file.seek(segment.read_bytes().find(b"as it was")), file.write(b"as it is")
    >>> Queue.verify("q").problems
    [Problem(kind='record', file='00000000000000000000.seg', offset=8192, seq=0, seq_end=1, text='...', action='')]
    """

    #: record, header, chain, seal, index, tail, position, meta, doorbell or file; of a note: gap, foreign or unreadable
    kind: str
    file: str  #: relative to the queue's directory
    offset: int  #: in that file, in bytes
    seq: int | None  #: the first seq concerned
    seq_end: int | None  #: behind the last seq concerned
    text: str  #: a sentence
    #: what `Queue.repair` does about it: "anew" (made again from what is known elsewhere), "gap" (records are accepted
    #: as gone), "cut" (the log ends there), "move" (to quarantine/); "" in a verification
    action: str


@dataclass(frozen=True)
class QuarantineFile:
    """What recovery, or a repair, has set aside.

    >>> writer.close()
    >>> Path("q", "queue.meta").write_bytes(b"lost")
    4
    >>> _ = Queue.repair("q")
    >>> Queue.quarantine("q")
    [QuarantineFile(name='queue.meta-e65536.0.damaged', kind='file', bytes=4096, kept_ns=..., epoch=65536, ...)]
    """

    name: str  #: in quarantine/
    kind: (
        str  #: "segment" (a whole one), "cut" (bytes of one that goes on being used) or "file" (a small one, as it was)
    )
    bytes: int  #: of the disk
    kept_ns: int  #: when it was put there, as far as the file system tells
    epoch: int  #: of the opening that did
    base_seq: int | None  #: the first seq of the segment it is of
    offset: int  #: of a cut: where in the segment it stood, bytes
    seq: int | None  #: of a cut: of the record that stood there, or should have
    records: int | None  #: of a cut: whole ones in it; None: not counted
    first_seq: int | None  #: of a cut: of the first of them


@dataclass(frozen=True)
class RepairReport:
    """What a repair did, or would do.

    >>> writer.close()
    >>> report = Queue.repair("q", dry_run=True)
    >>> report.found, report.recovery.next_seq, report.recovery.gap_records
    ([], 0, 0)
    """

    dry_run: bool  #: nothing was changed
    found: list[Problem]  #: what is wrong, each with what is done about it
    recovery: Recovery  #: the same in figures


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    >>> first, count = writer.append_many([b"one", b"two"])
    >>> Queue.verify("q")
    VerifyReport(ok=True, records=2, payload_bytes=6, segments=1, readers=1, oldest_seq=0, next_seq=2, problems=[], ...)
    """

    ok: bool  #: no problem was found
    records: int  #: good ones
    payload_bytes: int  #: of those
    segments: int  #: looked at
    readers: int  #: that are registered
    oldest_seq: int  #: the oldest that can be read
    next_seq: int  #: behind the last record
    problems: list[Problem]  #: in the order of the files; in a subinterpreter it may lack what `ok` knows
    notes: list[Problem]  #: what is to be known and no problem: kinds "gap", "foreign", "unreadable", "quarantine"
    gaps: int  #: that a repair has accepted, and retention has not passed yet
    gap_records: int  #: seqs in those


@dataclass(frozen=True)
class GroupInfo:
    """How far a group of workers is: `Queue.groups`.

    >>> seq = writer.append(b"17.jpg")
    >>> with Queue.open_group("q", "resize") as group:
    ...     group.take().ack()
    ...     print(Queue.groups("q")[0].next_new)
    1
    """

    name: str  #: of the group
    window: int  #: how many jobs the newest that was handed out may be ahead of the floor
    keyed: bool  #: jobs of a key are handed out in order
    members: int  #: workers that have joined
    floor: int  #: all jobs below this seq are done
    next_new: int  #: no job at or behind it was handed out yet
    end: int  #: the queue's next seq
    running: int  #: of the jobs from the floor up to next_new: somebody has them
    ready: int  #: they were given back
    delayed: int  #: they were given back for later
    deading: int  #: they are on their way to the dead queue
    done: int  #: they wait for the floor to pass them
    damaged: bool  #: its file cannot be read: nothing but the name is known


@dataclass(frozen=True)
class HeldJob:
    """A job that was handed out and is not done: `Queue.group_jobs`.

    >>> seq = writer.append(b"17.jpg")
    >>> with Queue.open_group("q", "resize") as group:
    ...     group.take().nack(delay=60)
    >>> [(held.state, held.deliveries) for held in Queue.group_jobs("q", "resize")]
    [('delayed', 1)]
    """

    seq: int  #: of the record
    state: str  #: "ready", "running", "delayed" or "deading"
    deliveries: int  #: how often it was handed out
    pid: int | None  #: of the worker that has it, or had it last, if that is known
    alive: bool  #: that worker lives
    for_seconds: float  #: running: how long it has it, to a tenth of a second
    due_seconds: float | None  #: running: until its lease ends; delayed: until it is due; None: never


@dataclass(frozen=True)
class GroupStats:
    """Counters of one `Group`, since it was opened.

    >>> seq = writer.append(b"17.jpg")
    >>> with Queue.open_group("q", "resize") as group:
    ...     group.take().nack()
    ...     group.stats().nacked
    1
    """

    taken: int  #: jobs that were handed out
    redelivered: int  #: of these, not for the first time
    acked: int  #: done
    nacked: int  #: given back
    stale: int  #: receipts that were refused
    reclaimed: int  #: jobs taken from the dead, or from an expired lease
    dead: int  #: jobs that were handed over to the dead queue
    lost: int  #: jobs that retention had deleted undone (on_gap="oldest")
    inherited: int  #: turns taken over from workers that died in them


@dataclass(frozen=True)
class DeadLetter:
    """A job in a dead queue, with its history: `Queue.dead_letters`.

    >>> seq = writer.append(b"17.jpg")
    >>> with Queue.open_group("q", "resize") as group:
    ...     group.take().reject("too large")
    >>> [(letter.seq, letter.why, letter.deliveries) for letter in Queue.dead_letters("q")]
    [(0, 'rejected', 1)]
    """

    dead_seq: int  #: of its history, in the dead queue
    queue: uuid.UUID  #: it comes from
    group: str  #: that gave it up
    seq: int  #: of the record in that queue
    deliveries: int  #: how often it was handed out
    why: str  #: "deliveries" (it was handed out too often) or "rejected"
    reason: str  #: what the worker that rejected it said
    buried_ns: int  #: when, nanoseconds since 1970
    message: Message | None  #: the record as it was, with its seq there; None: it could not be read any more
