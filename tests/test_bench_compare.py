# SPDX-License-Identifier: MIT
"""bench/compare.py: which saved run it takes, and when it says that something became slower."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

_spec = importlib.util.spec_from_file_location("compare", Path(__file__).parent.parent / "bench" / "compare.py")
assert _spec is not None
assert _spec.loader is not None
compare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(compare)


def run(when: str, brand: str = "one", **minima: float) -> dict[str, Any]:
    return {
        "datetime": f"2026-01-{when}T00:00:00",
        "commit_info": {"id": "0123456789abcdef"},
        "machine_info": {
            "cpu": {"brand_raw": brand, "count": 2},
            "system": "Linux",
            "file_system": "ext4",
            "crc32c": "sse42",
            "python_version": "3.11.7",
        },
        "benchmarks": [
            {"fullname": name, "name": name, "group": "g", "stats": {"min": value}} for name, value in minima.items()
        ],
    }


def test_the_last_run_of_the_same_machine(tmp_path: Path) -> None:
    kept = [run("02", a=1.0), run("03", a=2.0), run("04", brand="other", a=3.0)]
    for i, one in enumerate(kept):
        (tmp_path / f"{i}.json").write_text(json.dumps(one))
    assert compare.last_of_the_same_machine(run("05", a=9.0), tmp_path) == kept[1]
    assert compare.last_of_the_same_machine(kept[1], tmp_path) == kept[0]  # not itself
    assert compare.last_of_the_same_machine(run("05", brand="third"), tmp_path) is None


def test_what_became_slower() -> None:
    table, slower = compare.compare(run("02", a=1.5, b=1.7, c=0.1, d=1.0), run("01", a=1.0, b=1.0, c=1.0, e=1.0), 60)
    assert slower == ["b"]
    assert "+70%  more than 60 % slower" in table
    assert "-90%" in table
    assert "d " in table
    assert table.count("new") == 1
    assert "e: not measured any more" in table
