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


@pytest.fixture
async def leaky_at_its_end():
    yield
    await trio.sleep(0)
    KEPT.append(socket.socket())


@pytest.fixture
async def one():
    await trio.sleep(0)
    KEPT.append(socket.socket())
    await trio.sleep(0)
    await trio.sleep(0)
    return 1


@pytest.fixture
async def other():
    await trio.sleep(0)
    await trio.sleep(0)
    sock = socket.socket()
    await trio.sleep(0)
    yield sock
    sock.close()


@pytest.fixture
def of_a_nursery(nursery):
    async def leak():
        KEPT.append(socket.socket())

    nursery.start_soon(leak)
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


async def test_leaky_end(leaky_at_its_end):
    await trio.sleep(0)


async def test_fixtures_at_once(one, other):
    KEPT.append(open(__file__))


async def test_leaky_nursery(of_a_nursery):
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
    """Each leak is its fixture's or its test's; what a nursery ends is nobody's."""
    ran = run("-p", "no:asyncio", "-o", "trio_mode=true", test_it=SUITE)
    assert ran.counts["passed"] == 12
    assert ran.found == {
        "test_leaves_a_socket": ["socket test_leaves_a_socket"],
        "test_leaves_a_client": ["socket test_leaves_a_client"],
        # pytest-trio runs all fixtures of a test at once, in one context.
        "test_leaky_fixture": ["socket fixture 'leaky' (function)"],
        "test_leaky_end": ["socket fixture 'leaky_at_its_end' (function)"],
        "test_fixtures_at_once": ["file test_fixtures_at_once", "socket fixture 'one' (function)"],
        "test_leaky_nursery": ["socket fixture 'of_a_nursery' (function)"],
        "test_leak_in_a_run_by_hand": ["socket test_leak_in_a_run_by_hand"],
    }
