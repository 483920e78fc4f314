# SPDX-License-Identifier: MIT
"""The harness of the race (bench/peers), without any peer: what it measures, checks, survives and concludes."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import pytest

from bench.peers.contestants import CONTESTANTS, OURS
from bench.peers.goals import GOALS, Goal, judge, percentile, rate
from bench.peers.interface import TASKS, find, load
from bench.peers.measure import Result
from bench.peers.race import ROOT, Cell, Race, run
from bench.peers.records import RING, Check, Ring, WrongContent
from bench.peers.worker import Job

FAKES = "tests.peer_fakes"
LONG = 60.0
NUMPY = importlib.util.find_spec("numpy") is not None


def measured(where: str, task: str, place: Path, records: int = 300, **more: int) -> Result:
    found = run(Job(where, task, 64, str(place), records=records, **more), LONG)
    assert not isinstance(found, str), found
    return found


# ------------------------------------------------------------------------------------------ content


def test_the_check_takes_what_was_appended_and_nothing_else() -> None:
    ring = Ring(64)
    check = Check(ring)
    for begin, count in ((0, 1), (1, RING - 1), (RING, 7), (RING + 7, RING)):
        check(ring.take(begin, count))
    assert check.seen == 2 * RING + 7

    right = ring.take(0, 10)
    for wrong in (
        [],
        [right[0][:-1] + b"\0" * (right[0][-1:] != b"\0"), *right[1:]],
        [right[1], right[0], *right[2:]],
        right[1:],
        [right[0], *right],
        [right[0] + right[1][:1], right[1][1:], *right[2:]],
    ):
        with pytest.raises(WrongContent):
            Check(ring)(wrong)


@pytest.mark.skipif(not NUMPY, reason="numpy is not installed")
def test_the_check_of_rows() -> None:
    ring = Ring(64)
    check = Check(ring)
    rows = ring.rows()
    check.rows(rows[:7])
    check.rows(rows[7:])
    check.rows(rows[:1])
    with pytest.raises(WrongContent):
        check.rows(rows[:1])


# --------------------------------------------------------------------------------------- contestants


def test_every_contestant_has_its_file() -> None:
    for where in CONTESTANTS.values():
        module, _, kind = where.partition(":")
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        assert f"class {kind}(" in source


@pytest.mark.parametrize("task", TASKS)
def test_ours(task: str, tmp_path: Path) -> None:
    if not NUMPY and TASKS[task].arrays:
        pytest.skip("numpy is not installed")
    result = measured(CONTESTANTS[OURS], task, tmp_path)
    assert result["records"] == 300
    assert result["seconds"] > 0
    if task == "round_trip":
        ns = result["nanoseconds"]
        assert 0 < ns["p50"] <= ns["p99"] <= ns["p99.9"]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("sqlite", "append_one"),
        ("sqlite", "read_batch"),
        ("sqlite", "pair_batch"),
        ("sqlite", "sync_group"),
        ("mp-pipe", "pair_batch"),
        ("mp-queue", "pair_one"),
        ("mp-pipe", "round_trip"),
        ("sqlite", "writers"),
    ],
)
def test_the_standard_library(name: str, task: str, tmp_path: Path) -> None:
    kind = find(CONTESTANTS[name])
    assert not isinstance(kind, str)
    assert task in kind.tasks
    assert measured(CONTESTANTS[name], task, tmp_path)["records"] == 300


def test_who_is_not_there_is_left_out_with_the_reason() -> None:
    assert "no_such_peer" in str(find("bench.peers.contestants.no_such_peer:Peer"))
    assert find(f"{FAKES}:Listed") is load(f"{FAKES}:Listed")


# ------------------------------------------------------------------------------------------ the race


def test_calibration_finds_a_number_of_records_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "bounded").mkdir()
    found = measured(f"{FAKES}:Listed", "append_one", tmp_path, records=0, records_max=1 << 20)
    assert found["records"] > 1000
    bounded = measured(f"{FAKES}:Listed", "append_one", tmp_path / "bounded", records=0, records_max=500)
    assert bounded["records"] == 500


def test_a_job_that_two_workers_had_fails(tmp_path: Path) -> None:
    found = run(Job(f"{FAKES}:Doubling", "share", 64, str(tmp_path), records=100), LONG)
    assert isinstance(found, str)
    assert "400 records, 100 of them different, are not the 100 appended" in found


@pytest.mark.parametrize(
    ("fake", "reason"), [("Altering", "are not what was appended"), ("Generous", "instead of at most")]
)
def test_a_contestant_that_gives_something_else_fails(fake: str, reason: str, tmp_path: Path) -> None:
    found = run(Job(f"{FAKES}:{fake}", "append_one", 64, str(tmp_path), records=2500), LONG)
    assert isinstance(found, str)
    assert reason in found


def test_a_contestant_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "server.pid"
    for timeout in (2.0, 8.0, 32.0):  # the machine may need longer to get as far as to hang
        found = run(Job(f"{FAKES}:Hung", "append_one", 64, str(tmp_path), records=300), timeout)
        assert found == f"hung: killed after {timeout:g} s"
        if pid_file.exists():
            break
    deadline = time.monotonic() + LONG
    while alive(int(pid_file.read_text())):
        assert time.monotonic() < deadline, "what a hung contestant started lives on"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_race_goes_on_without_those_who_fail_and_leaves_nothing_behind(tmp_path: Path) -> None:
    race = Race(
        {name: f"{FAKES}:{name}" for name in ("Listed", "Failing")},
        tmp_path / "data",
        rounds=2,
        seconds=0.001,
        timeout_seconds=LONG,
    )
    cells = [Cell("Failing", "append_one", 64), Cell("Listed", "append_one", 64)]
    race.run(cells)
    failing, listed = cells
    assert failing.failures == ["failed: OSError: no luck today"]
    assert not failing.results
    assert len(listed.results) == 2
    assert listed.results[0]["records"] == listed.records
    assert os.listdir(tmp_path / "data") == []


# --------------------------------------------------------------------------------------------- goals


def cell(name: str, task: str, *rates: float) -> Cell:
    return Cell(name, task, 64, results=[{"records": int(r * 2), "seconds": 2.0} for r in rates])


def test_the_median_of_the_rounds_and_their_spread() -> None:
    found = rate(cell("a", "append_one", 30, 10, 20))
    assert found is not None
    assert (found.median, found.least, found.most, found.rounds) == (20, 10, 30, 3)
    assert rate(Cell("a", "append_one", 64)) is None
    trips = Cell("a", "round_trip", 64, results=[{"nanoseconds": {"p50": 5.0}}, {"nanoseconds": {"p50": 7.0}}])
    median = percentile(trips, "p50")
    assert median is not None
    assert median.median == 6


def test_a_goal_is_against_the_best_peer() -> None:
    goal = Goal("read", "read_batch", ("read_one", "read_batch"), 2)
    cells = [
        cell("us", "read_batch", 100),
        cell("us", "read_one", 1000),
        cell("slow", "read_batch", 10),
        cell("fast", "read_one", 50),
        cell("fast", "append_one", 999),
        Cell("broken", "read_one", 64, failures=["hung"]),
        Cell("large", "read_one", 1024, results=[{"records": 999, "seconds": 1.0}]),
    ]
    (verdict,) = judge(goal, 64, cells, "us", lambda _: False)
    assert (verdict.peer, verdict.task, verdict.ratio, verdict.reached) == ("fast", "read_one", 2, True)
    (verdict,) = judge(Goal("read", "read_batch", ("read_one",), 2.01), 64, cells, "us", lambda _: False)
    assert not verdict.reached
    assert judge(goal, 1024, cells, "us", lambda _: False) == []
    assert judge(goal, 64, cells[:1], "us", lambda _: False) == []


def test_a_best_peer_whose_user_packs_batches_does_not_hide_the_best_other_one() -> None:
    goal = Goal("pair", "pair_batch", ("pair_batch",), 5)
    cells = [cell("us", "pair_batch", 100), cell("packs", "pair_batch", 200), cell("plain", "pair_batch", 20)]
    first, second = judge(goal, 64, cells, "us", lambda c: c.contestant == "packs")
    assert (first.peer, first.packed, first.ratio, first.reached) == ("packs", True, 0.5, False)
    assert (second.peer, second.packed, second.ratio, second.reached) == ("plain", False, 5, True)


def test_goals_name_tasks_that_there_are() -> None:
    for goal in GOALS:
        assert {goal.ours, *goal.theirs} <= set(TASKS)
