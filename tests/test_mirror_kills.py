# SPDX-License-Identifier: MIT
"""The acceptance of ``make mirror-kills`` in small: one server, killed in turn with the mirror."""

from __future__ import annotations

from pathlib import Path

from tests import nats  # skips without the packages, before the next line needs them

from tests.mirror_kills import run  # isort: skip


def test_kills_of_mirror_and_server(tmp_path: Path) -> None:
    assert nats.program()
    killed = run(tmp_path, nodes=1, kills=8, records=20_000, seed=5)
    assert killed == {"mirror": 4, "leader": 4, "follower": 0}
