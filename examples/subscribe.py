# SPDX-License-Identifier: MIT
"""Follow the prices of publish.py until none has come for a while: ``python subscribe.py /tmp/prices risk 5``."""

import struct
import sys

from chronicle_ffi import Queue

PRICE = struct.Struct("<8sd")


def main(path: str, name: str, patience_seconds: float) -> None:
    highest = 0.0
    count = 0
    with Queue.open_subscriber(path, name) as reader:
        for message in reader.follow(timeout=patience_seconds):
            _symbol, price = PRICE.unpack(message.payload)
            highest = max(highest, price)
            count += 1
            if count % 100 == 0:
                reader.commit()  # whoever takes over this name goes on here
        reader.commit()
    print(f"{name} saw {count} prices, the highest {highest:.4f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
