from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
import pytest_asyncio
from stockroom.testing import ApiClient

pytestmark = pytest.mark.asyncio

BOLT = {"sku": "BOLT-8", "name": "Bolt M8", "stock": 10}


@pytest_asyncio.fixture
async def bolt(api: ApiClient) -> str:
    response = await api.post("/items", json=BOLT)
    assert response.status == HTTPStatus.CREATED
    return "/items/BOLT-8"


@pytest_asyncio.fixture
async def scanner(api: ApiClient) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A hand-held scanner: speaks plain HTTP/1.1 over one connection all day."""
    return await asyncio.open_connection(api.host, api.port)


async def test_item_is_added_renamed_and_removed(api: ApiClient, bolt: str) -> None:
    assert (await api.put(bolt, json={"name": "Bolt"})).status == HTTPStatus.NO_CONTENT
    assert (await (await api.get(bolt)).json())["name"] == "Bolt"
    assert (await api.delete(bolt)).status == HTTPStatus.NO_CONTENT
    assert (await api.get(bolt)).status == HTTPStatus.NOT_FOUND


async def test_price_comes_from_upstream(api: ApiClient, bolt: str) -> None:
    async with api.get(f"{bolt}/price") as response:
        assert await response.json() == {"sku": "BOLT-8", "cents": 45}


async def test_reserved_stock_is_gone(api: ApiClient, bolt: str) -> None:
    async with api.post(f"{bolt}/reserve", json={"quantity": 8}) as response:
        assert response.status == HTTPStatus.CREATED
        hold = (await response.json())["hold"]
    async with api.post(f"{bolt}/reserve", json={"quantity": 8}) as response:
        assert response.status == HTTPStatus.CONFLICT
    assert (await api.post(f"/holds/{hold}/confirm")).status == HTTPStatus.NO_CONTENT


async def test_restock_order_is_accepted_once(api: ApiClient, bolt: str) -> None:
    order = {"order": "r-1", "quantity": 5}
    for accepted in (True, False):
        async with api.post(f"{bolt}/restock", json=order) as response:
            assert await response.json() == {"accepted": accepted}


async def test_connection_is_kept_alive(
    bolt: str, scanner: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    reader, writer = scanner
    for _ in range(2):
        writer.write(b"GET /items/BOLT-8 HTTP/1.1\r\nHost: stockroom\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        assert b"Bolt M8" in await reader.readexactly(length)


async def test_bad_body_is_refused(api: ApiClient, bolt: str) -> None:
    async with api.post(f"{bolt}/reserve", json={"quantity": "8"}) as response:
        assert response.status == HTTPStatus.BAD_REQUEST
