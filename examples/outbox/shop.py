# SPDX-License-Identifier: MIT
"""A web service that takes orders, and leaves the sending to others: an outbox without a database.

    export OUTBOX=$(mktemp -d)
    uvicorn --app-dir examples/outbox shop:app --workers 2 --port 8000
    python examples/outbox/sender.py $OUTBOX        # as many as are needed, each in its own process
    python examples/outbox/ledger.py $OUTBOX        # one
    curl --data '2 pears' localhost:8000/orders

Each worker process is a writer of the same queue. It answers 201 when the order is on disk: kill what you like, pull
the plug, and what was answered is sent. Requests that wait for the disk at the same time share one sync. A client that
got no answer cannot know whether its order was taken; one that asks again puts an id of its own into it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from chronicle_ffi import Queue


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    with Queue.open_publisher(os.path.join(os.environ["OUTBOX"], "orders"), shared=True, wait=10) as orders:
        app.state.orders = orders
        yield


async def order(request: Request) -> JSONResponse:
    orders = request.app.state.orders
    seq = await orders.append_async(await request.body(), timeout=5)
    await orders.wait_durable(seq, timeout=30)
    return JSONResponse({"order": seq}, 201)


app = Starlette(routes=[Route("/orders", order, methods=["POST"])], lifespan=lifespan)
