"""For tests: a stand-in for the upstream price API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Self, TypeAlias

from aiohttp import web
from aiohttp.test_utils import TestClient

ApiClient: TypeAlias = TestClient[web.Request, web.Application]
"""A client of the service under test."""


class PriceStub:
    """A local HTTP server that answers ``GET /prices/{sku}``.

    It keeps connections alive, as the real upstream does.
    """

    def __init__(self, prices: Mapping[str, int], *, status: int = 200) -> None:
        self.prices = dict(prices)
        self.status = status
        self.asked: list[str] = []
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        assert self._server is not None, "not started"
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Stop listening, hang up on every client, and wait until all that is over."""
        assert self._server is not None, "not started"
        self._server.close()
        for writer in self._clients.values():
            writer.close()
        if self._clients:
            await asyncio.wait(self._clients)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = writer
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(request.split(maxsplit=2)[1].decode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            del self._clients[task]

    def _answer(self, path: str) -> bytes:
        sku = path.rpartition("/")[2]
        self.asked.append(sku)
        status = self.status if sku in self.prices else 404
        body = json.dumps({"sku": sku, "cents": self.prices.get(sku)}).encode()
        head = (
            f"HTTP/1.1 {status} Stub\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
