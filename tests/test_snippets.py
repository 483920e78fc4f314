# SPDX-License-Identifier: MIT
"""The code in README.md and docs/ runs, and prints what the text says.

Each section (``##``) has an empty directory of its own, and in it its blocks run one after the other: a ``python``
block as a program, a ``sh`` block by the shell; a ``c`` block becomes the file that its first line names. A ``text``
block right behind one of them is what it prints ("..." stands for anything). Above a block that is not to run stands
``<!-- not run: reason -->``.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.interop import need

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\s*)?^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"(?:\s*^```text\n(?P<said>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
EXTRAS = re.compile(
    r"^\s*(?:import|from) (numpy|pyarrow|pandas|polars|duckdb|chronicle_ffi\.archive)\b|^(chronicle archive)\b",
    re.MULTILINE,
)
ARCHIVE = "obstore"  # what chronicle_ffi.archive, and its command, cannot do without


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    said: str | None  #: None: the text does not say
    reason: str | None  #: not to be run


def blocks_of(text: str) -> list[Block]:
    return [Block(m["language"], m["code"], m["said"], m["reason"]) for m in BLOCK.finditer(text)]


def sections() -> dict[str, list[Block]]:
    """By document and heading; those without a block are left out."""
    found = {}
    for document in DOCUMENTS:
        for section in re.split(r"^## ", document.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if blocks := blocks_of(section):
                found[f"{document.name}: {section.splitlines()[0]}"] = blocks
    return found


SECTIONS = sections()


def test_blocks_are_found() -> None:
    text = "```python\nprint(1)\n```\n\n```text\n1\n```\nwords\n<!-- not run: why -->\n```sh\nmake\n```\n"
    assert blocks_of(text) == [Block("python", "print(1)\n", "1\n", None), Block("sh", "make\n", None, "why")]
    assert {block.language for blocks in SECTIONS.values() for block in blocks} <= {"python", "sh", "c"}


def test_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(Block("python", "print(1)\n", "2\n", None), tmp_path, dict(os.environ))


@pytest.mark.parametrize("name", SECTIONS)
def test_section(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    blocks = [block for block in SECTIONS[name] if block.reason is None]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if any(block.language == "c" for block in blocks):
        library = request.getfixturevalue("installed") / "lib"
        environment |= {"PKG_CONFIG_PATH": str(library / "pkgconfig"), "LD_LIBRARY_PATH": str(library)}
    absent: set[str] = set()
    for block in blocks:
        named = {module or command for module, command in EXTRAS.findall(block.code)}
        needs = {
            module for module in (ARCHIVE if "archive" in one else one for one in named) if find_spec(module) is None
        }
        absent |= needs
        if not needs:
            run(block, tmp_path, environment)
    for module in sorted(absent):
        need(module)  # the other blocks have run


def test_every_example_is_named_in_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for file in (ROOT / "examples").iterdir():
        assert f"`{file.name}`" in readme or not file.is_file(), file


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/TESTING.md"])
def test_files_that_are_named_exist(name: str) -> None:
    """In backticks, with their folder; NAME stands for any."""
    for path in re.findall(r"`((?:[\w.]+/)+\w+\.\w+)`", (ROOT / name).read_text()):
        found = any((folder / path).exists() for folder in (ROOT, ROOT / "csrc" / "src"))
        assert found or "NAME" in path or path.startswith(".venv/"), path


def test_testing_names_only_tests_that_exist() -> None:
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.[cp]*") if path.suffix in (".c", ".py"))
    files = {path.stem for path in (ROOT / "tests").rglob("test_*")}
    for name in re.findall(r"\btest_\w+", (ROOT / "docs" / "TESTING.md").read_text()):
        assert name in files or re.search(rf"\b{name}\(", code), name


def run(block: Block, directory: Path, environment: dict[str, str]) -> None:
    if block.language == "c":
        found = re.match(r"/\* (\w+\.c) ", block.code)
        assert found, "the first line of a C block names its file"
        (directory / found[1]).write_text(block.code)
        return
    if block.language == "python":
        (directory / "block.py").write_text(block.code)
        command = [sys.executable, "-W", "always::ResourceWarning", "block.py"]
    else:
        command = ["sh", "-eu", "-c", block.code]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ResourceWarning" not in done.stderr, done.stderr
    if block.said is not None:
        right = doctest.OutputChecker().check_output(block.said, done.stdout, doctest.ELLIPSIS)
        assert right, f"the text says:\n{block.said}but it prints:\n{done.stdout}"
