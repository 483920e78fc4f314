# SPDX-License-Identifier: MIT
"""What the demo journals: source files; and the tally of them that every reader must arrive at."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")
FILE, LINE = 1, 2  # type ids: the path of the file that begins; one line of it, with its newline


@dataclass
class Tally:
    """What has been seen so far: whole files only.

    The digest is chained over the files, SHA-256(digest so far + path + NUL + content), and so depends on
    every byte and on the order of all of them; and, unlike a running hash, it can be written down between two
    files and taken up again by another process.
    """

    files: int = 0
    records: int = 0
    payload_bytes: int = 0
    digest: str = ""  # hexadecimal

    def add(self, path: bytes, content: bytes, lines: int) -> None:
        chained = hashlib.sha256(bytes.fromhex(self.digest))
        chained.update(path + b"\0")
        chained.update(content)
        self.digest = chained.hexdigest()
        self.files += 1
        self.records += 1 + lines
        self.payload_bytes += len(path) + len(content)


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def find_sources(tree: Path, limit: int | None) -> list[str]:
    """Paths of the *.py files below `tree`, relative to it, in sorted order, without installed packages."""
    found = []
    for directory, subdirectories, names in os.walk(tree):
        subdirectories[:] = [name for name in subdirectories if name not in INSTALLED]
        found += [os.path.join(directory, name) for name in names if name.endswith(".py")]
    return sorted(os.path.relpath(path, tree) for path in found)[:limit]


def measure(tree: Path, sources: list[str]) -> Tally:
    """The tally straight from the files: this does not even cut them into lines."""
    tally = Tally()
    for source in sources:
        content = (tree / source).read_bytes()
        unended = bool(content) and not content.endswith(b"\n")
        tally.add(os.fsencode(source), content, content.count(b"\n") + unended)
    return tally
