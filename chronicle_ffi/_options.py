# SPDX-License-Identifier: MIT
"""What options of several openings have in common: words that stand for constants of C, and where reading begins."""

from __future__ import annotations

from typing import Final

from chronicle_ffi._arguments import Time, is_time, number, time_ns
from chronicle_ffi._binding import lib
from chronicle_ffi.errors import InvalidArgument

MODE_MAX: Final = 0o777
U32_MAX: Final = 0xFFFFFFFF
_START = {
    "resume": lib.CHRON_START_RESUME,
    "earliest": lib.CHRON_START_EARLIEST,
    "latest": lib.CHRON_START_LATEST,
    "snapshot": lib.CHRON_START_SNAPSHOT,
}
ON_GAP = {"error": lib.CHRON_GAP_ERROR, "oldest": lib.CHRON_GAP_OLDEST, "latest": lib.CHRON_GAP_LATEST}


def choice(what: str, choices: dict[str, int], value: str) -> int:
    try:
        return choices[value]
    except (KeyError, TypeError):
        listed = ", ".join(repr(allowed) for allowed in choices)
        raise InvalidArgument(f"{what} is {value!r}; it can be {listed}") from None


def start_of(start: str | Time) -> tuple[int, int]:
    """Where reading begins: which kind of place, and which one."""
    if isinstance(start, str):
        return choice("start", _START, start), 0
    if is_time(start):
        return lib.CHRON_START_TIME, time_ns("start", start)
    return lib.CHRON_START_SEQ, number("start", start)
