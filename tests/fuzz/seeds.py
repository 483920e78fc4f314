# SPDX-License-Identifier: MIT
"""Inputs for the fuzz targets from the golden queues: ``python3 tests/fuzz/seeds.py DIRECTORY``.

Makes DIRECTORY/segment, position and meta: each file without its gaps, as fuzz_file.c wants it.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "golden"
END_OF_RECORDS = 32  # zeros that are kept behind the last record


def compact(name: str, data: bytes) -> tuple[str, bytes] | None:
    """(target, input), or None for a file that no target is about."""
    if name.endswith(".seg"):
        records = data[8192:].rstrip(b"\0") + bytes(END_OF_RECORDS)
        return "segment", data[:192] + data[4096:4160] + records
    if name.endswith((".pos", "queue.meta")):
        return "meta" if name.endswith("meta") else "position", data[:128] + data[512:576] + data[1024:1088]
    return None


def main() -> None:
    out = Path(sys.argv[1])
    for archive in sorted(GOLDEN.glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                content = tar.extractfile(member) if member.isfile() else None
                made = compact(member.name, content.read()) if content else None
                if made:
                    target = out / made[0]
                    target.mkdir(parents=True, exist_ok=True)
                    (target / f"golden-{archive.name.split('.')[0]}-{Path(member.name).stem}").write_bytes(made[1])


if __name__ == "__main__":
    main()
