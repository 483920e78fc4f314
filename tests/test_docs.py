# SPDX-License-Identifier: MIT
"""Every public name has an example in its docstring, and every example does what it says."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import os
import shutil
import struct
import tempfile
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi
from chronicle_ffi import Queue, merge
from tests.interop import need

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# What takes a broken disk, a network, another system or a lack of memory to see; tests/c/test_faults.c does.
UNPROVOKED = {
    "BufferTooSmall": "Python always brings enough room",
    "HistoryRewritten": "takes a loss of power: tests/test_repair.py",
    "Interrupted": "waits of Python go on after a signal, and raise what its handler raised",
    "NetworkFileSystem": "takes a network file system: tests/test_disk.py",
    "NoSpace": "takes a full disk: tests/test_disk.py",
    "AccessDenied": "root is denied nothing: tests/test_disk.py",
    "NotSupported": "takes another system",
    "TurnTimeout": "takes another process that is stopped: tests/test_shared.py",
    "NotSynced": "takes a failing disk: tests/c/test_faults.c",
    "RecoveryWarning": "takes a loss of power, or damage: tests/test_repair.py",
    "OutOfMemory": "takes all memory",
    "TimedOut": "takes a slow disk: tests/test_async.py",
    "Poisoned": "takes a failing disk: tests/c/test_faults.c",
}
# Plain values: nothing to call.
PLAIN = {"SEGMENT_SIZE", "__version__"}
# What examples may use without importing it; docs/reference.md says so.
GLOBALS: dict[str, Any] = {name: getattr(chronicle_ffi, name) for name in chronicle_ffi.__all__} | {
    thing.__name__: thing
    for thing in (array, asyncio, datetime, os, Path, shutil, struct, ThreadPoolExecutor, time, timedelta, timezone)
}


@dataclass(frozen=True)
class Name:
    path: str
    docstring: str


def public_names() -> Iterator[Name]:
    """Each class in __all__, with its public methods and properties, inherited ones of this package included."""
    for module, name in [
        *((chronicle_ffi, name) for name in chronicle_ffi.__all__),
        *((merge, name) for name in merge.__all__),
    ]:
        thing = getattr(module, name)
        if not inspect.isclass(thing):
            continue
        yield Name(name, inspect.getdoc(thing) or "")
        for base in thing.__mro__:
            if base.__module__.split(".")[0] != "chronicle_ffi":
                continue
            for member, value in vars(base).items():
                is_callable = isinstance(value, staticmethod | classmethod | property) or inspect.isroutine(value)
                if is_callable and not member.startswith("_"):
                    yield Name(f"{name}.{member}", inspect.getdoc(getattr(thing, member)) or "")


def examples(name: Name) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(name.docstring, {}, name.path, name.path, 0)


NAMES = {name.path: name for name in public_names()}


def test_every_public_name_is_found() -> None:
    assert {"Queue", "Queue.open_publisher", "QueueWriter.append", "QueueReader.close", "Batch.to_numpy"} <= set(NAMES)
    assert {name.partition(".")[0] for name in NAMES} | PLAIN == {*chronicle_ffi.__all__, *merge.__all__}


def test_every_public_name_has_an_example() -> None:
    without = {path for path, name in NAMES.items() if not examples(name).examples}
    assert without == set(UNPROVOKED)


def test_a_wrong_example_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.fail.Exception, match="Expected"):
        run(Name("wrong", ">>> 1 + 1\n3\n"), tmp_path, monkeypatch)


@pytest.mark.parametrize("path", sorted(set(NAMES) - set(UNPROVOKED)))
def test_example(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(NAMES[path], tmp_path, monkeypatch)


def run(name: Name, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty directory but for the queue "q", which `writer` and the reader named "me" have open."""
    for module in ("numpy", "pyarrow"):
        if f"{module}." in name.docstring or f"import {module}" in name.docstring:
            need(module)
    test = examples(name)
    monkeypatch.chdir(directory)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as memory:
        with Queue.open_publisher("q", segment_size=1 << 16, keeper=False) as writer:
            with Queue.open_subscriber("q", "me") as reader:
                test.globs = GLOBALS | {"writer": writer, "reader": reader, "memory": Path(memory)}
                said: list[str] = []
                result = doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=said.append)
    if result.failed:
        pytest.fail("".join(said), pytrace=False)
