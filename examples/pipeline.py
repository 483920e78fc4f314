# SPDX-License-Identifier: MIT
"""An asyncio pipeline in one process: producers -> queue "orders" -> a stage -> queue "priced" -> a report.

    python pipeline.py /tmp/pipeline --producers 10 --orders 20

Each arrow is a queue on disk: kill it at any moment and start it again, and what was accepted is in the next report.
Producers tell their customer "accepted" when the order is on disk; those that wait at the same time share one sync.
"""

import argparse
import asyncio
import json
from pathlib import Path

from chronicle_ffi import Queue, QueueReader, QueueWriter

ORDER, END_OF_DAY = 1, 2  # type_id
PRICES = {"apple": 3, "pear": 4}


async def produce(orders: QueueWriter, customer: int, count: int) -> None:
    for number in range(count):
        fruit = ("apple", "pear")[number % 2]
        order = {"customer": customer, "fruit": fruit, "count": number + 1}
        seq = orders.append(json.dumps(order).encode(), ORDER)
        await orders.wait_durable(seq)  # now "accepted" is true, whatever happens


async def price(orders: QueueReader, priced: QueueWriter) -> None:
    """Orders count as done when their prices are on disk: after a crash some may be priced again, none is forgotten."""
    async for message in orders:
        order = json.loads(message.payload) if message.type_id == ORDER else {}
        if order:
            order |= {"order": message.seq, "price": order["count"] * PRICES[order["fruit"]]}
        seq = priced.append(json.dumps(order).encode(), message.type_id)
        if orders.lag == 0 or seq % 100 == 99:
            await priced.wait_durable(seq)
            orders.commit()
        if message.type_id == END_OF_DAY:
            return


async def report(priced: QueueReader) -> int:
    """The day's total. An order that was priced twice counts once."""
    prices: dict[int, int] = {}
    async for message in priced:
        if message.type_id == END_OF_DAY:
            break
        order = json.loads(message.payload)
        prices[order["order"]] = order["price"]
    priced.commit()
    return sum(prices.values())


async def pipeline(directory: Path, producers: int, count: int) -> int:
    directory.mkdir(exist_ok=True)
    with (
        Queue.open_publisher(directory / "orders") as orders,
        Queue.open_publisher(directory / "priced") as priced,
        Queue.open_subscriber(directory / "orders", "pricing") as to_price,
        Queue.open_subscriber(directory / "priced", "report") as to_report,
    ):
        stages = asyncio.gather(price(to_price, priced), report(to_report))
        await asyncio.gather(*(produce(orders, customer, count) for customer in range(producers)))
        print(f"{producers * count} orders accepted, with {orders.stats().syncs} syncs")
        orders.append(b"", END_OF_DAY)
        _, total = await stages
        return total


def main() -> None:
    parser = argparse.ArgumentParser(description="An asyncio pipeline over two queues.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--producers", type=int, default=10)
    parser.add_argument("--orders", type=int, default=20, help="of each producer")
    args = parser.parse_args()
    total = asyncio.run(pipeline(args.directory, args.producers, args.orders))
    print(f"worth {total}")


if __name__ == "__main__":
    main()
