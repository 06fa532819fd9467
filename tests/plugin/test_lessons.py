"""What the test suites of well-known libraries taught: each was noise or a false alarm once."""

from __future__ import annotations

from typing import Any

WATCHDOG = """
import faulthandler, os
import pytest

KEPT = []

@pytest.mark.parametrize("n", range(3))
def test_leaks(n):
    KEPT.append(os.open("/dev/null", os.O_RDONLY))

def test_own_watchdog():
    faulthandler.dump_traceback_later(60)
    KEPT.append(os.open("/dev/null", os.O_RDONLY))
    faulthandler.cancel_dump_traceback_later()

def test_after():
    KEPT.append(os.open("/dev/null", os.O_RDONLY))
"""


def test_the_watchdog_of_faulthandler_is_no_thread_of_the_test(suite: Any) -> None:
    """pytest's faulthandler_timeout starts a new thread for each test, from C."""
    ran = suite(WATCHDOG, status=1, toml="faulthandler_timeout = 60\n")
    assert {name: ran.verdicts(name) for name in ran.tests} == {
        name: [("file", "fail")]
        for name in (*(f"test_leaks[{n}]" for n in range(3)), "test_own_watchdog", "test_after")
    }


ANYIO = """
import asyncio
import pytest

KEPT = []

@pytest.fixture
def anyio_backend():
    return "asyncio"

class TestRunner:
    async def _run_tests_and_fixtures(self):
        await asyncio.sleep(3600)

@pytest.mark.anyio
async def test_clean():
    pass

@pytest.mark.anyio
async def test_leaks_one_of_the_same_name():
    KEPT.append(asyncio.create_task(TestRunner()._run_tests_and_fixtures()))
    await asyncio.sleep(0)
"""


def test_the_task_that_runs_anyios_tests_is_no_finding_at_all(suite: Any) -> None:
    """It is there in each of these tests: to allow it each time cost more than the test."""
    ran = suite(ANYIO, "-p", "no:asyncio", status=1)
    assert ran.verdicts("test_clean") == []
    assert ran.verdicts("test_leaks_one_of_the_same_name") == [("task", "fail")]


CLOSED = """
import asyncio

KEPT = []

async def never():
    await asyncio.sleep(3600)

def test_clean():
    # As tornado's SelectorThread.close: a task that never ran, without its coroutine.
    loop = asyncio.new_event_loop()
    task = loop.create_task(never())
    task._log_destroy_pending = False
    task.cancel()
    task.get_coro().close()
    loop.close()

def test_leak():
    loop = asyncio.new_event_loop()
    KEPT.append(loop.create_task(never()))
    loop.close()
"""


def test_a_task_whose_coroutine_was_closed_is_not_stepped(suite: Any) -> None:
    """A turn of its loop would raise in it, and the error would be Tightship's doing."""
    ran = suite(CLOSED, status=1)
    assert ran.verdicts("test_clean") == []
    assert ran.verdicts("test_leak") == [("task", "fail")]


CURRENT_LOOP = """
import asyncio

async def test_that_makes_the_fixture_of_the_policy():
    pass

def test_sets_a_loop():
    asyncio.set_event_loop(asyncio.new_event_loop())

async def test_last():
    pass
"""


def test_the_current_loop_is_not_the_event_loop_policys(suite: Any) -> None:
    """pytest-asyncio has the policy as a session fixture: it would answer for every loop set."""
    ran = suite(CURRENT_LOOP, status=1)
    assert ran.verdicts("test_sets_a_loop") == [("loop", "fail")]
    assert ran.verdicts("test_last") == []


INNER = """
import socket

KEPT = []

def test_leak(pytester):
    KEPT.append(socket.socket())
    pytester.makepyfile("def test_inner(): pass")
    pytester.makepyprojecttoml(
        "[tool.pytest.ini_options]\\nasyncio_default_fixture_loop_scope = 'function'"
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)

def test_clean(pytester):
    with socket.socket():
        pytester.makepyfile("def test_inner(): pass")
"""


def test_a_run_inside_a_test_hides_no_object(suite: Any) -> None:
    """The inner run's window breaks the outer one: objects are found by their births then.

    So the line of birth is told, and that a global holds it; and what a plugin of the inner run
    left is known (pytest-rerunfailures listens).
    """
    ran = suite(INNER, "-p", "pytester", status=0)
    (finding,) = (f for f in ran.tests["test_leak"]["findings"] if f["verdict"] != "allowed")
    assert (finding["kind"], finding["verdict"]) == ("socket", "note")
    assert "module test_it" in finding["reason"]
    assert finding["made"]["source"].startswith("KEPT.append(")
    assert ran.tests["test_clean"]["findings"] == []


DEFAULT_LOOP = """
import asyncio, warnings

def current():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return asyncio.get_event_loop()

def test_first():
    current().run_until_complete(asyncio.sleep(0))

def test_second():
    current().run_until_complete(asyncio.sleep(0))
    asyncio.set_event_loop(asyncio.new_event_loop())
"""


def test_the_threads_default_loop_is_lazily_made(suite: Any) -> None:
    """asyncio makes it for whoever asks first, and everybody after him uses it."""
    ran = suite(DEFAULT_LOOP, "-p", "no:asyncio", "-p", "no:tornado", status=1)
    assert ran.verdicts("test_first") == [("loop", "note")]
    assert ran.verdicts("test_second") == [("loop", "fail")]


def test_an_address_that_is_used_again_hides_nothing(suite):
    """Each loop's task lies where parts of the last one's lay: all of them are told of."""
    source = """
import asyncio
import pytest

async def poll():
    await asyncio.sleep(3600)

async def main():
    asyncio.create_task(poll())
    await asyncio.sleep(0)

@pytest.mark.parametrize("n", range(5))
def test_many_loops(n):
    for _ in range(10):
        asyncio.run(main())
"""
    ran = suite(source, status=1)
    counts = [[f["count"] for f in r["findings"]] for r in ran.tests.values()]
    assert counts == [[10]] * 5, ran.text
