# SPDX-License-Identifier: MIT
"""What the demo shows: a line of progress while it runs, and a table at its end."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping

from chronicle_ffi import QueueInfo, VerifyReport
from chronicle_ffi.cli.demo.source import Tally
from chronicle_ffi.cli.demo.workers import RECORDS_PAST_COMMIT, Plan, Seen, Written
from chronicle_ffi.cli.text import binary_size, number, plural, table

ON_TERMINAL_EVERY, ELSEWHERE_EVERY = 0.1, 1.0  # seconds between lines of progress
DIGEST_SHOWN = 16  # hexadecimal digits, in the table


class Progress:
    """How far everybody is: one line that renews itself on a terminal, a line every second elsewhere."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._next = self._started

    def show(self, percent: Mapping[str, int]) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (ON_TERMINAL_EVERY if self._terminal else ELSEWHERE_EVERY)
        parts = "   ".join(f"{who} {value:3} %" for who, value in percent.items())
        line = f"{now - self._started:5.1f} s  {parts}"
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", flush=True)

    def end(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)

    def tell(self, text: str) -> None:
        """A line that stays."""
        self.end()
        print(f"{time.monotonic() - self._started:5.1f} s  {text}", flush=True)


def report(source: Tally, written: Written, readers: Mapping[str, Seen], info: QueueInfo) -> list[str]:
    """Who saw what, beside what there was to see."""
    rows = [
        ("source files", *counts(source), "", "", shortened(source.digest)),
        ("writer", *counts(written), *speed(written.records, written.seconds), ""),
    ]
    for name, seen in readers.items():
        own = seen.tally.records - seen.resumed_from  # what this process read; the killed one read the rest
        rows.append((f"{name} reader", *counts(seen.tally), *speed(own, seen.seconds), shortened(seen.tally.digest)))
    return [
        *table("<>>>><", ("", "records", "bytes", "seconds", "records/s", "SHA-256"), rows),
        "",
        f"{plural(source.files, 'file')} in {plural(info.segments, 'segment')}"
        f" of {binary_size(info.segment_size)}; the writer rolled {plural(written.rolls, 'time')}.",
        f"SHA-256, chained over the files: {source.digest}",
    ]


def counts(done: Tally | Written) -> tuple[str, str]:
    return number(done.records), number(done.payload_bytes)


def speed(records: int, seconds: float) -> tuple[str, str]:
    return f"{seconds:.2f}", number(round(records / seconds))


def shortened(digest: str) -> str:
    return f"{digest[:DIGEST_SHOWN]}..."


def resumption(seen: Seen) -> str:
    return (
        f"The killed reader had read up to {RECORDS_PAST_COMMIT} records beyond its last commit;"
        f" its successor resumed at the committed position, seq {number(seen.resumed_from)}."
    )


def differences(
    source: Tally, written: Written, readers: Mapping[str, Seen], info: QueueInfo, verified: VerifyReport
) -> list[str]:
    """Everything that is not as it must be."""
    found = []
    if (written.records, written.payload_bytes) != (source.records, source.payload_bytes):
        found.append(f"the writer appended {written}, the source is {source}")
    if info.next_seq != source.records:
        found.append(f"the log ends at seq {info.next_seq}, not {source.records}")
    for name, seen in readers.items():
        if seen.tally != source:
            found.append(f"the {name} reader saw {seen.tally}, not {source}")
    for problem in verified.problems:
        found.append(f"verify: {problem.file}, byte {problem.offset}: {problem.text}")
    if verified.records != source.records:
        found.append(f"verify counted {verified.records} records, not {source.records}")
    return found


def farewell(plan: Plan) -> list[str]:
    """Where the queue lies, and what to try on it."""
    command, queue = program(), plan.queue
    return [
        f"The queue is {queue}. Try:",
        f"  {command} inspect {queue}",
        f"  {command} tail {queue} --type 1                 the last ten files",
        f"  {command} tail {queue} --from 4711 -n 1 --format hex",
        f"  {command} tail {queue} -f --reader me           from the start, as a new reader",
        f"  {command} cleanup {queue} --dry-run             what could go, and who holds the rest",
        f"  {command} verify {queue}",
    ]


def program() -> str:
    """How the user can run this command again."""
    if os.path.basename(sys.argv[0]) != "chronicle":
        return f"{sys.executable} -m chronicle_ffi"
    found = shutil.which("chronicle")
    return "chronicle" if found and os.path.samefile(found, sys.argv[0]) else sys.argv[0]
