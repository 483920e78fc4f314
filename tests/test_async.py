# SPDX-License-Identifier: MIT
"""Readers and writers on an event loop: nothing is missed, nothing polls, cancelling works, syncs are shared."""

from __future__ import annotations

import asyncio
import gc
import mmap
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue, _aio, _binding, _reader, _writer
from tests.children import in_child

PATIENCE = 30.0  # of a loaded machine; no test waits for so long unless it fails


def listeners() -> int:
    return sum(thread.name == "chronicle-listener" for thread in threading.enumerate())


def no_listeners_are_left() -> bool:
    """The thread ends soon after its last bell has gone."""
    deadline = time.monotonic() + PATIENCE
    while listeners() and time.monotonic() < deadline:
        time.sleep(0.001)
    return not listeners()


def writing_process(path: Path, code: str) -> subprocess.Popen[bytes]:
    head = "import sys, time\nfrom chronicle_ffi import Queue\nwriter = Queue.open_publisher(sys.argv[1])\n"
    return subprocess.Popen([sys.executable, "-c", head + textwrap.dedent(code), path])


def test_next_async(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue, "me") as reader:
            writer.append(b"0")
            message = await reader.next_async()
            assert message is not None
            assert (message.seq, message.payload) == (0, b"0")
            started = time.monotonic()
            assert await reader.next_async(timeout=0.05) is None
            assert time.monotonic() - started >= 0.05
            assert await reader.next_async(timeout=0) is None
            assert await reader.next_async(timeout=-1) is None
            asyncio.get_running_loop().call_later(0.02, writer.append, b"1")
            message = await reader.next_async()
            assert message is not None
            assert (message.seq, message.payload) == (1, b"1")
            reader.commit()
            assert reader.committed == 2
            with pytest.raises(c.InvalidArgument):
                await reader.next_async(timeout=float("nan"))

    asyncio.run(main())
    assert no_listeners_are_left()


def test_many_readers_of_other_processes_in_one_loop(tmp_path: Path) -> None:
    """Each record reaches each reader once, in order, while other tasks run."""
    paths = [tmp_path / f"q{i}" for i in range(3)]
    for path in paths:
        Queue.open_publisher(path).close()
    count = 3000

    async def read(path: Path) -> int:
        seen = 0
        with Queue.open_subscriber(path) as reader:
            async for message in reader:
                assert message.seq == seen
                assert message.payload == b"%d" % seen
                seen += 1
                if seen == count:
                    return seen
        return seen

    async def main() -> list[int]:
        code = f"""
            for i in range({count}):
                writer.append(b"%d" % i)
                if i % 100 == 0:
                    time.sleep(0.002)
            """
        tasks = [asyncio.create_task(read(path)) for path in paths for _ in range(4)]
        await asyncio.sleep(0.01)
        processes = [writing_process(path, code) for path in paths]
        done = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
        assert [process.wait() for process in processes] == [0, 0, 0]
        return done

    assert asyncio.run(main()) == [count] * 12
    assert no_listeners_are_left()


def test_more_readers_than_one_thread_can_wait_for(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue) as writer:
            readers = [Queue.open_subscriber(queue) for _ in range(_aio.BELLS_MAX + 20)]
            tasks = [asyncio.create_task(reader.next_async()) for reader in readers]
            await asyncio.sleep(0.05)
            assert listeners() == 2
            writer.append(b"x")
            found = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
            assert all(message is not None and message.payload == b"x" for message in found)
            for reader in readers:
                reader.close()

    asyncio.run(main())
    assert no_listeners_are_left()


def test_waiting_does_not_poll(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that waits is looked at when it begins, and then only every LOOK_SECONDS."""
    looks = 0
    check = _binding.check

    def counted(status: int) -> int:
        nonlocal looks
        looks += 1
        return check(status)

    async def main() -> None:
        with Queue.open_publisher(queue), Queue.open_subscriber(queue) as reader:
            assert not await reader.wait_async(0)
            monkeypatch.setattr(_reader, "check", counted)
            assert not await reader.wait_async(_aio.LOOK_SECONDS * 0.9)

    asyncio.run(main())
    assert looks <= 8  # polling every 10 ms would be 45


def test_cancelling_and_going_on(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue) as reader:
            for i in range(20):
                task = asyncio.create_task(reader.next_async())
                await asyncio.sleep(0.001 if i % 2 else 0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            seq = writer.append(b"x")
            message = await reader.next_async()
            assert message is not None
            assert message.seq == seq == 0
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.next_async(), 0.02)
            writer.append(b"y")
            async for other in reader:
                assert other.payload == b"y"
                break
            assert reader.position == 2

    asyncio.run(main())


def test_a_loop_over_a_log_that_never_ends_lets_others_run(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue) as reader:
            writer.append_many([b"x"] * 20_000)
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            async for message in reader:
                if message.seq == 19_999:
                    break
            task.cancel()
            assert turns > 20

    asyncio.run(main())


def test_closing_ends_a_wait(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue) as writer:
            reader = Queue.open_subscriber(queue)
            task = asyncio.create_task(reader.next_async())
            await asyncio.sleep(0.02)
            reader.close()
            with pytest.raises(c.ClosedHandle):
                await asyncio.wait_for(task, PATIENCE)
            with pytest.raises(c.ClosedHandle):
                await reader.next_async()
        with pytest.raises(c.ClosedHandle):
            await writer.wait_durable()

    asyncio.run(main())


def test_forgotten_readers_leave_no_bell(queue: Path) -> None:
    async def main() -> None:
        reader = Queue.open_subscriber(queue)
        assert not await reader.wait_async(0.001)
        with pytest.warns(ResourceWarning):
            del reader
            gc.collect()

    Queue.open_publisher(queue).close()
    asyncio.run(main())
    assert no_listeners_are_left()


def test_one_reader_on_several_loops_in_turn(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aio, "LOOK_SECONDS", 10 * PATIENCE)  # only a bell on the loop of now wakes the task
    with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue) as reader:
        for i in range(3):

            async def main() -> c.Message | None:
                asyncio.get_running_loop().call_later(0.005, writer.append, b"x")
                return await asyncio.wait_for(reader.next_async(), PATIENCE)

            message = asyncio.run(main())
            assert message is not None
            assert message.seq == i
    assert no_listeners_are_left()


def test_a_ring_that_never_comes(queue: Path) -> None:
    """As when the writer dies between publishing and ringing: the reader finds the record all the same."""

    async def main() -> None:
        with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue) as reader:
            task = asyncio.create_task(reader.next_async())
            await asyncio.sleep(0.02)
            with (queue / "doorbell").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as words:
                assert any(words[128:])
                words[128:] = bytes(4096 - 128)  # nobody seems to wait
            writer.append(b"x")
            message = await asyncio.wait_for(task, PATIENCE)
            assert message is not None

    asyncio.run(main())


def test_a_doorbell_that_is_replaced_is_found(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        Queue.open_publisher(queue).close()
        with Queue.open_subscriber(queue) as reader:
            assert not await reader.wait_async(timeout=0.01)
            (queue / "doorbell").unlink()
            with Queue.open_publisher(queue) as writer:
                asyncio.get_running_loop().call_later(0.01, writer.append, b"late")
                message = await asyncio.wait_for(reader.next_async(), PATIENCE)
                assert message is not None
                monkeypatch.setattr(_aio, "LOOK_SECONDS", 10 * PATIENCE)  # from here on only its bell wakes the task
                asyncio.get_running_loop().call_later(0.01, writer.append, b"at once")
                message = await asyncio.wait_for(reader.next_async(), PATIENCE)
                assert message is not None

    asyncio.run(main())


def test_without_a_doorbell_it_looks_now_and_then(queue: Path) -> None:
    Queue.open_publisher(queue).close()
    (queue / "doorbell").write_bytes(b"damaged")

    async def main() -> None:
        with Queue.open_subscriber(queue) as reader:
            process = writing_process(queue, "time.sleep(0.05); writer.append(b'x'); writer.close()")
            message = await reader.next_async(timeout=PATIENCE)
            assert message is not None
            assert await reader.next_async(timeout=0.02) is None
            assert process.wait() == 0

    asyncio.run(main())


SANDBOX = """
import ctypes, platform, struct
# For this process: membarrier(2) fails with EPERM, as in a container that does not know it.
number = {"x86_64": 324, "aarch64": 283, "riscv64": 283}.get(platform.machine())
libc = ctypes.CDLL(None, use_errno=True)
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number or 0), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HP", len(rules), ctypes.addressof(code)))
no_new_privileges, seccomp, by_filter = 38, 22, 2
libc.prctl(no_new_privileges, 1, 0, 0, 0)
if number is None or libc.prctl(seccomp, by_filter, program, 0, 0):
    raise SystemExit("no sandbox")
"""


@pytest.mark.parametrize("writer_is_there", [True, False])
def test_in_a_sandbox_without_membarrier_it_looks_now_and_then(queue: Path, writer_is_there: bool) -> None:
    """A writer outside does without its fence, and cannot be relied on to see that somebody sleeps."""
    code = """
        import asyncio, sys
        from chronicle_ffi import Queue

        async def main():
            with Queue.open_subscriber(sys.argv[1]) as reader:
                waiting = asyncio.create_task(reader.next_async())
                await asyncio.sleep(0.02)
                print("waits", flush=True)
                print((await waiting).payload, await reader.next_async(timeout=0.02), flush=True)
                async for message in reader:
                    print(message.payload)
                    break

        asyncio.run(main())
        """
    arguments = [sys.executable, "-c", SANDBOX + textwrap.dedent(code), str(queue)]
    create = "import sys\nfrom chronicle_ffi import Queue\nQueue.open_publisher(sys.argv[1]).close()"
    made = subprocess.run([sys.executable, "-c", SANDBOX + create, str(queue)], capture_output=True, text=True)
    if made.stderr == "no sandbox\n":
        pytest.skip("there is no sandbox here")
    assert made.returncode == 0, made.stderr
    writer = Queue.open_publisher(queue) if writer_is_there else None
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        with writer or Queue.open_publisher(queue) as writer:
            writer.append(b"one")
            assert process.stdout.readline() == "b'one' None\n"
            writer.append(b"two")
            out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (0, "b'two'\n", "")


def test_after_a_fork(queue: Path) -> None:
    """The child has none of the parent's threads, and a loop of its own works there."""

    async def hand_over(path: Path) -> None:
        with Queue.open_publisher(path) as writer, Queue.open_subscriber(path) as reader:
            asyncio.get_running_loop().call_later(0.01, writer.append, b"x")
            assert await asyncio.wait_for(reader.next_async(), PATIENCE) is not None

    def child() -> None:
        asyncio.events._set_running_loop(None)  # that of the parent
        assert listeners() == 0
        asyncio.run(hand_over(Path(f"{queue}2")))

    async def main() -> None:
        with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue) as reader:
            assert not await reader.wait_async(0.01)
            assert listeners() == 1
            in_child(child)
            asyncio.get_running_loop().call_later(0.01, writer.append, b"x")
            assert await asyncio.wait_for(reader.next_async(), PATIENCE) is not None

    asyncio.run(main())


def test_ctrl_c(queue: Path) -> None:
    Queue.open_publisher(queue).close()
    code = """
        import asyncio, sys
        from chronicle_ffi import Queue

        async def main():
            with Queue.open_subscriber(sys.argv[1]) as reader:
                await reader.wait_async(0.001)
                print("waiting", flush=True)
                await reader.next_async()

        asyncio.run(main())
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), queue], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=PATIENCE)[1]


# --------------------------------------------------------------------------------------- durability


def on_disk(path: Path) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, check=True, text=True).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        pytest.skip("a file system in memory keeps nothing: set TMPDIR to a directory on a disk")


def test_tasks_share_syncs(queue: Path) -> None:
    on_disk(queue.parent)

    async def main() -> None:
        with Queue.open_publisher(queue) as writer:

            async def one() -> None:
                for _ in range(10):
                    seq = writer.append(b"x")
                    await writer.wait_durable(seq)
                    assert writer.durable_seq >= seq

            await asyncio.wait_for(asyncio.gather(*(one() for _ in range(50))), PATIENCE)
            assert writer.next_seq == 500
            assert 10 <= writer.stats().syncs <= 100
            await writer.wait_durable()
            await writer.wait_durable(3)
            with pytest.raises(c.SeqOutOfRange):
                await writer.wait_durable(500)

    asyncio.run(main())
    assert no_listeners_are_left()


def test_durable_readers_hear_of_a_sync(queue: Path) -> None:
    on_disk(queue.parent)

    async def main() -> None:
        with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue, durable_only=True) as reader:
            task = asyncio.create_task(reader.next_async())
            await asyncio.sleep(0.01)
            writer.append(b"x")
            await asyncio.sleep(0.01)
            assert not task.done()
            await writer.wait_durable()
            message = await asyncio.wait_for(task, PATIENCE)
            assert message is not None

    asyncio.run(main())


def test_what_cannot_be_waited_for(queue: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(queue, keeper=False) as writer:
            await writer.wait_durable()  # nothing was appended
            writer.append(b"x")
            with pytest.raises(c.InvalidArgument, match="keeper"):
                await writer.wait_durable()

    on_disk(queue.parent)
    asyncio.run(main())


def test_durability_in_memory_is_refused(small_disk: Path) -> None:
    async def main() -> None:
        with Queue.open_publisher(small_disk / "q", segment_size=1 << 16) as writer:
            writer.append(b"x")
            with pytest.raises(c.NotDurable):
                await writer.wait_durable()

    asyncio.run(main())


def test_durability_in_time(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk(queue.parent)

    async def main() -> None:
        with Queue.open_publisher(queue) as writer:
            writer.append(b"x")
            with monkeypatch.context() as patch, pytest.raises(TimeoutError):
                patch.setattr(_writer, "check", lambda status: 0)  # a disk that takes for ever
                await writer.wait_durable(timeout=0)
            await writer.wait_durable(timeout=PATIENCE)

    asyncio.run(main())
