# SPDX-License-Identifier: MIT
"""Who may: passwords, nkeys, certificates of a self-made CA, and what is said where something does not fit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import Queue
from tests.interop import need
from tests.nats import Server

from chronicle_ffi.mirror import Access, Mirror, MirrorError, ServerRefused, ServerUnavailable, Subscriber  # isort: skip

trustme = need("trustme")
nkeys = need("nkeys")
need("nacl")


@pytest.fixture
def durable(queue: Path) -> Path:
    with Queue.open_publisher(queue) as writer:
        writer.append_many([b"one", b"two"])
        writer.sync()
    return queue


def send(queue: Path, url: str, access: Access | None = None) -> int:
    mirror = Mirror(str(queue), url, access=access)
    asyncio.run(mirror.run(once=True))
    return mirror.stats().next_seq


def received(url: str, access: Access | None = None) -> list[bytes]:
    with Subscriber(url, access=access) as reader:
        return list(reader.payloads())


def test_passwords(durable: Path, tmp_path: Path) -> None:
    users = 'authorization { users: [{ user: "m", password: "right" }] }'
    with Server(tmp_path, users) as server:
        for wrong in (server.url("S"), server.url("S", "m:wrong@"), server.url("S", "x:right@")):
            with pytest.raises(ServerRefused, match="does not accept these credentials"):
                send(durable, wrong)
        with pytest.raises(ServerRefused):
            Subscriber(server.url("S"))
        assert send(durable, server.url("S", "m:right@")) == 2
        assert received(server.url("S"), Access(user="m", password="right")) == [b"one", b"two"]


def test_permissions(durable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronicle_ffi.mirror.sender.ANSWER_SECONDS", 0.2)
    users = (
        'authorization { users: [{ user: "m", password: "p", permissions: { publish: "x", subscribe: "_INBOX.>" } }] }'
    )
    with Server(tmp_path, users) as server:
        with pytest.raises(ServerRefused, match=r"needs to publish and subscribe on \$JS.API"):
            send(durable, server.url("S", "m:p@"))


def test_nkeys(durable: Path, tmp_path: Path) -> None:
    import nacl.signing

    raw = bytes(range(32))
    seed = nkeys.encode_seed(raw, nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "right.nk").write_bytes(seed)
    (tmp_path / "wrong.nk").write_bytes(nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_USER))
    assert nacl.signing
    with Server(tmp_path, f"authorization {{ users: [{{ nkey: {public} }}] }}") as server:
        assert send(durable, server.url("S"), Access(nkey=str(tmp_path / "right.nk"))) == 2
        with pytest.raises(ServerRefused):
            send(durable, server.url("S"), Access(nkey=str(tmp_path / "wrong.nk")))
        with pytest.raises(ServerRefused, match="no.nk"):
            send(durable, server.url("S"), Access(nkey=str(tmp_path / "no.nk")))


def test_a_server_without_jetstream(durable: Path, tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.config.write_text(server.config.read_text().partition("jetstream")[0])
    with server, pytest.raises(ServerUnavailable, match="JetStream does not answer"):
        send(durable, server.url("S"))


# ----------------------------------------------------------------------------------------------- TLS


class Authority:
    """A CA of our own, and a server that has a certificate of it."""

    def __init__(self, directory: Path, **certificate: Any) -> None:
        self.ca = trustme.CA()
        self.file = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)
        issued = self.ca.issue_cert("localhost", **certificate)
        issued.private_key_pem.write_to_path(str(directory / "key.pem"))
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(str(directory / "cert.pem"), append=number > 0)
        self.block = (
            f'tls {{ cert_file: "{directory}/cert.pem", key_file: "{directory}/key.pem", ca_file: "{self.file}"'
        )


def test_a_ca_of_our_own(durable: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Server(tmp_path, authority.block + "}", scheme="tls") as server:
        access = Access(ca=authority.file)
        assert send(durable, server.url("S"), access) == 2
        assert received(server.url("S"), access) == [b"one", b"two"]
        with pytest.raises(ServerRefused, match=r"TLS failed.*check the CA"):
            send(durable, server.url("S"))
        with pytest.raises(ServerRefused, match="TLS failed"):  # the certificate is of another name
            send(durable, server.url("S").replace("localhost", "127.0.0.1"), access)


def test_certificates_of_clients(durable: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.ca.issue_cert("mirror@example.org")
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    with Server(tmp_path, authority.block + ", verify: true }", scheme="tls") as server:
        files = {"certificate": str(tmp_path / "client.pem"), "key": str(tmp_path / "client.key")}
        assert send(durable, server.url("S"), Access(ca=authority.file, **files)) == 2
        with pytest.raises(MirrorError):
            send(durable, server.url("S"), Access(ca=authority.file))


def test_a_clock_that_is_off(durable: Path, tmp_path: Path) -> None:
    """A certificate that begins tomorrow is what a clock that is a day slow sees."""
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    authority = Authority(tmp_path, not_before=tomorrow, not_after=tomorrow + timedelta(days=9))
    with Server(tmp_path, authority.block + "}", scheme="tls") as server:
        with pytest.raises(ServerRefused, match=r"not yet valid.*the clocks of both sides"):
            send(durable, server.url("S"), Access(ca=authority.file))


@contextlib.contextmanager
def eavesdropper(heard: list[bytes]) -> Iterator[int]:
    """Says that it is a server which does not want TLS, and writes down what it is told."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    info = {"server_id": "x", "version": "2.15.1", "max_payload": 1 << 20, "headers": True, "proto": 1}
                    connection.sendall(b"INFO " + json.dumps(info).encode() + b"\r\n")
                    connection.settimeout(1)
                    with contextlib.suppress(TimeoutError):
                        while data := connection.recv(65536):
                            heard.append(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield port
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def test_no_password_goes_out_in_plain_text(durable: Path, tmp_path: Path) -> None:
    """Where TLS was asked for, a server that does not offer it gets nothing."""
    authority = Authority(tmp_path)
    heard: list[bytes] = []
    with eavesdropper(heard) as port:
        for url, access in (
            (f"tls://localhost:{port}/S", Access(user="m", password="secret")),
            (f"nats://m:secret@localhost:{port}/S", Access(ca=authority.file)),
            (f"tls://localhost:{port}/S", Access(token="secret")),
        ):
            with pytest.raises(ServerRefused, match="does not ask for TLS"):
                send(durable, url, access)
    assert b"secret" not in b"".join(heard)


# --------------------------------------------------------------------------------------- command line


def chronicle(*arguments: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "chronicle_ffi", *arguments], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_commands(durable: Path, tmp_path: Path) -> None:
    users = 'authorization { users: [{ user: "m", password: "right" }] }'
    (tmp_path / "password").write_text("right\n")
    access = ("--user", "m", "--password-file", str(tmp_path / "password"))
    with Server(tmp_path, users) as server:
        url = server.url("S")
        assert "does not accept these credentials" in chronicle("mirror", durable, url, status=2)
        assert "2 records sent" in chronicle("mirror", durable, url, "--once", *access)
        assert "2 records compared" in chronicle("mirror", durable, url, "--verify", *access)
        copy = tmp_path / "copy"
        assert "2 records restored" in chronicle("restore", url, copy, *access)
        with Queue.open_subscriber(copy) as reader:
            assert list(reader.payloads()) == [b"one", b"two"]
        assert "is of the queue" in chronicle("mirror", copy, url, "--verify", *access, status=1)
