"""Stock set aside for a customer, and given back unless it is confirmed in time."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass

from stockroom.store import Store, StoreError

log = logging.getLogger(__name__)


class UnknownHold(Exception):
    """There is no such hold, or its time is over."""


@dataclass(frozen=True, slots=True)
class _Hold:
    sku: str
    quantity: int
    timer: asyncio.TimerHandle


class Holds:
    def __init__(self, store: Store, *, ttl: float = 600.0) -> None:
        self.ttl = ttl
        self._store = store
        self._holds: dict[str, _Hold] = {}

    async def place(self, sku: str, quantity: int) -> str:
        """Take `quantity` out of stock and return the id to confirm it by."""
        await asyncio.to_thread(self._store.take, sku, quantity)
        hold_id = uuid.uuid4().hex
        timer = asyncio.get_running_loop().call_later(self.ttl, self._give_back, hold_id)
        self._holds[hold_id] = _Hold(sku, quantity, timer)
        return hold_id

    def confirm(self, hold_id: str) -> None:
        """The stock is sold: it does not come back."""
        hold = self._holds.pop(hold_id, None)
        if hold is None:
            raise UnknownHold(hold_id)
        hold.timer.cancel()

    def close(self) -> None:
        """Give back all that is not confirmed."""
        for hold_id in list(self._holds):
            self._give_back(hold_id)

    def _give_back(self, hold_id: str) -> None:
        hold = self._holds.pop(hold_id)
        hold.timer.cancel()
        try:
            self._store.put_back(hold.sku, hold.quantity)
        except StoreError:
            log.exception("hold %s: %d of %s not given back", hold_id, hold.quantity, hold.sku)
