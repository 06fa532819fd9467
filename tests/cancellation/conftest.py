"""The loops that everything here is run on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def eagerly(coro: Coroutine[Any, Any, Any]) -> Any:
    """Run on a loop whose tasks start before `create_task` returns (Python 3.12)."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(asyncio.eager_task_factory)
        return runner.run(coro)


LOOPS: dict[str, Run] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = eagerly


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a coroutine to its end, on each kind of loop."""
    return LOOPS[request.param]
