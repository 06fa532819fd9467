"""The fixture ``cleanup``: whatever runs the test, and however it ends."""

from __future__ import annotations

import pytest

THINGS = '''
import asyncio
import pytest

LOG = []


class Thing:
    """Notes on which loop, and in which library, it is closed."""

    def __init__(self, name, loop=None):
        self.name, self.loop = name, loop

    async def aclose(self):
        import anyio
        import sniffio

        await anyio.sleep(0)
        library = sniffio.current_async_library()
        if self.loop is not None:
            assert asyncio.get_running_loop() is self.loop
        LOG.append((self.name, library))


async def forever():
    await asyncio.Event().wait()


@pytest.fixture
def thing(cleanup):
    return cleanup(Thing("fixture"))
'''


@pytest.mark.parametrize("scope", ["function", "class", "module", "package", "session"])
def test_with_pytest_asyncio_it_closes_on_the_tests_loop(suite, scope):
    """Async closers run on the loop that the things were made on, while it is open."""
    ran = suite(
        THINGS
        + f"""
class TestIt:
    @pytest.mark.asyncio(loop_scope="{scope}")
    async def test_it(self, cleanup, thing):
        loop = asyncio.get_running_loop()
        cleanup(Thing("test", loop))
        cleanup(asyncio.create_task(forever()))
        cleanup(await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0))

    def test_log(self):
        assert LOG == [("test", "asyncio"), ("fixture", "asyncio")]
"""
    )
    assert ran.counts == {"passed": 2}, ran.text
    assert ran.failed == set()


@pytest.mark.parametrize("of_test", ["function", "session"])
@pytest.mark.parametrize("of_fixture", ["function", "session"])
def test_a_fixtures_loop_need_not_be_the_tests(suite, of_test, of_fixture):
    """pytest-asyncio may run a fixture and its test on two loops; each thing keeps its own."""
    ran = suite(
        THINGS
        + f"""
import pytest_asyncio


@pytest_asyncio.fixture(loop_scope="{of_fixture}")
async def made(cleanup):
    cleanup(Thing("made", asyncio.get_running_loop()))
    cleanup(asyncio.create_task(forever()))


@pytest.mark.asyncio(loop_scope="{of_test}")
async def test_it(cleanup, made):
    cleanup(Thing("test", asyncio.get_running_loop()))


def test_sync(made):
    pass


def test_log():
    assert LOG == [("test", "asyncio"), ("made", "asyncio"), ("made", "asyncio")]
"""
    )
    assert ran.counts == {"passed": 3}, ran.text
    assert ran.failed == set()


def test_with_anyio_it_closes_in_the_tests_own_run(suite):
    """On asyncio and on trio alike."""
    ran = suite(
        THINGS
        + """
@pytest.mark.anyio
async def test_it(cleanup, thing, anyio_backend_name):
    if anyio_backend_name == "asyncio":
        cleanup(Thing("test", asyncio.get_running_loop()))
        cleanup(asyncio.create_task(forever()))


def test_log():
    assert LOG == [("test", "asyncio"), ("fixture", "asyncio"), ("fixture", "trio")]
""",
        toml="",
        conftest="def pytest_configure(config): config.option.asyncio_mode = 'strict'",
    )
    assert ran.counts == {"passed": 3}, ran.text
    assert ran.failed == set()


def test_with_pytest_trio_it_closes_in_the_tests_own_run(suite):
    """The nursery is still open when things are closed."""
    ran = suite(
        THINGS
        + """
import trio


@pytest.mark.trio
async def test_it(cleanup, thing):
    send, receive = trio.open_memory_channel(0)
    cleanup(send)
    left, right = trio.socket.socketpair()
    cleanup(left), cleanup(right)
    cleanup(Thing("test"))


def test_log():
    assert LOG == [("test", "trio"), ("fixture", "trio")]
""",
        conftest="def pytest_configure(config): config.option.asyncio_mode = 'strict'",
    )
    assert ran.counts == {"passed": 2}, ran.text
    assert ran.failed == set()


def test_in_plain_tests_it_closes_too(suite):
    """Without any loop, with one of the test's own, and with one that the test has closed."""
    ran = suite(
        THINGS
        + """
import socket
import trio


def test_none(cleanup, thing):
    sock = cleanup(socket.socket())
    LOG.append(sock)


def test_own_loop(cleanup):
    loop = asyncio.new_event_loop()
    cleanup(loop.close)

    async def main():
        cleanup(asyncio.create_task(forever()))
        cleanup(Thing("own", loop))

    loop.run_until_complete(main())


def test_run_is_over(cleanup):
    async def main():
        cleanup(Thing("over"))

    asyncio.run(main())
    trio.run(main)


def test_log():
    assert LOG[0].fileno() == -1
    assert LOG[1:] == [
        ("fixture", "asyncio"), ("own", "asyncio"), ("over", "trio"), ("over", "asyncio")
    ]
"""
    )
    assert ran.counts == {"passed": 4}, ran.text
    assert ran.failed == set()


@pytest.mark.parametrize("mark", ["asyncio", "anyio", "trio"])
def test_set_up_that_fails_half_way_is_cleaned_up(suite, mark):
    """What a fixture had registered before it raised is closed."""
    ran = suite(
        THINGS
        + f"""
@pytest.fixture
def broken(cleanup):
    cleanup(Thing("half"))
    raise ValueError("half-way")


@pytest.mark.{mark}
async def test_it(broken):
    pass


def test_log():
    assert {{name for name, _ in LOG}} == {{"half"}}
""",
        conftest="def pytest_configure(config): config.option.asyncio_mode = 'strict'",
    )
    assert ran.counts["passed"] == 1, ran.text
    assert "ValueError: half-way" in ran.text


def test_an_async_fixture_that_fails_half_way_is_cleaned_up(suite):
    """The same with what was made on the loop, before an async fixture raised."""
    ran = suite(
        THINGS
        + """
import pytest_asyncio


@pytest_asyncio.fixture
async def broken(cleanup):
    cleanup(Thing("half", asyncio.get_running_loop()))
    cleanup(asyncio.create_task(forever()))
    raise ValueError("half-way")


@pytest.mark.asyncio
async def test_it(broken):
    pass


def test_log():
    assert LOG == [("half", "asyncio")]
"""
    )
    assert ran.counts == {"passed": 1, "error": 1}, ran.text
    assert ran.failed == set()


def test_what_fails_to_close_fails_the_test(suite):
    """The error comes at teardown, with all that went wrong, and the rest is closed."""
    ran = suite(
        THINGS
        + """
def boom(word):
    raise OSError(word)


def test_it(cleanup, thing):
    cleanup(boom, "first")
    cleanup(boom, "second")


def test_log():
    assert LOG == [("fixture", "asyncio")]
"""
    )
    assert ran.counts == {"passed": 2, "error": 1}, ran.text
    assert "3 things to close: 1 closed, 2 failed" in ran.text
    assert "OSError: first" in ran.text
    assert "OSError: second" in ran.text


def test_what_hangs_when_closed_costs_its_deadline(suite):
    """A deadline can be set for each thing of a test."""
    ran = suite(
        THINGS
        + """
class Hangs:
    async def aclose(self):
        await asyncio.sleep(60)


async def test_it(cleanup, thing):
    cleanup.timeout = 0.1
    cleanup(Hangs())


def test_log():
    assert LOG == [("fixture", "asyncio")]
"""
    )
    assert ran.counts == {"passed": 2, "error": 1}, ran.text
    assert "Hangs: aclose() did not end within 0.1" in ran.text
    assert "await asyncio.sleep(60)" in ran.text


def test_a_test_may_close_early(suite):
    """``await cleanup.aclose()`` closes what there is, and the end of the test the rest."""
    ran = suite(
        THINGS
        + """
async def test_it(cleanup):
    cleanup(Thing("early"))
    report = await cleanup.aclose()
    assert report.ok
    assert len(cleanup) == 0
    cleanup(Thing("late"))


def test_log():
    assert [name for name, _ in LOG] == ["early", "late"]
"""
    )
    assert ran.counts == {"passed": 2}, ran.text


def test_a_suites_own_fixture_of_that_name_is_left_alone(suite):
    """Whoever has a fixture ``cleanup`` keeps it."""
    ran = suite(
        """
import pytest

@pytest.fixture
def cleanup():
    return 7

async def test_it(cleanup):
    assert cleanup == 7
"""
    )
    assert ran.counts == {"passed": 1}, ran.text


def test_it_works_with_the_plugin_off(suite):
    """Cleaning up does not depend on watching."""
    ran = suite(
        THINGS
        + """
async def test_it(thing):
    pass


def test_log():
    assert LOG == [("fixture", "asyncio")]
""",
        "--tightship=off",
    )
    assert ran.counts == {"passed": 2}, ran.text


def test_what_it_closes_is_no_leak(suite):
    """A test that would leak is clean once it registers what it made; its twin is told."""
    body = """
import asyncio

async def forever():
    await asyncio.Event().wait()

async def test_it(cleanup):
    task = asyncio.create_task(forever())
    {register}
    await asyncio.sleep(0)
"""
    assert suite(body.format(register="cleanup(task)")).failed == set()
    assert suite(body.format(register="pass")).failed == {"test_it"}
