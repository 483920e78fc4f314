# SPDX-License-Identifier: MIT
"""The machine that the race runs on: what it is, and memory that its host has already given it."""

from __future__ import annotations

import mmap
import os
import platform
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from bench.conftest import file_system_of
from bench.report import commit

KEPT_BYTES: Final = 2 << 30  # that warming leaves alone
PAGE: Final = 4096


def _meminfo(key: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def warm(limit_bytes: int) -> str:
    """Touch memory once in a child that ends, and say what that took.

    A virtual machine pays for the first touch of each page that its host has not given it yet, twelve microseconds a
    page where this was written: more than the records on it cost, and it would be paid by whoever comes first.
    """
    size = max(min(_meminfo("MemAvailable") - KEPT_BYTES, limit_bytes), 0) // PAGE * PAGE
    if not size:
        return "not warmed"
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            with mmap.mmap(-1, size) as memory:
                memory[::PAGE] = b"\1" * (size // PAGE)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    seconds = time.monotonic() - begin
    page = seconds / size * PAGE * 1e6
    return f"{size / 2**30:.1f} GiB touched before the race, in {seconds:.1f} s ({page:.2f} us a page)"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe(place: Path) -> dict[str, str]:
    """What the report says about where it comes from. `place` is where queues are made."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "processor": f"{_processor()}, {os.cpu_count()} processors",
        "memory": f"{_meminfo('MemTotal') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system_of(place.resolve()),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
