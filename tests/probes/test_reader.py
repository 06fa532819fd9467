"""Descriptors that a loop still watches."""

from __future__ import annotations

from typing import Any

KIND = "reader"

SUITE = """
import asyncio
import socket

import pytest


def on_ready():
    pass


@pytest.fixture
def pair():
    pair = socket.socketpair()
    yield pair
    for sock in pair:
        sock.close()


async def test_reader(pair):
    asyncio.get_running_loop().add_reader(pair[0], on_ready)  # born


async def test_writer(pair):
    asyncio.get_running_loop().add_writer(pair[0], on_ready)  # born


def on_uvloop(main):
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_reader_on_uvloop(pair):
    async def main():
        asyncio.get_running_loop().add_reader(pair[0], on_ready)  # born

    on_uvloop(main)


def test_writer_on_uvloop(pair):
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_reader(pair[0], print)
        loop.add_writer(pair[0].fileno(), on_ready)  # born
        loop.remove_reader(pair[0])

    on_uvloop(main)


@pytest.fixture
async def watched(pair):
    asyncio.get_running_loop().add_reader(pair[0], on_ready)  # born


async def test_of_a_fixture(watched):
    pass


async def test_replaced(pair):
    loop = asyncio.get_running_loop()
    loop.add_reader(pair[0], print)
    loop.add_reader(pair[0], on_ready)  # born


def test_clean_removed_on_uvloop(pair):
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_reader(pair[0], on_ready)
        loop.add_writer(pair[0], on_ready)
        loop.remove_reader(pair[0].fileno())
        loop.remove_writer(pair[0])

    on_uvloop(main)


def test_clean_taken_over_by_sock_recv_on_uvloop(pair):
    for sock in pair:
        sock.setblocking(False)

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_reader(pair[1], on_ready)
        asyncio.get_running_loop().call_soon(pair[0].send, b"x")
        assert await loop.sock_recv(pair[1], 1) == b"x"

    on_uvloop(main)


def test_clean_connections_on_uvloop():
    async def echo(reader, writer):
        writer.write(await reader.read())
        writer.close()

    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    on_uvloop(main)


async def test_clean_removed(pair):
    loop = asyncio.get_running_loop()
    loop.add_reader(pair[0], on_ready)
    loop.add_writer(pair[0], on_ready)
    loop.remove_reader(pair[0])
    loop.remove_writer(pair[0])


async def test_clean_sock_recv(pair):
    for sock in pair:
        sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(pair[0], b"x")
    assert await loop.sock_recv(pair[1], 1) == b"x"
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_reader": {
        "label": "on_ready",
        "facts": {"watches": "socket"},
        "fix": "remove_reader",
    },
    "test_writer": {"label": "on_ready", "fix": "remove_writer"},
    "test_of_a_fixture": {"label": "on_ready", "owner": "fixture 'watched' (function)"},
    "test_replaced": {"label": "on_ready"},
    "test_reader_on_uvloop": {
        "label": "on_ready",
        "subject": r"reader on_ready on fd \d+",
        "facts": {"watches": "socket"},
        "fix": "remove_reader",
    },
    "test_writer_on_uvloop": {"label": "on_ready", "fix": "remove_writer"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
