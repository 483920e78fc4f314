# SPDX-License-Identifier: MIT
"""The records that every contestant carries, and the check that they arrive as they were sent.

Record i is record ``i % RING`` of a ring of random bytes that is the same in every process. What was read is compared
with it byte for byte and in order, by one join and one memcmp for many records, so that the check costs little.
"""

from __future__ import annotations

import random
from typing import Any, Final

RING: Final = 10_000


class WrongContent(Exception):
    """A contestant gave back something else than what it was given."""


class Ring:
    """RING records of one size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._once = random.Random(size).randbytes(RING * size)
        self._blob = self._once * 2  # so that a run of up to RING records lies in one piece, wherever it begins
        self.payloads = [self._once[i * size : (i + 1) * size] for i in range(RING)]

    def take(self, start: int, count: int) -> list[bytes]:
        """Records `start` to `start + count`, at most RING of them."""
        at = start % RING
        return self.payloads[at : at + count] + self.payloads[: max(at + count - RING, 0)]

    def rows(self) -> Any:
        """The ring as an array of numpy, a row for each record."""
        import numpy as np

        return np.frombuffer(self._once, np.uint8).reshape(RING, self.size)

    def differs(self, start: int, got: list[bytes]) -> bool:
        """Whether `got`, at most RING records, is something else than the records from `start` on."""
        joined = b"".join(got)
        right_lengths = set(map(len, got)) <= {self.size}
        return not (right_lengths and self._blob.startswith(joined, start % RING * self.size))


class Check:
    """Compares what comes with what has to come next."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self.seen = 0

    def __call__(self, got: list[bytes]) -> None:
        if not 0 < len(got) <= RING or self._ring.differs(self.seen, got):
            raise WrongContent(f"{len(got)} records from {self.seen} on are not what was appended")
        self.seen += len(got)

    def rows(self, got: Any) -> None:
        """The same for rows of an array."""
        import numpy as np

        expected = self._ring.rows().take(np.arange(self.seen, self.seen + len(got)), axis=0, mode="wrap")
        if not len(got) or not np.array_equal(expected, got):
            raise WrongContent(f"{len(got)} rows from {self.seen} on are not what was appended")
        self.seen += len(got)
