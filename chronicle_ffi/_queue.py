# SPDX-License-Identifier: MIT
"""`Queue`: opening writers and readers, and looking at queues from outside."""

from __future__ import annotations

import importlib
import os
import time
import uuid
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, SupportsIndex, TypeAlias, overload

from chronicle_ffi import _arguments
from chronicle_ffi._arguments import Duration, Path, Time, is_time, limit, number, seconds, time_ns
from chronicle_ffi._binding import check, ffi, lib, new_struct, optional_seq, path_bytes, string
from chronicle_ffi._handle import open_into
from chronicle_ffi._reader import QueueReader
from chronicle_ffi._scan import Scan
from chronicle_ffi._structs import all_of, cleanup_report, fields_of, quarantine_file
from chronicle_ffi._walk import Records, Walk
from chronicle_ffi._writer import QueueWriter
from chronicle_ffi.errors import InvalidArgument, RecoveryWarning
from chronicle_ffi.model import (
    CleanupReport,
    Message,
    Problem,
    QuarantineFile,
    QueueInfo,
    ReaderInfo,
    Recovery,
    RepairReport,
    Retention,
    SegmentInfo,
    VerifyReport,
)

if TYPE_CHECKING:
    from chronicle_ffi.archive import ArchivedReader

SEGMENT_SIZE: Final[int] = lib.CHRON_SEGMENT_SIZE_DEFAULT  #: bytes of a segment file unless told otherwise: 64 MiB

Durability: TypeAlias = 'Literal["none", "interval", "batch", "always"]'

_MODE_MAX = 0o777
_U32_MAX = 0xFFFFFFFF
_DURABILITY = {
    "none": lib.CHRON_DURABILITY_NONE,
    "interval": lib.CHRON_DURABILITY_INTERVAL,
    "batch": lib.CHRON_DURABILITY_BATCH,
    "always": lib.CHRON_DURABILITY_ALWAYS,
}
_TORN = {"ask": 0, "cut": lib.CHRON_TORN_CUT, "skip": lib.CHRON_TORN_SKIP}
_CLOCK = {
    "realtime": lib.CHRON_CLOCK_REALTIME,
    "coarse": lib.CHRON_CLOCK_COARSE,
    "counter": lib.CHRON_CLOCK_COUNTER,
}
_START = {
    "resume": lib.CHRON_START_RESUME,
    "earliest": lib.CHRON_START_EARLIEST,
    "latest": lib.CHRON_START_LATEST,
}
_ON_GAP = {"error": lib.CHRON_GAP_ERROR, "oldest": lib.CHRON_GAP_OLDEST, "latest": lib.CHRON_GAP_LATEST}
_WAIT = {"hybrid": lib.CHRON_WAIT_HYBRID, "spin": lib.CHRON_WAIT_SPIN, "sleep": lib.CHRON_WAIT_SLEEP}


class Queue:
    """A directory that holds a log. Never instantiated: each function takes the path.

    >>> with Queue.open_publisher("prices", segment_size=SEGMENT_SIZE) as prices:
    ...     prices.append(b"EURUSD 1.0842")
    0
    >>> with Queue.open_subscriber("prices") as anyone:
    ...     [message.payload for message in anyone]
    [b'EURUSD 1.0842']
    """

    @staticmethod
    def open_publisher(
        path: Path,
        *,
        segment_size: SupportsIndex = SEGMENT_SIZE,
        durability: Durability = "none",
        durability_n: SupportsIndex | None = None,
        keeper: bool = True,
        max_bytes: SupportsIndex | None = None,
        max_segments: SupportsIndex | None = None,
        backpressure: Literal["fail"] | Duration = "fail",
        retention: Retention | None = None,
        clock: Literal["realtime", "coarse", "counter"] = "realtime",
        mode: SupportsIndex | None = None,
        torn: Literal["ask", "cut", "skip"] = "ask",
        repair: bool = False,
        create: bool = True,
        wait: Duration | None = 0.0,
    ) -> QueueWriter:
        """Open a queue for writing; create it if it is not there, recover it if the last writer died.

        :param segment_size: bytes of each segment file, a multiple of 64 KiB; counts when the queue is created.
        :param durability: when records are put on disk: "none" (by `QueueWriter.sync` only: they survive the death
            of any process, not a loss of power), "interval" (every `durability_n` milliseconds, default 100, in the
            background), "batch" (inside append, every `durability_n` records, default 1000), "always" (in each append).
        :param keeper: prepare segments and pages in a background thread of C.
        :param max_bytes: back-pressure: do not let segment files grow beyond this; see `backpressure`.
        :param max_segments: the same as a number of segments, at least 2.
        :param backpressure: what an append does when they have: "fail" raises QueueFull at once, a number waits so
            many seconds for readers first.
        :param retention: what the keeper deletes by itself, and `QueueWriter.cleanup` on request. None: nothing is
            deleted before a call of cleanup(), which then deletes what all readers have consumed.
        :param clock: for timestamps: "coarse" is cheaper and 1 to 4 ms rough; "counter" carries the clock on by the
            processor's counter where the kernel does so itself, at half the cost and within 5 us; elsewhere it is
            "realtime".
        :param mode: permission bits of new files, default 0o600.
        :param torn: what to do about a hole that a loss of power may have left, with more good records behind it than
            in front of it since the last sync: "ask" raises Corrupt, "cut" sets aside what is behind, "skip" keeps it
            and accepts the gap. A shorter torn tail is cut off in any case, with a `RecoveryWarning`.
        :param repair: accept damage: keep all whole records, and give up the others for good, as a gap.
        :param create: False raises QueueNotFound instead of making a queue.
        :param wait: seconds to wait for another writer to close; None: without limit. Ctrl-C ends it.

        Warns with RecoveryWarning if records are missing since the last writer (`QueueWriter.recovery`).

        Raises WriterAlreadyActive, Corrupt (something is damaged: restore it, or `repair`), NotDurable, NoSpace,
        AccessDenied, UnsupportedFormat, NetworkFileSystem, QueueNotFound, InvalidArgument.

        >>> with Queue.open_publisher("orders", durability="always") as orders:
        ...     orders.append(b"buy 100")
        ...     orders.durable_seq
        0
        0
        """
        options = new_struct("chron_writer_options")
        options.flags = lib.CHRON_CHECKED
        if keeper:
            options.flags |= lib.CHRON_KEEPER
        if repair:
            options.flags |= lib.CHRON_REPAIR
        options.flags |= _choice("torn", _TORN, torn)
        if not create:
            options.flags |= lib.CHRON_MUST_EXIST
        options.segment_size = number("segment_size", segment_size)
        if not options.segment_size:  # in C that is the default; here it is a mistake
            raise InvalidArgument("segment_size is 0: the smallest is 65536 bytes, the default SEGMENT_SIZE")
        options.durability = _choice("durability", _DURABILITY, durability)
        if durability_n is not None:
            options.durability_n = number("durability_n", durability_n, _U32_MAX)
        options.clock = _choice("clock", _CLOCK, clock)
        options.mode = 0 if mode is None else number("mode", mode, _MODE_MAX)
        options.max_bytes = limit("max_bytes", max_bytes)
        options.max_segments = limit("max_segments", max_segments)
        if retention is not None:
            limits = _limits(retention)
            limits.automatic = 1
            options.retention = limits
        wait_seconds = _backpressure(backpressure)
        where = path_bytes(path)
        writer = QueueWriter(
            _arguments.path(path),
            wait_seconds,
            has_keeper=bool(keeper),
            append_may_wait=durability in ("batch", "always"),
            cleanup_may_wait=durability != "none",
        )
        open_it = partial(open_into, writer, lambda out: lib.chron_writer_open(where, options, out))
        try:
            _retry(open_it, lib.CHRON_EWRITER, wait)
            if loss := writer.recovery.loss():
                warnings.warn(f"{_arguments.path(path)}: {loss}", RecoveryWarning, stacklevel=2)
        except BaseException:  # the filter may make it an exception; or a signal came
            writer.close()
            raise
        return writer

    @overload
    @staticmethod
    def open_subscriber(
        path: Path,
        name: str | None = None,
        *,
        start: Literal["resume", "earliest", "latest"] | Time = "resume",
        on_gap: Literal["error", "oldest", "latest"] = "error",
        durable_only: bool = False,
        waiting: Literal["hybrid", "spin", "sleep"] = "hybrid",
        mode: SupportsIndex | None = None,
        wait: Duration | None = 0.0,
        archive: None = None,
    ) -> QueueReader: ...
    @overload
    @staticmethod
    def open_subscriber(
        path: Path | None,
        name: str | None = None,
        *,
        start: Literal["resume", "earliest", "latest"] | Time = "resume",
        on_gap: Literal["error", "oldest", "latest"] = "error",
        durable_only: bool = False,
        waiting: Literal["hybrid", "spin", "sleep"] = "hybrid",
        mode: SupportsIndex | None = None,
        wait: Duration | None = 0.0,
        archive: Any,
    ) -> ArchivedReader: ...
    @staticmethod
    def open_subscriber(
        path: Path | None,
        name: str | None = None,
        *,
        start: Literal["resume", "earliest", "latest"] | Time = "resume",
        on_gap: Literal["error", "oldest", "latest"] = "error",
        durable_only: bool = False,
        waiting: Literal["hybrid", "spin", "sleep"] = "hybrid",
        mode: SupportsIndex | None = None,
        wait: Duration | None = 0.0,
        archive: Any = None,
    ) -> QueueReader | ArchivedReader:
        """Open a queue for reading.

        :param name: [A-Za-z0-9._-]{1,64}, not beginning with a dot: registers the reader; it gets a stored position,
            and retention waits for it. None: nothing is stored, and read permission suffices.
        :param start: "resume" (at the committed position; at the oldest record if there is none), "earliest", "latest",
            a seq, or a datetime (a naive one is local time) or datetime64 of numpy.
        :param on_gap: what to do if the record wanted next was deleted: raise SegmentGone, or go on at the "oldest" or
            "latest" one; `QueueReader.stats` counts what was skipped.
        :param durable_only: see only records that survive a loss of power.
        :param waiting: how `QueueReader.wait` waits: "spin" has the lowest latency and uses a whole processor, "sleep"
            the least work, "hybrid" spins for some microseconds first.
        :param mode: permission bits of a new position file; by default its owner may write to it, and read it whoever
            may read the queue: retention has to.
        :param wait: seconds to wait for the queue to exist; None: without limit. Ctrl-C ends it.
        :param archive: where `chronicle_ffi.archive` has put what is older, "s3://bucket/prefix" or a directory: the
            reader is a `chronicle_ffi.archive.ArchivedReader`, which goes on there for what the queue has not. With it
            `path` may be None, and the archive is all there is. Needs ``pip install 'chronicle-ffi[archive]'``.

        Raises QueueNotFound, ReaderAlreadyActive, SegmentGone, SeqOutOfRange, HistoryRewritten, Corrupt,
        UnsupportedFormat, AccessDenied, InvalidArgument.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> with Queue.open_subscriber("q", start=1) as anyone:
        ...     anyone.next().payload
        b'two'
        """
        if archive is not None:
            choices = {"durable_only": durable_only, "waiting": waiting, "mode": mode, "wait": wait}
            reader: ArchivedReader = _archives().open_subscriber(
                path, archive, name, start=start, on_gap=on_gap, **choices
            )
            return reader
        return _open_local(path, name, start, on_gap, durable_only, waiting, mode, wait)

    @staticmethod
    def scan(
        path: Path | None,
        *,
        start: Literal["earliest"] | Time = "earliest",
        stop: Time | None = None,
        batch_records: SupportsIndex = 16384,
        durable_only: bool = False,
        archive: Any = None,
    ) -> Scan:
        """Records as columns: those from `start` up to, not including, `stop`, both settled now; see `Scan`.

        A time stands for one place in the log, as `QueueReader.seek_time` finds it: the first record, in order of seq,
        that is not older. So where timestamps go back (the clock was set), a scan between two times leaves out what
        lies behind its stop with older timestamps, and holds what lies in between with others: scan to the end, and
        pick by the column `timestamp_ns`.

        :param start: "earliest", a seq, or a datetime (the first record not older than it).
        :param stop: a seq, a datetime (up to the first record not older than it), or None: the end as it is now.
        :param batch_records: at most so many in one batch; a batch never leaves its segment.
        :param archive: what the queue has not any more, as for `open_subscriber`; `path` may then be None.

        Raises as `open_subscriber`.

        >>> first, count = writer.append_many([b"one", b"two", b"three", b"four"])
        >>> with Queue.scan("q", start=1, stop=3) as scan:
        ...     [batch.payloads() for batch in scan]
        [[b'two', b'three']]
        """
        batch_records = number("batch_records", batch_records, least=1)
        if path is not None:
            path = os.path.abspath(_arguments.path(path))  # it may be gone through from another working directory
        if isinstance(archive, (str, os.PathLike)) and "://" not in os.fspath(archive):
            archive = os.path.abspath(archive)

        def open_at(at: Any) -> QueueReader | ArchivedReader:
            reader = Queue.open_subscriber(path, start=at, durable_only=durable_only, archive=archive)
            return reader

        with open_at(start) as reader:
            begin = reader.position
            if stop is None:
                end = begin + reader.lag
            elif is_time(stop):
                reader.seek_time(time_ns("stop", stop))
                end = reader.position
            else:
                end = number("stop", stop)
        return Scan(open_at, begin, end, batch_records)

    @staticmethod
    def info(path: Path) -> QueueInfo:
        """Look at a queue, in use or not. Read permission suffices.

        >>> seq = writer.append(b"one")
        >>> info = Queue.info("q")
        >>> info.next_seq, info.durable_seq, info.writer_pid == os.getpid()
        (1, -1, True)
        """
        out = new_struct("chron_queue_info")
        check(lib.chron_queue_info_get(path_bytes(path), out))
        durable = optional_seq(out.durable_seq)
        return QueueInfo(
            uuid=uuid.UUID(bytes=bytes(out.uuid)),
            segment_size=out.segment_size,
            created_ns=out.created_ns,
            oldest_seq=out.oldest_seq,
            next_seq=out.next_seq,
            durable_seq=-1 if durable is None else durable,
            epoch=out.epoch,
            segments=out.segments,
            bytes=out.bytes,
            writer_pid=out.writer_pid or None,
            writer_start_ns=out.writer_start_ns,
            writer_host=string(out.writer_host) or None,
            writer_alive=bool(out.writer_alive),
            clean=bool(out.clean),
            format_version=out.format_version,
            quarantine_files=out.quarantine_files,
            quarantine_bytes=out.quarantine_bytes,
            meta_lost=bool(out.meta_lost),
        )

    @staticmethod
    def segments(path: Path) -> list[SegmentInfo]:
        """The segment files, oldest first.

        >>> first, count = writer.append_many([bytes(1000)] * 100)
        >>> [(segment.base_seq, segment.next_seq, segment.sealed) for segment in Queue.segments("q")]
        [(0, 54, True), (54, 100, False)]
        """
        where = path_bytes(path)
        return all_of(
            partial(fields_of, SegmentInfo),
            "chron_segment_info",
            lambda out, n: lib.chron_queue_segments(where, out, n),
        )

    @staticmethod
    def readers(path: Path) -> list[ReaderInfo]:
        """The registered readers, by name.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> [(known.name, known.position, known.lag, known.alive) for known in Queue.readers("q")]
        [('me', 0, 3, True)]
        """
        where = path_bytes(path)
        return all_of(
            partial(fields_of, ReaderInfo), "chron_reader_info", lambda out, n: lib.chron_queue_readers(where, out, n)
        )

    @staticmethod
    def remove_reader(path: Path, name: str) -> None:
        """Unregister a reader that is not running. Raises ReaderAlreadyActive if it is, QueueNotFound if unknown.

        >>> Queue.open_subscriber("q", "visitor").close()
        >>> Queue.remove_reader("q", "visitor")
        >>> [known.name for known in Queue.readers("q")]
        ['me']
        """
        check(lib.chron_queue_reader_remove(path_bytes(path), _arguments.name(name)))

    @staticmethod
    def cleanup_plan(path: Path, retention: Retention | None = None) -> CleanupReport:
        """What `QueueWriter.cleanup` would do with this retention, and why. Deletes nothing.

        >>> first, count = writer.append_many([bytes(1000)] * 100)
        >>> for fate in Queue.cleanup_plan("q").segments:
        ...     print(fate.base_seq, fate.deleted, fate.reason)
        0 False reader me has not committed past it
        54 False the writer appends to it, or will
        """
        limits = _limits(retention or Retention())
        where = path_bytes(path)
        return cleanup_report(lambda out, fates, n: lib.chron_queue_cleanup_plan(where, limits, out, fates, n))

    @staticmethod
    def verify(path: Path, progress: Callable[[str, int], None] | None = None) -> VerifyReport:
        """Read everything and check it: every CRC, every link between files. May run beside a live writer.

        ``progress(file, seq)`` is called now and then. Ctrl-C works, and so does an exception from `progress`.

        >>> seq = writer.append(b"one")
        >>> report = Queue.verify("q")
        >>> report.ok, report.records, report.problems
        (True, 1, [])
        """
        walk = Walk(progress)
        where = path_bytes(path)
        summary = new_struct("chron_verify_summary")
        walk.run(lambda report, context: lib.chron_queue_verify(where, report, context, summary))
        return VerifyReport(
            ok=summary.problems == 0,  # not by what was heard: in a subinterpreter that may be nothing
            records=summary.records,
            payload_bytes=summary.payload_bytes,
            segments=summary.segments,
            readers=summary.readers,
            oldest_seq=summary.oldest_seq,
            next_seq=summary.next_seq,
            problems=walk.problems,
            notes=walk.notes,
            gaps=summary.gaps,
            gap_records=summary.gap_records,
        )

    @staticmethod
    def repair(
        path: Path,
        *,
        dry_run: bool = False,
        approve: Callable[[list[Problem]], bool] | None = None,
        progress: Callable[[str, int], None] | None = None,
    ) -> RepairReport:
        """Put a queue in order that is damaged. All whole records stay; those that cannot be had are given up for good.

        Their seqs are not given away again, and readers meet them as what retention deleted. What is known from
        elsewhere is made anew: queue.meta from any segment's header, headers, seals, the index. What is set aside is
        kept in quarantine/. The whole log is read first; ``progress(file, seq)`` is called now and then.

        :param dry_run: change nothing, only tell: takes no lock, and read permission suffices.
        :param approve: called with all that was found, before anything is changed; if it returns False, nothing is.

        Raises WriterAlreadyActive, QueueNotFound, Interrupted (`approve` said no), Corrupt (nothing is left to make
        queue.meta from, or segments of several queues are mixed), StorageError, AccessDenied, NoSpace.

        >>> writer.close(); reader.close()
        >>> Path("q", "queue.meta").write_bytes(bytes(4096))
        4096
        >>> for found in Queue.repair("q", dry_run=True).found:
        ...     print(found.file, found.action)
        queue.meta anew
        >>> report = Queue.repair("q")
        >>> Queue.verify("q").ok
        True
        """
        Walk.must_be_heard()
        walk = Walk(progress, approve)
        where = path_bytes(path)
        recovery = new_struct("chron_recovery")
        flags = lib.CHRON_DRY_RUN if dry_run else 0
        walk.run(lambda report, context: lib.chron_queue_repair(where, flags, report, context, recovery))
        return RepairReport(dry_run=dry_run, found=walk.problems, recovery=fields_of(Recovery, recovery))

    @staticmethod
    def quarantine(path: Path) -> list[QuarantineFile]:
        """What recovery and repairs have set aside, oldest first. Read permission suffices.

        >>> Queue.quarantine("q")
        []
        """
        where = path_bytes(path)

        def fill(array: Any, capacity: int) -> int:
            return int(lib.chron_queue_quarantine(where, array, capacity))

        return all_of(quarantine_file, "chron_quarantine_file", fill)

    @staticmethod
    def read_quarantine(path: Path, name: str, each: Callable[[Message], object]) -> int:
        """Call `each` with every whole record in a file of quarantine/, by seq; return how many there were.

        They were cut off, or taken away, for a reason: the log may have other records of these seqs.

        Raises QueueNotFound (no such file), InvalidArgument (`name` is none of a file with records), Corrupt,
        StorageError, AccessDenied, NotSupported (in a subinterpreter), and what `each` raises.

        >>> for file in Queue.quarantine("q"):
        ...     if file.kind != "file":
        ...         Queue.read_quarantine("q", file.name, print)
        """
        return Records(each).run(path_bytes(path), path_bytes(name))


def _open_local(
    path: Any,
    name: str | None,
    start: Any,
    on_gap: str,
    durable_only: bool,
    waiting: str,
    mode: SupportsIndex | None,
    wait: Duration | None,
) -> QueueReader:
    options = new_struct("chron_reader_options")
    options.flags = lib.CHRON_CHECKED | (lib.CHRON_DURABLE_ONLY if durable_only else 0)
    encoded = None
    if name is not None:
        encoded = ffi.new("char[]", _arguments.name(name))
        options.name = encoded
    if isinstance(start, str):
        options.start = _choice("start", _START, start)
    elif is_time(start):
        options.start = lib.CHRON_START_TIME
        options.start_value = time_ns("start", start)
    else:
        options.start = lib.CHRON_START_SEQ
        options.start_value = number("start", start)
    options.on_gap = _choice("on_gap", _ON_GAP, on_gap)
    options.wait = _choice("waiting", _WAIT, waiting)
    options.mode = 0 if mode is None else number("mode", mode, _MODE_MAX)
    where = path_bytes(path)
    reader = QueueReader(_arguments.path(path), name)
    open_it = partial(open_into, reader, lambda out: lib.chron_reader_open(where, options, out))
    try:
        _retry(open_it, lib.CHRON_ENOQUEUE, wait)
    except BaseException:
        reader.close()
        raise
    return reader


def _archives() -> Any:
    """The package that stands above this one, and that only who asks for it needs to have."""
    return importlib.import_module("chronicle_ffi.archive")


# ------------------------------------------------------------------------------------------- arguments


def _choice(what: str, choices: dict[str, int], value: str) -> int:
    try:
        return choices[value]
    except (KeyError, TypeError):
        allowed = ", ".join(repr(choice) for choice in choices)
        raise InvalidArgument(f"{what} is {value!r}; it can be {allowed}") from None


def _milliseconds(what: str, value: Duration | None) -> int:
    if value is None:
        return 0
    found = int(seconds(what, value, 1e12) * 1000)
    if not found:
        raise InvalidArgument(f"{what} is {value}: a time of at least a millisecond, or None")
    return found


_RETRY_SECONDS = 0.01


def _retry(call: Callable[[], int], code: int, wait: Duration | None) -> None:
    """Until the call succeeds, or fails for another reason than `code`, or `wait` is over."""
    deadline = None if wait is None else time.monotonic_ns() + int(seconds("wait", wait) * 1e9)
    while (status := call()) == -code and (deadline is None or time.monotonic_ns() < deadline):
        time.sleep(_RETRY_SECONDS)
    check(status)


def _backpressure(value: str | Duration) -> float:
    if value == "fail":
        return 0.0
    if isinstance(value, str):
        raise InvalidArgument(f'backpressure is {value!r}; it can be "fail", or how many seconds an append waits')
    found = seconds("backpressure", value)
    if (value.total_seconds() if isinstance(value, timedelta) else float(value)) < 0:  # no time left, but a mistake
        raise InvalidArgument(f"backpressure is {value}: it cannot be below 0")
    return found


def _limits(retention: Retention) -> Any:
    struct = new_struct("chron_retention")
    struct.max_bytes = limit("max_bytes", retention.max_bytes)
    struct.max_segments = limit("max_segments", retention.max_segments)
    struct.max_age_ms = _milliseconds("max_age", retention.max_age)
    struct.reader_ttl_ms = _milliseconds("reader_ttl", retention.reader_ttl)
    struct.max_reader_lag = limit("max_reader_lag", retention.max_reader_lag)
    struct.quarantine_max_bytes = limit("quarantine_max_bytes", retention.quarantine_max_bytes)
    struct.quarantine_max_age_ms = _milliseconds("quarantine_max_age", retention.quarantine_max_age)
    return struct
