# SPDX-License-Identifier: MIT
"""Who takes part, by the name that ``--only`` takes. Modules are imported in the process that measures."""

from __future__ import annotations

from typing import Final

_HERE = "bench.peers.contestants"

OURS: Final = "chronicle"
CONTESTANTS: Final = {
    OURS: f"{_HERE}.ours:Ours",
    "mmapq": f"{_HERE}.mmapq:Mmapq",
    "lmdb": f"{_HERE}.lmdb:Lmdb",
    "mp-queue": f"{_HERE}.standard:MpQueue",
    "mp-pipe": f"{_HERE}.standard:MpPipe",
}
