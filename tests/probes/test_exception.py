"""Exceptions that nobody saw."""

from __future__ import annotations

import sys
from typing import Any

KIND = "exception"

SUITE = """
import asyncio

import pytest


async def fail():
    raise ValueError("unseen")  # born


def fail_in_callback():
    raise KeyError("in a callback")  # born


async def test_task():
    asyncio.create_task(fail())
    await asyncio.sleep(0)


async def test_eager_task():
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks are of 3.12")
    asyncio.get_running_loop().set_task_factory(factory)
    asyncio.create_task(fail())
    await asyncio.sleep(0)


async def test_callback():
    asyncio.get_running_loop().call_soon(fail_in_callback)
    await asyncio.sleep(0)


async def test_timer_callback():
    asyncio.get_running_loop().call_later(0, fail_in_callback)
    await asyncio.sleep(0.001)


def test_on_uvloop():
    import uvloop

    async def main():
        asyncio.get_running_loop().call_soon(fail_in_callback)
        await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_clean_awaited():
    task = asyncio.create_task(fail())
    with pytest.raises(ValueError):
        await task


async def test_clean_gathered():
    assert len(await asyncio.gather(fail(), fail(), return_exceptions=True)) == 2


async def test_clean_own_handler():
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))
    asyncio.get_running_loop().call_soon(fail_in_callback)
    await asyncio.sleep(0)
    assert heard


async def test_clean_asked_for_the_exception():
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    assert task.exception()
"""

EAGER: dict[str, dict[str, Any]] = {}
if sys.version_info >= (3, 12):  # it ended at once, and has no coroutine any more
    EAGER["test_eager_task"] = {"label": "fail", "subject": "ValueError in task 'fail'"}

LEAKS: dict[str, dict[str, Any]] = {
    "test_task": {
        "label": "fail",
        "subject": "ValueError in task 'fail'",
        "facts": {"error": "ValueError: unseen"},
        "fix": "await the task",
    },
    **EAGER,
    "test_callback": {
        "label": "fail_in_callback",
        "facts": {"error": "KeyError: 'in a callback'"},
        "fix": "inside the callback",
    },
    "test_timer_callback": {"label": "fail_in_callback"},
    "test_on_uvloop": {"label": "fail_in_callback"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
