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
    "zmq": f"{_HERE}.zmq:ZeroMq",
    "faster-fifo": f"{_HERE}.faster_fifo:FasterFifo",
    "iceoryx2": f"{_HERE}.iceoryx2:Iceoryx2",
    "sqlite": f"{_HERE}.sqlite:Sqlite",
    "litequeue": f"{_HERE}.litequeue:LiteQueue",
    "diskcache": f"{_HERE}.diskcache:DiskCache",
    "persist-queue": f"{_HERE}.persistqueue:PersistQueue",
    "huey": f"{_HERE}.huey:Huey",
    "redis": f"{_HERE}.redis:RedisStreams",
    "jetstream": f"{_HERE}.jetstream:JetStream",
}
