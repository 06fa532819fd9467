"""Event loops that nobody closed."""

from __future__ import annotations

from typing import Any

KIND = "loop"

SUITE = """
import asyncio

import pytest


@pytest.fixture
def made():
    return asyncio.new_event_loop()  # born


def test_made(made):
    made.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def made_uvloop():
    import uvloop

    return uvloop.new_event_loop()  # born


def test_uvloop(made_uvloop):
    made_uvloop.run_until_complete(asyncio.sleep(0))


def test_with_a_used_executor():
    loop = asyncio.new_event_loop()  # born
    loop.run_until_complete(asyncio.wait_for(loop.run_in_executor(None, int), 10))


def test_clean_run():
    asyncio.run(asyncio.sleep(0))


def test_clean_closed():
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()


def test_clean_uvloop():
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_made": {"label": "asyncio", "owner": "fixture 'made' (function)", "fix": "loop.close"},
    "test_uvloop": {"label": "uvloop", "owner": "fixture 'made_uvloop' (function)"},
    "test_with_a_used_executor": {"label": "asyncio", "certainty": "proven"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
