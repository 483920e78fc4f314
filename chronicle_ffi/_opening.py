# SPDX-License-Identifier: MIT
"""What opening a writer or a reader takes, made into options of C; and trying again while somebody else is there."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex

from chronicle_ffi import _arguments
from chronicle_ffi._arguments import TYPE_ID_MAX, Duration, limit, number, seconds
from chronicle_ffi._binding import check, ffi, lib, new_struct, path_bytes
from chronicle_ffi._handle import open_into
from chronicle_ffi._options import MODE_MAX, ON_GAP, choice, start_of
from chronicle_ffi._reader import QueueReader
from chronicle_ffi.errors import InvalidArgument
from chronicle_ffi.model import Retention

if TYPE_CHECKING:
    from chronicle_ffi.schema import Table

DURABILITY = {
    "none": lib.CHRON_DURABILITY_NONE,
    "interval": lib.CHRON_DURABILITY_INTERVAL,
    "batch": lib.CHRON_DURABILITY_BATCH,
    "always": lib.CHRON_DURABILITY_ALWAYS,
}
TORN = {"ask": 0, "cut": lib.CHRON_TORN_CUT, "skip": lib.CHRON_TORN_SKIP}
CLOCK = {
    "realtime": lib.CHRON_CLOCK_REALTIME,
    "coarse": lib.CHRON_CLOCK_COARSE,
    "counter": lib.CHRON_CLOCK_COUNTER,
}
WAIT = {"hybrid": lib.CHRON_WAIT_HYBRID, "spin": lib.CHRON_WAIT_SPIN, "sleep": lib.CHRON_WAIT_SLEEP}


def open_local(
    path: Any,
    name: str | None,
    start: Any,
    types: frozenset[int] | None,
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
    options.start, options.start_value = start_of(start)
    if types is not None:
        listed = ffi.new("uint16_t[]", sorted(types))
        options.types, options.type_count = listed, len(types)
    options.on_gap = choice("on_gap", ON_GAP, on_gap)
    options.wait = choice("waiting", WAIT, waiting)
    options.mode = 0 if mode is None else number("mode", mode, MODE_MAX)
    where = path_bytes(path)
    reader = QueueReader(_arguments.path(path), name, types)
    open_it = partial(open_into, reader, lambda out: lib.chron_reader_open(where, options, out))
    try:
        retry(open_it, lib.CHRON_ENOQUEUE, wait)
        if os.path.isdir(os.path.join(_arguments.path(path), "schema")):
            from chronicle_ffi.schema import Schemas

            reader.describe(Schemas(path))
    except BaseException:
        reader.close()
        raise
    return reader


def archives() -> Any:
    """The package that stands above this one, and that only who asks for it needs to have."""
    return importlib.import_module("chronicle_ffi.archive")


def check_schemas(schema: Mapping[int, Any] | None) -> None:
    if schema:
        from chronicle_ffi.schema import Schema

        for one, what in schema.items():
            number("a type_id", one, TYPE_ID_MAX)
            Schema.of(what)


def table_of(path: str | None, types: frozenset[int] | None, columns: Iterable[str] | None, key: Any) -> Table | None:
    """Of one type that has a schema; None: there is none, and nobody asks for its columns."""
    asked = columns is not None or key is not None
    if types is None or len(types) != 1:
        if asked:
            raise InvalidArgument("columns and key are of one type: say which, by type_id")
        return None
    if path is None:
        if asked:
            raise InvalidArgument("columns and key need the queue: schemas are not in its archive")
        return None
    if not asked and not os.path.isdir(os.path.join(path, "schema")):
        return None
    from chronicle_ffi.schema import Schemas, Table

    (one,) = types
    schemas = Schemas(path)
    return Table(schemas, one, None if columns is None else list(columns), key) if asked or schemas.of(one) else None


def milliseconds(what: str, value: Duration | None) -> int:
    if value is None:
        return 0
    found = int(seconds(what, value, 1e12) * 1000)
    if not found:
        raise InvalidArgument(f"{what} is {value}: a time of at least a millisecond, or None")
    return found


_RETRY_SECONDS = 0.01


def retry(call: Callable[[], int], code: int, wait: Duration | None) -> None:
    """Until the call succeeds, or fails for another reason than `code`, or `wait` is over."""
    deadline = None if wait is None else time.monotonic_ns() + int(seconds("wait", wait) * 1e9)
    while (status := call()) == -code and (deadline is None or time.monotonic_ns() < deadline):
        time.sleep(_RETRY_SECONDS)
    check(status)


def backpressure_seconds(value: str | Duration) -> float:
    if value == "fail":
        return 0.0
    if isinstance(value, str):
        raise InvalidArgument(f'backpressure is {value!r}; it can be "fail", or how many seconds an append waits')
    found = seconds("backpressure", value)
    if (value.total_seconds() if isinstance(value, timedelta) else float(value)) < 0:  # no time left, but a mistake
        raise InvalidArgument(f"backpressure is {value}: it cannot be below 0")
    return found


def limits_of(retention: Retention) -> Any:
    struct = new_struct("chron_retention")
    struct.max_bytes = limit("max_bytes", retention.max_bytes)
    struct.max_segments = limit("max_segments", retention.max_segments)
    struct.max_age_ms = milliseconds("max_age", retention.max_age)
    struct.reader_ttl_ms = milliseconds("reader_ttl", retention.reader_ttl)
    struct.max_reader_lag = limit("max_reader_lag", retention.max_reader_lag)
    struct.quarantine_max_bytes = limit("quarantine_max_bytes", retention.quarantine_max_bytes)
    struct.keep_snapshot = bool(retention.keep_snapshot)
    struct.quarantine_max_age_ms = milliseconds("quarantine_max_age", retention.quarantine_max_age)
    return struct
