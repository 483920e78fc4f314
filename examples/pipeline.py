# SPDX-License-Identifier: MIT
"""An asyncio pipeline in one process: producers -> queue "orders" -> a stage -> queue "priced" -> a report.

    python pipeline.py /tmp/pipeline --producers 10 --orders 20

Each arrow is a queue on disk: kill it at any moment and start it again, and it goes on where it was. Producers tell
their customer "accepted" only when the order is on disk; those that wait at the same time share one sync.
"""

import argparse
import asyncio
import json
from pathlib import Path

from chronicle_ffi import Queue, QueueReader, QueueWriter

PRICES = {"apple": 3, "pear": 4}


async def produce(orders: QueueWriter, customer: int, count: int) -> None:
    for number in range(count):
        fruit = ("apple", "pear")[number % 2]
        seq = orders.append(json.dumps({"customer": customer, "fruit": fruit, "count": number + 1}).encode())
        await orders.wait_durable(seq)  # now "accepted" is true, whatever happens


async def price(orders: QueueReader, priced: QueueWriter) -> None:
    """For ever. An order is committed as done when its price is on disk: after a crash it may be priced again."""
    async for message in orders:
        order = json.loads(message.payload)
        order |= {"order": message.seq, "price": order["count"] * PRICES[order["fruit"]]}
        seq = priced.append(json.dumps(order).encode())
        if orders.lag == 0 or seq % 100 == 99:
            await priced.wait_durable(seq)
            orders.commit()


async def report(priced: QueueReader, count: int) -> int:
    """The total of the next `count` priced orders; one that was priced twice counts once."""
    prices: dict[int, int] = {}
    async for message in priced:
        order = json.loads(message.payload)
        prices[order["order"]] = order["price"]
        if len(prices) == count:
            priced.commit()
            break
    return sum(prices.values())


async def pipeline(directory: Path, producers: int, count: int) -> int:
    directory.mkdir(exist_ok=True)
    with (
        Queue.open_publisher(directory / "orders") as orders,
        Queue.open_publisher(directory / "priced") as priced,
        Queue.open_subscriber(directory / "orders", "pricing") as to_price,
        Queue.open_subscriber(directory / "priced", "report") as to_report,
    ):
        pricing = asyncio.create_task(price(to_price, priced))
        try:
            reporting = asyncio.create_task(report(to_report, producers * count))
            await asyncio.gather(*(produce(orders, customer, count) for customer in range(producers)))
            total = await reporting
        finally:
            pricing.cancel()  # it waits for more; that ends at once
            await asyncio.gather(pricing, return_exceptions=True)
        print(f"{producers * count} orders accepted, with {orders.stats().syncs} syncs")
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
