from __future__ import annotations

import asyncio

import pytest
from stockroom.prices import PriceClient
from stockroom.store import Item, Store
from stockroom.testing import PriceStub
from stockroom.worker import AuditLog, PricePoller, RestockOrder, RestockWorker

pytestmark = pytest.mark.asyncio


async def test_worker_books_orders(store: Store, audit: AuditLog) -> None:
    worker = RestockWorker(store, audit)
    worker.start()
    await worker.submit(RestockOrder("r-1", "BOLT-8", 5))
    await worker.submit(RestockOrder("r-2", "BOLT-8", 7))
    await worker.join()
    assert store.get("BOLT-8").stock == 22


async def test_subscriber_hears_of_booked_order(store: Store, audit: AuditLog) -> None:
    order = RestockOrder("r-1", "BOLT-8", 5)
    async with RestockWorker(store, audit) as worker:
        booked = worker.subscribe()
        await worker.submit(order)
        assert await booked.get() == order


async def test_rejected_order_is_not_announced(store: Store, audit: AuditLog) -> None:
    worker = RestockWorker(store, audit)
    announced = asyncio.create_task(worker.subscribe().get(), name="next-announcement")
    await worker.process(RestockOrder("r-1", "NO-SUCH-SKU", 5))
    assert not announced.done()


async def test_order_sent_twice_is_accepted_once(store: Store, audit: AuditLog) -> None:
    worker = RestockWorker(store, audit)
    order = RestockOrder("r-1", "BOLT-8", 5)
    await worker.submit(order)
    worker.submit(order)
    assert worker.pending == 1


async def test_poller_stores_fresh_prices(store: Store, upstream: PriceStub) -> None:
    store.add(Item("NUT-8", "Nut M8", cents=12))
    async with PriceClient(upstream.url) as prices:
        await PricePoller(store, prices).refresh()
    assert store.get("BOLT-8").cents == 45
    assert store.get("NUT-8").cents == 12


async def test_poller_refreshes_at_once(store: Store, upstream: PriceStub) -> None:
    poller = PricePoller(store, PriceClient(upstream.url), interval=60)
    poller.start()
    async with asyncio.timeout(5):
        while store.get("BOLT-8").cents != 45:
            await asyncio.sleep(0.005)
