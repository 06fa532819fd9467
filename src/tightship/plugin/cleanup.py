"""The fixture ``cleanup``: closes what a test registered, on the loop that it was made on.

anyio and pytest-trio run async fixtures inside the test's own run, so for their tests the fixture
is an async generator. Everywhere else it is a plain one, which steps the loops by itself: at that
time they are still open, and nobody runs them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ..closing import NOTHING, Cleanup, CloseReport, close_all
from ..runtimes.async_library import running_library

__all__ = ["choose", "closing"]

#: pytest-asyncio's runner of a fixture whose loop is not the test's is set up when that fixture is.
_LATE = "_function_scoped_runner"

#: Seconds on top of the deadline that a loop in another thread is given to answer.
_LATENCY = 1.0


def choose(fixturedef: Any, request: Any) -> None:
    """Be what the test that asks for the fixture needs, before anybody sets it up."""
    if fixturedef.func.__module__ in (__name__, __package__):  # not a suite's own ``cleanup``
        fixturedef.func = closing_inside if _runs_fixtures(request) else closing


def _runs_fixtures(request: Any) -> bool:
    plugins = request.config.pluginmanager
    if plugins.has_plugin("anyio") and "anyio_backend" in request.fixturenames:
        return True
    return plugins.has_plugin("trio") and request.node.get_closest_marker("trio") is not None


async def closing_inside(request: pytest.FixtureRequest) -> AsyncIterator[Cleanup]:
    """Be the fixture inside the test's own run."""
    __tracebackhide__ = True
    cleanup = Cleanup()
    try:
        yield cleanup
    finally:
        (await cleanup.aclose()).raise_if_failed()


def closing(request: pytest.FixtureRequest) -> Iterator[Cleanup]:
    """Be the fixture outside of a running loop."""
    __tracebackhide__ = True
    # pytest-asyncio sets its runner up late, and would close the loop before we are asked.
    for name in list(request.fixturenames):
        if name.startswith("_") and name.endswith("_scoped_runner"):
            request.getfixturevalue(name)
    cleanup = _PerLoop(request)
    try:
        yield cleanup
    finally:
        cleanup.close()


class _PerLoop(Cleanup):
    """Remembers with each thing the loop that it was registered on."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__()
        self._loops: list[tuple[str | None, weakref.ref[Any] | None]] = []
        self._active: dict[str, Any] = getattr(request, "_fixture_defs", {})
        self._bound = False

    def _add(self, thing: Any) -> None:
        super()._add(thing)
        library = running_library()
        runner = self._active.get(_LATE)
        if library == "asyncio" and runner is not None and not self._bound:
            # If it was set up after us it goes before us: close before it does.
            self._bound = True
            runner.addfinalizer(self.close)
        loop = thing.get_loop() if asyncio.isfuture(thing) else asyncio._get_running_loop()
        self._loops.append((library, None if loop is None else weakref.ref(loop)))

    async def aclose(self) -> CloseReport:
        """Close everything from within the test."""
        self._loops.clear()
        return await super().aclose()

    def close(self) -> None:
        """Close everything, the last one first, each on its own loop."""
        __tracebackhide__ = True
        report = NOTHING
        while self._things:
            thing, (library, ref) = self._things.pop(), self._loops.pop()
            report += self._close_on(None if ref is None else ref(), library, thing)
        report.raise_if_failed()

    def _close_on(self, loop: Any, library: str | None, thing: Any) -> CloseReport:
        def closing() -> Any:
            return close_all(thing, timeout=self.timeout)

        if library == "trio":
            import trio

            report: CloseReport = trio.run(closing)
        elif loop is None or loop.is_closed():
            # Made without a loop, or of one that the test has closed: any will do, or none.
            with asyncio.Runner() as runner:
                report = runner.run(closing())
        elif loop.is_running():
            answer = asyncio.run_coroutine_threadsafe(closing(), loop)
            report = answer.result(self.timeout + _LATENCY)
        else:
            report = loop.run_until_complete(closing())
        return report
