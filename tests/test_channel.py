# SPDX-License-Identifier: MIT
"""Channels: calls between real processes, which die at any moment; what is done again, and what is not."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from chronicle_ffi.channel import CallTimedOut, Channel, Outcome, RemoteError, Request, Server, ServerDied, _server
from tests.children import in_child
from tests.damage import lose_power, patch, segment

PATIENCE = 30.0  # of a loaded machine; no test waits for so long unless it fails


@contextmanager
def served(path: Path, handler: Callable[[Request], Any], **options: Any) -> Iterator[Server]:
    """In a thread of this process."""
    server = Channel.open(path, "server", **options)
    thread = threading.Thread(target=server.serve, args=(handler,))
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.close()


def noting(notes: list[Any], reply: bytes) -> Callable[[Request], bytes]:
    """A handler that writes down what it gets."""

    def handler(request: Request) -> bytes:
        notes.append(request.payload)
        return reply

    return handler


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    head = "import os, sys, time\nfrom pathlib import Path\nfrom chronicle_ffi.channel import *\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ended(process: subprocess.Popen[str], how: int = 0) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == how, said
    return said


def test_calls_and_replies(tmp_path: Path) -> None:
    def handler(request: Request) -> Any:
        if request.type_id == 9:
            raise ValueError(request.payload.decode())
        if request.type_id == 8:
            return "no bytes"
        return bytearray(request.payload[::-1]) if request.type_id else request.client.encode()

    with served(tmp_path, handler), Channel.open(tmp_path, "client", name="front-1") as client:
        assert client.call(b"") == b"front-1"
        assert client.call(bytearray(b"abc"), 1, timeout=PATIENCE) == b"cba"
        assert client.call(bytes(100_000), 1) == bytes(100_000)
        with pytest.raises(RemoteError, match="ValueError: why"):
            client.call(b"why", 9)
        with pytest.raises(RemoteError, match="TypeError"):
            client.call(b"why", 8)
        assert client.server_alive()
        with pytest.raises(c.WriterAlreadyActive):
            Channel.open(tmp_path, "client", name="front-1")
        with pytest.raises(c.WriterAlreadyActive):
            Channel.open(tmp_path, "server")
    assert not client.server_alive()
    with pytest.raises(c.ClosedHandle):
        client.call(b"")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "x" * 65, "tmp-1", 7])
def test_names_that_are_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(c.InvalidArgument, match="client is named"):
        Channel.open(tmp_path, "client", name=name)


def test_options_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(c.InvalidArgument, match="role"):
        Channel.open(tmp_path, "friend")  # type: ignore[call-overload]
    with pytest.raises(c.InvalidArgument, match="delivery"):
        Channel.open(tmp_path, "server", delivery="exactly-once")
    with Channel.open(tmp_path, "server") as server:
        with pytest.raises(c.InvalidArgument, match="concurrency"):
            asyncio.run(server.serve_async(None, concurrency=0))  # type: ignore[arg-type]
    with pytest.raises(c.ClosedHandle):
        server.serve(lambda request: b"")


def test_a_reply_that_is_too_large_is_told(tmp_path: Path) -> None:
    with served(tmp_path, lambda request: bytes(1 << 20)):
        with Channel.open(tmp_path, "client", segment_size=1 << 16) as client:
            with pytest.raises(RemoteError, match="PayloadTooLarge"):
                client.call(b"")
            with pytest.raises(c.PayloadTooLarge):
                client.call(bytes(1 << 16))


def test_a_late_request_is_not_done(tmp_path: Path) -> None:
    done: list[bytes] = []
    with Channel.open(tmp_path, "client") as client:
        with pytest.raises(CallTimedOut, match="not running"):
            client.call(b"late", timeout=0.01)
        with served(tmp_path, noting(done, b"ok")):
            assert client.call(b"in time", timeout=PATIENCE) == b"ok"
    assert done == [b"in time"]


def test_a_late_reply_is_nobodys(tmp_path: Path) -> None:
    hold = threading.Event()

    def handler(request: Request) -> bytes:
        if request.payload == b"slow":
            hold.wait(PATIENCE)
        return request.payload

    with served(tmp_path, handler), Channel.open(tmp_path, "client") as client:
        assert client.call(b"first") == b"first"
        with pytest.raises(CallTimedOut, match="is alive"):
            client.call(b"slow", timeout=0.05)
        hold.set()
        assert client.call(b"next") == b"next"


def test_clients_that_do_not_come_back_are_removed(tmp_path: Path) -> None:
    with served(tmp_path, lambda request: request.payload):
        with Channel.open(tmp_path, "client") as one, Channel.open(tmp_path, "client", name="stays") as two:
            assert one.call(b"1") + two.call(b"2") == b"12"
        deadline = time.monotonic() + PATIENCE
        while os.listdir(tmp_path / "clients") != ["stays"] and time.monotonic() < deadline:
            time.sleep(0.01)
    assert os.listdir(tmp_path / "clients") == ["stays"]


def test_what_is_consumed_is_deleted(tmp_path: Path) -> None:
    with served(tmp_path, lambda request: request.payload):
        with Channel.open(tmp_path, "client", segment_size=1 << 16, name="one") as client:
            for _ in range(2000):
                client.call(bytes(500))
    for queue in ("requests", "replies"):
        assert Queue.info(tmp_path / "clients" / "one" / queue).segments <= 9  # of 17
        assert Queue.verify(tmp_path / "clients" / "one" / queue).ok


def test_many_clients_in_processes(tmp_path: Path) -> None:
    code = """
        with Channel.open(sys.argv[1], "client") as client:
            for n in range(100):
                assert client.call(b"%d" % n, timeout=30) == b"%d" % (n * n)
        """
    with served(tmp_path, lambda request: b"%d" % int(request.payload) ** 2):
        for process in [python(code, tmp_path) for _ in range(3)]:
            ended(process)


def test_garbage_in_requests_and_directories(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "clients" / "no-client" / "requests").mkdir(parents=True)
    (tmp_path / "clients" / "a-file").write_text("x")
    with Queue.open_publisher(tmp_path / "clients" / "no-client" / "replies") as writer:
        writer.append(b"?")
    place = tmp_path / "clients" / "one"
    place.mkdir()
    with Queue.open_publisher(place / "requests", segment_size=1 << 20) as writer:
        writer.append_many([b"", b"short", b"damaged" + bytes(30)])
    with Channel.open(tmp_path, "client", name="one") as client:
        segment = next((place / "requests").glob("*.seg"))
        with segment.open("r+b") as file:
            file.seek(segment.read_bytes().find(b"damaged"))
            file.write(b"DAMAGED")
        with caplog.at_level(logging.ERROR), served(tmp_path, lambda request: request.payload):
            assert client.call(b"good", timeout=PATIENCE) == b"good"
    assert "is no request" in caplog.text
    assert "cannot be read" in caplog.text


SERVER = """
    def handler(request):
        n = int(request.payload)
        with open(sys.argv[2], "a") as done:
            done.write("%d %s\\n" % (n, request.key.hex()))
        time.sleep(0.001 * (n % 3))
        return request.payload

    with Channel.open(sys.argv[1], "server", delivery=sys.argv[3], wait=30) as server:
        server.serve(handler)
    """


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
def test_a_server_is_killed_again_and_again(tmp_path: Path, delivery: str) -> None:
    """At random moments, while two clients call. Nothing is lost, mixed up, or done twice that may not be."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    done = tmp_path / "done"
    done.touch()
    calls = int(os.environ.get("CHRONICLE_CHANNEL_CALLS", 50))
    channel = tmp_path / "channel"
    Channel.open(channel, "server").close()

    def work(number: int) -> dict[int, str]:
        told = {}
        with Channel.open(channel, "client", name=f"c{number}") as client:
            for n in range(number * 1000, number * 1000 + calls):
                try:
                    assert client.call(b"%d" % n, timeout=PATIENCE) == b"%d" % n
                    told[n] = "done"
                except ServerDied:
                    told[n] = "lost"
        return told

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, number) for number in range(2)]
        kills = 0
        server = python(SERVER, channel, done, delivery)
        while not all(one.done() for one in working):
            time.sleep(chance.uniform(0.05, 0.2))
            if kills < calls // 15:
                server.kill()
                server.communicate()
                kills += 1
                server = python(SERVER, channel, done, delivery)
        told = working[0].result() | working[1].result()
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=PATIENCE)
    times: dict[int, list[str]] = {}
    for line in done.read_text().splitlines():
        n, key = line.split()
        times.setdefault(int(n), []).append(key)
    assert kills >= 1
    assert all(len(set(keys)) == 1 for keys in times.values())  # a call keeps its key
    assert {n for n, what in told.items() if what == "done"} <= times.keys()
    if delivery == "at-least-once":
        assert set(told.values()) == {"done"}
        assert sum(len(keys) - 1 for keys in times.values()) <= 2 * kills  # one of each client for each death
    else:
        assert all(len(keys) == 1 for keys in times.values())
        assert sum(what == "lost" for what in told.values()) <= 2 * kills


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
@pytest.mark.parametrize("phase", ["handler", "replied"])
def test_a_server_killed_in_a_phase(tmp_path: Path, delivery: str, phase: str) -> None:
    """In the handler, or between the reply and its commit."""
    code = """
        from chronicle_ffi.channel import _server
        def handler(request):
            print("begun", flush=True)
            if sys.argv[3] == "handler":
                os.kill(os.getpid(), 9)
            return b"first server"
        if sys.argv[3] == "replied":
            _server._Pair._finish = lambda self, seq: os.kill(os.getpid(), 9)
        with Channel.open(sys.argv[1], "server", delivery=sys.argv[2]) as server:
            server.serve(handler)
        """
    first = python(code, tmp_path, delivery, phase)
    with Channel.open(tmp_path, "client") as client, ThreadPoolExecutor(1) as pool:
        calling = pool.submit(client.call, b"x", timeout=PATIENCE)
        assert line_of(first) == "begun"
        ended(first, -signal.SIGKILL)
        again: list[bytes] = []
        with served(tmp_path, noting(again, b"second server"), delivery=delivery):
            if phase == "replied":
                assert calling.result() == b"first server"
            elif delivery == "at-least-once":
                assert calling.result() == b"second server"
            else:
                with pytest.raises(ServerDied):
                    calling.result()
            assert client.call(b"y", timeout=PATIENCE) == b"second server"
        done_again = 1 if (delivery, phase) == ("at-least-once", "handler") else 0
        assert len(again) == 1 + done_again


def test_a_client_is_killed(tmp_path: Path) -> None:
    """Its request is done; who comes back under its name does not get that reply."""
    code = """
        client = Channel.open(sys.argv[1], "client", name="one")
        print("there", flush=True)
        client.call(b"old")
        """
    done: list[bytes] = []
    with python(code, tmp_path) as process:
        assert line_of(process) == "there"
        requests = tmp_path / "clients" / "one" / "requests"
        while not Queue.info(requests).next_seq:
            time.sleep(0.001)
        process.kill()
    with Channel.open(tmp_path, "client", name="one") as client:
        with served(tmp_path, noting(done, b"new")):
            assert client.call(b"new", timeout=PATIENCE) == b"new"
    assert done == [b"old", b"new"]


def test_ctrl_c_ends_both(tmp_path: Path) -> None:
    serving = """
        try:
            with Channel.open(sys.argv[1], "server") as server:
                print("serves", flush=True)
                server.serve(lambda request: b"")
        except KeyboardInterrupt:
            print("ended", flush=True)
        """
    calling = """
        with Channel.open(sys.argv[1], "client") as client:
            print("calls", flush=True)
            try:
                client.call(b"")
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        """
    client = python(calling, tmp_path)
    assert line_of(client) == "calls"
    time.sleep(0.1)
    client.send_signal(signal.SIGINT)
    assert ended(client) == "interrupted\n"
    server = python(serving, tmp_path)
    assert line_of(server) == "serves"
    time.sleep(0.1)
    server.send_signal(signal.SIGINT)
    assert ended(server) == "ended\n"


def test_after_a_fork(tmp_path: Path) -> None:
    with Channel.open(tmp_path, "server") as server, Channel.open(tmp_path, "client") as client:

        def child() -> None:
            with pytest.raises(c.ForkedHandle):
                client.call(b"")
            with pytest.raises(c.ForkedHandle):
                server.serve(lambda request: b"")

        in_child(child)


def test_a_full_disk(small_disk: Path) -> None:
    """A request that has no room is refused; a reply waits for room, and its handler has run once."""
    ballast = small_disk / "ballast"
    ran = []

    def handler(request: Request) -> bytes:
        ran.append(request.key)
        if len(ran) == 1:
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
                while True:
                    file.write(bytes(4096))
            threading.Timer(0.4, ballast.unlink).start()
        return bytes(50_000)

    with served(small_disk / "channel", handler):
        with Channel.open(small_disk / "channel", "client", segment_size=1 << 16) as client:
            for _ in range(4):
                assert client.call(b"x", timeout=PATIENCE) == bytes(50_000)
    assert len(ran) == len(set(ran)) == 4


# ----------------------------------------------------------------------------------------------- asyncio


def test_both_sides_on_event_loops(tmp_path: Path) -> None:
    """Out of order, many at a time; a time-out and a cancelled call harm no other."""
    most = now = 0

    async def handler(request: Request) -> bytes:
        nonlocal most, now
        now += 1
        most = max(most, now)
        n = int(request.payload)
        if n == 13:
            raise ValueError("unlucky")
        await asyncio.sleep(0.002 * (5 - n % 5))
        now -= 1
        return b"%d" % (n * 2)

    async def main() -> None:
        with Channel.open(tmp_path, "server") as server:
            serving = asyncio.create_task(server.serve_async(handler, concurrency=16))
            with Channel.open(tmp_path, "client") as one, Channel.open(tmp_path, "client", name="two") as two:
                cancelled = asyncio.create_task(one.call_async(b"1"))
                await asyncio.sleep(0.001)
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                with pytest.raises(CallTimedOut):
                    await one.call_async(b"2", timeout=0)
                calls = [client.call_async(b"%d" % n, timeout=PATIENCE) for client in (one, two) for n in range(50)]
                found = await asyncio.gather(*calls, return_exceptions=True)
                assert [str(problem) for problem in found if isinstance(problem, RemoteError)] == [
                    "ValueError: unlucky"
                ] * 2
                expected = [b"%d" % (n * 2) for _ in range(2) for n in range(50) if n != 13]
                assert [reply for reply in found if isinstance(reply, bytes)] == expected
                assert 2 < most <= 32 + 2
                under_way = asyncio.create_task(one.call_async(b"1"))
                await asyncio.sleep(0)
                one.close()
                with pytest.raises(c.ClosedHandle):
                    await under_way
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_server_on_a_loop_is_killed_with_many_under_way(tmp_path: Path) -> None:
    """Each is done again or answered as lost, those that were answered are not."""
    code = """
        import asyncio
        async def handler(request):
            n = int(request.payload)
            with open(sys.argv[2], "a") as done:
                done.write("%d\\n" % n)
            if n % 2:
                await asyncio.sleep(3600 if len(sys.argv) > 4 else 0)
            return request.payload
        server = Channel.open(sys.argv[1], "server", delivery=sys.argv[3])
        asyncio.run(server.serve_async(handler))
        """
    for delivery in ("at-least-once", "at-most-once"):
        channel, done = tmp_path / delivery, tmp_path / f"{delivery}.done"

        async def main() -> list[Any]:
            with Channel.open(channel, "client") as client:  # noqa: B023
                with python(code, channel, done, delivery, "hold") as first:  # noqa: B023
                    calls = [asyncio.create_task(client.call_async(b"%d" % n, timeout=PATIENCE)) for n in range(40)]
                    while sum(call.done() for call in calls) < 20:
                        await asyncio.sleep(0.005)
                    first.kill()
                with python(code, channel, done, delivery) as second:  # noqa: B023
                    found = await asyncio.gather(*calls, return_exceptions=True)
                    second.kill()
                return found

        found = asyncio.run(main())
        assert found[::2] == [b"%d" % n for n in range(0, 40, 2)]
        counts = [done.read_text().split().count(str(n)) for n in range(40)]
        assert counts[::2] == [1] * 20
        if delivery == "at-least-once":
            assert found[1::2] == [b"%d" % n for n in range(1, 40, 2)]
            assert set(counts[1::2]) <= {1, 2}  # the last ones may not have been begun
        else:
            assert {type(problem) for problem in found[1::2]} == {ServerDied}
            assert set(counts[1::2]) <= {0, 1}  # begun for the log, killed before the handler ran


def test_one_that_was_begun_long_ago_is_told_that_it_is_lost(tmp_path: Path) -> None:
    """However many others of its client were done meanwhile."""
    code = """
        import asyncio
        async def handler(request):
            if request.payload == b"0":
                await asyncio.sleep(3600)
            return b""
        server = Channel.open(sys.argv[1], "server", delivery="at-most-once")
        asyncio.run(server.serve_async(handler, concurrency=8))
        """

    async def main() -> None:
        with Channel.open(tmp_path, "client", segment_size=1 << 16) as client:
            with python(code, tmp_path) as first:
                held = asyncio.create_task(client.call_async(b"0", timeout=PATIENCE))
                await asyncio.gather(*(client.call_async(bytes(500), timeout=PATIENCE) for _ in range(1000)))
                first.kill()
            with Channel.open(tmp_path, "server", delivery="at-most-once") as server:
                serving = asyncio.create_task(server.serve_async(answer))
                with pytest.raises(ServerDied):
                    await held
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    async def answer(request: Request) -> bytes:
        return b""

    asyncio.run(main())


def test_a_reply_that_cannot_be_stored_has_its_client_served_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server, "AGAIN_SECONDS", 0.02)
    whole = _server._Pair.end_async
    failures = [c.Poisoned("a stand-in for a failed sync")]

    async def fails_once(pair: Any, *arguments: Any) -> None:
        if failures:
            raise failures.pop()
        await whole(pair, *arguments)

    monkeypatch.setattr(_server._Pair, "end_async", fails_once)

    async def handler(request: Request) -> bytes:
        if request.payload == b"cancel":
            asyncio.current_task().get_loop().call_soon(inner[0].cancel)  # type: ignore[union-attr]
            await inner[0]
        return b"ok"

    async def main() -> None:
        inner.append(asyncio.create_task(asyncio.sleep(3600)))
        with Channel.open(tmp_path, "server") as server, Channel.open(tmp_path, "client") as client:
            serving = asyncio.create_task(server.serve_async(handler))
            assert await client.call_async(b"1", timeout=PATIENCE) == b"ok"
            if sys.version_info >= (3, 11):
                with pytest.raises(RemoteError, match="CancelledError"):
                    await client.call_async(b"cancel", timeout=PATIENCE)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    inner: list[Any] = []
    asyncio.run(main())


def test_a_handler_that_exits_is_answered(tmp_path: Path) -> None:
    with served(tmp_path, lambda request: sys.exit("no")), Channel.open(tmp_path, "client") as client:
        with pytest.raises(RemoteError, match="SystemExit: no"):
            client.call(b"", timeout=PATIENCE)
        for odd in (1e300, float("inf")):
            with pytest.raises(RemoteError):
                client.call(b"", timeout=odd)
        with pytest.raises(c.InvalidArgument, match="nan"):
            client.call(b"", timeout=float("nan"))


def test_a_damaged_reply_is_told_to_who_waits(tmp_path: Path) -> None:
    """Whose it was cannot be known. So many damaged requests in a row that no recursion would pass them."""
    place = tmp_path / "clients" / "one"
    place.mkdir(parents=True)
    with Queue.open_publisher(place / "requests", segment_size=1 << 20) as writer:
        writer.append_many([b"damaged" + bytes(33)] * 1200)
    with Queue.open_publisher(place / "replies", segment_size=1 << 20):
        pass
    with Channel.open(tmp_path, "client", name="one") as client:
        file = segment(place / "requests")
        patch(file, 8192, file.read_bytes()[8192 : 8192 + 1200 * 96].replace(b"damaged", b"DAMAGED"))
        with served(tmp_path, lambda request: request.payload):
            assert client.call(b"good", timeout=PATIENCE) == b"good"
        with Queue.open_publisher(place / "replies", create=False) as writer:
            writer.append(b"damaged" + bytes(33))
            file = segment(place / "replies")
            patch(file, file.read_bytes().find(b"damaged"), b"DAMAGED")
        with pytest.raises(c.Corrupt):
            client.call(b"waits", timeout=PATIENCE)


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
def test_after_a_loss_of_power(tmp_path: Path, delivery: str) -> None:
    """Requests and replies that never reached the disk are gone, from under their readers: both ends go on."""
    with served(tmp_path, lambda request: b"old", delivery=delivery):
        with Channel.open(tmp_path, "client", name="one") as client:
            for _ in range(10):
                client.call(b"x" * 7)  # 31 and 19 bytes
    for name in ("requests", "replies"):
        queue = tmp_path / "clients" / "one" / name
        lose_power(queue, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", c.RecoveryWarning)
        with Channel.open(tmp_path, "client", name="one") as client:
            with served(tmp_path, lambda request: b"new", delivery=delivery):
                assert client.call(b"y", timeout=PATIENCE) == b"new"


def test_outcomes_are_what_the_format_says() -> None:
    assert [outcome.value for outcome in Outcome] == [0, 1, 2, 3]
