"""Timers left behind."""

from __future__ import annotations

from typing import Any

KIND = "timer"

SUITE = """
import asyncio

import pytest


def tick():
    pass


async def test_call_later():
    asyncio.get_running_loop().call_later(100, tick)  # born


async def test_call_at():
    loop = asyncio.get_running_loop()
    loop.call_at(loop.time() + 100, tick)  # born


def test_on_uvloop():
    import uvloop

    async def main():
        return asyncio.get_running_loop().call_later(100, tick)  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kept = runner.run(main())


@pytest.fixture
async def timer():
    return asyncio.get_running_loop().call_later(100, tick)  # born


async def test_of_a_fixture(timer):
    pass


async def test_clean_cancelled():
    asyncio.get_running_loop().call_later(100, tick).cancel()


async def test_clean_due():
    fired = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, fired.set)
    await fired.wait()


async def test_clean_sleep():
    await asyncio.sleep(0.001)


async def test_clean_timeout():
    async with asyncio.timeout(100):
        await asyncio.sleep(0)


def test_clean_on_uvloop():
    import uvloop

    async def main():
        asyncio.get_running_loop().call_later(100, tick).cancel()
        await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_call_later": {"label": "tick", "facts": {"due": r"in (99|100)\.\d s"}, "fix": "cancel"},
    "test_call_at": {"label": "tick"},
    "test_on_uvloop": {"label": "tick"},
    "test_of_a_fixture": {"label": "tick", "owner": "fixture 'timer' (function)"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
