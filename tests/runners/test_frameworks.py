"""Test cases that frameworks bring along: aiohttp's and tornado's."""

from __future__ import annotations

AIOHTTP = """
import asyncio
import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import AioHTTPTestCase, TestClient, TestServer
from harbour import *


async def hello(request):
    return web.Response(text="ahoy")


async def straggler(request):
    start(forever())
    return web.Response(text="ahoy")


def application():
    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/straggler", straggler)
    return app


class TestCase(AioHTTPTestCase):
    async def get_application(self):
        return application()

    async def test_case_clean(self):
        async with self.client.request("GET", "/") as response:
            assert await response.text() == "ahoy"

    async def test_case_leak(self):
        start(forever())

    async def test_case_straggler(self):
        async with self.client.request("GET", "/straggler") as response:
            assert await response.text() == "ahoy"

    async def test_case_last(self):
        pass


@pytest.fixture
async def client():
    async with TestClient(TestServer(application())) as client:
        yield client


async def test_client_clean(client):
    response = await client.get("/")
    assert await response.text() == "ahoy"


async def test_client_keepalive_clean(client):
    for _ in range(3):
        async with client.get("/") as response:
            await response.read()


async def test_client_leak(client):
    start(forever())


async def test_client_straggler(client):
    async with client.get("/straggler") as response:
        await response.read()


async def test_session_clean(client):
    async with ClientSession() as session:
        async with session.get(client.make_url("/")) as response:
            await response.read()


async def test_session_left_open(client):
    session = ClientSession()
    KEPT.append(session)
    async with session.get(client.make_url("/")) as response:
        await response.read()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    server = TestServer(application())
    await server.start_server()
    yield server
    await server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session():
    async with ClientSession() as session:
        yield session


pytest_wide = pytest.mark.asyncio(loop_scope="module")


@pytest_wide
async def test_wide_clean(server, session):
    async with session.get(server.make_url("/")) as response:
        assert await response.text() == "ahoy"


@pytest_wide
async def test_wide_again(server, session):
    async with session.get(server.make_url("/")) as response:
        assert await response.text() == "ahoy"


@pytest_wide
async def test_wide_leak(server, session):
    start(forever())
    async with session.get(server.make_url("/")) as response:
        assert await response.text() == "ahoy"


@pytest_wide
async def test_wide_last(server, session):
    async with session.get(server.make_url("/")) as response:
        assert await response.text() == "ahoy"
"""


def test_aiohttps_test_case_client_and_server(run):
    """Keep-alive connections and wide sessions are silent; what tests and handlers leave isn't."""
    ran = run(test_it=AIOHTTP)
    assert ran.counts["passed"] == 14
    found = ran.found
    # Its server is gone, and with it the connection: the session alone may or may not show.
    assert {x.split(" ", 1)[1] for x in found.pop("test_session_left_open", [])} <= {
        "test_session_left_open"
    }
    assert found == {
        "test_case_leak": ["task test_case_leak"],
        "test_case_straggler": ["task test_case_straggler"],
        "test_client_leak": ["task test_client_leak"],
        "test_client_straggler": ["task fixture 'client' (function)"],
        "test_wide_leak": ["task test_wide_leak"],
    }


TORNADO = """
import asyncio
import tornado.testing
import tornado.web
from tornado import gen
from tornado.ioloop import IOLoop, PeriodicCallback
from harbour import *


def poll():
    pass


class Hello(tornado.web.RequestHandler):
    def get(self):
        self.write("ahoy")


class TestAsync(tornado.testing.AsyncTestCase):
    @tornado.testing.gen_test
    async def test_async_clean(self):
        await asyncio.sleep(0)

    @tornado.testing.gen_test
    async def test_async_leak(self):
        start(forever())

    def test_async_callback_clean(self):
        self.io_loop.add_callback(self.stop)
        self.wait()

    @tornado.testing.gen_test
    async def test_async_periodic(self):
        PeriodicCallback(print, 1000_000).start()

    @tornado.testing.gen_test
    async def test_async_callback(self):
        self.io_loop.call_later(60, poll)

    @tornado.testing.gen_test
    async def test_async_given_up_clean(self):
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(gen.sleep(60), 0.01)

    def test_async_last(self):
        pass


class TestHTTP(tornado.testing.AsyncHTTPTestCase):
    def get_app(self):
        return tornado.web.Application([("/", Hello)])

    def test_http_clean(self):
        assert self.fetch("/").body == b"ahoy"

    def test_http_again(self):
        assert self.fetch("/").body == b"ahoy"

    def test_http_leak(self):
        self.io_loop.run_sync(self.leak)

    async def leak(self):
        start(forever())

    def test_http_last(self):
        assert self.fetch("/").body == b"ahoy"
"""


def test_tornados_test_cases(run):
    """tornado cancels what is left in its own tearDown; it is found all the same."""
    ran = run(test_it=TORNADO)
    assert ran.counts["passed"] == 11
    assert ran.found == {
        "test_async_callback": ["timer test_async_callback"],
        "test_async_leak": ["task test_async_leak"],
        "test_async_periodic": ["timer test_async_periodic"],
        "test_http_leak": ["task test_http_leak"],
    }
