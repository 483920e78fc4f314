# SPDX-License-Identifier: MIT
"""SQLite of the standard library as a log: a table with a sequence number."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import islice

from bench.peers import interface
from bench.peers.interface import LOG_TASKS, PAIR_TASKS, POLL_SECONDS, PROCESS, SYNC_TASKS, Contestant


class Writer(interface.Writer):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append_one(self, payloads: Sequence[bytes]) -> None:
        execute = self._connection.execute
        for payload in payloads:
            execute("INSERT INTO log (payload) VALUES (?)", (payload,))

    def append_batch(self, payloads: list[bytes]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO log (payload) VALUES (?)", [(payload,) for payload in payloads])
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


class Reader(interface.Reader):
    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = None
        self._connection = connection
        self._next = 1
        self._rows: Iterator[tuple[bytes]] = iter(())

    def _some(self, count: int) -> list[bytes]:
        """What the query that is under way, or a new one, still gives."""
        got = [payload for (payload,) in islice(self._rows, count)]
        if not got:
            self._rows = self._connection.execute("SELECT payload FROM log WHERE seq >= ?", (self._next,))
            got = [payload for (payload,) in islice(self._rows, count)]
            if not got:
                time.sleep(POLL_SECONDS)
        self._next += len(got)
        return got

    def read_one(self, count: int) -> list[bytes]:
        got: list[bytes] = []
        while len(got) < count:
            got += self._some(count - len(got))
        return got

    def read_batch(self, count: int) -> list[bytes]:
        while not (got := self._some(count)):
            pass
        return got

    def close(self) -> None:
        self._rows = iter(())
        self._connection.close()


class Sqlite(Contestant):
    name = "sqlite3"
    promise = PROCESS
    settings = (
        "WAL, synchronous=OFF, a table of seq and payload; one by one is a transaction for each, batches are "
        "`executemany` of 1000 in one; reading iterates over one query; a waiting reader polls every 0.2 ms"
    )
    durable_settings = "synchronous=FULL"
    tasks = (*LOG_TASKS, *PAIR_TASKS, *SYNC_TASKS, "writers")

    @classmethod
    def version(cls) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def _open(self, channel: str) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{channel}.db", isolation_level=None, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self.task.durable else 'OFF'}")
        return connection

    def start(self, channels: Sequence[str]) -> None:
        for channel in channels:
            connection = self._open(channel)
            connection.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, payload BLOB)")
            connection.close()

    def writer(self, channel: str) -> Writer:
        return Writer(self._open(channel))

    def reader(self, channel: str) -> Reader:
        return Reader(self._open(channel))
