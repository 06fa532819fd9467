"""Async generators that nobody closed."""

from __future__ import annotations

from typing import Any

KIND = "asyncgen"

SUITE = """
import asyncio
import contextlib

import pytest


async def numbers():
    try:
        for n in range(10):
            yield n  # stopped
    finally:
        await asyncio.sleep(0)


@pytest.fixture
async def begun():
    generator = numbers()
    await anext(generator)
    return generator


async def test_begun(begun):
    pass


async def holds_nothing():
    for n in range(10):
        yield n  # stopped


@pytest.fixture
async def harmless():
    generator = holds_nothing()
    await anext(generator)
    return generator


async def test_harmless(harmless):
    pass


async def test_clean_aclosing():
    async with contextlib.aclosing(numbers()) as generator:
        await anext(generator)


async def test_clean_never_begun():
    numbers()


async def test_clean_exhausted():
    assert [n async for n in numbers()] == list(range(10))


async def test_clean_dropped_and_closed_by_the_loop():
    async for _ in numbers():
        break
    await asyncio.sleep(0)
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_begun": {
        "label": "numbers",
        "born": False,
        "facts": {"stopped": "yield n  # stopped", "defined": "async def numbers"},
        "fix": "aclosing",
    },
    # Closing it runs no line of it: a note, since its author could say that nothing is left.
    "test_harmless": {"label": "holds_nothing", "born": False, "certainty": "possible"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
