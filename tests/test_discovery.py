# SPDX-License-Identifier: MIT
"""Queues below a directory: found, watched with inotify and without, whatever else lies there; and "chronicle list"."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chronicle_ffi import Queue, QueueNotFound
from chronicle_ffi.cli import main
from chronicle_ffi.merge import Discovery, Sighting, inotify

WRITER = """
import sys
from chronicle_ffi import Queue
writer = Queue.open_publisher(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Queue.open_publisher(path, segment_size=1 << 16, keeper=False).close()
    return path


@pytest.fixture(params=["inotify", "polling"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "polling":

        def nothing(self: inotify.Watch) -> None:
            raise OSError("there is none")

        monkeypatch.setattr(inotify.Watch, "__init__", nothing)
    return str(request.param)


def watched(root: Path, way: str) -> Discovery:
    """With inotify nothing is to be left to the looks that come anyway."""
    return Queue.discover(root, interval="50ms" if way == "polling" else 60)


def test_what_becomes_of_queues(tmp_path: Path, way: str) -> None:
    first = make(tmp_path / "a")
    with watched(tmp_path, way) as discovery:
        assert discovery.next(20) == Sighting("appeared", str(first), False)
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, first], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout
        assert child.stdout.readline() == "open\n"
        assert discovery.next(20) == Sighting("writer", str(first), True)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert discovery.next(20) == Sighting("writer_gone", str(first), False)
        second = make(tmp_path / "deep" / "er" / "b")
        assert discovery.next(20) == Sighting("appeared", str(second), False)
        shutil.rmtree(first)
        assert discovery.next(20) == Sighting("gone", str(first), False)
        assert discovery.paths == [str(second)]
        assert discovery.next(0) is None
    assert discovery.next() is None


def test_on_an_event_loop(tmp_path: Path, way: str) -> None:
    async def watch() -> list[str]:
        found = []
        with watched(tmp_path, way) as discovery:
            asyncio.get_running_loop().call_later(0.1, make, tmp_path / "a")
            found.append((await discovery).path)
            asyncio.get_running_loop().call_later(0.1, make, tmp_path / "b")
            async for sighting in discovery:
                found.append(sighting.path)
                break
            assert await discovery.next_async(0.01) is None
        return found

    assert asyncio.run(watch()) == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_loops_and_strangers_are_harmless(tmp_path: Path) -> None:
    path = make(tmp_path / "sub" / "q")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "looks like one").mkdir()
    (tmp_path / "looks like one" / "queue.meta").write_bytes(b"no")
    make(path / "inside")  # of a queue: that is its own business
    found = [sighting.path for sighting in Queue.discover(tmp_path, watch=False)]
    assert [Path(one).name for one in found] == ["again", "looks like one"]


def test_patterns_and_depth(tmp_path: Path) -> None:
    for name in ("x/ticks-1", "x/ticks-2", "y/orders"):
        make(tmp_path / name)

    def found(pattern: str, **options: int) -> list[str]:
        return [
            Path(one.path).relative_to(tmp_path).as_posix()
            for one in Queue.discover(tmp_path, pattern, watch=False, **options)
        ]

    assert found("ticks-*") == ["x/ticks-1", "x/ticks-2"]
    assert found("y/*") == ["y/orders"]
    assert found("*", depth=0) == []
    with pytest.raises(QueueNotFound):
        Queue.discover(tmp_path / "nowhere")


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Queue.open_publisher(tmp_path / "a") as writer:
        writer.append_many([b"one", b"two", b"three"])
        Queue.open_subscriber(tmp_path / "a", "slow").close()
        with Queue.open_subscriber(tmp_path / "a", "fast") as reader:
            list(reader)
            reader.commit()
        assert main(["list", str(tmp_path), "--over", "0"]) == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head.split()[0] == "queue"
        assert row.split()[:3] == [str(tmp_path / "a"), "3", "0"]
        assert row.endswith("2  3 (slow)")
        assert main(["list", str(tmp_path), "--over", "10ms", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
    assert (told["records"], told["writer"], told["worst_lag"], told["worst_reader"]) == (3, True, 3, "slow")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "queue.meta").write_bytes(b"no")
    assert main(["list", str(tmp_path)]) == 1
    assert f"{tmp_path / 'b'}: " in capsys.readouterr().err
