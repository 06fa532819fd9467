"""anyio's plugin: one long-lived task runs all tests and fixtures, yet each keeps its own."""

from __future__ import annotations

import pytest

SUITE = '''
import socket
import sys
import anyio
import pytest
from harbour import KEPT, address, asyncio, echo, forever, hour, listen, start

pytestmark = pytest.mark.anyio
SCOPE = {scope!r}
BACKEND = {backend!r}
OPTIONS = {options!r}
ON_ASYNCIO = BACKEND == "asyncio"


@pytest.fixture(scope=SCOPE)
def anyio_backend():
    return BACKEND, OPTIONS


@pytest.fixture(scope=SCOPE)
async def group():
    """A task group's child is no leak while its group is there."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        yield tasks
        tasks.cancel_scope.cancel()


@pytest.fixture(scope=SCOPE)
async def leaky():
    KEPT.append(socket.socket())
    await anyio.sleep(0)
    yield


@pytest.fixture(scope=SCOPE)
async def server():
    """Its connections are its own, also the one that a test never ends."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    accepted = []

    async def handle(stream):
        accepted.append(stream)
        try:
            async for data in stream:
                await stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()
    for stream in accepted:
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)
    await listener.aclose()


async def test_clean_first(group, server):
    await anyio.sleep(0)


async def test_talks(server):
    async with await anyio.connect_tcp("127.0.0.1", server) as stream:
        await stream.send(b"ahoy")
        assert await stream.receive() == b"ahoy"


async def test_leaves_a_client_open(server):
    stream = await anyio.connect_tcp("127.0.0.1", server)
    KEPT.append(stream)
    await stream.send(b"ahoy")
    assert await stream.receive() == b"ahoy"


async def test_clean_after_client(group, server):
    await anyio.to_thread.run_sync(int)


async def test_leaves_a_socket():
    KEPT.append(socket.socket())


async def test_clean_after_socket():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 0)


async def test_in_the_groups_name(group):
    """A task in a fixture's group belongs to whoever started it, and dies with the group."""
    with anyio.move_on_after(0.001):
        await anyio.sleep(10)


async def test_leaves_a_task():
    if ON_ASYNCIO:
        start(forever())


async def test_clean_after_task():
    await anyio.sleep(0.001)


async def test_leaves_a_timer():
    if ON_ASYNCIO:
        KEPT.append(asyncio.get_running_loop().call_later(1000, print))


async def test_clean_asyncio():
    if ON_ASYNCIO:
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.to_thread(int)


@pytest.mark.parametrize("n", [1, 2])
async def test_clean_memory_streams(n):
    send, receive = anyio.create_memory_object_stream(1)
    async with send, receive:
        await send.send(n)
        assert await receive.receive() == n


async def test_clean_subprocess():
    await anyio.run_process([sys.executable, "-c", ""])


async def test_last(group, server, leaky):
    await anyio.sleep(0)
'''


@pytest.mark.parametrize("scope", ["function", "module", "session"])
@pytest.mark.parametrize(
    ("backend", "options"),
    [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "uvloop", "trio"],
)
def test_the_owner_is_right_inside_anyios_one_runner_task(run, backend, options, scope):
    """Five leaks, each charged once and to its maker; the fixtures' own things are silent."""
    ran = run(
        "-p", "no:asyncio", test_it=SUITE.format(backend=backend, options=options, scope=scope)
    )
    client = ["transport test_leaves_a_client_open"]
    if backend == "trio":
        client = ["socket test_leaves_a_client_open"]
    expected = {
        "test_leaves_a_client_open": client,
        "test_leaves_a_socket": ["socket test_leaves_a_socket"],
        "test_leaves_a_task": ["task test_leaves_a_task"],
        "test_leaves_a_timer": ["timer test_leaves_a_timer"],
        "test_last": [f"socket fixture 'leaky' ({scope})"],
    }
    if backend == "trio":
        del expected["test_leaves_a_task"], expected["test_leaves_a_timer"]
    assert ran.counts["passed"] == 15
    assert ran.found == expected


BOTH = """
import anyio
import pytest
import socket
from harbour import KEPT

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
async def resource():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        yield
        tasks.cancel_scope.cancel()


@pytest.fixture
async def narrow(resource):
    await anyio.sleep(0)
    sock = socket.socket()
    yield sock
    sock.close()


async def test_clean(resource, narrow):
    await anyio.sleep(0)


async def test_leak(narrow):
    KEPT.append(socket.socket())


@pytest.fixture
async def failing(narrow):
    await anyio.sleep(0)
    raise RuntimeError("no water under the keel")


async def test_failing_setup(failing):
    pass
"""


def test_one_module_on_both_of_anyios_backends(run):
    """The parametrized backend changes in the middle; each run's leak is its own."""
    ran = run("-p", "no:asyncio", test_it=BOTH, status=1)
    assert ran.found == {
        "test_leak[asyncio]": ["socket test_leak[asyncio]"],
        "test_leak[trio]": ["socket test_leak[trio]"],
    }
