# SPDX-License-Identifier: MIT
"""The programs in examples/ do what they say, as programs, and in the places where that cannot be seen from outside."""

from __future__ import annotations

import io
import lzma
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from chronicle_ffi import Queue
from tests.interop import need

EXAMPLES = Path(__file__).parent.parent / "examples"
CC = os.environ.get("CC", "cc")


def example(name: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "always::ResourceWarning", str(EXAMPLES / name), *map(str, arguments)]
    return finished(subprocess.run(command, capture_output=True, text=True, timeout=120))


def finished(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ResourceWarning" not in done.stderr, done.stderr
    return done.stdout


def loaded(name: str) -> ModuleType:
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_publish_and_subscribe(queue: Path) -> None:
    assert example("publish.py", queue, 250) == "published 250, next seq 250\n"
    assert "risk saw 250 prices" in example("subscribe.py", queue, "risk", 0)
    assert "risk saw 0 prices" in example("subscribe.py", queue, "risk", 0)


def test_capture_and_replay(queue: Path) -> None:
    assert example("capture.py", queue, "--count", 20) == "captured; the queue has 20 records\n"
    lines = example("replay.py", queue, "--speed", "inf").splitlines()
    assert len(lines) == 20
    assert lines[0].endswith(' {"n": 0, "price": 1.08095}')
    assert lines == sorted(lines)
    later = example("replay.py", queue, "--speed", "inf", "--after", lines[7].split()[0])
    assert later.splitlines() == lines[7:]


def test_a_captured_file_comes_back_byte_for_byte(queue: Path, tmp_path: Path) -> None:
    file = tmp_path / "feed.txt"
    file.write_text("1626993367.8: one: two\n1626993368.123456789: \n1626993368.001001: three\n")
    example("capture.py", queue, "--from", file)
    with Queue.open_subscriber(queue) as reader:
        found = [(message.timestamp_ns, message.payload) for message in reader]
    assert found == [
        (1626993367_800000000, b"one: two"),
        (1626993368_123456789, b""),
        (1626993368_001001000, b"three"),
    ]


@pytest.mark.parametrize("feed", ["bitmex", "kraken"])
def test_a_real_capture_comes_back(queue: Path, feed: str) -> None:
    file = Path(os.environ.get("CHRONICLE_CAPTURES", "")) / f"{feed}.txt.xz"
    if not file.exists():
        pytest.skip("CHRONICLE_CAPTURES names no directory with this capture")
    example("capture.py", queue, "--from", file)
    lines = lzma.decompress(file.read_bytes()).decode().splitlines()
    assert len(lines) > 1000
    with Queue.open_subscriber(queue) as reader:
        assert [line.partition(": ")[2] for line in lines] == [payload.decode() for payload in reader.payloads()]


def test_replay_keeps_the_pace(queue: Path) -> None:
    """With a clock of its own: due times are those of the capture, whatever a step takes, and never add up."""
    replay = loaded("replay")
    with Queue.open_publisher(queue) as writer:
        for at in (0.0, 2.0, 2.0, 8.0):
            writer.append(b"x", timestamp_ns=int((1000 + at) * 1e9))
    now = 50.0
    slept = []

    def clock() -> float:
        nonlocal now
        now += 0.25  # each look takes that long
        return now

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    out = io.StringIO()
    assert replay.replay(str(queue), out, 2.0, clock=clock, sleep=sleep) == 4
    assert out.getvalue().count("\n") == 4
    # It begins at 50.25; due at 50.25, 51.25, 51.25, 54.25; the looks are at 50.5, 50.75, 51.5, 51.75.
    assert slept == [0.5, 2.5]


def test_rolling(queue: Path) -> None:
    need("numpy")
    example("publish.py", queue, 2500)
    lines = example("rolling.py", queue, "--window", 1000, "--patience", 0).splitlines()
    assert lines[-1].startswith("2500 prices, the last 1000: ")


def test_a_rolling_window_holds_the_last_ones() -> None:
    numpy = need("numpy")
    rolling = loaded("rolling")
    for size in (1, 7, 100):
        window = rolling.Window(size)
        every: list[float] = []
        for step in range(300):
            new = numpy.arange(step, step + step % 23, dtype=float)
            window.extend(new)
            every += new.tolist()
            assert window.values.tolist() == every[-size:], (size, step)
            assert window.seen == len(every)


WORTH = sum((number + 1) * (3, 4)[number % 2] for number in range(8))  # of what a producer orders


def test_pipeline(tmp_path: Path) -> None:
    for _ in range(2):
        said = example("pipeline.py", tmp_path / "pipeline", "--producers", 5, "--orders", 8).splitlines()
        assert re.fullmatch(r"40 orders accepted, with \d+ syncs", said[0])
        assert said[1:] == [f"worth {5 * WORTH}"]


def test_a_pipeline_that_was_killed_forgets_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    """An order that was accepted, a price that was not committed, and then the next day."""
    with Queue.open_publisher(tmp_path / "orders") as orders:
        orders.append(b'{"customer": 7, "fruit": "pear", "count": 100}', 1)
    with Queue.open_publisher(tmp_path / "priced") as priced:
        priced.append(b'{"customer": 7, "fruit": "pear", "count": 100, "order": 0, "price": 400}', 1)
    said = example("pipeline.py", tmp_path, "--producers", 5, "--orders", 8).splitlines()
    assert said[1:] == [f"worth {5 * WORTH + 400}"]


@pytest.mark.parametrize("engine", ["pandas", "polars", "duckdb"])
def test_tables(queue: Path, engine: str) -> None:
    for module in ("pyarrow", engine):
        need(module)
    with Queue.open_publisher(queue, segment_size=1 << 16) as writer:
        for number in range(3000):
            writer.append(b"x" * (number % 40), type_id=number % 3)
    expected = [(kind, 1000, sum(number % 40 for number in range(kind, 3000, 3))) for kind in range(3)]
    said = example("tables.py", queue, engine)
    assert said == "".join(f"type {kind}: {count} records, {size} bytes\n" for kind, count, size in expected)


def test_from_c_to_python(installed: Path, queue: Path, tmp_path: Path) -> None:
    flags = [f"-I{installed}/include", str(installed / "lib" / "libchron.a"), "-lpthread", "-lm"]
    source, program = EXAMPLES / "sensor.c", tmp_path / "sensor"
    command = [CC, "-Wall", "-Werror", str(source), *flags, "-o", str(program)]
    finished(subprocess.run(command, capture_output=True, text=True))
    for start in (0, 1000):
        said = finished(subprocess.run([program, queue, "1000"], capture_output=True, text=True))
        assert said == f"next seq: {start + 1000}\n"
        lines = example("sensor.py", queue).splitlines()
        assert lines[0] == f"1000 readings from seq {start}"
        assert lines[1:] == [f"sensor {number}: at most 21.00 degrees" for number in range(4)]


def test_a_struct_of_c_comes_out_as_columns(installed: Path, queue: Path, tmp_path: Path) -> None:
    for module in ("numpy", "pyarrow", "polars"):
        need(module)
    told = [sys.executable, "-m", "chronicle_ffi", "schema", str(queue), "--type", "1", "--struct"]
    said = finished(subprocess.run([*told, EXAMPLES / "quote.h", "--key", "symbol"], capture_output=True, text=True))
    assert said.splitlines()[0] == "type 1: quote, fixed, 32 bytes"
    flags = [f"-I{installed}/include", str(installed / "lib" / "libchron.a"), "-lpthread", "-lm"]
    program = tmp_path / "quotes"
    command = [CC, "-Wall", "-Werror", str(EXAMPLES / "quotes.c"), *flags, "-o", str(program)]
    finished(subprocess.run(command, capture_output=True, text=True))
    finished(subprocess.run([program, queue, "3000"], capture_output=True, text=True))
    assert example("quotes.py", queue).splitlines() == [
        "quote: symbol, bid, ask, size",
        "newest: USDJPY 3.999",
        "EURGBP: 1000 quotes, mean spread 0.001",
        "EURUSD: 1000 quotes, mean spread 0.001",
        "USDJPY: 1000 quotes, mean spread 0.001",
        "EURGBP: best bid 3.998",
    ]
