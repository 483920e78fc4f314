# SPDX-License-Identifier: MIT
"""Publish a made-up stream of prices: ``python publish.py /tmp/prices 1000``."""

import random
import struct
import sys

from chronicle_ffi import Queue

PRICE = struct.Struct("<8sd")  # symbol, price
TYPE_PRICE = 1


def main(path: str, count: int) -> None:
    with Queue.open_publisher(path) as writer:
        price = 1.0842
        for _ in range(count):
            price += random.gauss(0, 0.0001)
            with writer.claim(PRICE.size, TYPE_PRICE) as buffer:  # written in place, without a copy
                PRICE.pack_into(buffer, 0, b"EURUSD", price)
        print(f"published {count}, next seq {writer.next_seq}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
