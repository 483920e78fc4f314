# SPDX-License-Identifier: MIT
"""Keep the last prices of publish.py as an array that is ready to plot, while they come in.

    python publish.py /tmp/prices 1000000          # in one terminal
    python rolling.py /tmp/prices --window 1000    # in another

Needs numpy. Records become numbers without an object for each: read_batch() gives columns over the mapped file.
"""

import argparse
import time

import numpy as np

from chronicle_ffi import Queue

PRICE = np.dtype([("symbol", "S8"), ("price", "<f8")])  # as publish.py packs it
FRAME_SECONDS = 0.1


class Window:
    """The last `size` values as one contiguous array, however they come in.

    Values are written at `end` of a buffer twice that size; when it is full, the window moves back to its beginning. So
    each value is moved about once, and `values` is a plain slice, which a plot or numpy takes as it is.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen = 0
        self._buffer = np.empty(2 * size)
        self._end = 0

    @property
    def values(self) -> np.ndarray:
        return self._buffer[max(self._end - self.size, 0) : self._end]

    def extend(self, new: np.ndarray) -> None:
        self.seen += len(new)
        new = new[-self.size :]
        if self._end + len(new) > len(self._buffer):
            kept = self.values[len(new) :] if len(self.values) == self.size else self.values
            self._buffer[: len(kept)] = kept
            self._end = len(kept)
        self._buffer[self._end : self._end + len(new)] = new
        self._end += len(new)


def tail(queue: str, size: int, patience_seconds: float) -> Window:
    """Follow until nothing has come for a while; what is printed here would be drawn."""
    window = Window(size)
    due = 0.0
    with Queue.open_subscriber(queue) as reader:
        while reader.wait(patience_seconds):
            batch = reader.read_batch()
            window.extend(batch.to_numpy(PRICE)["price"])
            if time.monotonic() >= due:
                due = time.monotonic() + FRAME_SECONDS
                draw(window)
    return window


def draw(window: Window) -> None:
    values = window.values
    print(f"{window.seen} prices, the last {len(values)}: {values.min():.4f} to {values.max():.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A rolling window over prices.")
    parser.add_argument("queue")
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--patience", type=float, default=2.0, help="seconds without a price after which it ends")
    args = parser.parse_args()
    window = tail(args.queue, args.window, args.patience)
    draw(window)


if __name__ == "__main__":
    main()
