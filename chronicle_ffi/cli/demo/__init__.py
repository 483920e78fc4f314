# SPDX-License-Identifier: MIT
"""``chronicle demo``: the main job on real input, with real processes, checked to the last byte.

A writer journals the source text of Python's standard library while three readers follow: one from the
start, which compares each line with the files; one that is killed in the middle and resumes; one that starts
late. All must arrive at the digest that is computed from the files themselves.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NoReturn, TypeVar

from chronicle_ffi import Queue
from chronicle_ffi.cli.demo import report as show
from chronicle_ffi.cli.demo.source import Tally, find_sources, measure, standard_library
from chronicle_ffi.cli.demo.workers import (
    PATIENCE_SECONDS,
    DemoFailure,
    Plan,
    Seen,
    Written,
    read_and_check_journal,
    read_journal,
    read_journal_in_lives,
    write_journal,
)
from chronicle_ffi.cli.options import Subparsers, count, size
from chronicle_ffi.cli.status import DAMAGED, OK, UserError
from chronicle_ffi.cli.text import number, plural

SEGMENT_SIZE = 4 << 20  # small, so that there is something to roll
LOOK_EVERY = 0.02  # seconds
NAMES = ("writer", "live", "killed", "late")
MARK = "made-by-chronicle-demo"  # an empty file: this directory may be used again

DESCRIPTION = """\
Journal the source text of Python's standard library, line by line, in one process, while three others read
it: one live, checking each line against the files; one that is killed with SIGKILL in the middle and started
again; one that starts late. Ends with a table, and with status 1 if anything differs.
"""

Result = TypeVar("Result")


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("demo", help="see it at work on real input", description=DESCRIPTION)
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="DIR",
        help="where to work; one left by an earlier demo is used afresh (default: chronicle-demo-UID, where temporary"
        " files go)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="journal the *.py files below DIR (default: the standard library)",
    )
    parser.add_argument("--limit-files", type=count, metavar="N", help="only the first N files")
    parser.add_argument("--segment-size", type=size, default=SEGMENT_SIZE, metavar="SIZE", help="(default: 4M)")
    parser.set_defaults(run=run)


def default_directory() -> Path:
    try:
        return Path(tempfile.gettempdir(), f"chronicle-demo-{os.getuid()}")
    except FileNotFoundError as error:
        raise UserError(f"{error.strerror}: say with --dir where to work") from None


def run(args: argparse.Namespace) -> int:
    # Here, not as defaults of the arguments: those are made for every command, where they may fail.
    root = args.source or standard_library()
    directory = args.dir or default_directory()
    sources = find_sources(root, args.limit_files)
    if not sources:
        raise UserError(f"{root}: no *.py files")
    source = measure(root, sources)
    plan = Plan(root, sources, source.records, directory.absolute())
    start_afresh(plan)
    print(f"to journal: {plural(source.files, 'file')} below {root}, {plural(source.records, 'record')}")
    try:
        with terminated_by_exception():
            written, readers = Demo(plan, args.segment_size).play()
    except DemoFailure as failure:
        print(f"FAILED: {failure}\nThe queue is {plan.queue}.")
        return DAMAGED
    return conclude(plan, source, written, readers)


def conclude(plan: Plan, source: Tally, written: Written, readers: dict[str, Seen]) -> int:
    info = Queue.info(plan.queue)
    verified = Queue.verify(plan.queue)
    print("\n".join(["", *show.report(source, written, readers, info)]))
    wrong = show.differences(source, written, readers, info, verified)
    if wrong:
        print("\n".join(["", *(f"DIFFERS: {line}" for line in wrong), f"The queue is {plan.queue}."]))
        return DAMAGED
    print("All readers saw exactly what the files hold, and the queue verifies.")
    print("\n".join([show.resumption(readers["killed"]), "", *show.farewell(plan)]))
    return OK


def start_afresh(plan: Plan) -> None:
    """An empty directory to work in; removes only what an earlier demo made."""
    directory = plan.directory
    if os.path.lexists(directory):
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise UserError(f"{directory} is not a directory of yours: name another with --dir")
        if not (directory / MARK).exists() and any(directory.iterdir()):
            raise UserError(f"{directory} was not made by this demo: name another with --dir")
        if plan.queue.exists():
            if Queue.info(plan.queue).writer_alive:
                raise UserError(f"{plan.queue} is in use: another demo is running")
            shutil.rmtree(plan.queue)
        plan.checkpoint.unlink(missing_ok=True)
    else:
        directory.mkdir(mode=0o700)
    (directory / MARK).touch()


class Worker(Generic[Result]):
    """A process of its own, in a fresh interpreter, that computes one result."""

    def __init__(self, name: str, exit_code: int, work: Callable[..., Result], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.exit_code = exit_code  # that it is to end with
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=run_worker, args=(name, sender, work, *arguments), daemon=True)
        # A Ctrl-C at the terminal is meant for us: a child inherits the mask and never sees it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        sender.close()
        self._position = 0
        self._moved_at = time.monotonic()

    def look(self, position: int, end: int) -> None:
        """Note where it stands; DemoFailure if it ended badly, or has stood there for too long."""
        now = time.monotonic()
        if position != self._position:
            self._position, self._moved_at = position, now
        code = self._process.exitcode
        if code not in (None, self.exit_code):
            raise DemoFailure(f"{self.name} ended with status {code} at seq {position} of {end}")
        if not self.finished and now - self._moved_at > 1.5 * PATIENCE_SECONDS:
            raise DemoFailure(f"{self.name} stands at seq {position} of {end} and does not move")

    @property
    def finished(self) -> bool:
        return self._process.exitcode == self.exit_code

    def result(self) -> Result:
        """Of a worker that has finished."""
        result: Result = self._receiver.recv()
        return result

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def run_worker(name: str, sender: Any, work: Callable[..., object], *arguments: object) -> None:
    """In the child."""
    try:
        sender.send(work(*arguments))
    except DemoFailure as failure:
        raise SystemExit(f"{name}: {failure}") from None


class Demo:
    """One run: starts the workers at their moments, watches them, and leaves none behind."""

    def __init__(self, plan: Plan, segment_size: int) -> None:
        self.plan = plan
        self.workers: list[Worker[Any]] = []
        self.positions: dict[str, int] = {}  # of the writer and the readers, by name
        self.progress = show.Progress()
        Queue.open_publisher(plan.queue, segment_size=segment_size, keeper=False).close()

    def play(self) -> tuple[Written, dict[str, Seen]]:
        try:
            return self.play_parts()
        finally:
            self.progress.end()
            for worker in self.workers:
                worker.kill()

    def play_parts(self) -> tuple[Written, dict[str, Seen]]:
        die_in_file = len(self.plan.sources) // 3
        live = self.start("live", read_and_check_journal, "live")
        doomed = self.start("killed", read_journal_in_lives, "killed", die_in_file, exit_code=-signal.SIGKILL)
        self.watch_until(lambda: {"live", "killed"} <= self.positions.keys())
        writer = self.start("writer", write_journal)
        self.watch_until(lambda: doomed.finished)
        self.progress.tell(f"one reader was killed; its last commit: seq {number(self.positions['killed'])}")
        successor = self.start("killed", read_journal_in_lives, "killed", None)
        self.watch_until(lambda: self.positions["writer"] >= self.plan.records // 2)
        late = self.start("late", read_journal, "late")
        behind = number(self.positions["writer"])
        self.progress.tell(f"the late reader starts, with {behind} records to catch up")
        self.watch_until(lambda: all(worker.finished for worker in self.workers))
        return writer.result(), {"live": live.result(), "killed": successor.result(), "late": late.result()}

    def start(self, name: str, work: Callable[..., Result], *arguments: object, exit_code: int = 0) -> Worker[Result]:
        worker = Worker(name, exit_code, work, self.plan, *arguments)
        self.workers.append(worker)
        return worker

    def watch_until(self, done: Callable[[], bool]) -> None:
        while not done():
            time.sleep(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        end = self.plan.records
        self.positions = {reader.name: reader.position for reader in Queue.readers(self.plan.queue)}
        self.positions["writer"] = Queue.info(self.plan.queue).next_seq
        for worker in self.workers:
            worker.look(self.positions.get(worker.name, 0), end)
        self.progress.show({name: 100 * self.positions.get(name, 0) // end for name in NAMES})


@contextmanager
def terminated_by_exception() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that no process is left behind."""

    def unwind(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
