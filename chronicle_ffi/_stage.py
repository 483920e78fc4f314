# SPDX-License-Identifier: MIT
"""`Stage`: from one queue to another, each record once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, SupportsIndex

from chronicle_ffi._arguments import Duration, Path, number
from chronicle_ffi._queue import Queue
from chronicle_ffi.errors import Corrupt, HistoryRewritten
from chronicle_ffi.model import Message

if TYPE_CHECKING:
    from typing_extensions import Self

POSITION_TYPE: Final = 0xFFFE  # type_id of a record that tells how far the stage had read

Output = bytes | tuple[bytes, int]


class Stage:
    """Reads ``source``, and appends what a function makes of its records to ``sink``, with the position in one batch.

    So over the death of any process each record of the source has its outputs in the sink once: a stage resumes from
    the last position that the sink holds. One instance is alive at a time: the sink's writer has a lock. Over a loss of
    power that is only so where everything was on disk: version 1 of the format does not keep a batch together then, so
    outputs of the last batch may be there without their position, and come again.

    Readers of the sink pass over records of type 65534, which hold the position.

    :param name: of the reader of ``source`` that makes retention wait for what is on disk in the sink, or, with
        durability "none", for what is in it.
    :param options: of `Queue.open_publisher` for the sink.

    Raises what opening them raises; HistoryRewritten if the source is not the queue that the sink tells of.

    >>> first, count = writer.append_many([b"1", b"2", b"3"])
    >>> with Stage("q", "doubled") as stage:
    ...     stage.run(lambda message: [b"%d" % (2 * int(message.payload))])
    3
    >>> with Queue.open_subscriber("doubled") as doubled:
    ...     [message.payload for message in doubled if message.type_id != Stage.POSITION_TYPE]
    [b'2', b'4', b'6']
    """

    POSITION_TYPE: Final = POSITION_TYPE  #: type_id of its own records in the sink

    def __init__(self, source: Path, sink: Path, name: str = "stage", **options: Any) -> None:
        self._name = name
        self._uuid = Queue.info(source).uuid.hex
        self._writer = Queue.open_publisher(sink, **options)
        self._keeps = options.get("durability", "none") != "none"
        try:
            self._waiting: list[tuple[int, int]] = []  # seq of a position in the sink, what it says: not on disk yet
            begin = self._last_position(sink)
            start: int | Literal["earliest"] = "earliest" if begin is None else begin
            self._reader = Queue.open_subscriber(source, name, start=start)
        except BaseException:
            self._writer.close()
            raise

    def _last_position(self, sink: Path) -> int | None:
        with Queue.open_subscriber(sink, start="latest") as reader:
            while (record := reader.previous()) is not None:
                if record.type_id != POSITION_TYPE or not record.payload.startswith(b'{"stage":1,'):
                    continue
                told = json.loads(record.payload)
                if told["name"] != self._name:
                    continue
                if told["source"] != self._uuid:
                    raise HistoryRewritten(f"the sink tells of another source: that had the uuid {told['source']}")
                if not isinstance(told["next"], int):
                    raise Corrupt(f"the position in record {record.seq} of the sink makes no sense")
                return told["next"]
        return None

    @property
    def position(self) -> int:
        """seq of the next record of the source.

        >>> with Stage("q", "sink") as stage:
        ...     stage.position
        0
        """
        return self._reader.position

    def run(
        self,
        function: Callable[[Message], Iterable[Output]],
        *,
        batch: SupportsIndex = 256,
        timeout: Duration | None = 0.0,
    ) -> int:
        """Feed records to `function`, up to `batch` for each append, until none came for `timeout` seconds.

        It gives the outputs of a record: payloads, or pairs of a payload and its type_id, any number of them. What it
        raises ends the call, and nothing of that batch is appended: the record comes again. Returns how many records
        were dealt with. Raises as appending does: QueueFull, PayloadTooLarge (a batch has to fit one segment), ...

        >>> seq = writer.append(b"1")
        >>> with Stage("q", "sink") as stage:
        ...     stage.run(lambda message: [(message.payload, 7)])
        1
        """
        most = number("batch", batch, least=1)
        done = 0
        while self._reader.wait(timeout):
            begin = self._reader.position
            try:
                done += self._one_batch(function, most)
            except BaseException:
                self._reader.seek(begin)
                raise
        return done

    def _one_batch(self, function: Callable[[Message], Iterable[Output]], most: int) -> int:
        messages = list(islice(self._reader, most))
        if not messages:
            return 0
        outputs = [output for message in messages for output in function(message)]
        plain = [(output, 0) if isinstance(output, bytes) else output for output in outputs]
        following = messages[-1].seq + 1
        told = json.dumps(
            {"stage": 1, "name": self._name, "source": self._uuid, "next": following}, separators=(",", ":")
        )
        payloads = [*(payload for payload, _ in plain), told.encode()]
        types = [*(type_id for _, type_id in plain), POSITION_TYPE]
        first, count = self._writer.append_many(payloads, types, atomic=True)
        self._waiting.append((first + count - 1, following))
        self._let_go()
        return len(messages)

    def _let_go(self) -> None:
        """Retention may have what is in the sink; or, if that is kept on disk, what is there."""
        durable = self._writer.durable_seq if self._keeps else self._waiting[-1][0]
        passed = [following for seq, following in self._waiting if seq <= durable]
        if passed:
            self._waiting = self._waiting[len(passed) :]
            self._reader.commit(passed[-1])

    def close(self) -> None:
        """Close both. What was not appended comes again.

        >>> stage = Stage("q", "sink")
        >>> stage.close()
        """
        try:
            self._writer.close()
        finally:
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
