from __future__ import annotations

import asyncio
from contextlib import closing

import pytest
from stockroom.holds import Holds, UnknownHold
from stockroom.store import Store

pytestmark = pytest.mark.asyncio


async def test_held_stock_is_not_for_sale(store: Store) -> None:
    with closing(Holds(store)) as holds:
        await holds.place("BOLT-8", 4)
        assert store.get("BOLT-8").stock == 6


async def test_confirmed_hold_does_not_come_back(store: Store) -> None:
    holds = Holds(store)
    hold = await holds.place("BOLT-8", 4)
    holds.confirm(hold)
    holds.close()
    assert store.get("BOLT-8").stock == 6


async def test_expired_hold_is_given_back(store: Store) -> None:
    holds = Holds(store, ttl=0.01)
    hold = await holds.place("BOLT-8", 4)
    async with asyncio.timeout(5):
        while store.get("BOLT-8").stock < 10:
            await asyncio.sleep(0.005)
    with pytest.raises(UnknownHold):
        holds.confirm(hold)
