# SPDX-License-Identifier: MIT
"""Every public name of chronicle_ffi.archive has an example in its docstring, and every example does what it says."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import Queue
from tests.interop import need
from tests.test_docs import FLAGS, GLOBALS

need("obstore")
need("zstandard")

from chronicle_ffi import archive  # noqa: E402

UNPROVOKED = {"ArchiveDamaged", "ArchiveMismatch"}  # test_archive.py provokes them


def names() -> dict[str, str]:
    found = {}
    for name in archive.__all__:
        thing: Any = getattr(archive, name)
        found[name] = inspect.getdoc(thing) or ""
        for member, value in vars(thing).items() if inspect.isclass(thing) else ():
            if not member.startswith("_") and (isinstance(value, property) or inspect.isroutine(value)):
                found[f"{name}.{member}"] = inspect.getdoc(getattr(thing, member)) or ""
    return found


NAMES = names()


def test_every_public_name_has_an_example() -> None:
    assert {name for name, text in NAMES.items() if ">>> " not in text} == UNPROVOKED


@pytest.mark.parametrize("name", sorted(set(NAMES) - UNPROVOKED))
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty directory but for the queue "q", which `writer` has open; for a reader's methods it is archived."""
    if "import pyarrow" in NAMES[name]:
        need("pyarrow")
    monkeypatch.chdir(tmp_path)
    scope = GLOBALS | {one: getattr(archive, one) for one in archive.__all__}
    said: list[str] = []
    with Queue.open_publisher("q", segment_size=1 << 16, keeper=False) as writer:
        scope["writer"] = writer
        if name.startswith("ArchivedReader."):
            writer.append_many([bytes(1000)] * 100)
            writer.sync()
            archive.Archive("q", "archive").run()
            scope["archived"] = archive.open_subscriber("q", "archive")
        test = doctest.DocTestParser().get_doctest(NAMES[name], scope, name, name, 0)
        result = doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=said.append)
        if "archived" in scope:
            scope["archived"].close()
    if result.failed:
        pytest.fail("".join(said), pytrace=False)
