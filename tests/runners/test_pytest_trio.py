"""pytest-trio: a whole run per test, all of it in the call phase."""

from __future__ import annotations

SUITE = """
import socket
import pytest
import trio
from harbour import KEPT


@pytest.fixture
async def server(nursery):
    listeners = await nursery.start(
        trio.serve_tcp, lambda stream: echo(stream), 0
    )
    yield listeners[0].socket.getsockname()[1]


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)


@pytest.fixture
async def leaky():
    KEPT.append(socket.socket())
    yield


async def test_clean(nursery):
    nursery.start_soon(trio.sleep_forever)
    await trio.sleep(0)


async def test_clean_talk(server):
    async with await trio.open_tcp_stream("127.0.0.1", server) as stream:
        await stream.send_all(b"ahoy")
        assert await stream.receive_some() == b"ahoy"


async def test_clean_thread():
    await trio.to_thread.run_sync(int)


async def test_leaves_a_socket(nursery):
    KEPT.append(socket.socket())


async def test_leaves_a_client(server):
    KEPT.append(await trio.open_tcp_stream("127.0.0.1", server))
    await trio.sleep(0)


async def test_leaky_fixture(leaky):
    await trio.sleep(0)


async def test_clean_clock(autojump_clock):
    await trio.sleep(1000)


def test_clean_run_by_hand():
    trio.run(trio.sleep, 0)


def test_leak_in_a_run_by_hand():
    async def main():
        KEPT.append(trio.socket.socket())

    trio.run(main)
"""


def test_leaks_under_pytest_trio(run):
    """Sockets that outlive trio's run are the test's, those of its nursery are nobody's."""
    ran = run("-p", "no:asyncio", "-o", "trio_mode=true", test_it=SUITE)
    assert ran.counts["passed"] == 9
    assert ran.found == {
        "test_leaves_a_socket": ["socket test_leaves_a_socket"],
        "test_leaves_a_client": ["socket test_leaves_a_client"],
        # pytest-trio runs all fixtures of a test at once, in the test's own context.
        "test_leaky_fixture": ["socket test_leaky_fixture"],
        "test_leak_in_a_run_by_hand": ["socket test_leak_in_a_run_by_hand"],
    }
