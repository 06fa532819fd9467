"""Transports that are still open."""

from __future__ import annotations

from typing import Any

KIND = "transport"

SUITE = """
import asyncio
import os
import socket

import pytest


async def hold(reader, writer):
    await reader.read()
    writer.close()


@pytest.fixture
def listener():
    sock = socket.create_server(("127.0.0.1", 0))
    yield sock
    sock.close()


async def test_connection(listener):
    loop = asyncio.get_running_loop()
    await loop.create_connection(asyncio.Protocol, *listener.getsockname())  # born


async def test_datagram():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(  # born
        asyncio.DatagramProtocol, ("127.0.0.1", 0)
    )


@pytest.fixture
def writing():
    ends = []
    yield ends
    os.close(ends[0])


async def test_read_pipe(writing):
    read, write = os.pipe()  # born
    writing.append(write)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(read, "rb", 0))


def test_on_uvloop(listener):
    import uvloop

    async def main():
        return await asyncio.open_connection(*listener.getsockname())  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kept = runner.run(main())


@pytest.fixture
async def connection(listener):
    return await asyncio.open_connection(*listener.getsockname())  # born


async def test_of_a_fixture(connection):
    pass


async def test_clean_closed(listener):
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.close()
    await writer.wait_closed()


async def test_clean_closed_without_waiting(listener):
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.close()


async def test_clean_datagram():
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, ("127.0.0.1", 0)
    )
    transport.close()


def test_clean_on_uvloop(listener):
    import uvloop

    async def main():
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.close()
        await writer.wait_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_of_a_fixture": {
        "label": "StreamReaderProtocol",
        "owner": "fixture 'connection' (function)",
        "subject": r"stream tcp 127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+",
        "fix": "wait_closed",
    },
    "test_connection": {
        "label": "Protocol",
        "facts": {"protocol": "Protocol"},
        "fix": "transport.close",
    },
    "test_datagram": {"label": "DatagramProtocol", "subject": "udp 127"},
    "test_on_uvloop": {"label": "StreamReaderProtocol", "born": False},
    "test_read_pipe": {"label": "Protocol"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
