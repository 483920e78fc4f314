# SPDX-License-Identifier: MIT
"""What a saved run says about where it was measured, beyond what pytest-benchmark notes (machine and commit)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from chronicle_ffi._binding import ffi, lib


def file_system_of(path: Path) -> str:
    """The type of the mount with the longest matching path."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    matching = [(len(at), kind) for at, kind in mounts if path.is_relative_to(at)]
    return max(matching)[1]


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, Any]) -> None:
    machine_info["file_system"] = file_system_of(Path(tempfile.gettempdir()).resolve())
    machine_info["crc32c"] = ffi.string(lib.chron_crc32c_name()).decode()
