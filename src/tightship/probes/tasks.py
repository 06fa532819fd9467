"""Pending asyncio tasks, also those that a runner would cancel in silence."""

from __future__ import annotations

import gc
import os
import re
import sys
import weakref
from collections.abc import Iterable, Mapping
from contextvars import Context
from typing import Any, ClassVar, Literal

from .. import explain
from ..model import Evidence, Key, Owner, Scene, Site
from ..origin import layer, site_at
from ..ownership import of_context
from ..runtimes import cancels
from ..runtimes.loops import pending_tasks
from .base import BaseProbe

__all__ = ["TOLD", "TaskProbe"]


class TaskProbe(BaseProbe):
    """A task that is not done. Handles and keys are weak references, always."""

    kind: ClassVar[str] = "task"
    scope: ClassVar[Literal["loop", "process"]] = "loop"

    def install(self, patch: Any) -> None:
        """Give every coroutine its line of birth: 0.1 us each, in C, on every loop.

        The setting is per thread; loops in other threads have tasks without a line.
        """
        before = sys.get_coroutine_origin_tracking_depth()
        if before == 0:
            sys.set_coroutine_origin_tracking_depth(1)
            patch.on_undo(lambda: sys.set_coroutine_origin_tracking_depth(before))

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the loop's pending tasks, without those that are nobody's leak."""
        return {ref: ref for ref in pending_tasks(scene.loop) if not _exempt(ref())}

    def alive(self, handle: weakref.ref[Any]) -> bool:
        """Tell whether it is still pending."""
        task = handle()
        return task is not None and not task.done()

    def owner(self, handle: weakref.ref[Any]) -> Owner | None:
        """Read the owner from the task's own context."""
        task = handle()
        return None if task is None else of_context(_context(task))

    def reported(self, handle: weakref.ref[Any]) -> None:
        """Remember that it was told of, for the case that the collector takes it now."""
        task = handle()
        if task is not None:
            if len(TOLD) > 256:
                TOLD.clear()
            TOLD[id(task)] = _name(task)

    def label(self, handle: weakref.ref[Any]) -> str:
        """Return the coroutine's qualified name."""
        task = handle()
        return "?" if task is None else _name(task)

    def covers(self, handle: weakref.ref[Any]) -> Iterable[Key]:
        """A task takes its coroutines, its waiter's timer and its async generators along."""
        task = handle()
        if task is None:
            return
        at = task.get_coro()
        for _ in range(200):
            if at is None:
                break
            yield ("object", id(at))
            at = (
                getattr(at, "cr_await", None)
                or getattr(at, "ag_await", None)
                or getattr(at, "gi_yieldfrom", None)
            )
        waiter = getattr(task, "_fut_waiter", None)
        if waiter is not None:
            yield ("object", id(waiter))

    def explain(self, handle: weakref.ref[Any]) -> Evidence:
        """Say where it was made and what it waits for."""
        task = handle()
        if task is None:
            return Evidence("a task that is gone")
        name = _name(task)
        evidence = Evidence(f"task {name.rpartition('.<locals>.')[2]!r}", made=_made(task))
        evidence.facts.append(("waiting", explain.await_chain.format_waiting(task)))
        what = explain.await_chain.waiting(task)[1]
        if what:
            evidence.facts.append(("for", what))
        own = str(getattr(task, "get_name", str)())
        if own and not re.fullmatch(r"Task-\d+|None", own):  # an eager task may be called None
            evidence.facts.append(("name", own))
        if by := explain.await_chain.awaited_by(task):
            evidence.facts.append(("awaited by", ", ".join(by)))
        cancelling = getattr(task, "cancelling", int)()
        if cancelling:
            times = "once" if cancelling == 1 else f"{cancelling} times"
            evidence.facts.append(("cancelled", f"{times}, but it has not ended"))
            if who := cancels.describe(task):
                evidence.facts.append(("cancelled by", who))
        return evidence


#: What anyio's runner for asyncio runs in its task, and where that is written.
_RUNNER = "TestRunner._run_tests_and_fixtures"
_ANYIO = os.path.join("anyio", "_backends", "_asyncio.py")


def _exempt(task: Any) -> bool:
    """Tell whether a pending task is no leak, and must not be given turns.

    Either anyio's pytest plugin runs tests and fixtures in it: it is there whenever such a loop
    closes, and its runner ends it right then. Or its coroutine was closed: nothing is left to
    run, and a turn would only make it raise.
    """
    coro: Any = task.get_coro() if task is not None else None
    code = getattr(coro, "cr_code", None)
    if code is None:
        return False
    if coro.cr_frame is None:
        return True
    return str(code.co_qualname) == _RUNNER and code.co_filename.endswith(_ANYIO)


def _context(task: Any) -> Context | None:
    get = getattr(task, "get_context", None)
    if get is not None:
        found = get()
        return found if isinstance(found, Context) else None
    # 3.11's C task has no accessor, but the collector may look.
    for held in gc.get_referents(task):
        if isinstance(held, Context):
            return held
    return None


def _name(task: Any) -> str:
    coro = task.get_coro()
    name = getattr(coro, "__qualname__", None) or getattr(coro, "__name__", None)
    return str(name or repr(type(coro)))


def _made(task: Any) -> Site | None:
    coro = task.get_coro()
    origin = getattr(coro, "cr_origin", None)
    best = None
    for file, line, function in origin or ():
        site = (file, line, function)
        if layer(file) == 0:
            return site_at(*site)
        if best is None and layer(file) == 1:
            best = site
    if best is None:
        code = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)
        if code is None:
            return None
        # Born inside a runtime's own code (a task group's start_soon, say): the next best
        # thing to the line that made it is the function that it runs.
        return site_at(code.co_filename, code.co_firstlineno, code.co_qualname)
    return site_at(*best)


#: Pending tasks that were told of: ``id`` -> name. No weak reference would do: the collector
#: clears those before the task complains.
TOLD: dict[int, str] = {}
