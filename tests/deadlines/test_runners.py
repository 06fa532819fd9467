"""Under every runner: a test that hangs is ended, and the next one on the same loop is clean."""

from __future__ import annotations

import re

import pytest
from suites import Suite

HEAD = """
import asyncio
import time
import unittest

import anyio
import pytest

pytestmark = [pytest.mark.tightship(timeout=0.3), {mark}]


async def forever():
    await asyncio.Event().wait()


def cancelling():
    return asyncio.current_task().cancelling()
"""

#: A test after each hang says whether anything of it is left.
ASYNCIO = """
@pytest.mark.parametrize("n", range(2))
async def test_waits(n{args}):
    assert cancelling() == 0
    if n == 0:
        await asyncio.Event().wait()  # here: waits
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("n", range(2))
async def test_blocks(n{args}):
    assert cancelling() == 0
    if n == 0:
        time.sleep(100)  # here: blocks
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("n", range(2))
async def test_swallows(n{args}):
    assert cancelling() == 0
    if n == 0:
        try:
            await asyncio.sleep(100)
        except BaseException:  # here: swallows
            pass
    await asyncio.sleep(0.05)


# more
@pytest.mark.parametrize("n", range(2))
async def test_resists(n{args}):
    assert cancelling() == 0
    while n == 0:
        try:
            await asyncio.sleep(100)
        except BaseException:  # here: resists
            pass
    await asyncio.sleep(0.05)


# last
async def test_last({args}):
    assert cancelling() == 0
    await asyncio.sleep(0.05)
"""
LABELS = {
    "waits": "never-finished",
    "blocks": "blocked-loop",
    "swallows": "swallowed-cancellation",
    "resists": "swallowed-cancellation",
}

#: Runner -> its marker, what its tests take, and what makes its loop.
ON_ASYNCIO = {
    "pytest-asyncio": ("pytest.mark.asyncio", "", ""),
    "pytest-asyncio module": ("pytest.mark.asyncio(loop_scope='module')", "", ""),
    "pytest-asyncio uvloop": (
        "pytest.mark.asyncio",
        "",
        """
import uvloop


@pytest.fixture(scope="session")
def event_loop_policy():
    return uvloop.EventLoopPolicy()
""",
    ),
    "anyio": (
        "pytest.mark.anyio",
        "anyio_backend",
        "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n",
    ),
    "anyio module": (
        "pytest.mark.anyio",
        "anyio_backend",
        "@pytest.fixture(scope='module')\ndef anyio_backend():\n    return 'asyncio'\n\n\n"
        # It keeps the runner, with the one task that runs all tests.
        "@pytest.fixture(scope='module', autouse=True)\n"
        "async def keeps(anyio_backend):\n    yield\n    await anyio.sleep(0)\n",
    ),
    "anyio uvloop": (
        "pytest.mark.anyio",
        "anyio_backend",
        "@pytest.fixture(scope='module')\n"
        "def anyio_backend():\n    return 'asyncio', {'use_uvloop': True}\n",
    ),
}


def judged(ran, names, *, suffix=""):
    """Assert that each test that hung is told of with its label and line, and no other is."""
    for name, label in names.items():
        told = ran.timeout(f"test_{name}{suffix}")
        assert told["label"] == label, (name, told)
        assert told["facts"]["at"].startswith(ran.line(f"# here: {name}$") + " "), (name, told)
    hung = {f"test_{name}{suffix}" for name in names}
    for name, record in ran.tests.items():
        if name not in hung:
            assert record["outcome"] == "passed", (name, ran.text)
            assert not record["findings"], (name, record)
    assert ran.counts["failed"] == len(names)


@pytest.mark.parametrize("runner", ON_ASYNCIO)
def test_on_asyncio(suite: Suite, runner: str):
    """Also where many tests share one loop, or one task."""
    mark, args, fixtures = ON_ASYNCIO[runner]
    source = HEAD.format(mark=mark) + fixtures
    tests = ASYNCIO.replace("{args}", f", {args}" if args else "").replace("(, ", "(")
    names = LABELS
    if "module" not in runner:  # it takes three seconds
        tests = re.sub("# more.*# last", "", tests, flags=re.S)
        names = {k: v for k, v in LABELS.items() if k != "resists"}
    ran = suite(source + tests, "-o", "asyncio_mode=strict", status=1)
    judged(ran, names, suffix="[0]")


ON_TRIO = """
@pytest.mark.parametrize("n", range(2))
async def test_waits(n{args}):
    if n == 0:
        await trio.sleep_forever()
    await trio.sleep(0.05)


@pytest.mark.parametrize("n", range(2))
async def test_blocks(n{args}):
    if n == 0:
        time.sleep(100)  # here: blocks
    await trio.sleep(0.05)


@pytest.mark.parametrize("n", range(2))
async def test_works(n{args}):
    while n == 0: pass  # here: works
    await trio.sleep(0.05)


async def test_last({args}):
    await trio.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("mark", "args", "fixtures"),
    [
        ("pytest.mark.trio", "", ""),
        (
            "pytest.mark.anyio",
            "anyio_backend",
            "@pytest.fixture\ndef anyio_backend():\n    return 'trio'\n",
        ),
        (
            "pytest.mark.anyio",
            "anyio_backend",
            "@pytest.fixture(scope='module')\ndef anyio_backend():\n    return 'trio'\n",
        ),
    ],
    ids=["pytest-trio", "anyio", "anyio module"],
)
def test_on_trio(suite: Suite, mark: str, args: str, fixtures: str):
    """A wait, a blocking call and a busy loop are told apart, and the next test is clean."""
    source = HEAD.format(mark=mark) + "import trio\n" + fixtures
    tests = ON_TRIO.replace("{args}", f", {args}" if args else "").replace("(, ", "(")
    ran = suite(source + tests, "-o", "asyncio_mode=strict", status=1)
    waits = ran.timeout("test_waits[0]")
    assert waits["label"] == "never-finished"
    for name, how in (("blocks", "waiting"), ("works", "working")):
        told = ran.timeout(f"test_{name}[0]")
        assert told["label"] == "blocked-loop"
        assert told["facts"]["at"].startswith(ran.line(f"# here: {name}$"))
        assert how in told["facts"]["because"], told
    assert ran.counts == {"failed": 3, "passed": 4}
    assert ran.failed == {"test_waits[0]", "test_blocks[0]", "test_works[0]"}


FIXTURES = """
@pytest.fixture
async def base():
    yield
    await anyio.sleep(0)
    DOWN.append("base")


@pytest.fixture
async def slow_set_up(base):
    await anyio.sleep(100)
    yield


@pytest.fixture
async def slow_teardown(base):
    yield
    await anyio.sleep(100)


@pytest.fixture
async def blocking_teardown(base):
    yield
    time.sleep(100)


DOWN = []


async def test_set_up(slow_set_up, anyio_backend):
    pass


async def test_after_set_up(anyio_backend):
    assert DOWN == ["base"]


async def test_teardown(slow_teardown, anyio_backend):
    DOWN.clear()


async def test_after_teardown(anyio_backend):
    assert DOWN == ["base"]


async def test_blocking(blocking_teardown, anyio_backend):
    DOWN.clear()


async def test_after_blocking(anyio_backend):
    assert DOWN == ["base"]
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_fixtures_of_anyio(suite: Suite, backend: str):
    """A fixture that hangs is named, the others are torn down, the next test is clean."""
    made = f"@pytest.fixture\ndef anyio_backend():\n    return {backend!r}\n"
    source = HEAD.format(mark="pytest.mark.anyio") + made + FIXTURES
    ran = suite(source, "-o", "asyncio_mode=strict", status=1)
    parts = {
        "test_set_up": "set-up of fixture 'slow_set_up' (function)",
        "test_teardown": "teardown of fixture 'slow_teardown' (function)",
        "test_blocking": "teardown of fixture 'blocking_teardown' (function)",
    }
    for name, part in parts.items():
        assert ran.timeout(name)["subject"] == f"{name} ({part})"
    assert ran.timeout("test_blocking")["label"] == "blocked-loop"
    assert ran.failed == set(parts)
    assert ran.counts == {"passed": 5, "error": 3}


PLAIN = """
import asyncio
import time
import unittest

import pytest
import uvloop

pytestmark = pytest.mark.tightship(timeout=0.3)


async def main():
    await asyncio.Event().wait()  # here: main


async def blocking():
    time.sleep(100)  # here: blocking


class TestIsolated(unittest.IsolatedAsyncioTestCase):
    async def test_a_waits(self):
        await asyncio.Event().wait()  # here: a_waits

    async def test_b_blocks(self):
        time.sleep(100)  # here: b_blocks

    async def test_c_swallows(self):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:  # here: c_swallows
            pass

    async def test_d_clean(self):
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0.05)


class TestSetUp(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        await asyncio.Event().wait()  # here: in_set_up

    async def test_in_set_up(self):
        pass


class TestPlain(unittest.TestCase):
    def test_e_sleeps(self):
        time.sleep(100)  # here: e_sleeps

    def test_f_subtest(self):
        with self.subTest("one"):
            time.sleep(100)  # here: f_subtest

    def test_g_clean(self):
        pass


class TestTearDown(unittest.TestCase):
    def tearDown(self):
        time.sleep(100)  # here: in_tear_down

    def test_in_tear_down(self):
        pass


def test_run():
    asyncio.run(main())


def test_run_blocking():
    asyncio.run(blocking())


def test_runner_twice():
    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(0))
        runner.run(main())


def test_a_loop_by_hand():
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_run_forever():
    loop = asyncio.new_event_loop()
    try:
        loop.run_forever()  # here: run_forever
    finally:
        loop.close()


def test_uvloop_run():
    uvloop.run(main())


def test_uvloop_by_hand():
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_uvloop_blocking():
    uvloop.run(blocking())


def test_clean():
    assert asyncio.run(asyncio.sleep(0.05, 1)) == 1
    assert uvloop.run(asyncio.sleep(0.05, 1)) == 1
"""
OF_PLAIN = {
    "a_waits": ("never-finished", "a_waits"),
    "b_blocks": ("blocked-loop", "b_blocks"),
    "c_swallows": ("swallowed-cancellation", "c_swallows"),
    "in_set_up": ("never-finished", "in_set_up"),
    "e_sleeps": ("blocked", "e_sleeps"),
    "f_subtest": ("blocked", "f_subtest"),
    "in_tear_down": ("blocked", "in_tear_down"),
    "run": ("never-finished", "main"),
    "run_blocking": ("blocked-loop", "blocking"),
    "runner_twice": ("never-finished", "main"),
    "a_loop_by_hand": ("never-finished", "main"),
    "run_forever": ("blocked", "run_forever"),
    "uvloop_run": ("never-finished", "main"),
    "uvloop_by_hand": ("never-finished", "main"),
    "uvloop_blocking": ("blocked-loop", "blocking"),
}


@pytest.fixture(scope="module")
def plain(suite_once: Suite):
    """unittest, and loops that a test runs itself."""
    return suite_once(PLAIN, status=1)


@pytest.mark.parametrize("name", OF_PLAIN)
def test_without_a_plugin(plain, name):
    """unittest's cases, `asyncio.run` in a function, loops made by hand, uvloop's."""
    label, line = OF_PLAIN[name]
    told = plain.timeout(f"test_{name}")
    assert told["label"] == label, told
    assert told["facts"]["at"].startswith(plain.line(f"# here: {line}$") + " "), told


def test_without_a_plugin_nobody_else_is_blamed(plain):
    """The clean ones in between pass."""
    clean = {n for n, r in plain.tests.items() if n.endswith("_clean")}
    assert {plain.outcomes[n] for n in clean} == {"passed"}, plain.text
    assert plain.failed == {f"test_{n}" for n in OF_PLAIN}
