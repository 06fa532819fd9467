"""Tasks left behind: made in all ways there are, lost, or resisting."""

from __future__ import annotations

import sys
from typing import Any

KIND = "task"

SUITE = """
import asyncio
import gc
import sys

import pytest


async def poll():
    await asyncio.Event().wait()


async def resist():
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


async def test_create_task():
    asyncio.create_task(poll())  # born
    await asyncio.sleep(0)


async def test_ensure_future():
    asyncio.ensure_future(poll())  # born
    await asyncio.sleep(0)


async def test_loop_create_task_never_begun():
    asyncio.get_running_loop().create_task(poll())  # born


async def test_task_group_left_open():
    group = asyncio.TaskGroup()
    await group.__aenter__()
    group.create_task(poll())  # born
    await asyncio.sleep(0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
async def test_eager():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    asyncio.create_task(poll())  # born


async def test_cancelled_but_resisting():
    task = asyncio.create_task(resist())  # born
    await asyncio.sleep(0)
    task.cancel()


async def test_destroyed_by_the_collector():
    async def lost():
        await asyncio.get_running_loop().create_future()

    asyncio.create_task(lost())  # born
    await asyncio.sleep(0)
    gc.collect()


def test_run_in_a_hand_made_loop():
    async def main():
        asyncio.create_task(poll())  # born
        await asyncio.sleep(0)

    asyncio.run(main())


@pytest.fixture
async def poller():
    return asyncio.create_task(poll())  # born


async def test_of_a_fixture(poller):
    await asyncio.sleep(0)


async def test_clean_awaited():
    await asyncio.create_task(asyncio.sleep(0))


async def test_clean_cancelled():
    task = asyncio.create_task(poll())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_clean_cancelled_but_not_awaited():
    task = asyncio.create_task(poll())
    await asyncio.sleep(0)
    task.cancel()


async def test_clean_task_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))


async def test_clean_on_its_way_out():
    asyncio.create_task(asyncio.sleep(0))


async def test_clean_wait_for():
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(poll(), 0.001)


async def test_clean_gather():
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_create_task": {
        "label": "poll",
        "certainty": "proven",
        "facts": {"waiting": "test_suite.py:10"},
        "fix": "TaskGroup",
    },
    "test_ensure_future": {"label": "poll", "certainty": "proven"},
    "test_loop_create_task_never_begun": {"label": "poll", "certainty": "proven"},
    "test_task_group_left_open": {"label": "poll", "certainty": "proven"},
    "test_cancelled_but_resisting": {
        "label": "resist",
        "certainty": "proven",
        "facts": {"cancelled": "once, but"},
    },
    "test_destroyed_by_the_collector": {
        "label": "test_destroyed_by_the_collector.<locals>.lost",
        "certainty": "proven",
        "facts": {"state": "destroyed by the garbage collector"},
    },
    "test_run_in_a_hand_made_loop": {"label": "poll", "certainty": "proven"},
    "test_of_a_fixture": {"label": "poll", "owner": "fixture 'poller' (function)"},
    **(
        {"test_eager": {"label": "poll", "certainty": "proven"}}
        if sys.version_info >= (3, 12)
        else {}
    ),
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
