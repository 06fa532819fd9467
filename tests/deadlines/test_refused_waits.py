"""Beside a library that refuses every blocking call inside a running loop."""

from __future__ import annotations

from typing import Any

SOURCE = """
import asyncio
import os

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def nothing_blocks():
    with blockbuster_ctx():
        yield


async def test_forks():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        await asyncio.sleep(0.01)


@pytest.mark.tightship(timeout=0.5)
async def test_hangs():
    await asyncio.Event().wait()


async def test_after():
    await asyncio.sleep(0.05)
"""


def test_no_wait_of_ours_is_in_a_running_loop(suite: Any) -> None:
    """The sentry ends for a fork and comes back after it; a hang is ended with its verdict."""
    ran = suite(SOURCE, "-p", "no:rerunfailures", "-W", "error", status=1)
    assert ran.tests["test_forks"]["outcome"] == "passed", ran.text
    assert ran.tests["test_after"]["outcome"] == "passed"
    assert ran.timeout("test_hangs")["label"] == "never-finished"
