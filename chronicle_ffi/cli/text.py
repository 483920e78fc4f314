# SPDX-License-Identifier: MIT
"""How things look on the terminal: times, sizes, tables, hex dumps; and how bytes are cut into lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone


def utc(timestamp_ns: int) -> str:
    """Nanoseconds since 1970 as ISO 8601 in UTC, to the nanosecond. Years beyond 9999: just the number."""
    seconds, fraction = divmod(timestamp_ns, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{fraction:09}Z"
    except (ValueError, OverflowError, OSError):
        return f"@{seconds}.{fraction:09}"


def binary_size(size_bytes: int) -> str:
    """Bytes for people: "512 B", "64.0 KiB", "1.5 GiB"."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def number(value: int) -> str:
    """1234567 as "1 234 567"."""
    return f"{value:,}".replace(",", " ")


def plural(value: int, noun: str) -> str:
    """(1, "record") as "1 record", (2000, "record") as "2 000 records"."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def table(alignment: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; `alignment` has one letter for each column: "<" left, ">" right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, alignment, widths, strict=True)).rstrip()
        for line in lines
    ]


def hex_dump(data: bytes) -> str:
    """Offset, sixteen bytes in hex, the same bytes as ASCII; one line for each sixteen, each ended."""
    lines = []
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        left, right = row[:8].hex(" "), row[8:].hex(" ")
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{offset:08x}  {left:<23}  {right:<23}  |{shown}|\n")
    return "".join(lines)


class LineSplitter:
    """Cuts chunks of bytes, as they come, into lines that keep their newline.

    A line that has grown to `limit` bytes and has not ended comes out as it is, so memory stays bounded.
    All that comes out, put together, is exactly what went in.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """What `chunk` completes. Each is shorter than `limit` and a chunk together."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        complete = [line + b"\n" for line in lines]
        if len(self._rest) >= self._limit:
            complete += self.finish()
        return complete

    def finish(self) -> list[bytes]:
        """What is left, if anything: a last line without a newline."""
        rest = bytes(self._rest)
        self._rest.clear()
        return [rest] if rest else []
