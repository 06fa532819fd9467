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


async def test_in_a_task_of_its_own():
    # wait_for of 3.11 does the same.
    await asyncio.create_task(asyncio.start_server(serve, "127.0.0.1", 0))  # born


def test_run_from_outside():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(loop.create_server(Protocol, "127.0.0.1", 0))  # born
    loop.close()


def test_create_server_on_uvloop():
    import uvloop

    async def main():
        loop = asyncio.get_running_loop()
        return await loop.create_server(Protocol, "127.0.0.1", 0)  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server = runner.run(main())


def test_unix_server_on_uvloop(tmp_path):
    import uvloop

    async def main():
        return await asyncio.start_unix_server(serve, tmp_path / "s")  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server = runner.run(main())


def test_in_a_task_of_its_own_on_uvloop():
    import uvloop

    async def main():
        coro = asyncio.start_server(serve, "127.0.0.1", 0)  # born
        return await asyncio.create_task(coro)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server = runner.run(main())


def test_run_from_outside_on_uvloop():
    import uvloop

    loop = uvloop.new_event_loop()
    loop.run_until_complete(loop.create_server(Protocol, "127.0.0.1", 0))  # born
    loop.close()


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
    "test_in_a_task_of_its_own": {"label": "serve"},
    "test_run_from_outside": {"label": "Protocol"},
    "test_on_uvloop": {
        "label": "serve",
        "subject": "server 'serve'",
        "facts": {"listens": r"tcp listening on 127\.0\.0\.1:\d+"},
    },
    "test_create_server_on_uvloop": {"label": "Protocol"},
    "test_unix_server_on_uvloop": {
        "label": "serve",
        "facts": {"listens": "unix listening on .*/s"},
    },
    "test_in_a_task_of_its_own_on_uvloop": {"label": "serve"},
    "test_run_from_outside_on_uvloop": {"label": "Protocol"},
    "test_of_a_fixture": {"label": "serve", "owner": "fixture 'server' (function)"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
