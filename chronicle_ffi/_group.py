# SPDX-License-Identifier: MIT
"""`Group` and `Job`: records as jobs, each for one of several workers."""

from __future__ import annotations

import json
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Final, SupportsIndex

from chronicle_ffi._arguments import Duration, number, seconds
from chronicle_ffi._binding import SLICE_NS, check, deadline_ns, ffi, lib, new_array, new_struct
from chronicle_ffi._fast import Member
from chronicle_ffi._handle import Handle
from chronicle_ffi._structs import fields_of
from chronicle_ffi._walk import Walk
from chronicle_ffi.errors import GroupFull, WrongType
from chronicle_ffi.model import DeadLetter, GroupStats, Message

TAKE_MAX: Final[int] = lib.CHRON_GROUP_TAKE_MAX
HISTORY_TYPE: Final[int] = lib.CHRON_TYPE_MAX  # type_id of a record that tells what the one before it has been through
LOOK_SECONDS: Final = 0.1  # deaths, leases and delays ring no bell

Key = str | bytes | int


class Job:
    """One record, to be dealt with by this worker: end it with `ack`, `nack` or `reject`.

    As a context manager it is acknowledged at the end of the block, and given back if that raises.

    >>> seq = writer.append(b"resize 17.jpg")
    >>> with Queue.open_group("q", "resize") as group:
    ...     with group.take() as job:
    ...         job.seq, job.payload, job.delivery
    (0, b'resize 17.jpg', 1)
    """

    __slots__ = ("_group", "_receipt", "delivery", "message")

    def __init__(self, group: Group, message: Message, delivery: int, receipt: int) -> None:
        self._group = group
        self._receipt = receipt
        self.message = message  #: the record
        self.delivery = delivery  #: how often it was handed out, this time included

    @property
    def seq(self) -> int:
        """Of the record.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().seq
        0
        """
        return self.message.seq

    @property
    def payload(self) -> bytes:
        """Of the record.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().payload
        b'17.jpg'
        """
        return self.message.payload

    @property
    def type_id(self) -> int:
        """Of the record.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().type_id
        3
        """
        return self.message.type_id

    @property
    def timestamp_ns(self) -> int:
        """Of the record.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().timestamp_ns
        5
        """
        return self.message.timestamp_ns

    def ack(self, *, sync: bool = False) -> None:
        """It is done. With `sync` that is on disk before this returns; otherwise it survives the death of any process.

        Raises StaleReceipt if it is not this worker's any more.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().ack()
        ...     print(group.take())
        None
        """
        self._group._settle(lib.chron_group_ack, self, sync)

    def nack(self, delay: Duration = 0.0) -> None:
        """Give it back: others may have it, after `delay` seconds by the wall clock. Raises StaleReceipt.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().nack()
        ...     group.take().delivery
        2
        """
        self._group._settle(lib.chron_group_nack, self, _ns("delay", delay))

    def extend(self, lease: Duration | None = None) -> None:
        """Keep it for so many seconds from now; None: for as long as the group's lease. Raises StaleReceipt.

        >>> seq = writer.append(b"17.jpg")
        >>> with Queue.open_group("q", "resize", lease=10) as group:
        ...     job = group.take()
        ...     job.extend(60)
        ...     round(Queue.group_jobs("q", "resize")[0].due_seconds)
        60
        """
        ns = self._group._lease_ns if lease is None else max(_ns("lease", lease), 1)
        self._group._settle(lib.chron_group_extend, self, ns)

    def reject(self, reason: str = "") -> None:
        """Hand it over to the dead queue now, with the reason in its history. Raises StaleReceipt, NoSpace, ...

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().reject("too large")
        >>> Queue.dead_letters("q")[0].reason
        'too large'
        """
        if not isinstance(reason, str):
            raise WrongType(f"a reason is a str, not {reason!r}")
        text = reason.replace("\0", " ").encode("utf-8", "replace")
        self._group._settle(lib.chron_group_reject, self, text)

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.ack()
        elif not self._group.closed:
            self.nack()

    def __repr__(self) -> str:
        return f"<Job {self.seq} of the group {self._group.name}, delivery {self.delivery}>"


class Group(Handle, Member):
    """A worker's place in a group: it takes jobs, and settles them. Made by `Queue.open_group`.

    Any number of processes and tasks may be in a group. A `Group` belongs to one thread at a time, and its jobs are
    settled through it; tasks of one event loop may share one.

    >>> first, count = writer.append_many([b"17.jpg", b"18.jpg"])
    >>> with Queue.open_group("q", "resize") as group:
    ...     for job in group.follow(timeout=0.01):
    ...         print(job.payload)
    ...         job.ack()
    b'17.jpg'
    b'18.jpg'
    """

    def __init__(self, path: str, name: str, lease_ns: int, key: Callable[[Message], Key] | None) -> None:
        super().__init__("chron_group", lib.chron_group_bell, path)
        self._name = name
        self._lease_ns = lease_ns
        self._key = key
        self._raised: BaseException | None = None
        self._context = ffi.new_handle(self) if key is not None else ffi.NULL

    @property
    def name(self) -> str:
        """Of the group.

        >>> with Queue.open_group("q", "resize") as group:
        ...     group.name
        'resize'
        """
        return self._name

    # --------------------------------------------------------------------------------------- taking

    def take(self, timeout: Duration | None = 0.0) -> Job | None:
        """A job that nobody has; None if none came within `timeout` seconds (None: wait without limit).

        Raises GroupFull if there are jobs, but the window stayed full all the time; Corrupt and SegmentGone for one
        that cannot be read (it comes again, and ends in the dead queue); and what handing over to that meets.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take()
        <Job 0 of the group resize, delivery 1>
        """
        jobs = self.take_many(1, timeout)
        return jobs[0] if jobs else None

    def take_many(self, count: SupportsIndex, timeout: Duration | None = 0.0) -> list[Job]:
        """Up to `count` jobs, at most 256, as `take`; fewer if there are no more now. One that comes again comes alone.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> with Queue.open_group("q", "resize") as group:
        ...     [job.payload for job in group.take_many(2)]
        [b'one', b'two']
        """
        wanted = number("count", count, least=1)
        now = time.monotonic_ns()
        deadline = deadline_ns(timeout, now)
        while True:
            full = None
            try:
                if jobs := self._take(wanted):
                    return jobs
            except GroupFull as window:
                full = window
            left = SLICE_NS if deadline is None else min(max(deadline - now, 0), SLICE_NS)
            if left:
                self._ask(lib.chron_group_wait(self._handle, left))
            now = time.monotonic_ns()
            if deadline is not None and now >= deadline and not left:
                if full is not None:
                    raise full
                return []

    def follow(self, timeout: Duration | None = None) -> Iterator[Job]:
        """Jobs as they come: for ever, or until none has come for `timeout` seconds.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     for job in group.follow(timeout=0.01):
        ...         job.ack()
        ...     group.stats().acked
        1
        """
        while (job := self.take(timeout)) is not None:
            yield job

    def __iter__(self) -> Iterator[Job]:
        """All jobs, waiting for more for ever: ``for job in group``."""
        return self.follow()

    async def take_async(self, timeout: Duration | None = None) -> Job | None:
        """`take` on the running event loop: other tasks go on; None waits without limit.

        >>> seq = writer.append(b"one")
        >>> async def first() -> bytes:
        ...     with Queue.open_group("q", "resize") as group:
        ...         job = await group.take_async()
        ...         return job.payload
        >>> asyncio.run(first())
        b'one'
        """
        now = time.monotonic_ns()
        deadline = deadline_ns(timeout, now)
        while True:
            full = None
            try:
                if jobs := self._take(1):
                    return jobs[0]
            except GroupFull as window:
                full = window
            if deadline is not None and now >= deadline:
                if full is not None:
                    raise full
                return None
            left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, (deadline - now) / 1e9)
            await self._until(self._arm, left)
            now = time.monotonic_ns()

    async def __aiter__(self) -> AsyncIterator[Job]:
        """All jobs, on the running event loop: ``async for job in group``."""
        import asyncio

        while True:
            job = await self.take_async()
            if job is not None:
                yield job
            await asyncio.sleep(0)

    def _take(self, count: int) -> list[Job]:
        out = new_array("chron_job", min(count, TAKE_MAX))
        taken = self._ask(lib.chron_group_take(self._handle, out, len(out)))
        return [self._job(out[i]) for i in range(taken)]

    def _job(self, job: Any) -> Job:
        payload = bytes(ffi.buffer(job.payload, job.length)) if job.length else b""
        message = Message(job.seq, job.timestamp_ns, job.type_id, job.flags, payload)
        return Job(self, message, job.delivery, job.receipt)

    def _settle(self, call: Callable[..., int], job: Job, *how: Any) -> None:
        check(call(self._handle, job.seq, job._receipt, *how))

    def _arm(self) -> bool | None:
        status = lib.chron_group_arm(self._handle)
        if status == -lib.CHRON_EACCESS:
            return None
        return self._ask(status) == 1

    def _ask(self, status: int) -> int:
        """Raise what the key function has raised, or what C has met; a signal is Python's business."""
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if status == -lib.CHRON_EINTR:
            return 0
        return check(status)

    # ------------------------------------------------------------------------------- whoever has it

    def release(self, seq: SupportsIndex) -> None:
        """Take a job from whoever has it, or end its delay: others may have it. SeqOutOfRange if nobody has it.

        >>> seq = writer.append(b"one")
        >>> with Queue.open_group("q", "resize") as hung, Queue.open_group("q", "resize") as other:
        ...     job = hung.take()
        ...     other.release(job.seq)
        ...     other.take().delivery
        2
        """
        check(lib.chron_group_release(self._handle, number("seq", seq)))

    def bury(self, seq: SupportsIndex, reason: str = "") -> None:
        """Hand a job over to the dead queue, whoever has it. SeqOutOfRange if it is done, or was never handed out.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     job = group.take()
        ...     group.bury(0, "it hangs")
        >>> Queue.dead_letters("q")[0].reason
        'it hangs'
        """
        text = reason.replace("\0", " ").encode("utf-8", "replace")
        check(lib.chron_group_bury(self._handle, number("seq", seq), text))

    def sync(self) -> None:
        """Put on disk what was acknowledged so far: it is not handed out again even after a loss of power.

        >>> seq = writer.append(b"17.jpg", type_id=3, timestamp_ns=5)
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().ack()
        ...     group.sync()
        """
        check(lib.chron_group_sync(self._handle))

    def stats(self) -> GroupStats:
        """Counters since it was opened.

        >>> seq = writer.append(b"one")
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().ack()
        ...     group.stats().acked
        1
        """
        out = new_struct("chron_group_stats")
        check(lib.chron_group_stats_get(self._handle, out))
        return fields_of(GroupStats, out)

    def __repr__(self) -> str:
        return f"<Group {self._name!r} of {self._path!r}{' (closed)' if self._closed else ''}>"


def _ns(what: str, value: Duration) -> int:
    return int(seconds(what, value) * 1e9)


def _hash(key: Key) -> int:
    """The same in every process: Python's own hash of a str is not."""
    if isinstance(key, str):
        key = key.encode("utf-8", "surrogatepass")
    elif isinstance(key, int):
        key = b"%d" % key
    if not isinstance(key, bytes):
        raise WrongType(f"a key is a str, bytes or an int, not {key!r}")
    return zlib.crc32(key)


def _stopped(kind: type[BaseException], raised: BaseException, trace: Any) -> None:
    group: Group = ffi.from_handle(trace.tb_frame.f_locals["context"])
    group._raised = raised


@ffi.def_extern(error=-1, onerror=_stopped)  # type: ignore[misc, unused-ignore]
def chronicle_on_key(context: Any, record: Any) -> int:
    group: Group = ffi.from_handle(context)
    payload = bytes(ffi.buffer(record.payload, record.length)) if record.length else b""
    assert group._key is not None
    return _hash(group._key(Message(record.seq, record.timestamp_ns, record.type_id, record.flags, payload)))


def set_key(group: Group, options: Any) -> None:
    """Have C ask the group for keys."""
    if group._key is not None:
        Walk.must_be_heard()
        options.key, options.key_context = lib.chronicle_on_key, group._context


def letters(records: Iterator[Message]) -> Iterator[DeadLetter]:
    """Of the records of a dead queue."""
    before: Message | None = None
    for record in records:
        if record.type_id == HISTORY_TYPE and record.payload.startswith(b'{"dead_letter":1,'):
            told = json.loads(record.payload)
            yield DeadLetter(
                dead_seq=record.seq,
                queue=uuid.UUID(told["queue"]),
                group=told["group"],
                seq=told["seq"],
                deliveries=told["deliveries"],
                why=told["why"],
                reason=told["reason"],
                buried_ns=told["buried_ns"],
                message=before._replace(seq=told["seq"]) if told["readable"] and before is not None else None,
            )
        before = record
