"""The loops that everything here is run on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
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


@pytest.fixture
def deafness() -> Callable[[], Any]:
    """Return a block that gives a coroutine function that ignores every cancellation.

    Whatever happens in the block, what was started of it ends with the block: a loop that closes
    waits for its tasks for ever.
    """

    @contextlib.asynccontextmanager
    async def block() -> AsyncIterator[Callable[[], Any]]:
        stop = asyncio.Event()

        async def deaf() -> None:
            while not stop.is_set():
                try:
                    await stop.wait()
                except asyncio.CancelledError:
                    pass

        try:
            yield deaf
        finally:
            stop.set()
            for _ in range(3):
                await asyncio.sleep(0)

    return block
