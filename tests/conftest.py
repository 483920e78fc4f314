# SPDX-License-Identifier: MIT
"""Fixtures: a fresh path for a queue, a small file system to fill up, the C library installed somewhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import explored

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it, and so would their children

# dev: what make test takes by itself; ci: more of it, and a failure prints how to replay it; nightly: for long.
EXAMPLES = {"dev": 80, "ci": 200, "nightly": int(os.environ.get("CHRONICLE_STATEFUL_EXAMPLES", "3000"))}
for _name, _count in EXAMPLES.items():
    settings.register_profile(
        _name,
        max_examples=_count,
        print_blob=_name != "dev",
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """Where a queue can be: nothing is there yet."""
    return tmp_path / "queue"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where an archive can be."""
    return tmp_path / "archive"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What readers of an archive fetch goes to "cache", and nothing of it stays."""
    where = tmp_path / "cache"
    where.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(where))
    yield
    assert not list(where.glob("chronicle-archive-*"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix that `make install` installed to."""
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    prefix = tmp_path_factory.mktemp("prefix")
    command = ["make", "install", f"PREFIX={prefix}"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return prefix


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 2 MiB; skips where mounting is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], stderr=subprocess.DEVNULL).returncode
    ):
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in explored.lines():
        terminalreporter.write_line(line)
