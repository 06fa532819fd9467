"""What runs in a thread at this moment: which loop, and which task the thread waits for.

Read from the thread's stack, so that it needs no patch and no bookkeeping: whoever runs a loop
stands in its ``run_until_complete``. The task that this waits for is the one to cancel.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple

from .loops import pending_tasks

__all__ = ["Running", "running"]


class Running(NamedTuple):
    """A loop that runs in a thread, and its main task."""

    runtime: str
    """``asyncio`` or ``trio``."""
    loop: Any
    """asyncio's loop, or trio's runner."""
    task: Any
    """The task that the thread waits for; None if unknown."""
    cancel: Callable[[], object] | None = None
    """trio: cancels, from any thread, what the thread waits for."""
    runner: Any = None
    """anyio's runner, if the task is its task for all tests."""


def running(ident: int, loops: Iterable[Any] = ()) -> Running | None:
    """Return what a thread runs, or None if it runs no loop.

    Args:
        ident: the thread's identifier.
        loops: loops that may run in it although no frame shows it (uvloop's have none).
    """
    frame = sys._current_frames().get(ident)
    loop: Any = None
    while frame is not None:
        name, file = frame.f_code.co_name, frame.f_code.co_filename
        if name == "run_forever" and file.endswith("base_events.py"):
            loop = _local(frame, "self")
        elif name == "run_until_complete" and file.endswith("base_events.py"):
            return _asyncio(_local(frame, "self"), _local(frame, "future"))
        elif name == "run" and file.endswith("runners.py") and "task" in frame.f_code.co_varnames:
            task = _local(frame, "task")
            if task is not None:
                return _asyncio(task.get_loop(), task)
        elif name == "run" and file.endswith("_run.py") and "runner" in frame.f_code.co_varnames:
            return Running("trio", _local(frame, "runner"), None)
        elif name == "_call_in_runner_task" and file.endswith("_trio.py"):
            return Running("trio", None, None, _scope(_local(frame, "self")))
        frame = frame.f_back
    if loop is not None:
        return Running("asyncio", loop, None)
    for candidate in loops:
        if candidate.is_running() and _thread_of(candidate) in (None, ident):
            return _asyncio(candidate, _first(candidate))
    return None


def _local(frame: FrameType, name: str) -> Any:
    # Not through explain.frames: here one name is wanted, of a frame that goes on living.
    return frame.f_locals.get(name)


def _thread_of(loop: Any) -> int | None:
    return getattr(loop, "_thread_id", None)


def _first(loop: Any) -> Any:
    """Return the oldest task, the one that was there before all it started."""
    tasks = [t for ref in pending_tasks(loop) if (t := ref()) is not None]
    numbered = [(t, t.get_name().removeprefix("Task-")) for t in tasks]
    numbered = [(t, n) for t, n in numbered if n.isdigit()]
    return min(numbered, key=lambda pair: int(pair[1]))[0] if numbered else None


def _scope(runner: Any) -> Callable[[], object] | None:
    """Return what cancels the coroutine that anyio's runner on trio is at."""
    token, scope = getattr(runner, "_tightship_scope", (None, None))
    if token is None or scope is None:
        return None
    return functools.partial(token.run_sync_soon, scope.cancel)


def _asyncio(loop: Any, task: Any) -> Running:
    """Say which task to cancel: anyio's plugin runs all tests in one task of its own."""
    get_coro = getattr(task, "get_coro", None)
    if get_coro is None:  # a bare future
        return Running("asyncio", loop, None)
    frame = getattr(get_coro(), "cr_frame", None)
    if frame is not None and frame.f_code.co_name == "_call_in_runner_task":
        runner = _local(frame, "self")
        inner = getattr(runner, "_runner_task", None)
        if inner is not None:
            return Running("asyncio", loop, inner, runner=runner)
    return Running("asyncio", loop, task)
