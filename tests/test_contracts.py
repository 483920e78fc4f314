# SPDX-License-Identifier: MIT
"""Contracts in chronicle.h say which errors a function can answer. The C code can answer these, and no others.

The code is read by its style: functions begin in column 0, failures are made by chron__fail and its brothers, and
whoever calls passes on what it was answered. Where a failure goes no further stands in ENDS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEADER = (ROOT / "csrc/include/chronicle.h").read_text()
CODES = set(re.findall(r"^    X\((E\w+),", HEADER, re.MULTILINE))
SYSTEM = {"EIO", "EACCESS", "ENOMEM", "ENOSPC", "ENOTSUP"}  # "those of the system"
HANDLES = {"EFORKED", "EBUSY", "ECLOSED"}  # what all share that take one
EVERY = CODES

# Function -> what does not leave it, though something that it calls answers so.
ENDS: dict[str, set[str]] = {
    # A failure is an answer: not there, not readable, damaged, ready.
    "is_ready": EVERY,
    "is_hole": EVERY,
    "look_ahead": EVERY,
    "fill_segment": EVERY,
    "made_at": EVERY,
    "look_at": EVERY,
    "decode_seal": EVERY,
    "chron__reader_fingerprint": EVERY,
    "describe": EVERY,
    "chron__doorbell_open": EVERY,
    "crc_of": EVERY,
    "check_doorbell": EVERY,
    "chron__verify_segment": EVERY,
    "chron_queue_verify": {"ECORRUPT", "ENETFS"},
    # Made anew, tried again, or told in other words.
    "chron__doorbell_create": {"ECORRUPT", "EFORMAT"},
    "chron__log_end": {"EGONE", "ECORRUPT"},
    "chron__reader_attach": {"ERANGE"},
    "chron__reader_reattach": {"ERANGE"},
    # Passed over, or told by who reads there.
    "chron__reader_move_to": {"ECORRUPT"},
    "find_before_in": {"EGONE", "ECORRUPT"},
    "open_of": {"EGONE", "ECORRUPT"},
    # What cannot be read may hold a snapshot; a summary that cannot be had is done without.
    "has_snapshot": {"EGONE", "ECORRUPT"},
    "chron__summary_get": EVERY,
    "chron__summary_load": EVERY,
    "build": EVERY,
    "begin_building": EVERY,
    "seek_time_in": {"EGONE", "ECORRUPT"},
    # What a name leads to cannot be read: what is mapped is better.
    "go_over": {"ENOQUEUE"},
    "check_meta": {"ECORRUPT", "EFORMAT"},
    "seek_earliest": {"EGONE", "ERANGE"},
    "seek_latest": {"EGONE", "ERANGE", "EREWRITTEN"},
    "sync_unheard": {"EGONE", "EFORMAT"},
    # Network file systems are allowed to those who only look.
    "open_path": {"ENETFS"},
    "chron_queue_cleanup_plan": {"ENETFS"},
    "chron_queue_quarantine": {"ENETFS"},
    "chron_queue_quarantine_read": {"ENETFS"},
    # Whoever has the position open looks for himself.
    "undo_one": {"EREADER", "ECORRUPT", "EACCESS"},
    # Only the holder of the writer's lock deletes segments.
    "recover": {"EGONE"},
    "chron__birth_again": {"EGONE"},
    "repair": HANDLES | {"ETURN"},  # the handle is its own, and exclusive
    # Durability was refused when the writer opened; who is poisoned does not sync at the end, nor does try_append.
    "last_words": {"ENOTDURABLE"},
    # A sync that an append asks for has one answer; one that is due is not for try_append.
    "chron__finish": {"ENOTDURABLE", "EREMOVED", "ECORRUPT", "EFORMAT", "EFULL", "EINTR", "ETURN"} | SYSTEM,
    "make_durable": {"ENOTDURABLE", "EREMOVED", "ECORRUPT", "EFORMAT", "EFULL", "EINTR", "ETURN"} | SYSTEM,
    # One that is gone was taken by somebody else, or left.
    "chron__shared_open_head": {"EGONE"},
    "follow": {"EGONE"},
    "mend_roll": {"EGONE"},
    "come": {"EGONE"},
    "chron__writer_faulted": {"EIO"},
    "leave": {"EIO"},
    "chron_writer_try_append": {"EUNSYNCED"},
    # Of groups: where nothing is kept over a loss of power, neither is the dead queue; no such queue is an answer.
    "deliver": {"ENOTDURABLE", "ECLAIM", "ETURN"} | HANDLES,
    "end_of_dead": {"ENOQUEUE"},
    "search": {"ENOQUEUE", "EREADER"} | HANDLES,
    "describe_group": EVERY,
    "fingerprint": EVERY,
    "epoch_of": EVERY,
    "check_fingerprint": SYSTEM | {"EFORMAT"},
    "is_any_free": EVERY,
    "part": EVERY,
    "chron__group_recover": HANDLES,
    "step_with_key": {"ECORRUPT"},
    "meet_damage": EVERY,
    # A merge's readers are its own; what cannot be armed is met by the next read.
    "chron_merge_close": HANDLES | {"EINVAL"},
    "arm_source": EVERY,
    "chron_merge_wake": {"EINVAL"},
    # sigaction() has no other.
    "chron_guard_install": SYSTEM - {"EIO"},
}

# --------------------------------------------------------------------------------------- contracts


@dataclass(frozen=True)
class Contract:
    parameters: str
    text: str

    @property
    def errors(self) -> str:
        """What stands behind "Errors:"."""
        return self.text.partition("Errors:")[2]

    @property
    def takes_handle(self) -> bool:
        return re.search(r"(?<!const )chron_(?:writer|reader|merge|group) \*\w", self.parameters) is not None


def contracts() -> dict[str, Contract]:
    """The comment right above each function."""
    found = re.findall(r"(?:/\*((?:(?!\*/).)*)\*/\n)?^CHRON_API [^;]*?(chron_\w+)\(([^;]*)\);", HEADER, re.M | re.S)
    return {name: Contract(parameters, re.sub(r"\n \*", "", comment)) for comment, name, parameters in found}


CONTRACTS = contracts()


def said(name: str) -> set[str]:
    """The codes that a contract lists; and those that it takes over: "as chron_...()" at its start, or behind "and"."""
    errors = CONTRACTS[name].errors
    codes = set(re.findall(r"\bE[A-Z]{2,}\b", errors)) | (SYSTEM if "those of the system" in errors else set())
    return codes.union(*map(said, re.findall(r"(?:^ |, and )as (chron_\w+)\(\)", errors)))


# ------------------------------------------------------------------------------------------ the code


@dataclass(frozen=True)
class Function:
    file: str
    name: str
    body: str


def functions() -> dict[tuple[str, str], Function]:
    """By file and name; those that other files can call are under the file ""."""
    found = {}
    for path in sorted((ROOT / "csrc/src").glob("*/*.[ch]")):
        text = re.sub(r"/\*.*?\*/|__attribute__\(\(.*?\)\)", "", path.read_text(), flags=re.DOTALL)
        text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
        for head, name, body in re.findall(
            r"^(\w[^\n;{}=#()]*?)\b(\w+)\([^;{}]*?\)\s*\n\{\n(.*?)^\}$", text, re.MULTILINE | re.DOTALL
        ):
            file = path.as_posix() if "static" in head and path.suffix == ".c" else ""
            found[file, name] = Function(path.as_posix(), name, body)
    return found


FUNCTIONS = functions()


@cache
def comes_up(function: Function) -> frozenset[str]:
    """What it, or what it calls, answers."""
    codes = set(re.findall(r"(?:chron__fail\(\s*|return -)CHRON_(E[A-Z]+)\b", function.body))
    if "chron__fail_sys(" in function.body:
        codes |= SYSTEM
    for name in set(re.findall(r"\b(\w+)\(", function.body)) - {function.name}:
        called = FUNCTIONS.get((function.file, name)) or FUNCTIONS.get(("", name))
        if called:
            codes |= answers(called)
    return frozenset(codes)


def answers(function: Function) -> frozenset[str]:
    return comes_up(function) - ENDS.get(function.name, set())


# ------------------------------------------------------------------------------------------- tests


def test_every_function_has_a_contract() -> None:
    assert len(CONTRACTS) == HEADER.count("\nCHRON_API ") > 60
    wrong = [name for name, one in CONTRACTS.items() if ("Errors:" in one.text) == ("Never fails." in one.text)]
    assert not wrong


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_says_what_the_code_answers(name: str) -> None:
    contract = CONTRACTS[name]
    possible = answers(FUNCTIONS["", name])
    if "Never fails." in contract.text:
        assert not possible
        return
    listed = said(name)
    assert listed <= CODES
    if contract.takes_handle:
        assert possible >= ({"EFORKED"} if name.startswith("chron_merge_") else HANDLES)  # a merge is not checked
        assert not listed & (HANDLES - {"EBUSY"}), "all functions that take a handle share these"
        possible -= HANDLES - listed
    assert listed == possible - ({"EINVAL"} - listed)


def test_what_ends_somewhere_comes_up_there() -> None:
    for name, ends in ENDS.items():
        found = set().union(*(comes_up(function) for function in FUNCTIONS.values() if function.name == name))
        assert found & ends if ends == EVERY else found >= ends, name
