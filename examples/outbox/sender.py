# SPDX-License-Identifier: MIT
"""A worker of the outbox: sends orders, each at least once, together with any number of others.

    python sender.py /tmp/outbox

To send is to append to the queue "sent" here; in your service it is a mail, or a request to somebody else. One that
dies after it has sent, and before it could say so, leaves the order to another worker, who sends it again: give whoever
receives it the number of the order, which is the same both times.
"""

import argparse
import json
import time
from pathlib import Path

from chronicle_ffi import Job, Queue, QueueWriter


def send(job: Job, sent: QueueWriter) -> None:
    sent.append(json.dumps({"order": job.seq, "text": job.payload.decode(), "delivery": job.delivery}).encode())
    sent.sync()


def main() -> None:
    parser = argparse.ArgumentParser(description="Send what the shop has taken.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that sending takes")
    args = parser.parse_args()
    orders = args.directory / "orders"
    Queue.open_publisher(orders, shared=True, wait=10).close()  # it is there, whoever is started first
    with (
        Queue.open_group(orders, "send", durable_only=True) as group,  # nobody gets what a loss of power may take back
        Queue.open_publisher(args.directory / "sent", shared=True, wait=10) as sent,
    ):
        for job in group:
            time.sleep(args.pause)
            send(job, sent)
            job.ack(sync=True)


if __name__ == "__main__":
    main()
