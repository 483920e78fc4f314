# SPDX-License-Identifier: MIT
"""The shop's ledger: each order once, in order, however often this is killed. One process at a time.

    python ledger.py /tmp/outbox

What goes from queue to queue needs no number to tell repetitions: a `Stage` appends what it makes of the orders
together with how far it has read.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from chronicle_ffi import Message, Queue, Stage


def entry(order: Message) -> Iterator[bytes]:
    yield json.dumps({"order": order.seq, "at": order.timestamp_ns, "bytes": len(order.payload)}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep the ledger of the shop.")
    parser.add_argument("directory", type=Path)
    args = parser.parse_args()
    orders = args.directory / "orders"
    Queue.open_publisher(orders, shared=True, wait=10).close()  # it is there, whoever is started first
    with Stage(orders, args.directory / "ledger", "ledger") as stage:
        stage.run(entry, timeout=None)


if __name__ == "__main__":
    main()
