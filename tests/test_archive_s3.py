# SPDX-License-Identifier: MIT
"""The archive on a real S3 server, which is killed, asked with wrong credentials, and replaced by one that refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from chronicle_ffi import Queue
from tests.archived import FRAME, fill
from tests.interop import need
from tests.object_store import ObjectServer
from tests.test_cli import run

need("obstore")
need("zstandard")

from chronicle_ffi.archive import Archive, ArchiveError, export, open_subscriber  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with ObjectServer(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(autouse=True)
def credentials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)


def test_there_and_back(server: ObjectServer, queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = fill(queue)
    files = {path.name: path.read_bytes() for path in queue.glob("*.seg")}
    url = f"{server.url}/there"
    report = Archive(queue, url, options=server.options, frame_bytes=FRAME).run()
    assert len(report.archived) == len(files) - 1
    assert Archive(None, url, options=server.options).verify().ok
    with open_subscriber(queue, url, options=server.options, start="earliest") as reader:
        assert list(reader.payloads()) == payloads
        reader.seek(500)
        message = reader.next()
        assert message is not None
        assert message.payload == payloads[500]
    again = Archive(queue, url, options=server.options).run()
    assert (again.archived, again.swept) == ([], [])
    Archive(None, url, options=server.options).restore(tmp_path / "restored")
    for path in (tmp_path / "restored").glob("*.seg"):
        assert path.read_bytes() == files[path.name]
    for name, value in server.options.items():  # as the commands have them
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    assert "all is well" in run("archive", "-", url, "--verify", "--option", "allow_http=true")[0]


@pytest.mark.heavy
def test_the_server_is_killed(server: ObjectServer, queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a run, and of reading: an error that says so, and nothing is lost."""
    from chronicle_ffi.archive import _archiver, _store

    monkeypatch.setattr(_store, "RETRY", {"max_retries": 1})
    payloads = fill(queue)
    url = f"{server.url}/killed"
    for at in (1, 2, 3, 8, 9):
        count = 0

        def kill(name: str, at: int = at) -> None:
            nonlocal count
            count += 1
            if count == at:
                server.kill()

        monkeypatch.setattr(_archiver, "step", kill)
        with pytest.raises(ArchiveError, match="cannot be reached"):
            Archive(queue, url, options=server.options).run(keep_local=True)
        monkeypatch.setattr(_archiver, "step", lambda name: None)
        server.start()
        if at < 8:
            assert Queue.info(queue).oldest_seq == 0
    Archive(queue, url, options=server.options).run()
    found = Archive(None, url, options=server.options).verify()
    assert found.ok
    assert not found.orphans
    with open_subscriber(queue, url, options=server.options, start="earliest") as reader:
        seen = [reader.next()]
        server.kill()
        with pytest.raises(ArchiveError, match="cannot be reached"):
            while True:
                seen.append(reader.next())
        assert reader.position == len(seen)
        server.start()
        assert [message.payload for message in [*seen, *reader] if message] == payloads


def test_who_may_not_is_told_why(server: ObjectServer, queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(queue)
    with pytest.raises(ArchiveError, match="no such bucket"):
        Archive(queue, "s3://nowhere/at/all", options=server.options).run()
    with pytest.raises(ArchiveError, match="no such bucket"):
        open_subscriber(queue, "s3://nowhere/at/all", options=server.options)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ArchiveError, match="AWS_SECRET_ACCESS_KEY"):
        Archive(queue, server.url, options=server.options).run()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    with pytest.raises(ArchiveError, match="AWS_ACCESS_KEY_ID"):
        Archive(queue, server.url, options=server.options).run()
    with pytest.raises(ArchiveError, match="wrong_option"):
        Archive(queue, server.url, options={"wrong_option": "1"}).run()
    assert Queue.readers(queue) == []


def test_tables_on_the_server(server: ObjectServer, queue: Path) -> None:
    need("pyarrow")
    fill(queue, 300)
    url = f"{server.url}/tables"
    assert export(queue, url, options=server.options).records == 300
    assert export(queue, url, options=server.options).records == 0


class Refusing(BaseHTTPRequestHandler):
    """What a server says that is full, or finds that the client's clock is off; as S3 words it."""

    def answer(self) -> None:
        status, code = self.server.answer  # type: ignore[attr-defined]
        size = int(self.headers.get("content-length", 0))
        self.rfile.read(size)
        asked = self.command == "GET" and code != "RequestTimeTooSkewed"
        body = f"<Error><Code>{'NoSuchKey' if asked else code}</Code><Message>no</Message></Error>".encode()
        if asked and "list-type" in self.path:
            body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        self.send_response(200 if b"<List" in body else 404 if asked else status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "RequestTimeTooSkewed", "clock is off"),
        (403, "QuotaExceeded", "is full: make room"),
        (507, "InsufficientStorage", "is full: make room"),
        (403, "ExpiredToken", "expired"),
        (400, "Whatever", "no"),
    ],
)
def test_a_server_that_refuses(queue: Path, status: int, code: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from chronicle_ffi.archive import _store

    monkeypatch.setattr(_store, "RETRY", {"max_retries": 0})
    fill(queue, 700)
    with HTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        refusing.answer = (status, code)  # type: ignore[attr-defined]
        thread = threading.Thread(target=refusing.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        options = {"endpoint": f"http://127.0.0.1:{refusing.server_port}", "region": "x", "allow_http": "true"}
        with pytest.raises(ArchiveError, match=told):
            Archive(queue, "s3://bucket/q", options=options).run()
        refusing.shutdown()
        thread.join()
    assert Queue.info(queue).oldest_seq == 0
