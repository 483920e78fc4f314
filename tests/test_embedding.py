# SPDX-License-Identifier: MIT
"""The C library as others meet it: installed, found by pkg-config, used by the examples, from C and from C++."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chronicle_ffi import Queue

ROOT = Path(__file__).parent.parent
CC = os.environ.get("CC", "cc")


def run(*command: str | Path, **keywords: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **keywords)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def flags(prefix: Path, *what: str) -> list[str]:
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    return run("pkg-config", *what, "chron", env=environment).split()


def test_examples_with_the_shared_library(installed: Path, tmp_path: Path) -> None:
    for name in ("writer", "reader"):
        run(CC, "-Wall", "-Werror", ROOT / "examples" / f"{name}.c", *flags(installed, "--cflags", "--libs"), "-o",
            tmp_path / name)  # fmt: skip
    environment = os.environ | {"LD_LIBRARY_PATH": str(installed / "lib")}
    queue = tmp_path / "queue"
    assert run(tmp_path / "writer", queue, input="one\ntwo\n\nfour", env=environment) == "next seq: 4\n"
    assert run(tmp_path / "reader", queue, "me", env=environment) == "0 one\n1 two\n2 \n3 four\n"
    assert run(tmp_path / "reader", queue, "me", env=environment) == ""
    with Queue.open_subscriber(queue) as reader:  # the same queue, from Python
        assert [message.payload for message in reader] == [b"one", b"two", b"", b"four"]


def test_examples_with_the_static_library(installed: Path, tmp_path: Path) -> None:
    run(CC, ROOT / "examples" / "writer.c", *flags(installed, "--cflags"), installed / "lib" / "libchron.a",
        "-lpthread", "-o", tmp_path / "writer")  # fmt: skip
    assert run(tmp_path / "writer", tmp_path / "queue", input="x\n") == "next seq: 1\n"


def test_header_is_cpp(installed: Path, tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source = tmp_path / "x.cpp"
    source.write_text("#include <chronicle.h>\n#include <cstdio>\nint main() { std::puts(chron_version()); }\n")
    run(compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", source, *flags(installed, "--cflags"),
        installed / "lib" / "libchron.a", "-lpthread", "-o", tmp_path / "x")  # fmt: skip
    assert run(tmp_path / "x").strip() == flags(installed, "--modversion")[0]


def test_the_shared_library_exports_what_the_header_declares(installed: Path) -> None:
    """And so does the map, which gives each name a version."""
    declared = set(re.findall(r"^CHRON_API [^;]*?(chron_\w+)\(", (ROOT / "csrc/include/chronicle.h").read_text(), re.M))
    nodes = re.findall(r"^(CHRON_[\d.]+) \{\n(.*?)^\}", (ROOT / "csrc/chron.map").read_text(), re.M | re.S)
    mapped = {f"{name}@@{version}" for version, names in nodes for name in re.findall(r"(chron_\w+);", names)}
    assert {name.partition("@")[0] for name in mapped} == declared
    symbols = run("nm", "-D", "--defined-only", installed / "lib" / "libchron.so")
    assert set(re.findall(r" [B-Z] (\S+)$", symbols, re.M)) == mapped


def test_soname(installed: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    assert "Library soname: [libchron.so.0]" in run("readelf", "-d", installed / "lib" / "libchron.so")
