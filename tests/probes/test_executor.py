"""Executors that nobody shut down."""

from __future__ import annotations

from typing import Any

KIND = "executor"

SUITE = """
import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest


@pytest.fixture
def threads():
    return ThreadPoolExecutor(2)  # born


def test_threads(threads):
    threads.submit(int).result()


@pytest.fixture
def processes():
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))  # born
    yield pool


def test_processes(processes):
    processes.submit(int).result()


def test_clean_with():
    with ThreadPoolExecutor(2) as pool:
        pool.submit(int).result()


def test_clean_not_waited_for():
    pool = ThreadPoolExecutor(2)
    pool.submit(int).result()
    pool.shutdown(wait=False)


def test_clean_never_used():
    ThreadPoolExecutor(2)


def test_clean_processes():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(int).result()


async def test_clean_to_thread():
    await asyncio.to_thread(int)


@pytest.mark.asyncio(loop_scope="session")
async def test_clean_to_thread_on_the_session_loop():
    await asyncio.to_thread(int)


@pytest.mark.asyncio(loop_scope="session")
async def test_clean_to_thread_once_more():
    await asyncio.gather(*(asyncio.to_thread(int) for _ in range(5)))
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_threads": {
        "label": "ThreadPoolExecutor",
        "owner": "fixture 'threads' (function)",
        "facts": {"workers": "1: ThreadPoolExecutor"},
        "fix": "shutdown",
    },
    "test_processes": {
        "label": "ProcessPoolExecutor",
        "owner": "fixture 'processes' (function)",
        "facts": {"workers": r"1: \d+"},
    },
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
