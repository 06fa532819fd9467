"""Servers that still listen."""

from __future__ import annotations

from typing import Any

KIND = "server"

SUITE = """
import asyncio

import pytest


async def serve(reader, writer):
    writer.close()


class Protocol(asyncio.Protocol):
    pass


async def test_start_server():
    await asyncio.start_server(serve, "127.0.0.1", 0)  # born


async def test_create_server():
    loop = asyncio.get_running_loop()
    await loop.create_server(Protocol, "127.0.0.1", 0)  # born


async def test_unix_server(tmp_path):
    await asyncio.start_unix_server(serve, tmp_path / "s")  # born


def test_on_uvloop():
    import uvloop

    async def main():
        return await asyncio.start_server(serve, "127.0.0.1", 0)  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server = runner.run(main())


@pytest.fixture
async def server():
    return await asyncio.start_server(serve, "127.0.0.1", 0)  # born


async def test_of_a_fixture(server):
    pass


async def test_clean_async_with():
    async with await asyncio.start_server(serve, "127.0.0.1", 0):
        pass


async def test_clean_closed_only():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.close()


async def test_clean_served_a_client():
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_clean_on_uvloop():
    import uvloop

    async def main():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_start_server": {
        "label": "serve",
        "subject": "server 'serve'",
        "facts": {"listens": r"tcp listening on 127\.0\.0\.1:\d+"},
        "fix": "wait_closed",
    },
    "test_create_server": {"label": "Protocol"},
    "test_unix_server": {"label": "serve", "facts": {"listens": "unix listening on .*/s"}},
    "test_on_uvloop": {"label": "Server", "born": False},
    "test_of_a_fixture": {"label": "serve", "owner": "fixture 'server' (function)"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
