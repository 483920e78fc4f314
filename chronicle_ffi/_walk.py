# SPDX-License-Identifier: MIT
"""What C tells while it walks: through a queue, of problems; through a file in quarantine, of records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chronicle_ffi._binding import check, error, ffi, lib, optional_seq, string
from chronicle_ffi.errors import NotSupported
from chronicle_ffi.model import Message, Problem

_KINDS = {
    lib.CHRON_PROBLEM_META: "meta",
    lib.CHRON_PROBLEM_HEADER: "header",
    lib.CHRON_PROBLEM_RECORD: "record",
    lib.CHRON_PROBLEM_CHAIN: "chain",
    lib.CHRON_PROBLEM_SEAL: "seal",
    lib.CHRON_PROBLEM_INDEX: "index",
    lib.CHRON_PROBLEM_TAIL: "tail",
    lib.CHRON_PROBLEM_POSITION: "position",
    lib.CHRON_PROBLEM_DOORBELL: "doorbell",
    lib.CHRON_PROBLEM_FILE: "file",
    lib.CHRON_NOTE_FOREIGN: "foreign",
    lib.CHRON_NOTE_GAP: "gap",
    lib.CHRON_NOTE_UNREADABLE: "unreadable",
    lib.CHRON_NOTE_QUARANTINE: "quarantine",
}
_ACTIONS = {
    lib.CHRON_ACTION_NONE: "",
    lib.CHRON_ACTION_ANEW: "anew",
    lib.CHRON_ACTION_GAP: "gap",
    lib.CHRON_ACTION_CUT: "cut",
    lib.CHRON_ACTION_MOVE: "move",
}


class Walk:
    """What is found, and who wants to know how far it is."""

    def __init__(
        self,
        progress: Callable[[str, int], None] | None,
        approve: Callable[[list[Problem]], bool] | None = None,
    ) -> None:
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self._progress = progress
        self._approve = approve
        self._raised: BaseException | None = None
        self._heard = False

    def run(self, call: Callable[[Any, Any], int]) -> None:
        """`call(callback, context)` is one of C's; what a function of the caller's raised is raised here."""
        handle = ffi.new_handle(self)
        status = call(lib.chronicle_on_problem, handle)
        if self._raised is not None:
            raise self._raised
        if status < 0:
            raise error(status)

    @staticmethod
    def must_be_heard() -> None:
        """Raises NotSupported where C's calls do not arrive: in subinterpreters."""
        walk = Walk(None)
        handle = ffi.new_handle(walk)
        lib.chronicle_on_problem(handle, ffi.new("chron_problem *"))
        if not walk._heard:
            raise NotSupported("C cannot call back in this subinterpreter: use the main one")

    def see(self, problem: Any) -> bool:
        """One call of C's. False: the walk is to end."""
        self._heard = True
        if problem.action == lib.CHRON_ACTION_READY:
            return self._approve is None or bool(self._approve(self.problems))
        if problem.kind == 0:
            if self._progress is not None:
                self._progress(string(problem.file), problem.seq)
            return True
        found = self.notes if problem.kind >= lib.CHRON_NOTES else self.problems
        found.append(
            Problem(
                kind=_KINDS[problem.kind],
                file=string(problem.file),
                offset=problem.offset,
                seq=optional_seq(problem.seq),
                seq_end=optional_seq(problem.seq_end),
                text=string(problem.text),
                action=_ACTIONS[problem.action],
            )
        )
        return True


def _stopped(kind: type[BaseException], raised: BaseException, trace: Any) -> None:
    """What a function below raised, even before its first line: to be raised where the walk began."""
    walk: Walk | Records = ffi.from_handle(trace.tb_frame.f_locals["context"])
    walk._raised = raised


@ffi.def_extern(error=1, onerror=_stopped)  # type: ignore[misc, unused-ignore]
def chronicle_on_problem(context: Any, problem: Any) -> int:
    walk: Walk = ffi.from_handle(context)
    return not walk.see(problem)


class Records:
    """Who wants the records in a file of quarantine."""

    def __init__(self, each: Callable[[Message], object]) -> None:
        self._each = each
        self._raised: BaseException | None = None

    def run(self, path: bytes, name: bytes) -> int:
        """How many there were. What `each` raised is raised here."""
        Walk.must_be_heard()
        count = lib.chron_queue_quarantine_read(path, name, lib.chronicle_on_view, ffi.new_handle(self))
        if self._raised is not None:
            raise self._raised
        return int(check(count))


@ffi.def_extern(error=1, onerror=_stopped)  # type: ignore[misc, unused-ignore]
def chronicle_on_view(context: Any, record: Any) -> int:
    records: Records = ffi.from_handle(context)
    payload = bytes(ffi.buffer(record.payload, record.length))
    records._each(Message(record.seq, record.timestamp_ns, record.type_id, record.flags, payload))
    return 0
