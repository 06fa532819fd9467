"""pytest-asyncio: every loop scope, strict and auto; who made it is who is charged."""

from __future__ import annotations

import pytest

SCOPES = ("function", "class", "module", "package", "session")

LEAKY = """
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
"""


def leaky() -> dict[str, str]:
    """Return one module for each scope."""
    files = {}
    for scope in SCOPES:
        marks = f"pytestmark = pytest.mark.asyncio(loop_scope={scope!r})"
        files[f"test_{scope}"] = LEAKY.format(scope=scope, Scope=scope.capitalize(), marks=marks)
    return files


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_leak_is_charged_once_to_the_test_that_made_it_whatever_the_loops_scope(run, mode):
    """The same ten tests on loops of all five scopes: six of them leak, nothing else shows."""
    ran = run("--asyncio-mode", mode, **leaky())
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


FIXTURES = """
import asyncio
import socket
import pytest
import pytest_asyncio
from harbour import *

{fixtures}
"""

LEAKY_FIXTURES = """
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


"""

USERS = """
import asyncio
import pytest
from harbour import *

pytestmark = pytest.mark.asyncio(loop_scope={scope!r})


class TestUsers:
    async def test_{scope}_uses_all(
        self, {scope}_task, {scope}_server, {scope}_socket, {scope}_sync, {scope}_own_task,
        {scope}_echo, {scope}_client,
    ):
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
"""


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
        whose = {
            name: f"fixture '{scope}_{name}' ({scope})"
            for name in ("task", "server", "socket", "sync")
        }
        left = [
            f"server {whose['server']}",
            f"socket {whose['socket']}",
            f"socket {whose['sync']}",
            f"task {whose['task']}",
        ]
        user = f"test_{scope}_leaves_its_client_open"
        expected[user] = [f"transport {user}"]
        # The connection that its server accepted there has no longer a server.
        echo = f"fixture '{scope}_echo' ({scope})"
        accepted = [f"task {echo}", f"transport {echo}"]
        if scope == "function":
            expected[user] += accepted
            expected["test_function_uses_all"] = left
            expected["test_function_last"] = [f"task {whose['task']}"]
        else:
            # The suite is one package: that ends with the session.
            last = "test_session_last" if scope == "package" else f"test_{scope}_last"
            expected.setdefault(last, []).extend(left + accepted)
    assert ran.found == {test: sorted(left) for test, left in expected.items()}


LAZY = '''
import asyncio
import pytest
import pytest_asyncio
import socket
from harbour import *

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Client:
    """Connects, and starts to read, when it is used first: most clients and pools do."""

    def __init__(self, port):
        self.port = port
        self.answers = []
        self.reader_task = self.beat = self.writer = self.spare = None

    async def ask(self):
        if self.writer is None:
            reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            self.reader_task = asyncio.create_task(self.read(reader))
            self.beat = asyncio.get_running_loop().call_later(1000, self.ping)
            self.spare = socket.socket()
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        self.writer.write(b"?")
        return await answer

    def ping(self):
        pass

    async def read(self, reader):
        while data := await reader.read(1):
            self.answers.pop(0).set_result(data)

    async def close(self):
        if self.writer is not None:
            self.reader_task.cancel()
            self.beat.cancel()
            self.writer.close()
            self.spare.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client():
    server = await listen()
    client = Client(address(server)[1])
    yield client
    await client.close()
    server.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def deep(client):
    yield {"clients": [client]}


async def test_lazy_before(client):
    pass


async def test_lazy_first_use(client):
    assert await client.ask() == b"?"


async def test_lazy_second_use(deep):
    assert await deep["clients"][0].ask() == b"?"


async def test_lazy_leak(client):
    start(forever())


async def test_lazy_leak_waits_for_the_client(client):
    """What waits for something of the client's is not the client's."""
    async def wait():
        answer = asyncio.get_running_loop().create_future()
        client.answers.append(answer)
        await answer
    asyncio.create_task(wait())
    await asyncio.sleep(0)


async def test_lazy_last(client):
    pass
'''


def test_what_a_wide_fixtures_value_begins_during_a_test_is_the_fixtures(run):
    """A session's client that connects lazily: its task, timer and sockets are no test's leak."""
    ran = run(test_it=LAZY)
    assert ran.found == {
        "test_lazy_leak": ["task test_lazy_leak"],
        "test_lazy_leak_waits_for_the_client": ["task test_lazy_leak_waits_for_the_client"],
    }
