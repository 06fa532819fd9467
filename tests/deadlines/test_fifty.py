"""A suite of fifty: one that hangs, fifty that do, fifty in workers."""

from __future__ import annotations

import pytest
from suites import Suite

from tightship.plugin.status import STATUS

FIFTY = """
import asyncio
import ctypes
import time

import pytest

LOCK = ctypes.create_string_buffer(64)

{mark}


@pytest.mark.parametrize("n", range(50))
async def test_it(n):
    if {which}:
        {hang}
"""
NAMES = [f"test_it[{n}]" for n in range(50)]
#: Waits for a lock that it holds, in C, with the interpreter's lock given away.
STUCK = "[ctypes.CDLL(None).pthread_mutex_lock(LOCK) for _ in range(2)]"


def fifty(which: str, hang: str, limit: float) -> str:
    # Of the call: a machine that stalls may need longer for a set-up.
    mark = f"pytestmark = pytest.mark.tightship(timeout={{'call': {limit}}})"
    return FIFTY.format(mark=mark, which=which, hang=hang)


@pytest.mark.parametrize("hang", ["await asyncio.sleep(100)", "time.sleep(100)"])
def test_one_hang_leaves_forty_nine_honest_results(suite, hang):
    """The others pass, and none of them is blamed."""
    ran = suite(fifty("n == 20", hang, 0.5), status=1)
    assert ran.counts == {"passed": 49, "failed": 1}
    assert ran.failed == {"test_it[20]"}
    ran.timeout("test_it[20]")


def test_fifty_hangs_end_one_by_one(suite: Suite):
    """Each with its own verdict, and nothing that one leaves behind ends another."""
    hang = "await asyncio.sleep(100) if n % 25 else time.sleep(100)"
    ran = suite(fifty("True", hang, 0.05), status=1)
    assert ran.counts == {"failed": 50}
    labels = [ran.timeout(name)["label"] for name in NAMES]
    assert labels == ["blocked-loop", *["never-finished"] * 24] * 2


def test_a_hang_that_only_the_end_of_its_worker_ends(suite: Suite):
    """Under pytest-xdist the worker is replaced, and every other result is kept."""
    ran = suite(fifty("n == 20", STUCK, 0.3), "-n2", status=1)
    assert ran.counts == {"passed": 49, "failed": 1}
    assert set(ran.tests) == set(NAMES)
    told = ran.timeout("test_it[20]")
    assert told["label"] == "stuck-in-c"
    assert told["facts"]["at"].startswith(ran.line("pthread_mutex_lock"))
    assert ran.tests["test_it[20]"]["ended_process"] == STATUS
    assert "worker 'gw" not in ran.text.partition("= FAILURES")[2]
    assert "1 timeout; 0 leaks" in ran.section


def test_hangs_in_workers_that_go_on(suite: Suite):
    """Hangs that can be ended don't cost a worker."""
    ran = suite(fifty("n % 10 == 3", "await asyncio.sleep(100)", 0.4), "-n2", status=1)
    assert ran.counts == {"passed": 45, "failed": 5}
    assert "replacing crashed worker" not in ran.text
    assert all(ran.timeout(f"test_it[{n}]")["label"] == "never-finished" for n in range(3, 50, 10))
