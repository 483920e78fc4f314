# SPDX-License-Identifier: MIT
"""Runs everything in turns: each measurement in a fresh process and a fresh directory, none longer than allowed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from bench.peers.measure import Result
from bench.peers.worker import Job

ROOT: Final = Path(__file__).parent.parent.parent
PAYLOAD_BYTES_MAX: Final = 256 << 20  # of one run
FAILURES_MAX: Final = 1  # after so many a cell takes no part any more


@dataclass
class Cell:
    """One contestant at one task with one size of records, and what its runs gave."""

    contestant: str
    task: str
    size: int
    records: int = 0
    results: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def fresh_place(base: Path) -> Iterator[Path]:
    """A directory that nothing lies in, and that is gone afterwards."""
    base.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=base))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _end_group(leader: int) -> None:
    """Whatever a worker started ends with it: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def run(job: Job, timeout_seconds: float) -> Result | str:
    """One measurement; why there is none, if it failed or took too long."""
    # Files, not pipes: whoever holds the other end of a pipe can keep its reader waiting.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        worker = subprocess.Popen(
            [sys.executable, "-m", "bench.peers.worker", job.text()],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status = worker.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return f"hung: killed after {timeout_seconds:g} s"
        finally:
            _end_group(worker.pid)
            worker.wait()
        lines, reasons = (written(text) for text in (out, err))
    if status == 0 and lines:
        result: Result = json.loads(lines[-1])
        return result
    return f"failed: {reasons[-1] if reasons else f'exit status {status}'}"


def written(file: IO[str]) -> list[str]:
    file.seek(0)
    return [line for line in file.read().splitlines() if line.strip()]


@dataclass(frozen=True)
class Race:
    """How a race is run. `seconds` is what a run should take, `where` maps names of contestants to their classes."""

    where: dict[str, str]
    place: Path
    rounds: int = 5
    seconds: float = 0.2
    timeout_seconds: float = 30.0

    def _job(self, cell: Cell, place: Path) -> Job:
        return Job(
            self.where[cell.contestant],
            cell.task,
            cell.size,
            str(place),
            records=cell.records,
            seconds=self.seconds,
            records_max=PAYLOAD_BYTES_MAX // cell.size,
        )

    def _once(self, cell: Cell) -> Result | str:
        with fresh_place(self.place) as place:
            return run(self._job(cell, place), self.timeout_seconds)

    def calibrate(self, cell: Cell) -> None:
        """Find out how many records a run should have."""
        found = self._once(cell)
        if isinstance(found, str):
            cell.failures.append(found)
        else:
            cell.records = found["records"]

    def round(self, cells: list[Cell]) -> None:
        """Every cell once."""
        for cell in cells:
            if len(cell.failures) >= FAILURES_MAX:
                continue
            found = self._once(cell)
            if isinstance(found, str):
                cell.failures.append(found)
            else:
                cell.results.append(found)
            self.say(cell, found)

    def run(self, cells: list[Cell]) -> None:
        for cell in cells:
            self.calibrate(cell)
            if cell.failures:
                self.say(cell, cell.failures[-1])
        for number in range(self.rounds):
            print(f"round {number + 1} of {self.rounds}", flush=True)
            self.round(cells)

    def say(self, cell: Cell, found: Result | str) -> None:
        if isinstance(found, str):
            text = found
        elif "nanoseconds" in found:
            text = ", ".join(f"{name} {ns / 1e3:.1f} us" for name, ns in found["nanoseconds"].items())
        else:
            text = f"{found['records'] / found['seconds']:>14,.0f}/s of {found['records']:,}"
        print(f"  {cell.task:13} {cell.size:5} {cell.contestant:14} {text}", flush=True)
