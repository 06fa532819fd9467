from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from stockroom.prices import PriceClient, PriceError
from stockroom.testing import PriceStub

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def failing_upstream() -> AsyncIterator[PriceStub]:
    async with PriceStub({"BOLT-8": 45}, status=500) as stub:
        yield stub


async def test_price_is_asked_for(upstream: PriceStub) -> None:
    async with PriceClient(upstream.url) as prices:
        assert await prices.price("BOLT-8") == 45
    assert upstream.asked == ["BOLT-8"]


async def test_item_without_a_price(upstream: PriceStub) -> None:
    async with PriceClient(upstream.url) as prices:
        with pytest.raises(PriceError, match="no price for NUT-8"):
            await prices.price("NUT-8")


async def test_failing_upstream_is_an_error(failing_upstream: PriceStub) -> None:
    async with PriceClient(failing_upstream.url) as prices:
        with pytest.raises(PriceError, match="500"):
            await prices.price("BOLT-8")
