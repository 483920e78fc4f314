# SPDX-License-Identifier: MIT
"""The handler of logging: structured, and it survives forks, full disks and queues that are removed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from chronicle_ffi.logs import SHARED, ChronicleHandler, log_record
from tests.children import in_child


@pytest.fixture
def logger() -> Any:
    logger = logging.Logger("shop")
    yield logger
    for handler in logger.handlers:
        handler.close()


class Noting(ChronicleHandler):
    """Keeps what handleError was called for."""

    failed: list[BaseException | None]

    def handleError(self, record: logging.LogRecord) -> None:
        self.failed.append(sys.exc_info()[1])


def noting(path: Path, **options: Any) -> Noting:
    handler = Noting(path, **options)
    handler.failed = []
    return handler


def logged(path: Path) -> list[dict[str, Any]]:
    with Queue.open_subscriber(path) as reader:
        return [json.loads(payload) for payload in reader.payloads()]


def test_fields(queue: Path, logger: logging.Logger) -> None:
    logger.addHandler(ChronicleHandler(queue, logging.INFO))
    logger.debug("not this")
    logger.info("%d of %s", 3, "pears", extra={"customer": 7, "odd": Path("x")})
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("failed \udcff", stack_info=True)
    first, second = logged(queue)
    assert first["message"] == "3 of pears"
    assert first["extra"] == {"customer": 7, "odd": "x"}
    assert (first["level"], first["logger"], first["function"]) == ("INFO", "shop", "test_fields")
    assert (first["process"], first["file"]) == (os.getpid(), __file__)
    assert second["exception"].endswith("ValueError: why")
    assert "stack" in second
    with Queue.open_subscriber(queue) as reader:
        messages = list(reader)
    assert [message.type_id for message in messages] == [logging.INFO, logging.ERROR]
    back = [log_record(message) for message in messages]
    assert back[0].getMessage() == "3 of pears"
    assert vars(back[0])["customer"] == 7
    said = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s").format(back[1])
    assert "ERROR shop failed" in said
    assert "ValueError: why" in said
    with pytest.raises(ValueError):
        log_record(messages[0]._replace(payload=b"[]"))


def test_what_was_logged_survives_a_kill(queue: Path) -> None:
    code = """
        import logging, os, sys
        from chronicle_ffi.logs import ChronicleHandler
        logging.basicConfig(handlers=[ChronicleHandler(sys.argv[1])], level=logging.INFO)
        for n in range(1000):
            logging.info("%d", n)
        os.kill(os.getpid(), 9)
        """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code), queue]).returncode == -9
    assert [fields["message"] for fields in logged(queue)] == [str(n) for n in range(1000)]


def test_a_queue_for_each_process(tmp_path: Path, logger: logging.Logger) -> None:
    logger.addHandler(handler := noting(tmp_path / "log-{pid}"))
    logger.warning("parent")

    def child() -> None:
        logger.warning("child")
        logger.handlers[0].close()
        assert logged(tmp_path / f"log-{os.getpid()}")[0]["message"] == "child"

    in_child(child)
    logger.warning("parent again")
    assert [fields["message"] for fields in logged(tmp_path / f"log-{os.getpid()}")] == ["parent", "parent again"]
    assert len(list(tmp_path.iterdir())) == 2
    assert not handler.failed


def test_one_queue_and_a_fork(queue: Path, logger: logging.Logger) -> None:
    """Without shared writers the child's record is an error that is told; with them it is there."""
    logger.addHandler(handler := noting(queue))

    def child() -> None:
        logger.warning("child")
        assert [type(problem) for problem in handler.failed] == ([] if SHARED else [c.WriterAlreadyActive])

    in_child(child)
    logger.warning("parent")
    assert not handler.failed
    assert logged(queue)[-1]["message"] == "parent"


def test_a_full_disk(small_disk: Path, logger: logging.Logger) -> None:
    """It is told, the program goes on, and so does the handler when there is room."""
    logger.addHandler(handler := noting(small_disk / "log", segment_size=1 << 16, keeper=False))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    for n in range(200):
        logger.warning("%d %s", n, "x" * 1000)
    assert handler.failed
    assert {type(problem) for problem in handler.failed} == {c.NoSpace}
    ballast.unlink()
    before = len(handler.failed)
    logger.warning("room")
    assert len(handler.failed) == before
    found = logged(small_disk / "log")
    assert len(found) == 200 - before + 1
    assert found[-1]["message"] == "room"


def test_a_queue_that_is_removed_is_made_anew(queue: Path, logger: logging.Logger) -> None:
    logger.addHandler(handler := noting(queue, durability="always"))
    shutil.rmtree(queue)
    for n in range(3):
        logger.warning("%d", n)
    assert [type(problem) for problem in handler.failed] == [c.NotSynced]
    assert [fields["message"] for fields in logged(queue)] == ["1", "2"]


def test_what_cannot_be_stored_is_told(queue: Path, logger: logging.Logger) -> None:
    logger.addHandler(handler := noting(queue, segment_size=1 << 16))
    logger.warning("x" * (1 << 16))
    logger.warning("%d", "no number")
    logger.warning("fine")
    handler.close()
    logger.warning("late")
    assert [type(problem) for problem in handler.failed] == [c.PayloadTooLarge, TypeError, c.InvalidArgument]
    assert [fields["message"] for fields in logged(queue)] == ["fine"]


def test_a_mistake_is_met_at_once(queue: Path) -> None:
    with Queue.open_publisher(queue):
        if not SHARED:
            with pytest.raises(c.WriterAlreadyActive):
                ChronicleHandler(queue)
    with pytest.raises(c.InvalidArgument):
        ChronicleHandler(queue, durability="perhaps")
