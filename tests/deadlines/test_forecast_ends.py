"""A hang that is certain ends its test at once, with the graph of who waits for whom."""

from __future__ import annotations

from typing import Any

import pytest

HANGS = """
import asyncio
import pytest

async def test_event():
    await asyncio.Event().wait()  # for ever

async def test_each_other():
    here, there = asyncio.Event(), asyncio.Event()

    async def one():
        await there.wait()
        here.set()

    async def two():
        await here.wait()
        there.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(one(), name="one")
        group.create_task(two(), name="two")

@pytest.fixture
async def never():
    await asyncio.Queue().get()

async def test_fixture(never):
    pass

@pytest.mark.tightship(timeout="off")
async def test_without_a_limit():
    lock = asyncio.Lock()
    async with lock, lock:
        pass

def test_in_a_sync_test():
    asyncio.run(asyncio.Event().wait())

async def test_clean():
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.4, event.set)
    await event.wait()

async def test_clean_after():
    await asyncio.sleep(0)
"""


@pytest.fixture(scope="module")
def ran(suite_once: Any) -> Any:
    return suite_once(HANGS, "--tightship-timeout=60")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_event", "test_event (call) can never finish"),
        ("test_each_other", "test_each_other (call) can never finish"),
        ("test_fixture", "test_fixture (set-up of fixture 'never' (function)) can never finish"),
        ("test_without_a_limit", "test_without_a_limit (call) can never finish"),
        ("test_in_a_sync_test", "test_in_a_sync_test (call) can never finish"),
    ],
)
def test_a_certain_hang_is_told_at_once(ran: Any, name: str, words: str) -> None:
    """Long before the limit, whichever part of the test it is in."""
    (finding,) = ran.tests[name]["findings"]
    assert finding["kind"] == "timeout"
    assert finding["label"] == "deadlock"
    assert finding["seconds"] < 30
    assert words in ran.text


def test_the_graph_shows_who_waits_for_whom(ran: Any) -> None:
    """Both tasks stand beneath the test's own, each with its line."""
    report = ran.text[ran.text.index("test_each_other (call) can never finish") :]
    graph = report[report.index("tasks (3 pending") :]
    assert graph.index("one ") < graph.index("two ") < graph.index("threads")
    assert "await there.wait()" in graph
    assert "await here.wait()" in graph


def test_what_is_woken_in_time_is_left_alone(ran: Any) -> None:
    """A timer is set: the test goes on, and so does the one after all those hangs."""
    assert ran.tests["test_clean"]["outcome"] == "passed"
    assert ran.tests["test_clean_after"]["outcome"] == "passed"


def test_switched_off_the_limit_ends_it(suite: Any) -> None:
    """Nobody foretells anything then."""
    ran = suite(
        "import asyncio\n\nasync def test_it():\n    await asyncio.Event().wait()\n",
        "--tightship-forecast=off",
        "--tightship-timeout=0.5",
        status=1,
    )
    (finding,) = ran.tests["test_it"]["findings"]
    assert finding["label"] == "never-finished"
