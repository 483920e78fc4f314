# SPDX-License-Identifier: MIT
"""One writer for many: threads of a process (`QueueWriter.locked`), tasks of a loop (`append_async`, `wait_room`)."""

from __future__ import annotations

import asyncio
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import LockedWriter, Queue, Retention
from tests.children import in_child
from tests.interop import need

SEGMENT = 1 << 16
PATIENCE = 30.0  # of a loaded machine; no test waits for so long unless it fails
BOUNDED: dict[str, Any] = {"segment_size": SEGMENT, "max_segments": 2}


def payloads(path: Path) -> list[bytes]:
    with Queue.open_subscriber(path) as reader:
        return list(reader.payloads())


def fill(writer: c.QueueWriter) -> int:
    with pytest.raises(c.QueueFull):
        while True:
            writer.append(bytes(1000))
    return writer.next_seq


def read_all(reader: c.QueueReader) -> None:
    for _ in reader:
        pass
    reader.commit()


# --------------------------------------------------------------------------------------------- threads


def test_threads_append_each_in_its_order(queue: Path) -> None:
    """Small segments: rolls and preparing happen, which give up the interpreter's lock in the middle."""
    threads, each = 8, 1500

    def work(number: int) -> list[int]:
        return [locked.append(b"%d %d" % (number, i) + bytes(i % 200), type_id=number) for i in range(each)]

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with Queue.open_publisher(queue, segment_size=SEGMENT) as writer, writer.locked() as locked:
            with ThreadPoolExecutor(threads) as pool:
                seqs = list(pool.map(work, range(threads)))
            assert locked.next_seq == threads * each
    finally:
        sys.setswitchinterval(switch)
    assert sorted(chain(*seqs)) == list(range(threads * each))
    found: dict[int, list[int]] = defaultdict(list)
    with Queue.open_subscriber(queue) as reader:
        for message in reader:
            number, at = message.payload.rstrip(b"\0").split()
            assert int(number) == message.type_id
            assert seqs[message.type_id][int(at)] == message.seq
            found[message.type_id].append(int(at))
    assert all(found[number] == list(range(each)) for number in range(threads))


def test_every_call_takes_the_lock(queue: Path) -> None:
    """Threads that use all of them at once: no one meets ConcurrentUse, and a bulk's seqs are its own."""
    numpy = need("numpy")
    pyarrow = need("pyarrow")
    kinds = 6

    def work(locked: LockedWriter, kind: int) -> None:
        for _ in range(12):
            ways: list[Callable[[], tuple[int, int]]] = [
                lambda: locked.append_many([b"0"] * 300, 0),
                lambda: locked.append_array(numpy.full(300, ord("1"), "u1"), 1, row_bytes=1),
                lambda: locked.append_buffer(b"2" * 300, range(301), 2, atomic=True),
                lambda: locked.append_arrow(pyarrow.array(["3"] * 300), 3),
                lambda: (claimed(locked), 1),
                lambda: (locked.append(b"5", 5), 1),
            ]
            first, count = ways[kind]()
            bulks.append((kind, first, count))
            locked.cleanup(), locked.stats(), locked.recovery, locked.durable_seq

    def claimed(locked: LockedWriter) -> int:
        with locked.claim(1, 4) as buffer:
            seq = locked.next_seq
            buffer[:] = b"4"
        return seq

    bulks: list[tuple[int, int, int]] = []
    with Queue.open_publisher(queue, segment_size=SEGMENT, retention=Retention(max_segments=1000)) as writer:
        locked = writer.locked()
        with ThreadPoolExecutor(kinds * 2) as pool:
            for done in [pool.submit(work, locked, kind) for kind in range(kinds) for _ in range(2)]:
                done.result()
    kinds_found = [int(payload) for payload in payloads(queue)]
    assert len(kinds_found) == sum(count for _, _, count in bulks)
    for kind, first, count in bulks:
        assert kinds_found[first : first + count] == [kind] * count


def test_the_same_handle_each_time(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer:
        with ThreadPoolExecutor(8) as pool:
            locked = list(pool.map(lambda _: writer.locked(), range(50)))
        assert len(set(map(id, locked))) == 1
        assert repr(locked[0]) == f"<LockedWriter {str(queue)!r}>"
        with pytest.raises(TypeError, match="open the queue in the other process"):
            pickle.dumps(locked[0])


@pytest.mark.parametrize("keeper", [True, False])
def test_threads_that_wait_for_the_disk_share_syncs(queue: Path, keeper: bool) -> None:
    threads, each = 16, 20

    def work(number: int) -> None:
        for _ in range(each):
            seq = locked.append(b"order")
            locked.sync(seq)
            assert locked.durable_seq >= seq

    with Queue.open_publisher(queue, keeper=keeper) as writer:
        locked = writer.locked()
        locked.sync()  # of nothing
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        assert locked.stats().syncs < threads * each
        locked.append(b"last")
        locked.sync()
        assert writer.durable_seq == threads * each
        if keeper:
            with pytest.raises(c.SeqOutOfRange):
                locked.sync(10**6)
            locked.append(b"late")
            with pytest.raises(c.TimedOut):
                locked.sync(timeout=0)


def test_appends_go_on_while_others_wait_for_room(queue: Path) -> None:
    """A thread waits for room with a small record of its own; others can look, sync and clean up meanwhile."""
    with Queue.open_publisher(queue, **BOUNDED, backpressure=PATIENCE) as writer:
        with Queue.open_subscriber(queue, "slow") as reader:
            locked = writer.locked()
            writer._wait_seconds = 0.0  # to fill it without waiting
            full = fill(writer)
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(locked.append, bytes(1000))
                for _ in range(20):
                    locked.stats()
                    locked.sync()
                    time.sleep(0.002)
                assert not waiting.done()
                read_all(reader)
                assert waiting.result(PATIENCE) == full


def test_a_thread_gives_up_waiting_for_room(queue: Path) -> None:
    with Queue.open_publisher(queue, **BOUNDED, backpressure=0.02) as writer:
        Queue.open_subscriber(queue, "slow").close()
        fill(writer)
        with pytest.raises(c.QueueFull):
            writer.locked().append(bytes(1000))


def test_closed_by_one_thread_while_others_wait(queue: Path) -> None:
    with Queue.open_publisher(queue, **BOUNDED, backpressure=PATIENCE) as writer:
        Queue.open_subscriber(queue, "slow").close()
        locked = writer.locked()
        writer._wait_seconds = 0.0
        fill(writer)
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(locked.append, bytes(1000)) for _ in range(4)]
            time.sleep(0.02)
            locked.close()
            for one in waiting:
                with pytest.raises(c.ClosedHandle):
                    one.result(PATIENCE)
        assert locked.closed
        for call in (lambda: locked.append(b"x"), locked.sync, locked.stats, locked.cleanup, lambda: locked.next_seq):
            with pytest.raises(c.ClosedHandle):
                call()


def test_a_child_is_told_although_the_lock_was_held(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer:
        locked = writer.locked()
        locked.append(b"one")
        inside, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with locked.claim(1):
                inside.set()
                leave.wait(PATIENCE)

        holder = threading.Thread(target=hold)
        holder.start()
        inside.wait(PATIENCE)

        def child() -> None:
            for call in (lambda: locked.append(b"x"), locked.sync, locked.cleanup):
                with pytest.raises(c.ForkedHandle):
                    call()

        in_child(child)
        leave.set()
        holder.join()


def test_a_signal_handler_appends_in_the_middle_of_an_append(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer:
        locked = writer.locked()
        seqs = []
        before = signal.signal(signal.SIGALRM, lambda *_: seqs.append(locked.append(b"handler")))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            deadline = time.monotonic() + PATIENCE
            while len(seqs) < 50 and time.monotonic() < deadline:
                locked.append(b"main")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    found = payloads(queue)
    assert len(seqs) >= 50
    assert [seq for seq, payload in enumerate(found) if payload == b"handler"] == sorted(seqs)


def test_ctrl_c_ends_a_wait_for_room_and_leaves_the_lock(queue: Path) -> None:
    code = """
        import signal, sys, threading, time, _thread
        from chronicle_ffi import Queue, QueueFull
        with Queue.open_publisher(sys.argv[1], segment_size=65536, max_segments=2, backpressure=60) as writer:
            Queue.open_subscriber(sys.argv[1], "slow").close()
            locked = writer.locked()
            writer._wait_seconds = 0.0
            try:
                while True:
                    writer.append(bytes(1000))
            except QueueFull:
                pass
            print("full", flush=True)
            try:
                locked.append(bytes(1000))
            except KeyboardInterrupt:
                with locked.claim(1) as buffer:
                    pass
                print("interrupted", flush=True)
        """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), queue], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"full\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"interrupted\n"
    assert process.returncode == 0


# ----------------------------------------------------------------------------------------------- tasks


def test_append_async_waits_and_the_loop_goes_on(queue: Path) -> None:
    """In the order in which the tasks came, each once there is room."""

    async def main() -> None:
        with Queue.open_publisher(queue, **BOUNDED) as writer, Queue.open_subscriber(queue, "slow") as reader:
            assert await writer.append_async(b"first", 7, 12345, 3) == 0
            full = fill(writer)
            tasks = [asyncio.create_task(writer.append_async(b"%03d" % i + bytes(997))) for i in range(150)]
            ticks = 0
            for _ in range(20):
                await asyncio.sleep(0.002)
                ticks += 1
            assert ticks == 20
            assert not any(task.done() for task in tasks)
            while not all(task.done() for task in tasks):
                read_all(reader)
                await asyncio.sleep(0.001)
            assert [task.result() for task in tasks] == list(range(full, full + 150))

    asyncio.run(main())
    with Queue.open_subscriber(queue, on_gap="oldest") as reader:
        tail = [payload[:3] for payload in reader.payloads()][-30:]
    assert tail == [b"%03d" % i for i in range(120, 150)]


def test_append_async_gives_up_after_its_time(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue, **BOUNDED, backpressure=60) as writer:
            writer._wait_seconds = 0.0
            Queue.open_subscriber(queue, "slow").close()
            full = fill(writer)
            patient = asyncio.create_task(writer.append_async(bytes(1000), timeout=PATIENCE))
            await asyncio.sleep(0)
            with pytest.raises(c.QueueFull):
                await writer.append_async(bytes(1000), timeout=0.02)  # behind one that waits longer
            assert not await writer.wait_room(0.01)
            patient.cancel()
            with pytest.raises(asyncio.CancelledError):
                await patient
            with pytest.raises(c.QueueFull, match="reader slow"):
                await writer.append_async(bytes(1000), timeout=0.02)
            assert writer.next_seq == full
            with Queue.open_subscriber(queue, "slow") as reader:
                read_all(reader)
            assert await writer.append_async(bytes(1000), timeout=PATIENCE) == full

    asyncio.run(main())


def test_one_that_gives_up_lets_the_next_one_wait_on(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue, **BOUNDED) as writer, Queue.open_subscriber(queue, "slow") as reader:
            full = fill(writer)
            first = asyncio.create_task(writer.append_async(b"first" + bytes(995)))
            second = asyncio.create_task(writer.append_async(b"second" + bytes(995), timeout=0.01))
            third = asyncio.create_task(writer.append_async(b"third" + bytes(995)))
            with pytest.raises(c.QueueFull):
                await second
            assert not third.done()
            read_all(reader)
            assert [await first, await third] == [full, full + 1]

    asyncio.run(main())


@pytest.mark.parametrize("durability", ["none", "interval", "batch", "always"])
def test_tasks_of_every_durability(queue: Path, durability: Any) -> None:
    """append_async, wait_durable and wait_room at once: no one meets ConcurrentUse."""

    async def work(writer: c.QueueWriter, number: int) -> list[int]:
        seqs = []
        for _ in range(10):
            seqs.append(await writer.append_async(b"%d" % number))
            await writer.wait_durable(seqs[-1])
            assert await writer.wait_room()
        return seqs

    async def main() -> list[list[int]]:
        with Queue.open_publisher(
            queue, durability=durability, durability_n=3 if durability == "batch" else None, max_segments=2
        ) as writer:
            return await asyncio.gather(*(work(writer, number) for number in range(10)))

    seqs = asyncio.run(main())
    found = payloads(queue)
    assert sorted(chain(*seqs)) == list(range(100)) == list(range(len(found)))
    assert all(found[seq] == b"%d" % number for number in range(10) for seq in seqs[number])


def test_a_sync_in_append_does_not_block_the_loop(queue: Path) -> None:
    """The disk is slow: a stand-in for the call of C sleeps. The loop runs meanwhile."""

    async def main() -> None:
        with Queue.open_publisher(queue, durability="always") as writer:
            stop = threading.Event()
            beats = 0

            async def beat() -> None:
                nonlocal beats
                while not stop.is_set():
                    beats += 1
                    await asyncio.sleep(0)
                    if beats == 100:
                        stop.set()

            def slow() -> int:
                stop.wait(PATIENCE)
                return 5 if stop.is_set() else -1

            beating = asyncio.create_task(beat())
            assert await writer._append_in_turn(slow, None) == 5  # would wait for ever on the loop's own thread
            await beating

    asyncio.run(main())


def test_cancelled_while_a_thread_appends(queue: Path) -> None:
    """It ends when the thread has come back: the handle is free, and the record there."""

    async def main() -> None:
        with Queue.open_publisher(queue, durability="always") as writer:
            for i in range(30):
                task = asyncio.create_task(writer.append_async(b"x"))
                for _ in range(i % 4):
                    await asyncio.sleep(0)
                task.cancel()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                writer.append(b"y")  # nobody is inside

    asyncio.run(main())
    assert payloads(queue).count(b"y") == 30


def test_append_async_refuses_as_append_does(queue: Path) -> None:
    async def main(writer: c.QueueWriter) -> None:
        with pytest.raises(c.WrongType):
            await writer.append_async("text")  # type: ignore[arg-type]
        with pytest.raises(c.InvalidArgument):
            await writer.append_async(b"x", type_id=65535)
        with pytest.raises(c.PayloadTooLarge):
            await writer.append_async(bytes(SEGMENT))
        assert await writer.append_async(memoryview(b"view")) == writer.next_seq - 1

        def child() -> None:
            for call in (writer.append_async(b"x"), writer.wait_room()):
                with pytest.raises(c.ForkedHandle):
                    asyncio.run(call)

        in_child(child)
        writer.close()
        for call in (writer.append_async(b"x"), writer.wait_room()):
            with pytest.raises(c.ClosedHandle):
                await call

    for _ in range(2):  # on one loop after the other
        asyncio.run(main(Queue.open_publisher(queue, segment_size=SEGMENT)))


def test_killed_while_it_waits_for_room(queue: Path) -> None:
    """Whatever append_async returned for is there, and nothing else."""
    code = """
        import asyncio, sys
        from chronicle_ffi import Queue
        async def main():
            writer = Queue.open_publisher(sys.argv[1], segment_size=65536, max_segments=2)
            Queue.open_subscriber(sys.argv[1], "slow").close()
            async def one(i):
                await writer.append_async(b"%04d" % i + bytes(996))
                print(i, flush=True)
            await asyncio.gather(*(one(i) for i in range(200)))
        asyncio.run(main())
        """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), queue], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(100)]
        process.kill()
        told += [int(line) for line in process.stdout.read().split()]
    found = [int(payload[:4]) for payload in payloads(queue)]
    assert told == found[: len(told)]
    assert 100 <= len(found) < 200
    assert Queue.verify(queue).ok
