"""What goes on in the background: restocking, price refreshing, the audit log."""

from __future__ import annotations

import asyncio
import csv
import logging
import queue
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from stockroom.prices import PriceClient, PriceError
from stockroom.store import Store, StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestockOrder:
    id: str
    sku: str
    quantity: int


class AuditLog:
    """Appends one CSV line per event to a file, from a thread, so that no caller waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: queue.Queue[tuple[str, str, str, int] | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        self._thread.start()

    def write(self, event: str, sku: str, quantity: int) -> None:
        self._rows.put((datetime.now(UTC).isoformat(), event, sku, quantity))

    def flush(self) -> None:
        """Wait until everything written so far is in the file."""
        self._rows.join()

    def close(self) -> None:
        if self._thread is not None:
            self._rows.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            while True:
                row = self._rows.get()
                if row is not None:
                    rows.writerow(row)
                    file.flush()
                self._rows.task_done()
                if row is None:
                    return


class Background:
    """A task that runs from `start` to `stop`."""

    name = "background"

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        raise NotImplementedError


class RestockWorker(Background):
    """Books restock orders, one after the other, and tells its subscribers."""

    name = "restock-worker"

    def __init__(self, store: Store, audit: AuditLog, *, backlog: int = 100) -> None:
        super().__init__()
        self._store = store
        self._audit = audit
        self._orders: asyncio.Queue[RestockOrder] = asyncio.Queue(backlog)
        self._accepted: set[str] = set()
        self._subscribers: list[asyncio.Queue[RestockOrder]] = []

    @property
    def pending(self) -> int:
        return self._orders.qsize()

    def subscribe(self) -> asyncio.Queue[RestockOrder]:
        """Return a queue that gets every order once it is booked."""
        subscriber: asyncio.Queue[RestockOrder] = asyncio.Queue()
        self._subscribers.append(subscriber)
        return subscriber

    async def submit(self, order: RestockOrder) -> bool:
        """Accept an order, waiting for room; False if it was accepted before."""
        if order.id in self._accepted:
            return False
        self._accepted.add(order.id)
        await self._orders.put(order)
        return True

    async def join(self) -> None:
        """Wait until every accepted order is dealt with."""
        await self._orders.join()

    async def process(self, order: RestockOrder) -> None:
        try:
            await asyncio.to_thread(self._store.put_back, order.sku, order.quantity)
        except Exception:  # a bad order must not stop the worker
            log.exception("order %s not booked", order.id)
            self._audit.write("rejected", order.sku, order.quantity)
            return
        self._audit.write("restocked", order.sku, order.quantity)
        for subscriber in self._subscribers:
            subscriber.put_nowait(order)

    async def _run(self) -> None:
        while True:
            order = await self._orders.get()
            try:
                await self.process(order)
            finally:
                self._orders.task_done()


class PricePoller(Background):
    """Keeps the stored prices fresh."""

    name = "price-poller"

    def __init__(self, store: Store, prices: PriceClient, *, interval: float = 30.0) -> None:
        super().__init__()
        self._store = store
        self._prices = prices
        self._interval = interval

    async def refresh(self) -> None:
        """Ask for every item's price once; an item without one keeps what it has."""
        for item in await asyncio.to_thread(self._store.all):
            try:
                cents = await self._prices.price(item.sku)
                await asyncio.to_thread(self._store.set_price, item.sku, cents)
            except (PriceError, StoreError) as error:
                log.warning("price of %s not refreshed: %s", item.sku, error)

    async def _run(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._interval)
