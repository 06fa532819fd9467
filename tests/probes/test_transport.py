"""Transports that are still open."""

from __future__ import annotations

from typing import Any

KIND = "transport"

SUITE = """
import asyncio
import os
import signal
import socket

import pytest


KEPT = {}


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
    read, write = os.pipe()
    writing.append(write)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(read, "rb", 0))  # born


async def test_in_a_task_of_its_own(listener):
    # wait_for of 3.11 does the same.
    coro = asyncio.open_connection(*listener.getsockname())  # born
    KEPT["task"] = await asyncio.create_task(coro)


async def test_in_a_race(listener):
    host, port = listener.getsockname()
    KEPT["race"] = await asyncio.open_connection(host, port, happy_eyeballs_delay=1)  # born


def test_run_from_outside(listener):
    loop = asyncio.new_event_loop()
    making = loop.create_connection(asyncio.Protocol, *listener.getsockname())  # born
    loop.run_until_complete(making)
    loop.close()


def test_on_uvloop(listener):
    import uvloop

    async def main():
        return await asyncio.open_connection(*listener.getsockname())  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kept = runner.run(main())


def test_in_a_task_of_its_own_on_uvloop(listener):
    import uvloop

    async def main():
        coro = asyncio.open_connection(*listener.getsockname())  # born
        return await asyncio.create_task(coro)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kept = runner.run(main())


def test_datagram_on_uvloop():
    import uvloop

    async def main():
        return await asyncio.get_running_loop().create_datagram_endpoint(  # born
            asyncio.DatagramProtocol, ("127.0.0.1", 0)
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kept = runner.run(main())


def test_read_pipe_on_uvloop(writing):
    import uvloop

    async def main():
        read, write = os.pipe()
        writing.append(write)
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(read, "rb", 0)
        return await loop.connect_read_pipe(asyncio.Protocol, pipe)  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kept = runner.run(main())


def serving(case):
    async def keep(reader, writer):
        KEPT[case] = writer
        KEPT[case, "accepted"].set()

    return keep


async def connected(case, server):
    # A client without a transport, so that the accepted end is the only one.
    client = socket.create_connection(server.sockets[0].getsockname())
    await KEPT[case, "accepted"].wait()
    KEPT[case, "client"] = client


@pytest.fixture(autouse=True)
def clients():
    yield
    for case in [c for c in KEPT if isinstance(c, tuple)]:
        value = KEPT.pop(case)
        if isinstance(value, socket.socket):
            value.close()


@pytest.fixture
async def server():
    KEPT["asyncio", "accepted"] = asyncio.Event()
    server = await asyncio.start_server(serving("asyncio"), "127.0.0.1", 0)  # born
    yield server
    server.close()


async def test_accepted(server):
    await connected("asyncio", server)


def test_accepted_on_uvloop():
    import uvloop

    async def main():
        KEPT["uvloop", "accepted"] = asyncio.Event()
        server = await asyncio.start_server(serving("uvloop"), "127.0.0.1", 0)  # born
        await connected("uvloop", server)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_unread_by_its_reader():
    # The process has ended, a grandchild holds the other end of its pipe.
    process = await asyncio.create_subprocess_shell(  # born
        "sleep 20 & echo $!", stdout=-1, stderr=-1
    )
    KEPT["grandchild"] = int(await process.stdout.readline())
    while process.returncode is None:
        await asyncio.sleep(0)


def test_unread_by_its_reader_on_uvloop():
    import uvloop

    async def main():
        process = await asyncio.create_subprocess_shell(  # born
            "sleep 20 & echo $!", stdout=-1, stderr=-1
        )
        KEPT["grandchild on uvloop"] = int(await process.stdout.readline())
        while process.returncode is None:
            await asyncio.sleep(0)
        return process

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kept = runner.run(main())


def test_clean_end_of_the_grandchildren():
    for name in [n for n in KEPT if "grandchild" in n]:
        os.kill(KEPT.pop(name), signal.SIGKILL)


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


async def test_clean_accepted():
    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        await writer.wait_closed()


async def test_clean_subprocess_that_was_read():
    process = await asyncio.create_subprocess_exec("printf", "x", stdout=-1, stderr=-1)
    assert (await process.communicate()) == (b"x", b"")


class Ended(asyncio.SubprocessProtocol):
    def __init__(self):
        self.ended = asyncio.Event()

    def connection_lost(self, exc):
        self.ended.set()


async def test_clean_subprocess_whose_transport_is_closed():
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(Ended, "cat")
    transport.close()
    await protocol.ended.wait()


async def test_clean_subprocess_that_was_not_read_but_ended():
    process = await asyncio.create_subprocess_exec("true", stdout=-1)
    assert await process.wait() == 0


def test_clean_subprocess_on_uvloop():
    import uvloop

    async def main():
        process = await asyncio.create_subprocess_exec("printf", "x", stdout=-1, stderr=-1)
        assert (await process.communicate()) == (b"x", b"")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


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
    "test_in_a_task_of_its_own": {"label": "StreamReaderProtocol"},
    "test_in_a_race": {"label": "StreamReaderProtocol"},
    "test_run_from_outside": {"label": "Protocol"},
    "test_read_pipe": {"label": "Protocol", "subject": "transport on a pipe's read end"},
    "test_on_uvloop": {"label": "StreamReaderProtocol"},
    "test_in_a_task_of_its_own_on_uvloop": {"label": "StreamReaderProtocol"},
    "test_datagram_on_uvloop": {"label": "DatagramProtocol"},
    "test_read_pipe_on_uvloop": {
        "label": "Protocol",
        "subject": "transport on a pipe's read end",
    },
    "test_accepted": {
        "label": "StreamReaderProtocol",
        "owner": "fixture 'server' (function)",
    },
    "test_accepted_on_uvloop": {"label": "StreamReaderProtocol"},
    "test_unread_by_its_reader": {
        "label": "SubprocessStreamProtocol",
        "subject": "transport of process 'sh'",
        "facts": {"state": "has ended, still open: stdout, stderr"},
        "fix": "communicate",
    },
    "test_unread_by_its_reader_on_uvloop": {
        "label": "SubprocessStreamProtocol",
        "facts": {"state": "has ended, still open: stdout, stderr"},
    },
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
