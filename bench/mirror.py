# SPDX-License-Identifier: MIT
"""The mirror on one loopback node: rate, its share of a bare loop, latency of a lone record, and what the writer pays.

    make bench-mirror       (python -m bench.mirror --records N --rounds N)

Each round does all of it, in turns, so that figures of a round are to be held against each other. The bare loop
publishes messages of the same size with the same client, the same headers and as many under way, and has nothing
to read, check or compare.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nats as client_library
import numpy as np

from chronicle_ffi import Queue
from chronicle_ffi.mirror import Mirror, MirrorStats, Subscriber
from chronicle_ffi.mirror.sender import IN_FLIGHT
from tests.nats import Server

APPENDS = 200_000


def mirror(queue: Path, url: str) -> tuple[float, MirrorStats]:
    """Seconds from its start to the last acknowledgement, connecting included."""
    sender = Mirror(str(queue), url)
    begun = time.perf_counter()
    asyncio.run(sender.run(once=True))
    return time.perf_counter() - begun, sender.stats()


async def bare(url: str, messages: int, size: int) -> float:
    server, _, stream = url.rpartition("/")
    client = await client_library.connect(server)
    js = client.jetstream()
    await js.add_stream(name=stream, subjects=[stream])
    under_way = 0
    answered = asyncio.Event()

    async def take(message: object) -> None:
        nonlocal under_way
        under_way -= 1
        answered.set()

    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=take)
    payload = np.random.default_rng(1).integers(0, 256, size, np.uint8).tobytes()
    begun = time.perf_counter()
    for number in range(messages):
        while under_way >= IN_FLIGHT:
            answered.clear()
            await answered.wait()
        under_way += 1
        headers = {"Nats-Expected-Last-Sequence": str(number), "Nats-Expected-Stream": stream}
        await client.publish(stream, payload, inbox, headers)
    while under_way:
        answered.clear()
        await answered.wait()
    seconds = time.perf_counter() - begun
    await client.close()
    return seconds


async def lone_records(directory: Path, url: str, count: int = 100) -> list[float]:
    """Milliseconds from the return of sync() to the arrival at a consumer of the stream."""
    found = []
    with Queue.open_publisher(directory / "lone") as writer:
        sender = Mirror(str(directory / "lone"), url)
        task = asyncio.create_task(sender.run())
        while not sender.stats().connected:
            await asyncio.sleep(0.01)
        client = await client_library.connect(url.rpartition("/")[0])
        subscription = await client.subscribe(f"chronicle.{url.rpartition('/')[2]}")
        await client.flush()
        for _ in range(count):
            writer.append(bytes(64))
            writer.sync()
            begun = time.perf_counter()
            await subscription.next_msg(5)
            found.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(0.01)
        await client.close()
        sender.stop()
        await task
    return found


def appends(directory: Path, url: str | None) -> tuple[float, float]:
    """(wall time of the median thousand, processor time of all) in ns an append, a mirror beside it or not."""
    path = directory / f"appends-{url is not None}-{time.monotonic_ns()}"
    process = None
    payload = bytes(64)
    spent = []
    with Queue.open_publisher(path, durability="interval", durability_n=10) as writer:
        if url is not None:
            process = subprocess.Popen([sys.executable, "-m", "chronicle_ffi", "mirror", path, url])
            while not any(reader.position for reader in Queue.readers(path)):
                writer.append(payload)
                time.sleep(0.02)
        used = time.thread_time()
        for _ in range(APPENDS // 1000):
            begun = time.perf_counter()
            for _ in range(1000):
                writer.append(payload)
            spent.append(time.perf_counter() - begun)
            time.sleep(0.004)
        used = time.thread_time() - used
    if process is not None:
        process.terminate()
        process.wait()
    return statistics.median(spent) * 1e6, used / APPENDS * 1e9


def read(url: str, count: int) -> float:
    begun = time.perf_counter()
    with Subscriber(url) as reader:
        assert sum(1 for _ in reader) == count
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="the mirror's speed")
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-mirror-", dir="/var/tmp"))
    queue = directory / "queue"
    rates, shares, ratios, used = [], [], [], []
    try:
        with Queue.open_publisher(queue) as writer:
            writer.append_array(np.random.default_rng(1).integers(0, 256, (args.records, 64), np.uint8))
            writer.sync()
        with Server(directory) as server:
            for number in range(args.rounds):
                seconds, stats = mirror(queue, server.url(f"MIRROR{number}"))
                limit = asyncio.run(
                    bare(server.url(f"BARE{number}"), stats.messages, stats.payload_bytes // stats.messages)
                )
                alone, with_mirror = appends(directory, None), appends(directory, server.url(f"BESIDE{number}"))
                rates.append(args.records / seconds / 1e6)
                shares.append(limit / seconds)
                ratios.append(with_mirror[0] / alone[0])
                used.append(with_mirror[1] / alone[1])
                print(
                    f"round {number}: {rates[-1]:.2f} million records/s, {shares[-1]:.2f} of the bare loop's "
                    f"{args.records / limit / 1e6:.2f}; append {with_mirror[0]:.0f} ns beside a mirror, {alone[0]:.0f} "
                    f"alone: {ratios[-1]:.2f}, in processor time {used[-1]:.2f}"
                )
            lone = sorted(asyncio.run(lone_records(directory, server.url("LONE"))))
            seconds = read(server.url("MIRROR0"), args.records)
        print(f"median: {statistics.median(rates):.2f} million records of 64 bytes a second")
        print(f"        {statistics.median(shares):.2f} of a bare loop; best round {max(shares):.2f}")
        print(
            f"        append beside a mirror: {statistics.median(ratios):.2f}, "
            f"in processor time {statistics.median(used):.2f}"
        )
        print(f"lone record: median {lone[len(lone) // 2]:.2f} ms, 99 % {lone[-2]:.2f}, most {lone[-1]:.2f}")
        print(f"read by a Subscriber, one by one: {args.records / seconds / 1e6:.2f} million a second")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
