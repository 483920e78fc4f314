# SPDX-License-Identifier: MIT
"""From structs of C to the dataclasses in model.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any, TypeVar

from chronicle_ffi._binding import check, lib, new_array, new_struct, optional_seq, string
from chronicle_ffi.model import CleanupReport, QuarantineFile, SegmentFate

T = TypeVar("T")

_REASONS = {
    lib.CHRON_KEPT_ACTIVE: "the writer appends to it, or will",
    lib.CHRON_KEPT_READER: "reader {reader} has not committed past it",
    lib.CHRON_KEPT_NO_READERS: "no reader is registered, and no limit asks for its deletion",
    lib.CHRON_KEPT_EARLIER: "an older segment is kept",
    lib.CHRON_KEPT_DAMAGED: "the position of reader {reader} cannot be read: {why}",
    lib.CHRON_GONE_CONSUMED: "every reader that counts has committed past it",
    lib.CHRON_GONE_BYTES: "limit max_bytes",
    lib.CHRON_GONE_SEGMENTS: "limit max_segments",
    lib.CHRON_GONE_AGE: "limit max_age",
    lib.CHRON_KEPT_SNAPSHOT: "the newest snapshot lies in it, or before it",
}
_KEPT = {
    lib.CHRON_QUARANTINE_SEGMENT: "segment",
    lib.CHRON_QUARANTINE_CUT: "cut",
    lib.CHRON_QUARANTINE_FILE: "file",
}


_CLOCK_WAS_SET_MS = 60_000  # a smaller difference is not worth a word


def _clock_was_set(age_ms: int, clock_ms: int) -> str:
    if abs(clock_ms) < _CLOCK_WAS_SET_MS:
        return ""
    passed, shown = timedelta(seconds=age_ms // 1000), timedelta(seconds=abs(age_ms + clock_ms) // 1000)
    when = f"{shown} ago" if age_ms + clock_ms >= 0 else f"in {shown}"
    return f" (sealed {passed} ago; by the wall clock, which was set since, {when})"


def fields_of(kind: type[T], struct: Any) -> T:
    """A dataclass of model.py from a struct whose members have the names of its fields."""
    values: dict[str, Any] = {}
    for item in fields(kind):  # type: ignore[arg-type]
        value = getattr(struct, item.name)
        if item.type == "bool":
            value = bool(value)
        elif item.type == "str":
            value = string(value)
        values[item.name] = value
    return kind(**values)


def all_of(make: Callable[[Any], T], struct: str, fill: Callable[[Any, int], int]) -> list[T]:
    """`make` each from a struct.

    Call `fill` with ever larger arrays until everything fits; what it returns is how many there are.

    The array's elements do not keep it alive, so they are read here.
    """
    capacity = 64
    while True:
        array = new_array(struct, capacity)
        count = check(fill(array, capacity))
        if count <= capacity:
            return [make(array[i]) for i in range(count)]
        capacity = count + 16


def quarantine_file(struct: Any) -> QuarantineFile:
    return QuarantineFile(
        name=string(struct.name),
        kind=_KEPT[struct.kind],
        bytes=struct.bytes,
        kept_ns=struct.kept_ns,
        epoch=struct.epoch,
        base_seq=optional_seq(struct.base_seq),
        offset=struct.offset,
        seq=optional_seq(struct.seq),
        records=optional_seq(struct.records),
        first_seq=optional_seq(struct.first_seq),
    )


# A cleanup cannot be repeated to see more, so the room is ample: 64 Ki segments, 7 MiB, for a moment.
CLEANUP_FATES = 1 << 16


def cleanup_report(call: Callable[[Any, Any, int], int], capacity: int = CLEANUP_FATES) -> CleanupReport:
    """`call(out, fates, capacity)` is one of C's cleanup functions; it tells about all segments of now."""
    out = new_struct("chron_cleanup")
    collected: list[SegmentFate] = []
    fates = new_array("chron_segment_fate", max(capacity, 1))
    check(call(out, fates, capacity))
    for fate in (fates[i] for i in range(min(out.segments, capacity))):
        reader = string(fate.reader) or None
        why = os.strerror(fate.sys_errno) if fate.sys_errno else "it is damaged"
        collected.append(
            SegmentFate(
                base_seq=fate.base_seq,
                next_seq=fate.next_seq,
                bytes=fate.bytes,
                reason=_REASONS[fate.reason].format(reader=reader, why=why)
                + _clock_was_set(fate.age_ms, fate.clock_ms),
                deleted=lib.CHRON_GONE_CONSUMED <= fate.reason <= lib.CHRON_GONE_AGE,
                reader=reader,
                age_ms=fate.age_ms,
                clock_ms=fate.clock_ms,
            )
        )
    return CleanupReport(
        deleted_segments=out.deleted_segments,
        deleted_bytes=out.deleted_bytes,
        oldest_seq=out.oldest_seq,
        readers=out.readers,
        readers_ignored=out.readers_ignored,
        readers_behind=out.readers_behind,
        quarantine_files=out.quarantine_files,
        quarantine_bytes=out.quarantine_bytes,
        quarantine_deleted_files=out.quarantine_deleted_files,
        quarantine_deleted_bytes=out.quarantine_deleted_bytes,
        segments=collected,
    )
