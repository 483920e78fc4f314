# SPDX-License-Identifier: MIT
"""A round trip through a channel beside that of a bare pair of queues, from Python: python -m bench.channel"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from chronicle_ffi import Queue, QueueReader
from chronicle_ffi.channel import Channel, Request

ROUNDS = 9
CALLS = 5_000
SIZE = 64


def awaited(reader: QueueReader) -> bytes:
    while (message := reader.next()) is None:
        reader.wait(1.0)
    return message.payload


def echo_pair(path: str) -> None:
    with Queue.open_subscriber(f"{path}/there", "server", wait=None) as there:
        with Queue.open_publisher(f"{path}/back") as back:
            while payload := awaited(there):
                back.append(payload)
                there.commit()


def same(request: Request) -> bytes:
    return request.payload


def echo_channel(path: str) -> None:
    Channel.open(path, "server").serve(same)


def micros(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begin)
    return statistics.median(times) / 1000


def main() -> None:
    payload = bytes(SIZE)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as path:
        servers = [spawn.Process(target=echo_pair, args=(path,), daemon=True)]
        servers.append(spawn.Process(target=echo_channel, args=(f"{path}/channel",), daemon=True))
        for server in servers:
            server.start()
        with Queue.open_publisher(f"{path}/there") as there, Channel.open(f"{path}/channel", "client") as client:
            with Queue.open_subscriber(f"{path}/back", "client", wait=None) as back:

                def trip() -> bytes:
                    there.append(payload)
                    return awaited(back)

                trip()
                client.call(payload)
                found = [(micros(trip), micros(lambda: client.call(payload))) for _ in range(ROUNDS)]
                there.append(b"")
        servers[1].terminate()
        for server in servers:
            server.join()
    pair, channel = (statistics.median(column) for column in zip(*found, strict=True))
    ratio = statistics.median(channel / pair for pair, channel in found)
    print(f"there and back, {SIZE} bytes, medians: pair {pair:.2f} us, channel {channel:.2f} us: {ratio:.2f} times")


if __name__ == "__main__":
    main()
