"""Calls that hold a loop are told with their line; what only looks like one is not."""

from __future__ import annotations

import re

import pytest

CALLS = """
import asyncio
import queue
import re
import subprocess
import threading
import time


async def test_sleeps():
    time.sleep(0.4)


async def test_waits_for_a_child():
    await asyncio.sleep(0.05)
    subprocess.run(["sleep", "0.4"], capture_output=True)


def crunch():
    end = time.process_time() + 0.4
    total = 0
    while time.process_time() < end:
        for n in range(100_000):
            total += n


async def test_computes():
    await asyncio.sleep(0.05)
    crunch()


async def test_keeps_the_interpreter():
    for _ in range(5):  # where the machine is full, one alone may not be held against it
        await asyncio.sleep(0.05)
        re.match(r"(a+)+b", "a" * 24)


async def test_waits_for_a_lock():
    threading.Event().wait(0.4)


async def test_waits_for_a_queue():
    try:
        queue.Queue().get(timeout=0.4)
    except queue.Empty:
        pass


def on_time():
    time.sleep(0.4)


async def test_in_a_callback():
    asyncio.get_running_loop().call_later(0.05, on_time)
    await asyncio.sleep(0.5)


async def test_three_times():
    for _ in range(3):
        time.sleep(0.3)
        await asyncio.sleep(0)


def test_in_a_sync_test():
    async def main():
        time.sleep(0.4)

    asyncio.run(main())


def test_on_a_loop_made_by_hand():
    loop = asyncio.new_event_loop()
    loop.call_soon(on_time)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()


def test_in_another_thread():
    async def main():
        time.sleep(0.4)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
"""


def test_each_call_is_named_with_its_line(run):
    """Whatever it waits for or works at, and wherever its loop runs.

    Once is enough: where the machine takes the processor away, a look may come too late for one.
    """
    try:
        _each_call_is_named(run(CALLS).held)
    except AssertionError:
        _each_call_is_named(run(CALLS).held)


def _each_call_is_named(found):
    said = {
        "test_sleeps": ("time.sleep(0.4)", "await asyncio.sleep"),
        "test_waits_for_a_child": ('subprocess.run(["sleep"', "asyncio.create_subprocess_exec"),
        "test_computes": ("crunch()", "asyncio.to_thread"),
        "test_keeps_the_interpreter": ('re.match(r"(a+)+b"', "process pool"),
        "test_waits_for_a_lock": ("threading.Event().wait(0.4)", "asyncio's Lock, Event"),
        "test_waits_for_a_queue": ("queue.Queue().get(timeout=0.4)", "asyncio.Queue"),
        "test_in_a_callback": ("time.sleep(0.4)", "await asyncio.sleep"),
        "test_three_times": ("time.sleep(0.3)", "await asyncio.sleep"),
        "test_in_a_sync_test": ("time.sleep(0.4)", "await asyncio.sleep"),
        "test_on_a_loop_made_by_hand": ("time.sleep(0.4)", "await asyncio.sleep"),
        "test_in_another_thread": ("time.sleep(0.4)", "await asyncio.sleep"),
    }
    assert set(found) == set(said)
    lines = CALLS.splitlines()
    for name, (subject, fix) in said.items():
        (finding,) = found[name]
        assert finding["subject"].startswith(subject), name
        assert fix in finding["fix"], name
        assert finding["nodeid"] == f"test_it.py::{name}"
        assert finding["verdict"] == "note"
        assert finding["seconds"] >= 0.1, name
        made = finding["made"]
        assert lines[made["line"] - 1].strip() == made["source"]
        assert f"test_it.py:{made['line']}" in dict(finding["facts"])["blocked"], name
    assert found["test_three_times"][0]["count"] == 3
    assert found["test_in_a_callback"][0]["label"] == "on_time"


CLEAN = '''
import asyncio
import pdb
import sys
import threading
import time

import pytest


async def test_waits():
    await asyncio.sleep(0.4)


async def test_lets_a_thread_wait():
    await asyncio.to_thread(time.sleep, 0.4)


async def test_works_in_small_steps():
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        await asyncio.sleep(0)


async def test_short_calls():
    for _ in range(20):
        time.sleep(0.03)
        await asyncio.sleep(0)


def test_between_two_runs_of_a_loop():
    loop = asyncio.new_event_loop()
    for _ in range(2):
        loop.run_until_complete(asyncio.sleep(0.05))
        time.sleep(0.4)
    loop.close()


def test_sync():
    time.sleep(0.4)


@pytest.fixture
def crowd():
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            pass

    threads = [threading.Thread(target=spin) for _ in range(12)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()


async def test_starved_by_threads(crowd):
    for _ in range(8):
        await asyncio.sleep(0)
        sum(range(2000))


class Slow:
    """What a person types, who takes time to think."""

    def readline(self):
        time.sleep(0.4)
        return "continue\\n"


async def test_stands_at_a_breakpoint():
    pdb.Pdb(stdin=Slow(), stdout=open("/dev/null", "w")).set_trace()
    sys.settrace(None)


@pytest.mark.tightship(blocked="off")
async def test_says_that_it_may():
    time.sleep(0.4)


@pytest.mark.tightship(enabled=False)
async def test_not_looked_at():
    time.sleep(0.4)
'''


def test_what_holds_no_loop_is_not_told(run):
    """Waiting, threads, small steps, a pause between two runs, a debugger, a starved thread."""
    assert run(CLEAN, "-k", "not breakpoint").held == {}


def test_a_breakpoint_holds_nothing(run):
    """Somebody looks at the program: that is no call of its own."""
    assert run(CLEAN, "-k", "breakpoint", "-s", "--tightship-threshold=off").held == {}


def test_many_small_steps_are_nobodys_call(run):
    """A turn that is long because of many tasks is noted, and fails nothing."""
    source = """
import asyncio
import time


async def step():
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass


async def test_many():
    await asyncio.sleep(0.05)
    await asyncio.gather(*(step() for _ in range(200)))
"""
    (finding,) = run(source, "--tightship-blocked=fail").held["test_many"]
    assert finding["subject"].startswith("a turn of many steps")
    assert finding["verdict"] == "note"


# -- runners -------------------------------------------------------------------------------

RUNNERS = {
    "anyio": """
import time

import anyio
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_held():
    time.sleep(0.4)


async def test_clean():
    await anyio.to_thread.run_sync(time.sleep, 0.4)
""",
    "unittest": """
import asyncio
import time
import unittest


class Case(unittest.IsolatedAsyncioTestCase):
    async def test_held(self):
        time.sleep(0.4)

    async def test_clean(self):
        await asyncio.sleep(0.4)
""",
    "uvloop": """
import asyncio
import time

import uvloop


def test_held():
    async def main():
        await asyncio.sleep(0.05)
        time.sleep(0.4)

    uvloop.run(main())


def test_clean():
    uvloop.run(asyncio.sleep(0.4))
""",
    "uvloop, another thread": """
import asyncio
import threading
import time

import uvloop


def in_thread(coro):
    thread = threading.Thread(target=lambda: uvloop.run(coro))
    thread.start()
    thread.join()


async def hold():
    time.sleep(0.4)


def test_held():
    in_thread(hold())


def test_clean():
    in_thread(asyncio.sleep(0.4))
""",
    "a loop for the session": """
import asyncio
import time

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_held():
    time.sleep(0.4)


async def test_clean():
    await asyncio.sleep(0.4)
""",
}


@pytest.mark.parametrize("name", RUNNERS)
def test_every_runner_is_served(run, name):
    """The call is told of the test that made it, and of that alone."""
    found = run(RUNNERS[name]).held
    assert set(found) == {"test_held"}
    (finding,) = found["test_held"]
    assert finding["made"]["source"] == "time.sleep(0.4)"


def test_trio_is_left_alone(run):
    """It has no loop that could be asked; nothing is said of it."""
    source = """
import time

import trio


async def hold():
    time.sleep(0.4)


def test_held():
    trio.run(hold)
"""
    assert run(source).held == {}


def test_fixtures_are_told_apart(run):
    """What a wider fixture's task does is the fixture's; a narrow one's set-up is the fixture's."""
    source = """
import asyncio
import time

import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def beat(turn):
    while True:
        await turn.wait()
        turn.clear()
        time.sleep(0.4)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def heart():
    turn = asyncio.Event()
    task = asyncio.create_task(beat(turn))
    yield turn
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="session")
async def slow():
    time.sleep(0.4)


async def test_first(heart):
    heart.set()
    await asyncio.sleep(0.1)


async def test_second(slow):
    pass
"""
    found = run(source).held
    assert [f["owner"] for f in found["test_first"]] == ["fixture 'heart' (session)"]
    (second,) = found["test_second"]
    assert second["made"]["function"] == "slow"


# -- not in the way ------------------------------------------------------------------------


def test_a_loop_that_waits_is_not_woken(run):
    """Only a loop at work is asked."""
    source = """
import asyncio
import time


def counted():
    loop = asyncio.get_running_loop()
    calls = []
    original = loop.call_soon_threadsafe
    loop.call_soon_threadsafe = lambda *a, **k: (calls.append(a), original(*a, **k))[1]
    return calls


async def test_waits():
    calls = counted()
    await asyncio.sleep(0.5)
    assert not calls


async def test_works():
    calls = counted()
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        time.sleep(0.01)
        await asyncio.sleep(0)
    assert calls
"""
    run(source)


def test_a_loop_that_cannot_be_asked_is_left_alone(run):
    """A stand-in that raises changes nothing for its test."""
    source = """
import asyncio
import time


async def test_broken():
    def broken(*args, **kwargs):
        raise ValueError("no threads here")

    asyncio.get_running_loop().call_soon_threadsafe = broken
    time.sleep(0.3)
"""
    assert run(source).held == {}


# -- what becomes of it ----------------------------------------------------------------------

HELD = """
import time

import pytest


async def test_held():
    time.sleep(0.4)


async def test_held_too():
    for _ in range(2):
        time.sleep(0.3)
"""


def test_by_default_one_line_says_so(run):
    """No test fails, and nothing else is written."""
    ran = run(HELD)
    lines = ran.section.splitlines()
    assert len(lines) == 1, ran.text
    assert re.fullmatch(
        r"NOTE 2 calls held a loop for more than 0\.1 s \(longest 0\.\d\d s at test_it\.py:\d+\); "
        r"--tightship-blocked=collect lists them",
        lines[0],
    )


def test_a_suite_that_holds_no_loop_is_quiet(run):
    """The twin: no section at all."""
    assert run("async def test_clean(): pass").section == ""


def test_it_can_fail_its_test(run):
    """With the stack, the remedy, and a marker that can be pasted."""
    ran = run(HELD, "--tightship-blocked=fail", status=1)
    assert ran.outcomes == {"test_held": "failed", "test_held_too": "failed"}
    assert re.search(r"time\.sleep\(0\.4\) held the loop for 0\.\d\d s in test_held", ran.text)
    assert 'allow="blocked-loop:test_held"' in ran.text


def test_off_is_off(run):
    """Nothing is noted."""
    assert run(HELD, "--tightship-blocked=off").held == {}


def test_a_list_groups_calls_by_line(run):
    """The line that took the most time first, with the tests it was seen in."""
    source = (
        HELD
        + """

def helper():
    time.sleep(0.3)


async def test_a():
    helper()


async def test_b():
    helper()
    helper()
"""
    )
    ran = run(source, "--tightship-blocked=collect")
    lines = ran.section.splitlines()
    assert lines[0] == "calls that held a loop, by line:"
    places = [x for x in lines if " call" in x and " in " in x and "longest" in x]
    assert len(places) == 3, ran.text
    assert places[0].endswith("time.sleep(0.3)")
    totals = [float(x.split()[0]) for x in places]
    assert totals == sorted(totals, reverse=True)
    assert "    in   test_it.py::test_a, test_it.py::test_b" in lines
    assert "    fix  await asyncio.sleep(...)" in lines


def test_an_empty_list_says_so(run):
    """Whoever asked gets an answer."""
    ran = run("async def test_clean(): pass", "--tightship-blocked=collect")
    assert ran.section.splitlines()[0] == "no call held a loop"


def test_workers_hand_the_list_over(run):
    """With pytest-xdist too."""
    ran = run(HELD, "--tightship-blocked=collect", "-n2")
    assert "calls that held a loop, by line:" in ran.section
    assert ran.section.count("longest") == 2


def test_the_limit_can_be_set(run):
    """For the run, and by a marker for a test."""
    source = """
import time

import pytest


@pytest.mark.tightship(blocked=0.05)
async def test_strict():
    time.sleep(0.4)


@pytest.mark.tightship(blocked="fail")
async def test_must_not():
    time.sleep(0.9)


async def test_may():
    time.sleep(0.4)
"""
    ran = run(source, "--tightship-blocked-limit=0.6", status=1)
    assert set(ran.held) == {"test_strict", "test_must_not"}
    assert ran.outcomes["test_must_not"] == "failed"
    assert ran.outcomes["test_strict"] == "passed"


def test_a_marker_asks_for_it_where_it_is_off(run):
    """The closest word counts."""
    source = """
import time

import pytest


@pytest.mark.tightship(blocked="fail")
async def test_must_not():
    time.sleep(0.4)


async def test_may():
    time.sleep(0.4)
"""
    ran = run(source, toml='[tool.tightship]\nblocked = "off"\n', status=1)
    assert set(ran.held) == {"test_must_not"}


def test_a_rule_allows_it(run):
    """By kind and label, as any finding; without the rule it fails."""
    source = """
import time

import pytest


@pytest.mark.tightship(allow="blocked-loop:test_allowed", reason="a test of blocking calls")
async def test_allowed():
    time.sleep(0.4)


async def test_other():
    time.sleep(0.4)
"""
    ran = run(source, "--tightship-blocked=fail", status=1)
    assert ran.held["test_allowed"][0]["verdict"] == "allowed"
    assert ran.held["test_other"][0]["verdict"] == "fail"


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('blocked = "loud"', "expected one of off, note, fail, collect, got 'loud'"),
        ("blocked_limit = 0", "expected a number of seconds, 0.01 or more, got 0"),
    ],
)
def test_wrong_values_are_refused(pytester, toml, said):
    """With the place and what would be valid."""
    pytester.makepyprojecttoml(f"[tool.tightship]\n{toml}\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()
