"""Coroutines that nobody awaited."""

from __future__ import annotations

from typing import Any

KIND = "coroutine"

SUITE = """
import asyncio

import pytest


async def work():
    pass


async def test_dropped():
    work()  # born


@pytest.fixture
def kept():
    return [work()]  # born


def test_kept_in_a_list(kept):
    pass


async def test_clean_awaited():
    await work()


def test_clean_closed():
    work().close()


def test_clean_expected():
    with pytest.warns(RuntimeWarning, match="never awaited"):
        work()


@pytest.mark.filterwarnings("ignore:coroutine 'work' was never awaited")
def test_clean_ignored_on_purpose():
    work()
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_dropped": {"label": "work", "subject": "coroutine 'work'", "fix": "await it"},
    "test_kept_in_a_list": {"label": "work"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
