"""The HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from stockroom.holds import Holds, UnknownHold
from stockroom.prices import PriceClient, PriceError
from stockroom.store import Item, ItemExists, OutOfStock, Store, StoreBusy, UnknownItem
from stockroom.worker import AuditLog, PricePoller, RestockOrder, RestockWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    database: Path
    audit: Path
    prices_url: str
    poll_interval: float = 30.0
    hold_ttl: float = 600.0


CONFIG = web.AppKey("config", Config)
STORE = web.AppKey("store", Store)
HOLDS = web.AppKey("holds", Holds)
PRICES = web.AppKey("prices", PriceClient)
WORKER = web.AppKey("worker", RestockWorker)

STATUS: dict[type[Exception], int] = {
    UnknownItem: 404,
    UnknownHold: 404,
    ItemExists: 409,
    OutOfStock: 409,
    PriceError: 502,
    StoreBusy: 503,
}

routes = web.RouteTableDef()


def create_app(config: Config) -> web.Application:
    app = web.Application(middlewares=[errors_as_json])
    app[CONFIG] = config
    app.add_routes(routes)
    app.cleanup_ctx.append(resources)
    return app


async def resources(app: web.Application) -> AsyncIterator[None]:
    """Open all that the service needs; close it in the reverse order."""
    config = app[CONFIG]
    with Store(config.database) as store, AuditLog(config.audit) as audit:
        async with (
            PriceClient(config.prices_url) as prices,
            RestockWorker(store, audit) as worker,
            PricePoller(store, prices, interval=config.poll_interval),
        ):
            holds = Holds(store, ttl=config.hold_ttl)
            app[STORE], app[PRICES], app[WORKER], app[HOLDS] = store, prices, worker, holds
            yield
            holds.close()
            await worker.join()


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except tuple(STATUS) as error:
        body = {"error": type(error).__name__, "detail": str(error)}
        return web.json_response(body, status=STATUS[type(error)])


async def body_of(request: web.Request, **fields: type) -> dict[str, Any]:
    """Return the JSON object sent, if it has these fields, of these types."""
    try:
        body = await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text="JSON expected") from None
    for name, kind in fields.items():
        if not isinstance(body, dict) or type(body.get(name)) is not kind:
            raise web.HTTPBadRequest(text=f"{name}: {kind.__name__} expected")
        if kind is int and body[name] < 0:
            raise web.HTTPBadRequest(text=f"{name}: must not be negative")
    return {name: body[name] for name in fields}


@routes.get("/items")
async def list_items(request: web.Request) -> web.Response:
    items = await asyncio.to_thread(request.app[STORE].all)
    return web.json_response([asdict(item) for item in items])


@routes.post("/items")
async def add_item(request: web.Request) -> web.Response:
    item = Item(**await body_of(request, sku=str, name=str, stock=int))
    await asyncio.to_thread(request.app[STORE].add, item)
    return web.json_response(asdict(item), status=201)


@routes.get("/items/{sku}")
async def get_item(request: web.Request) -> web.Response:
    item = await asyncio.to_thread(request.app[STORE].get, request.match_info["sku"])
    return web.json_response(asdict(item))


@routes.put("/items/{sku}")
async def rename_item(request: web.Request) -> web.Response:
    body = await body_of(request, name=str)
    await asyncio.to_thread(request.app[STORE].rename, request.match_info["sku"], body["name"])
    return web.Response(status=204)


@routes.delete("/items/{sku}")
async def remove_item(request: web.Request) -> web.Response:
    await asyncio.to_thread(request.app[STORE].remove, request.match_info["sku"])
    return web.Response(status=204)


@routes.get("/items/{sku}/price")
async def get_price(request: web.Request) -> web.Response:
    item = await asyncio.to_thread(request.app[STORE].get, request.match_info["sku"])
    cents = await request.app[PRICES].price(item.sku)
    return web.json_response({"sku": item.sku, "cents": cents})


@routes.post("/items/{sku}/reserve")
async def reserve(request: web.Request) -> web.Response:
    body = await body_of(request, quantity=int)
    holds = request.app[HOLDS]
    hold_id = await holds.place(request.match_info["sku"], body["quantity"])
    return web.json_response({"hold": hold_id, "expires_in": holds.ttl}, status=201)


@routes.post("/holds/{hold}/confirm")
async def confirm(request: web.Request) -> web.Response:
    request.app[HOLDS].confirm(request.match_info["hold"])
    return web.Response(status=204)


@routes.post("/items/{sku}/restock")
async def restock(request: web.Request) -> web.Response:
    body = await body_of(request, order=str, quantity=int)
    order = RestockOrder(body["order"], request.match_info["sku"], body["quantity"])
    accepted = await request.app[WORKER].submit(order)
    return web.json_response({"accepted": accepted}, status=202)
