# SPDX-License-Identifier: MIT
"""What callers pass, made into what C takes. One rule for each kind of argument, the same in every call.

Whole numbers: whatever Python can index with (`__index__`), numpy's integers too; not float or Decimal, which
would be cut silently. Times: nanoseconds since 1970 as such a number, a datetime (a naive one is local time), or a
datetime64. Durations: seconds, as any real number or a timedelta. A refusal names the argument.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from operator import index
from typing import TYPE_CHECKING, Any, Final, SupportsFloat, SupportsIndex, TypeAlias

from chronicle_ffi.errors import InvalidArgument, WrongType

if TYPE_CHECKING:
    import numpy

Path: TypeAlias = "str | os.PathLike[str]"
Time: TypeAlias = "SupportsIndex | datetime | numpy.datetime64"
Duration: TypeAlias = "SupportsFloat | timedelta"

SEQ_MAX: Final = (1 << 63) - 1
TIME_MAX: Final = (1 << 64) - 2  #: ns since 1970; in the year 2554. One more says "now"
TYPE_ID_MAX: Final = 0xFFFE
FLAGS_MAX: Final = 0xFF
SECONDS_MAX: Final = 1e9  # of a wait: longer ones are this long

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Nanoseconds of numpy's units. Those of another length are converted by numpy, to days, first.
_UNITS: Final = {
    "D": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1000,
    "ns": 1,
}
_CALENDAR: Final = ("Y", "M", "W")


def number(what: str, value: Any, most: int = SEQ_MAX, least: int = 0) -> int:
    """A whole number of [least, most]."""
    found = value if type(value) is int else _index(what, value)
    if least <= found <= most:
        return found
    raise InvalidArgument(f"{what} is {found}: it can be {least} to {most}")


def _index(what: str, value: Any) -> int:
    try:
        if _kind(value) in ("m", "M"):  # numpy's times can be had as numbers, of any unit
            raise TypeError
        return index(value)
    except TypeError:
        raise WrongType(f"{what} is a whole number, not {value!r}") from None


def limit(what: str, value: SupportsIndex | None) -> int:
    """A limit as C has it: 0 is none."""
    if value is None:
        return 0
    if number(what, value) == 0:
        raise InvalidArgument(f"{what} is 0: use None for no limit")
    return index(value)


def types(value: Iterable[SupportsIndex] | SupportsIndex | None) -> frozenset[int] | None:
    """Some type_ids, or one; None: all."""
    if value is None:
        return None
    found = frozenset(number("types", one, TYPE_ID_MAX) for one in (value if isinstance(value, Iterable) else (value,)))
    if not found:
        raise InvalidArgument("types is empty: such a reader would get nothing; None is for all types")
    return found


def is_time(value: object) -> bool:
    """Whether this says when, not which record."""
    return isinstance(value, datetime) or _is_datetime64(value)


def time_ns(what: str, value: Time) -> int:
    """When, as nanoseconds since 1970."""
    if hasattr(value, "to_datetime64"):  # of pandas: it has more digits than the datetime that it also is
        value = value.to_datetime64()
    if _is_datetime64(value):
        return int(times_ns(what, value)[()])
    if not isinstance(value, datetime):
        try:
            return number(what, value, TIME_MAX)
        except WrongType:
            raise WrongType(
                f"{what} is nanoseconds since 1970 as a whole number, a datetime or a datetime64, not {value!r}"
            ) from None
    try:
        since = value.astimezone(timezone.utc) - _EPOCH
    except (OverflowError, ValueError):  # beyond what datetime holds, by the time zone
        raise _no_timestamp(what, value) from None
    found = ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000
    if not 0 <= found <= TIME_MAX:
        raise _no_timestamp(what, value)
    return found


def times_ns(what: str, values: Any) -> Any:
    """numpy's datetime64, one or an array of any unit, as uint64. Its own conversion takes what is out of range for
    another year."""
    import numpy as np

    unit, step = np.datetime_data(values.dtype)
    if unit in _CALENDAR:
        values, unit, step = values.astype("datetime64[D]"), "D", 1
    if unit not in _UNITS:
        raise InvalidArgument(f"{what} has the unit {unit}: convert it, for example with astype('datetime64[ns]')")
    factor = _UNITS[unit] * step
    counts = values.astype(f"datetime64[{step}{unit}]").astype("int64")  # NaT is the smallest one
    if (bad := (counts < 0) | (counts > TIME_MAX // factor)).any():
        raise _no_timestamp(what, values[bad][0] if values.ndim else values)
    return counts.astype("uint64") * np.uint64(factor)


def _is_datetime64(value: object) -> bool:
    return _kind(value) == "M" and getattr(value, "ndim", None) == 0


def _kind(value: object) -> str | None:
    """What numpy calls the kind of its numbers; "M" and "m" are datetime64 and timedelta64."""
    return getattr(getattr(value, "dtype", None), "kind", None)


def _no_timestamp(what: str, value: object) -> InvalidArgument:
    return InvalidArgument(f"{what} is {value}: timestamps go from 1970-01-01 to 2554-07-21, UTC")


def seconds(what: str, value: Duration, most: float = SECONDS_MAX) -> float:
    """How long, in seconds; below 0 counts as 0, and above `most` as that."""
    if isinstance(value, timedelta):
        found = value.total_seconds()
    else:
        try:
            if isinstance(value, str | bytes | bytearray) or _kind(value) in ("m", "M"):
                raise TypeError
            found = float(value)
        except (TypeError, ValueError, OverflowError):
            raise WrongType(f"{what} is a number of seconds or a timedelta, not {value!r}") from None
    if found != found:  # NaN
        raise InvalidArgument(f"{what} is {value}: it is a number of seconds")
    return min(max(found, 0.0), most)


def path(value: Path) -> str:
    """Where a queue is."""
    try:
        found = os.fsdecode(value)
    except TypeError:
        raise WrongType(f"a path is a str or an os.PathLike, not {value!r}") from None
    if "\0" in found:
        raise InvalidArgument("a path cannot hold a NUL")
    return found


def name(value: str) -> bytes:
    """A reader's name."""
    if not isinstance(value, str):
        raise WrongType(f"a reader's name is a str, not {value!r}")
    if "\0" in value:
        raise InvalidArgument("a reader's name cannot hold a NUL")
    return value.encode("utf-8", "surrogateescape")
