# SPDX-License-Identifier: MIT
"""The mirror, its way back, and readers of a stream, against a real server. Kills: test_mirror_kills.py."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import (
    ClosedHandle,
    Corrupt,
    InvalidArgument,
    Message,
    Queue,
    QueueWriter,
    ReaderAlreadyActive,
    ReadOnly,
    SegmentGone,
    SeqOutOfRange,
)
from tests import decoder, nats
from tests.nats import Server

from chronicle_ffi.mirror import (  # isort: skip  # behind tests.nats, which skips without the packages
    Mirror,
    MirrorError,
    MirrorReport,
    ServerUnavailable,
    StreamMismatch,
    StreamNotFound,
    Subscriber,
    open_subscriber,
    restore,
    verify,
)
from nats.js.api import StreamConfig  # isort: skip

MILLION = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """A name of its own for each test: they share a server."""
    return "".join(letter for letter in request.node.name.upper() if letter.isalnum())


@pytest.fixture
def url(server: Server, stream: str) -> str:
    return server.url(stream)


def send(queue: Path, url: str, **options: Any) -> Mirror:
    mirror = Mirror(str(queue), url, **options)
    asyncio.run(mirror.run(once=True))
    return mirror


def fill(queue: Path, count: int = 500, seed: int = 1, **options: Any) -> list[Message]:
    """Records of every kind there is: empty, short, long, with times that go back."""
    generator = random.Random(seed)
    with Queue.open_publisher(queue, **options) as writer:
        for _ in range(count):
            writer.append(
                generator.randbytes(generator.choice((0, 1, 31, 32, 64, 1000))),
                type_id=generator.randrange(65535),
                timestamp_ns=generator.randrange(MILLION),
                flags=generator.randrange(256),
            )
        writer.sync()
    return records(queue)


def records(queue: Path) -> list[Message]:
    with Queue.open_subscriber(queue, start="earliest") as reader:
        return list(reader)


async def messages(url: str, change: Any = None) -> list[Any]:
    """What the stream holds, by the client alone; with `change` it is called with the JetStream context."""
    import nats as client_library

    client = await client_library.connect(url.rpartition("/")[0])
    try:
        js, name = client.jetstream(), url.rpartition("/")[2]
        if change is not None:
            await change(js, name)
        state = (await js.stream_info(name)).state
        return [await js.get_msg(name, number) for number in range(state.first_seq, state.last_seq + 1)]
    finally:
        await client.close()


def check(queue: Path, url: str) -> MirrorReport:
    return asyncio.run(verify(str(queue), url))


# ------------------------------------------------------------------------------------------- sending


@pytest.mark.parametrize("framed", [True, False])
def test_a_stream_holds_the_queue(queue: Path, url: str, framed: bool) -> None:
    expected = fill(queue)
    stats = send(queue, url, framed=framed).stats()
    assert (stats.records, stats.next_seq, stats.lag, stats.conflicts) == (500, 500, 0, 0)
    with Subscriber(url) as reader:
        assert list(reader) == expected
    report = check(queue, url)
    assert report.ok
    assert (report.compared, report.unchecked, report.behind) == (500, 0, 0)
    assert send(queue, url, framed=framed).stats().records == 0
    assert [reader.position for reader in Queue.readers(queue)] == [500]
    found = [(message.data or b"", message.headers) for message in asyncio.run(messages(url))]
    decoded = decoder.stream([(data, dict(headers or {})) for data, headers in found])
    assert [(r.seq, r.timestamp_ns, r.type_id, r.flags, r.payload) for r in decoded] == [tuple(m) for m in expected]
    assert {record.seq: record.crc for record in decoded} == {
        record.seq: record.crc for record in decoder.open_queue(queue).records
    }


@pytest.mark.parametrize("framed", [True, False])
def test_a_large_record_is_split(queue: Path, url: str, framed: bool) -> None:
    payloads = [b"before", os.urandom(3 * MILLION), b"between", bytes(1 << 20), b"after"]
    with Queue.open_publisher(queue) as writer:
        writer.append_many(payloads)
        writer.sync()
    assert send(queue, url, framed=framed).stats().messages > 5
    with Subscriber(url) as reader:
        assert list(reader.payloads()) == payloads
        reader.seek(1)
        assert reader.next() == records(queue)[1]
    assert check(queue, url).ok
    found = asyncio.run(messages(url))
    decoded = decoder.stream([(message.data or b"", dict(message.headers or {})) for message in found])
    assert [record.payload for record in decoded] == payloads


def test_a_split_record_is_gone_on_with(queue: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror ends between two pieces; the next one sends the others."""
    from chronicle_ffi.mirror.sending import Sending

    payload = os.urandom(5 * MILLION)
    with Queue.open_publisher(queue) as writer:
        writer.append(payload)
        writer.sync()
    sent = Sending._send
    with monkeypatch.context() as patch:

        async def fail_at_third(self: Any, frame: Any, *message: Any) -> None:
            if frame.offset > 1_900_000:
                await asyncio.sleep(0.5)
                raise MirrorError("the end")
            await sent(self, frame, *message)

        patch.setattr(Sending, "_send", fail_at_third)
        with pytest.raises(MirrorError, match="the end"):
            send(queue, url)
    with Subscriber(url) as reader:
        assert reader.next() is None
        send(queue, url)
        assert reader.next_async is not None
        assert reader.wait(5)
        assert [message.payload for message in reader] == [payload]
    assert check(queue, url).ok


def test_only_durable_records_are_sent(queue: Path, url: str) -> None:
    with Queue.open_publisher(queue) as writer:
        writer.append(b"one")
        writer.sync()
        writer.append(b"two")
        send(queue, url)
        with Subscriber(url) as reader:
            assert list(reader.payloads()) == [b"one"]


def test_a_running_mirror_follows(queue: Path, url: str) -> None:
    async def follow(writer: QueueWriter) -> None:
        mirror = Mirror(str(queue), url)
        task = asyncio.create_task(mirror.run())
        for number in range(20):
            writer.append(b"%d" % number)
            writer.sync()
            await asyncio.sleep(0.001)
        while mirror.stats().next_seq < 20:
            await asyncio.sleep(0.01)
        mirror.stop()
        await task

    with Queue.open_publisher(queue) as writer:
        asyncio.run(follow(writer))
    with Subscriber(url) as reader:
        assert list(reader.payloads()) == [b"%d" % number for number in range(20)]


def test_a_queue_whose_beginning_is_gone(queue: Path, url: str) -> None:
    with Queue.open_publisher(queue, segment_size=65536) as writer:
        writer.append_many([bytes(1000)] * 200)
        with Queue.open_subscriber(queue, "all", start="latest") as reader:
            reader.commit()
        writer.cleanup()
        writer.sync()
    oldest = Queue.info(queue).oldest_seq
    assert oldest > 0
    send(queue, url)
    with Subscriber(url) as subscriber:
        assert [message.seq for message in subscriber] == list(range(oldest, 200))
        with pytest.raises(SegmentGone):
            subscriber.seek(oldest - 1)


def test_retention_that_went_too_far(queue: Path, url: str) -> None:
    with Queue.open_publisher(queue, segment_size=65536) as writer:
        writer.append(b"first")
        writer.sync()
        send(queue, url)
        writer.append_many([bytes(1000)] * 300)
        Queue.remove_reader(queue, Queue.readers(queue)[0].name)
        with Queue.open_subscriber(queue, "all", start="latest") as reader:
            reader.commit()
        writer.cleanup()
        writer.sync()
    oldest = Queue.info(queue).oldest_seq
    with pytest.raises(SegmentGone, match="needs record 1 next") as gone:
        send(queue, url)
    assert gone.value.oldest == oldest
    assert send(queue, url, on_gap="skip").stats().skipped == oldest - 1
    with Subscriber(url) as subscriber:
        assert subscriber.next() is not None
        with pytest.raises(SegmentGone):
            subscriber.next()
        subscriber.seek(oldest)
        assert len(list(subscriber)) == 301 - oldest
    with Subscriber(url, on_gap="oldest") as subscriber:
        assert [message.seq for message in subscriber] == [0, *range(oldest, 301)]
    assert check(queue, url).ok


# ----------------------------------------------------------------------------------------- refusals


def test_a_stream_of_another_queue(queue: Path, tmp_path: Path, url: str) -> None:
    fill(queue, 10)
    fill(tmp_path / "other", 10)
    send(queue, url)
    before = len(asyncio.run(messages(url)))
    with pytest.raises(StreamMismatch, match="is of the queue"):
        send(tmp_path / "other", url)
    with pytest.raises(StreamMismatch):
        check(tmp_path / "other", url)
    assert len(asyncio.run(messages(url))) == before


def test_a_queue_put_back_to_an_older_state(queue: Path, tmp_path: Path, url: str) -> None:
    import shutil

    fill(queue, 10)
    shutil.copytree(queue, tmp_path / "older")
    with Queue.open_publisher(queue) as writer:
        writer.append_many([b"newer"] * 5)
        writer.sync()
    send(queue, url)
    with pytest.raises(StreamMismatch, match="ends before 10"):
        send(tmp_path / "older", url, reader="x")
    with Queue.open_publisher(tmp_path / "older") as writer:
        writer.append_many([b"other"] * 10)
        writer.sync()
    with pytest.raises(StreamMismatch, match="record 10 is not the same"):
        send(tmp_path / "older", url, reader="x")
    report = check(tmp_path / "older", url)
    assert not report.ok
    assert report.differences[0].startswith("record 10,")
    assert check(queue, url).ok


def test_a_foreign_writer(queue: Path, url: str) -> None:
    fill(queue, 10)
    send(queue, url)

    async def intrude(js: Any, name: str) -> None:
        await js.publish(f"chronicle.{name}", b"hello")

    asyncio.run(messages(url, intrude))
    with pytest.raises(StreamMismatch, match="was not written by a mirror"):
        send(queue, url)
    with pytest.raises(Corrupt, match="message 2 of the stream"):
        Subscriber(url)
    with pytest.raises(Corrupt):
        check(queue, url)


def test_a_stream_that_has_to_be_there(queue: Path, url: str) -> None:
    fill(queue, 1)
    with pytest.raises(StreamNotFound):
        send(queue, url, create=False)


@pytest.mark.parametrize(
    "config",
    [
        {"subjects": ["a", "b"]},
        {"subjects": ["c.>"]},
        {"subjects": ["d"], "retention": "workqueue"},
        {"subjects": ["e"], "max_msgs_per_subject": 1},
    ],
)
def test_a_stream_made_for_something_else(queue: Path, url: str, config: dict[str, Any]) -> None:
    fill(queue, 1)
    named = url.replace("MADE", config["subjects"][0][0].upper() + "MADE")

    async def make() -> None:
        import nats as client_library

        client = await client_library.connect(url.rpartition("/")[0])
        await client.jetstream().add_stream(StreamConfig(name=named.rpartition("/")[2], **config))
        await client.close()

    asyncio.run(make())
    with pytest.raises(StreamMismatch):
        send(queue, named)


def test_a_purged_stream(queue: Path, url: str) -> None:
    expected = fill(queue, 10)
    send(queue, url)

    async def purge(js: Any, name: str) -> None:
        await js.purge_stream(name)

    asyncio.run(messages(url, purge))
    told: list[str] = []
    stats = send(queue, url, told=told.append).stats()
    assert stats.resent == 10
    assert "is empty: sent again" in told[0]
    with Subscriber(url) as reader:
        assert list(reader) == expected


def test_two_mirrors(queue: Path, url: str) -> None:
    fill(queue, 10)

    async def twice() -> None:
        first = Mirror(str(queue), url)
        task = asyncio.create_task(first.run())
        while not first.stats().connected:
            await asyncio.sleep(0.01)
        with pytest.raises(ReaderAlreadyActive, match="mirror-"):
            await Mirror(str(queue), url).run(once=True)
        await Mirror(str(queue), url, reader="second").run(once=True)  # which is in nobody's way: it compares
        first.stop()
        await task

    asyncio.run(twice())
    assert check(queue, url).ok


def test_arguments(queue: Path) -> None:
    for url in ("http://h/S", "nats://", "nats://:1/S", "nats://h:x/S", "nats://h/A.B", "nats://h"):
        with pytest.raises(InvalidArgument):
            Mirror(str(queue), url)
    with pytest.raises(InvalidArgument):
        Mirror(str(queue), "nats://h/S", frame_bytes=1)
    fill(queue, 1)
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1"):
        send(queue, f"nats://127.0.0.1:{nats.free_port()}/S")


# -------------------------------------------------------------------------------------------- readers


def test_the_same_program_reads_queue_and_stream(queue: Path, url: str) -> None:
    start = datetime(2024, 5, 1, tzinfo=timezone.utc)
    with Queue.open_publisher(queue) as writer:
        for number in range(1000):
            writer.append(b"%d" % number, timestamp_ns=int((start + timedelta(minutes=number)).timestamp()) * 10**9)
        writer.sync()
    send(queue, url, frame_bytes=1024)

    def program(source: str) -> list[Any]:
        told: list[Any] = []
        with open_subscriber(source, "risk") as reader:
            told += [reader.name, reader.position, reader.committed, reader.lag]
            told += [reader.next(), reader.position]
            reader.commit()
            reader.seek(500)
            told += [reader.next(), reader.lag, reader.committed]
            reader.seek_time(start + timedelta(minutes=700, seconds=-30))
            told += [reader.next(), next(iter(reader)), next(reader.payloads())]
            reader.commit(upto=600)
            reader.seek_latest()
            told += [reader.next(), reader.wait(0.01), list(reader.follow(0.01))]
            for wrong in (1001, 2000):
                with pytest.raises(SeqOutOfRange):
                    reader.seek(wrong)
            with pytest.raises(InvalidArgument):
                reader.commit(upto=1001)
            reader.seek_earliest()
            told += [len(list(reader)), reader.position]
        with open_subscriber(source, "risk") as reader:
            told += [reader.position, reader.next()]
        with open_subscriber(source, start=998) as reader:
            told += list(reader.follow(timeout=0.05))
            with pytest.raises(ReadOnly):
                reader.commit()
        with open_subscriber(source, start="latest") as reader:
            told.append(reader.next())
        with open_subscriber(source, start=start + timedelta(hours=1)) as reader:
            told.append(reader.next())
            reader.close()
            with pytest.raises(ClosedHandle):
                reader.next()
        return told

    assert program(url) == program(str(queue))


def test_times_that_go_back(queue: Path, url: str) -> None:
    fill(queue, 400, seed=3)
    send(queue, url, frame_bytes=1024)
    with Queue.open_subscriber(queue) as reader, Subscriber(url) as subscriber:
        for when in (0, 1, 500_000, 900_000, 999_000, 2 * MILLION):
            reader.seek_time(when)
            subscriber.seek_time(when)
            assert subscriber.position == reader.position


def test_a_reader_on_an_event_loop(queue: Path, url: str) -> None:
    expected = fill(queue, 100)
    send(queue, url)

    async def read() -> list[Message]:
        found: list[Message] = []
        with Subscriber(url) as reader:
            assert await reader.next_async(1) == expected[0]
            async for message in reader:
                found.append(message)
                if len(found) == 99:
                    break
            assert await reader.next_async(0.01) is None
        return found

    assert asyncio.run(read()) == expected[1:]


def test_two_readers_of_one_name(queue: Path, url: str) -> None:
    fill(queue, 10)
    send(queue, url)
    with Subscriber(url, "one") as first, Subscriber(url, "one") as second:
        first.next()
        first.commit()
        first.commit()
        second.next()
        second.next()
        with pytest.raises(ReaderAlreadyActive):
            second.commit()


def test_many_hosts_one_server(tmp_path: Path, server: Server) -> None:
    """Fan-in: a stream for each queue, read together by time."""
    import heapq

    for number in range(3):
        with Queue.open_publisher(tmp_path / str(number)) as writer:
            for step in range(50):
                writer.append(b"%d" % number, timestamp_ns=step * 3 + number)
            writer.sync()
        send(tmp_path / str(number), server.url(f"FANIN{number}"))
    readers = [Subscriber(server.url(f"FANIN{number}")) for number in range(3)]
    merged = heapq.merge(*readers, key=lambda message: message.timestamp_ns)
    assert [message.timestamp_ns for message in merged] == list(range(150))
    for reader in readers:
        reader.close()


def test_no_such_stream(server: Server) -> None:
    with pytest.raises(StreamNotFound):
        Subscriber(server.url("NOWHERE"))


# -------------------------------------------------------------------------------------------- restore


@pytest.mark.parametrize("begin", [None, 123])
def test_restore(queue: Path, tmp_path: Path, url: str, begin: int | None) -> None:
    expected = fill(queue)
    send(queue, url, frame_bytes=4096)
    copy = tmp_path / "copy"
    assert asyncio.run(restore(url, str(copy), start=begin)) == 500 - (begin or 0)
    assert records(copy) == expected[begin or 0 :]
    assert Queue.verify(copy).ok
    assert Queue.info(copy).durable_seq == 499
    assert not list(tmp_path.glob("*.restoring"))
    with pytest.raises(InvalidArgument, match="is something at"):
        asyncio.run(restore(url, str(copy)))
    with pytest.raises(StreamMismatch):
        send(copy, url)
    with pytest.raises(InvalidArgument, match="records 0 to 499"):
        asyncio.run(restore(url, str(tmp_path / "none"), start=500))
    with Queue.open_publisher(copy) as writer:
        assert writer.append(b"goes on") == 500


def test_a_gap_is_not_restored(queue: Path, tmp_path: Path, url: str) -> None:
    test_retention_that_went_too_far(queue, url)
    with pytest.raises(MirrorError, match="a queue has no holes"):
        asyncio.run(restore(url, str(tmp_path / "copy")))
    oldest = Queue.info(queue).oldest_seq
    asyncio.run(restore(url, str(tmp_path / "copy"), start=oldest))
    assert records(tmp_path / "copy") == records(queue)
