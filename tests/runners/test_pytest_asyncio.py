"""pytest-asyncio: every loop scope, strict and auto; who made it is who is charged."""

from __future__ import annotations

import pytest

SCOPES = ("function", "class", "module", "package", "session")

LEAKY = '''
import asyncio
import socket
import pytest
from harbour import *

{marks}

class Test{Scope}:
    async def test_{scope}_clean_first(self):
        await asyncio.sleep(0)

    async def test_{scope}_task(self):
        start(forever())

    async def test_{scope}_clean_after_task(self):
        await asyncio.sleep(0)

    async def test_{scope}_sleeping_task(self):
        asyncio.create_task(hour())
        await asyncio.sleep(0)

    async def test_{scope}_server(self):
        KEPT.append(await listen())

    async def test_{scope}_clean_after_server(self):
        await asyncio.sleep(0.001)

    async def test_{scope}_socket(self):
        setattr(asyncio.get_running_loop(), "a_{scope}", socket.socket())

    async def test_{scope}_timer(self):
        asyncio.get_running_loop().call_later(1000, print)

    async def test_{scope}_stream(self):
        server = await listen()
        reader, writer = await asyncio.open_connection(*address(server))
        asyncio.get_running_loop().stream_{scope} = writer
        server.close()

    async def test_{scope}_clean_last(self):
        await asyncio.to_thread(int)
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
'''


def leaky(mode: str) -> dict[str, str]:
    files = {}
    for scope in SCOPES:
        marks = f"pytestmark = pytest.mark.asyncio(loop_scope={scope!r})"
        files[f"test_{scope}"] = LEAKY.format(scope=scope, Scope=scope.capitalize(), marks=marks)
    return files


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_leak_is_charged_once_to_the_test_that_made_it_whatever_the_loops_scope(run, mode):
    """The same ten tests on loops of all five scopes: six of them leak, nothing else shows."""
    ran = run("--asyncio-mode", mode, **leaky(mode))
    expected = {}
    for s in SCOPES:
        for kind in ("task", "sleeping_task", "server", "socket", "timer"):
            name = f"test_{s}_{kind}"
            expected[name] = [f"{kind.split('_')[-1]} {name}"]
        name = f"test_{s}_stream"
        expected[name] = [f"task {name}", f"transport {name}", f"transport {name}"]
    # Held by nothing but a loop that ends with the test, this socket was closed with it.
    del expected["test_function_socket"]
    assert ran.found == expected


FIXTURES = '''
import asyncio
import socket
import pytest
import pytest_asyncio
from harbour import *

{fixtures}
'''

LEAKY_FIXTURES = '''
@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def {scope}_task():
    start(forever())
    await asyncio.sleep(0)
    yield


@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def {scope}_server():
    server = await listen()
    KEPT.append(server)
    yield server


@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def {scope}_socket():
    sock = socket.socket()
    KEPT.append(sock)
    return sock


@pytest.fixture(scope="{scope}")
def {scope}_sync():
    sock = socket.socket()
    KEPT.append(sock)
    yield


@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def {scope}_own_task():
    task = asyncio.create_task(hour())
    await asyncio.sleep(0)
    yield
    task.cancel()


@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def {scope}_echo():
    server = await listen()
    yield address(server)
    server.close()  # without wait_closed(), which would wait for the client that a test left


@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def {scope}_client({scope}_echo):
    reader, writer = await asyncio.open_connection(*{scope}_echo)
    yield reader, writer
    writer.close()


@pytest.fixture(scope="{scope}")
def {scope}_dynamic(request):
    return lambda name: request.getfixturevalue(f"{scope}_" + name)
'''

USERS = '''
import asyncio
import pytest
from harbour import *

pytestmark = pytest.mark.asyncio(loop_scope={scope!r})


class TestUsers:
    async def test_{scope}_uses_all(self, {scope}_task, {scope}_server, {scope}_socket, {scope}_sync,
                            {scope}_own_task, {scope}_echo, {scope}_client):
        await asyncio.sleep(0)

    async def test_{scope}_talks(self, {scope}_client):
        reader, writer = {scope}_client
        writer.write(b"ahoy")
        assert await reader.read(10) == b"ahoy"

    async def test_{scope}_connects_and_closes(self, {scope}_echo):
        reader, writer = await asyncio.open_connection(*{scope}_echo)
        writer.write(b"ahoy")
        assert await reader.read(10) == b"ahoy"
        writer.close()

    async def test_{scope}_leaves_its_client_open(self, {scope}_echo):
        reader, writer = await asyncio.open_connection(*{scope}_echo)
        KEPT.append(writer)
        writer.write(b"ahoy")
        assert await reader.read(10) == b"ahoy"

    def test_{scope}_sync(self, {scope}_own_task, {scope}_echo):
        pass

    async def test_{scope}_last(self, {scope}_client, {scope}_task):
        await asyncio.sleep(0)
'''


def test_a_fixture_is_charged_when_it_ends_and_never_before(run):
    """Leaky and clean fixtures of all scopes; whatever they still hold is no test's leak."""
    files = {
        "conftest": FIXTURES.format(
            fixtures="".join(LEAKY_FIXTURES.format(scope=s) for s in SCOPES)
        )
    }
    for scope in SCOPES:
        files[f"test_{scope}"] = USERS.format(scope=scope)
    ran = run(**files)
    expected = {}
    for scope in SCOPES:
        whose = {name: f"fixture '{scope}_{name}' ({scope})" for name in ("task", "server", "socket", "sync")}
        left = [
            f"server {whose['server']}",
            f"socket {whose['socket']}",
            f"socket {whose['sync']}",
            f"task {whose['task']}",
        ]
        user = f"test_{scope}_leaves_its_client_open"
        expected[user] = [f"transport {user}"]
        if scope == "function":
            # The connection that its server accepted has no longer a server.
            echo = "fixture 'function_echo' (function)"
            expected[user] = [f"task {echo}", f"transport {echo}", f"transport {user}"]
            expected["test_function_uses_all"] = left
            expected["test_function_last"] = [f"task {whose['task']}"]
        elif scope == "session":
            expected["test_session_last"] = left
        else:
            expected[f"test_{scope}_last"] = left
    assert ran.found == expected
