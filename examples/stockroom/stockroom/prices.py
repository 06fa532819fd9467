"""Client of the upstream price API."""

from __future__ import annotations

from typing import Self

import aiohttp
from yarl import URL


class PriceError(Exception):
    """The upstream gave no usable price."""


class PriceClient:
    """Make it inside a running event loop, and `close` it there."""

    def __init__(self, base_url: str, *, timeout: float = 5.0) -> None:
        self._base = URL(base_url)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._session.close()

    async def price(self, sku: str) -> int:
        """Return the present price of `sku`, in cents."""
        try:
            async with self._session.get(self._base / "prices" / sku) as response:
                response.raise_for_status()
                return int((await response.json())["cents"])
        except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
            raise PriceError(f"no price for {sku}: {error}") from error
