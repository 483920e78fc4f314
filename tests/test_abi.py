# SPDX-License-Identifier: MIT
"""Programs that were compiled with other headers than the library's: earlier ones, and one that knows more.

tests/abi/ has the header of each release as it was.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CURRENT = (ROOT / "csrc/include/chronicle.h").read_text()
FROZEN = {path.stem.partition("-")[2]: path.read_text() for path in (ROOT / "tests/abi").glob("chronicle-*.h")}
MAP = (ROOT / "csrc/chron.map").read_text()
CC = os.environ.get("CC", "cc")
STRUCT = re.compile(r"^typedef struct (\w+) \{\n(.*?)^\} \1;$", re.MULTILINE | re.DOTALL)
PINNED = {"chron_record", "chron_view", "chron_merged"}  # there are arrays of them, and nothing says how large they are
OURS = {"chron_error", "chron_problem"}  # made by the library

# What tests/c/abi_program.c sees, whichever header it was compiled with.
SEEN = """\
crc 3808858755
append 0
append_at 1
not ready 1
batch 2
rows 3
offsets 7
publish 10
durable 10
stats.records 11
stats.payload_bytes 32
stats.syncs 1
stats.keeper_running 0
recovery.next_seq 0
recovery.epoch 1
recovery.clean 1
next hello type 7 flags 1
next_copy at at 2
next_batch 3
of type 4 flags 0
peek 6
first seq 5
shortest 1
longest 7
copies cdefabcdefclaimed
segment 65536
faulted 0
previous 6
seek_time 0
committed 3
lag 8
wait 1
writer_alive 1
armed 1
rung 1
count 1
info.segment_size 65536
info.next_seq 23
info.writer_alive 1
info.format_version 1
segment 15 to 17 sealed 1
segment 17 to 19 sealed 1
segment 19 to 21 sealed 1
segment 21 to 23 sealed 0
reader me at 3 lag 20 alive 1
plan.deleted_segments 0
fate of 15: 1
fate of 17: 1
fate of 19: 1
fate of 21: 0
cleanup.deleted_segments 1
cleanup.oldest_seq 17
seek: no such sequence number yet
23 seq 1000 next_seq 23
seek: the records asked for have been deleted
11 seq 0 oldest 17
stats.records 8
verify.records 6
verify.problems 0
verify.segments 3
reports 1
"""

# The same of tests/c/abi_grown.c.
GROWN = """\
first seq 0, position 0
recovery 2
written 2
read 0
next 2
good 2
readers 2
segment 0 sealed 1
segment 1 sealed 0
reader me
reader you
fate of 0: 1
fate of 1: 0
"""

# ------------------------------------------------------------------------------------------ headers


def structs(header: str) -> dict[str, list[str]]:
    """The members of each struct, without comments."""
    members = {name: re.findall(r"^    ([^/;\n]+);", body, re.MULTILINE) for name, body in STRUCT.findall(header)}
    return {name: [" ".join(member.split()) for member in all_of_it] for name, all_of_it in members.items()}


def functions(header: str) -> dict[str, str]:
    """Each one's declaration."""
    found = re.findall(r"^CHRON_API ([^;]*?(chron_\w+)\([^;]*\));", header, re.MULTILINE)
    return {name: " ".join(declaration.split()) for declaration, name in found}


def constants(header: str) -> dict[str, str]:
    """Macros and error codes, but for the version."""
    found = re.findall(r"^#define (CHRON_(?!VERSION_)\w+) +(\S+)", header, re.MULTILINE)
    return dict(found) | dict(re.findall(r"^    X\((\w+), (\d+),", header, re.MULTILINE))


def grown(header: str, change: str) -> str:
    """The header with one field less, or more, in each struct that begins with its size."""

    def other(found: re.Match[str]) -> str:
        members = found[2].splitlines()
        if "uint32_t struct_size;" not in members[0]:
            return found[0]
        members = members[:-1] if change == "LESS" else [*members, "    uint64_t added;"]
        return "\n".join([found[0].splitlines()[0], *members, f"}} {found[1]};"])

    return STRUCT.sub(other, header)


# ----------------------------------------------------------------------------------------- programs


def run(*command: str | Path, **keywords: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **keywords)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def output(name: str, header: str, installed: Path, place: Path, *flags: str) -> str:
    """Of a program of tests/c that was compiled with this header, and uses the library of today."""
    (place / "chronicle.h").write_text(header)
    source = ROOT / "tests/c" / f"{name}.c"
    warnings = ("-std=c11", "-Wall", "-Wextra", "-Werror")
    library = (f"-L{installed / 'lib'}", "-lchron")
    run(CC, *warnings, *flags, f"-I{place}", source, *library, "-o", place / name)
    environment = os.environ | {"LD_LIBRARY_PATH": str(installed / "lib")}
    return run(place / name, place / f"{name}.queue", env=environment)


@pytest.mark.parametrize("version", FROZEN)
def test_a_program_of_an_earlier_header(version: str, installed: Path, tmp_path: Path) -> None:
    assert output("abi_program", FROZEN[version], installed, tmp_path) == SEEN


@pytest.mark.parametrize("change", ["LESS", "MORE"])
def test_a_program_whose_structs_know_less_or_more(change: str, installed: Path, tmp_path: Path) -> None:
    header = grown(CURRENT, change)
    changed = {name for name, members in structs(header).items() if members != structs(CURRENT)[name]}
    assert changed == structs(CURRENT).keys() - PINNED - OURS
    assert output("abi_grown", header, installed, tmp_path, f"-D{change}") == GROWN
    assert output("abi_program", header, installed, tmp_path) == SEEN


# --------------------------------------------------------------------------------- what has to stay


def test_there_is_an_earlier_header() -> None:
    assert FROZEN
    assert all("never edited" in header for header in FROZEN.values())


@pytest.mark.parametrize("version", FROZEN)
def test_nothing_changes_but_at_the_end(version: str) -> None:
    now = structs(CURRENT)
    for name, members in structs(FROZEN[version]).items():
        assert now[name][: len(members)] == members
        assert name not in PINNED or now[name] == members
    assert functions(FROZEN[version]).items() <= functions(CURRENT).items()
    assert constants(FROZEN[version]).items() <= constants(CURRENT).items()


@pytest.mark.parametrize("version", FROZEN)
def test_symbols_keep_the_version_that_they_came_with(version: str) -> None:
    nodes = re.findall(r"^CHRON_([\d.]+) \{\n(.*?)^\}", MAP, re.MULTILINE | re.DOTALL)
    came_with = {name: node for node, names in nodes for name in re.findall(r"(\w+);", names)}
    assert all(number(came_with[name]) <= number(version) for name in functions(FROZEN[version]))


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
