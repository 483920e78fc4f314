# SPDX-License-Identifier: MIT
"""Read what sensor.c writes: ``python sensor.py /tmp/readings``. Resumes where the last run committed."""

import struct
import sys
from collections import defaultdict

from chronicle_ffi import Queue

READING = struct.Struct("<Ifd")  # struct reading of sensor.c: sensor, volts, kelvin
TYPE_READING = 1


def main(path: str) -> None:
    warmest: dict[int, float] = defaultdict(float)
    with Queue.open_subscriber(path, "sensor.py") as reader:
        first = reader.position
        for message in reader:
            if message.type_id == TYPE_READING:
                sensor, _volts, kelvin = READING.unpack(message.payload)
                warmest[sensor] = max(warmest[sensor], kelvin)
        reader.commit()
        print(f"{reader.position - first} readings from seq {first}")
    for sensor, kelvin in sorted(warmest.items()):
        print(f"sensor {sensor}: at most {kelvin - 273.15:.2f} degrees")


if __name__ == "__main__":
    main(sys.argv[1])
