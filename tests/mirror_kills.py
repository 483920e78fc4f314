# SPDX-License-Identifier: MIT
"""Kills the mirror, the stream's leader and its followers in turn while a queue grows; the stream has to equal it.

    python -m tests.mirror_kills --nodes 3 --kills 200 --records 1000000 --seed 1

With three nodes they are those of examples/mirror. Each record's bytes follow from its seq, so what a reader of the
stream gets is checked without the queue, too. A failure leaves all files, and says where.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nats as client_library

from chronicle_ffi import Queue
from chronicle_ffi.mirror import Subscriber, verify
from tests.nats import ROOT, Server, free_port

STREAM = "KILLS"
USER = "mirror"
SETTLE_SECONDS = 120


def payload(seq: int) -> bytes:
    return b"%d " % seq * (1 + seq % 23)


class Cluster:
    """Servers of one cluster; or a single one."""

    def __init__(self, directory: Path, count: int) -> None:
        self.servers = [Server(directory, name=f"n{number}") for number in range(count)]
        self.user = ""
        if count > 1:
            self.user = f"{USER}:secret1@"
            ports = [free_port() for _ in range(count)]
            routes = ", ".join(f'"nats://node:secret2@127.0.0.1:{port}"' for port in ports)
            for server, port in zip(self.servers, ports, strict=True):
                shutil.copy(ROOT / "examples/mirror/node.conf", server.config)
                (server.directory / "local.conf").write_text(
                    f'NAME: "{server.name}"\nCLIENTS: "127.0.0.1:{server.port}"\nNODES: "127.0.0.1:{port}"\n'
                    f'STORE: "{server.directory}/store"\nPASSWORD: "secret1"\nNODE_PASSWORD: "secret2"\n'
                    f"ROUTES: [{routes}]\n"
                )
        for server in self.servers:
            server.start()

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"nats://{self.user}{hosts}/{STREAM}"

    async def leader(self) -> Server | None:
        """As one of them says; None if nobody knows."""
        try:
            client = await client_library.connect(
                [f"nats://{self.user}127.0.0.1:{server.port}" for server in self.servers],
                allow_reconnect=False, connect_timeout=1, max_reconnect_attempts=1, reconnect_time_wait=0,
            )  # fmt: skip
        except Exception:  # whatever the client has against it: a victim is a victim
            return None
        try:
            info = await client.jetstream(timeout=1).stream_info(STREAM)
        except Exception:
            return None
        finally:
            await client.close()
        name = info.cluster.leader if info.cluster else self.servers[0].name
        return next((server for server in self.servers if server.name == name), None)

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


class Sender:
    """``chronicle mirror`` as a process."""

    def __init__(self, queue: Path, cluster: Cluster) -> None:
        self.command: list[str | Path] = [
            sys.executable, "-m", "chronicle_ffi", "mirror", queue, cluster.url,
            "--replicas", str(len(cluster.servers)),
        ]  # fmt: skip
        self.log = queue.parent / "mirror.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*self.command, *options], stderr=log, stdout=log)

    def see_to_it(self) -> None:
        """It may have given up: at its start, where no server could be reached. A difference is never accepted."""
        assert self.process is not None
        if self.process.poll() is not None:
            assert self.process.returncode == 2, self.log.read_text()[-2000:]
            self.start()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def run(directory: Path, *, nodes: int, kills: int, records: int, seed: int, say: bool = False) -> dict[str, int]:
    """Returns how often what was killed. Raises AssertionError if the stream is not the queue."""
    generator = random.Random(seed)
    queue = directory / "queue"
    cluster = Cluster(directory, nodes)
    killed = {"mirror": 0, "leader": 0, "follower": 0}
    sender = Sender(queue, cluster)
    try:
        with Queue.open_publisher(queue) as writer:
            writer.append(payload(0))
            writer.sync()
            settle(sender)
            sender.start()
            for number in range(kills):
                goal = 1 + (records - 1) * (number + 1) // kills
                while writer.next_seq < goal:
                    count = min(generator.randrange(1, 2000), goal - writer.next_seq)
                    writer.append_many([payload(seq) for seq in range(writer.next_seq, writer.next_seq + count)])
                    writer.sync()
                kill_one(sender, cluster, generator, killed)
                if say and number % 10 == 9:
                    print(f"{number + 1} kills {killed}, seq {writer.next_seq}", flush=True)
        sender.kill()
        settle(sender)
        check(queue, cluster, records)
    finally:
        sender.kill()
        cluster.kill()
    return killed


def kill_one(sender: Sender, cluster: Cluster, generator: random.Random, killed: dict[str, int]) -> None:
    kinds = ["mirror", "leader", "follower"] if len(cluster.servers) > 1 else ["mirror", "leader"]
    kind = kinds[sum(killed.values()) % len(kinds)]
    time.sleep(generator.choice((0.0, 0.05, 0.2, 0.5)))
    if kind == "mirror":
        sender.kill()
        sender.start()
    else:
        leader = asyncio.run(cluster.leader()) if len(cluster.servers) > 1 else cluster.servers[0]
        others = [server for server in cluster.servers if server is not leader]
        victim = leader if kind == "leader" and leader else generator.choice(others)
        victim.kill()
        time.sleep(generator.choice((0.0, 0.1, 0.5)))
        victim.start()
    killed[kind] += 1
    sender.see_to_it()


def settle(sender: Sender) -> None:
    """All that is in the queue goes to the stream; a cluster may need a while to find a leader."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        sender.start("--once")
        assert sender.process is not None
        status = sender.process.wait(SETTLE_SECONDS)
        if status == 0:
            return
        assert status == 2, sender.log.read_text()[-2000:]
        assert time.monotonic() < deadline, sender.log.read_text()[-2000:]
        time.sleep(0.2)


def check(queue: Path, cluster: Cluster, records: int) -> None:
    report = asyncio.run(verify(str(queue), cluster.url))
    assert report.ok, report
    assert (report.first_seq, report.next_seq, report.compared, report.behind) == (0, records, records, 0), report
    with Subscriber(cluster.url) as reader:
        expected = 0
        for message in reader:
            assert (message.seq, message.payload) == (expected, payload(expected)), message
            expected += 1
    assert expected == records


def main() -> None:
    parser = argparse.ArgumentParser(
        description="kill mirror, leader and followers in turn; the stream equals the queue"
    )
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--kills", type=int, default=201)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    print(f"replay: python -m tests.mirror_kills {' '.join(f'--{name} {value}' for name, value in vars(args).items())}")
    directory = Path(tempfile.mkdtemp(prefix="mirror-kills-", dir="/var/tmp"))
    print(f"files: {directory}", flush=True)
    started = time.monotonic()
    killed = run(directory, **vars(args), say=True)
    shutil.rmtree(directory)
    print(f"{killed}, {args.records} records, {time.monotonic() - started:.0f} s: the stream equals the queue")


if __name__ == "__main__":
    main()
