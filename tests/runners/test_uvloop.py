"""uvloop under the runners: its objects are C, their lines and owners are told all the same."""

from __future__ import annotations

import re

import pytest

SUITE = """
import asyncio
import socket
import ssl

import pytest
import uvloop
from harbour import KEPT, address, listen

# Made by nobody who is watched, and says nothing.
SILENT = socket.create_server(("127.0.0.1", 0))


@pytest.fixture(scope="session")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def harbour():
    server = await listen()
    assert "uvloop" in type(server).__module__
    yield server
    server.close()


async def test_server():
    KEPT.append(await asyncio.start_server(print, "127.0.0.1", 0))  # line of the server


async def test_both_ends(harbour):
    KEPT.append(await asyncio.open_connection(*address(harbour)))  # line of the client
    KEPT[-1][1].write(b"x")
    await KEPT[-1][0].read(1)


async def test_reader():
    KEPT.append(socket.socketpair())
    asyncio.get_running_loop().add_reader(KEPT[-1][0], print)  # line of the reader


async def shake_hands():
    context = ssl.create_default_context()
    await asyncio.open_connection(*SILENT.getsockname(), ssl=context, server_hostname="x")


async def test_waits():
    KEPT.append(asyncio.create_task(shake_hands()))
    await asyncio.sleep(0)
    SILENT.accept()[0].detach()


async def test_forgotten():
    asyncio.get_running_loop().create_server(print, "127.0.0.1", 0)  # line of the coroutine


async def test_fine(harbour):
    reader, writer = await asyncio.open_connection(*address(harbour))
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    writer.close()
    await writer.wait_closed()


async def test_nothing_of_it_looks_different():
    loop = asyncio.get_running_loop()
    for name in ("create_server", "create_connection", "subprocess_exec"):
        assert asyncio.iscoroutinefunction(getattr(loop, name))
        assert getattr(loop, name).__qualname__ == f"Loop.{name}"
    with pytest.raises(TypeError):
        await loop.create_server()
    with pytest.raises(ConnectionError):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            where = sock.getsockname()
        await loop.create_connection(asyncio.Protocol, *where)
    with pytest.raises(TypeError):
        loop.add_reader()
"""


def test_findings_on_uvloop_have_their_lines(run):
    """Under pytest-asyncio, with fixtures of a function's scope."""
    ran = run(test_it=SUITE)
    assert ran.found == {
        "test_server": ["server test_server"],
        "test_both_ends": [
            "task fixture 'harbour' (function)",
            "transport fixture 'harbour' (function)",
            "transport test_both_ends",
        ],
        "test_reader": ["reader test_reader", "socket test_reader"],
        "test_waits": ["socket test_waits", "task test_waits", "transport test_waits"],
        "test_forgotten": ["coroutine test_forgotten"],
    }, ran.text
    made = {
        (f["kind"], f["owner"]): f["made"]["source"]
        for record in ran.records
        if record["event"] == "test"
        for f in record["findings"]
        if f["made"]
    }
    assert made["server", "test_server"].endswith("# line of the server")
    assert made["transport", "test_both_ends"].endswith("# line of the client")
    assert "asyncio.start_server(echo" in made["transport", "fixture 'harbour' (function)"]
    assert made["reader", "test_reader"].endswith("# line of the reader")
    assert made["coroutine", "test_forgotten"].endswith("# line of the coroutine")
    assert re.search(r"waiting .*<- test_it.py:", ran.text)


ANYIO = """
import anyio
import pytest
from harbour import KEPT

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


async def test_connection():
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    KEPT.append(await anyio.connect_tcp("127.0.0.1", port))
    await listener.aclose()
"""


def test_anyio_on_uvloop(run):
    """anyio tries addresses in tasks of its own: the finding is there, and told once."""
    ran = run("-p", "no:asyncio", test_it=ANYIO)
    assert ran.found == {"test_connection": ["transport test_connection"]}, ran.text


@pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
def test_a_loop_that_outlives_its_tests(run, factory):
    """What a test leaves on a loop of wider scope is told once, whole."""
    ran = run(
        "-p",
        "no:asyncio",
        test_it=f"""
        import asyncio
        import socket
        import pytest
        import uvloop
        from harbour import KEPT

        LISTENER = socket.create_server(("127.0.0.1", 0))

        @pytest.fixture(scope="module")
        def loop():
            loop = {factory}()
            yield loop
            loop.close()

        def test_server(loop):
            KEPT.append(loop.run_until_complete(asyncio.start_server(print, "127.0.0.1", 0)))

        def test_connection(loop):
            client = asyncio.open_connection(*LISTENER.getsockname())
            KEPT.append(loop.run_until_complete(client))

        def test_process(loop):
            start = asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1, stderr=-1)
            KEPT.append(loop.run_until_complete(start))

        def test_clean(loop):
            async def main():
                process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
                assert (await process.communicate(b"x"))[0] == b"x"
            loop.run_until_complete(main())
        """,
    )
    # Whose they are is another question: the loop, a wider fixture's value, holds some of them.
    told = sorted(f.split()[0] for found in ran.found.values() for f in found)
    assert told == ["process", "server", "transport"], ran.text


def test_a_session_of_connections(run):
    """A client that connects lazily, and what its server accepts, belong to their fixtures."""
    ran = run(
        test_it="""
        import asyncio
        import pytest
        import pytest_asyncio
        import uvloop
        from harbour import address, listen

        pytestmark = pytest.mark.asyncio(loop_scope="session")

        @pytest.fixture(scope="session")
        def event_loop_policy():
            return uvloop.EventLoopPolicy()

        class Client:
            writer = None

            async def get(self, where):
                if self.writer is None:
                    self.reader, self.writer = await asyncio.open_connection(*where)
                self.writer.write(b"x")
                return await self.reader.read(1)

        @pytest_asyncio.fixture(scope="session", loop_scope="session")
        async def server():
            async with await listen() as server:
                yield server

        @pytest_asyncio.fixture(scope="session", loop_scope="session")
        async def client(server):
            client = Client()
            yield client
            client.writer.close()
            await client.writer.wait_closed()

        async def test_one(client, server):
            assert await client.get(address(server)) == b"x"

        async def test_two(client, server):
            assert await client.get(address(server)) == b"x"
        """,
        status=0,
    )
    assert ran.found == {}, ran.text
