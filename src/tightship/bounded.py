"""Running one operation for a bounded time, whatever it does.

An operation that is late is cancelled; on asyncio one that does not end even then is left behind
and told of, so that nobody hangs on it. Trio has no such way: there a block ends when all in it
has ended.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from .cancellation import ResistedTask, end_tasks
from .explain.await_chain import format_waiting
from .runtimes.async_library import running_library
from .runtimes.cancels import By

__all__ = ["GRACE", "Bounded", "bounded"]

#: Seconds that an operation is given to end after it was cancelled.
GRACE = 0.5

#: What nobody may keep for himself.
_NOT_OURS = (KeyboardInterrupt, SystemExit, GeneratorExit)


@dataclass(slots=True)
class Bounded:
    """What became of one operation."""

    state: Literal["returned", "failed", "late"]
    seconds: float
    value: Any = None
    error: BaseException | None = None
    """What it raised; of a late one, what it raised when it was cancelled."""
    waiting: str = ""
    """Where a late one stood when it was cancelled."""
    resisted: ResistedTask | None = None
    """Of a late one that goes on although it was cancelled: how it stands."""


async def bounded(
    operation: Callable[[], Awaitable[Any] | Any],
    limit: float | None,
    *,
    by: By,
    stopped: Callable[[Bounded], object] | None = None,
) -> Bounded:
    """Run an operation to its end, but not longer than ``limit`` and a short grace.

    The caller's own cancellation ends the operation first, within the grace, and then goes on.

    Args:
        operation: called without arguments; what it returns is awaited if it can be.
        limit: seconds after which it is cancelled; None for no limit.
        by: who runs it, to be told as who cancelled it.
        stopped: called with how it ended or stood if the caller was cancelled meanwhile.
    """
    started = time.monotonic()
    library = running_library()
    if library == "trio":
        ended = await _on_trio(operation, limit)
    elif library == "asyncio":
        ended = await _on_asyncio(operation, limit, by, stopped)
    else:
        raise RuntimeError("this needs a running event loop of asyncio or trio")
    ended.seconds = time.monotonic() - started
    return ended


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


async def _on_asyncio(
    operation: Callable[[], Any],
    limit: float | None,
    by: By,
    stopped: Callable[[Bounded], object] | None,
) -> Bounded:
    # The coroutine's own task, so that it is told of by its name.
    try:
        value = operation()
    except (*_NOT_OURS, asyncio.CancelledError):
        raise
    except BaseException as exc:  # pytest's own failures are no Exceptions
        return Bounded("failed", 0.0, error=exc)
    if not inspect.isawaitable(value):
        return Bounded("returned", 0.0, value)
    coro = value if inspect.iscoroutine(value) else _awaited(value)
    task = asyncio.get_running_loop().create_task(coro)
    try:
        await asyncio.wait([task], timeout=limit)
    except asyncio.CancelledError as exc:
        if task.done():  # in the very turn of the cancellation
            ended = _ended(task)
        else:
            ended, _ = await _stop(task, by)  # another request of the caller's is counted, too
        _tell(exc, ended, stopped)
        raise
    if task.done():
        return _ended(task)
    late, mine = await _stop(task, by)
    if mine is None:
        return late
    _tell(mine, late, stopped)
    try:
        raise mine
    finally:
        del mine  # its traceback holds this frame


def _ended(task: asyncio.Task[Any]) -> Bounded:
    if task.cancelled():
        return Bounded("failed", 0.0, error=asyncio.CancelledError("it was cancelled"))
    error = task.exception()
    if error is None:
        return Bounded("returned", 0.0, task.result())
    return Bounded("failed", 0.0, error=error)


async def _stop(task: asyncio.Task[Any], by: By) -> tuple[Bounded, asyncio.CancelledError | None]:
    """Cancel a task; return what it made of that, and the caller's own cancellation."""
    waiting = format_waiting(task)
    report, mine = await end_tasks([task], GRACE, by=by, keep=True)
    error = report.failed[0].exception if report.failed else None
    resisted = report.resisted[0] if report.resisted else None
    return Bounded("late", 0.0, error=error, waiting=waiting, resisted=resisted), mine


def _tell(exc: BaseException, ended: Bounded, stopped: Callable[[Bounded], object] | None) -> None:
    if stopped is not None:
        stopped(ended)
    elif ended.resisted is not None:
        exc.add_note(str(ended.resisted))


async def _on_trio(operation: Callable[[], Any], limit: float | None) -> Bounded:
    trio: Any = sys.modules["trio"]
    with trio.move_on_after(math.inf if limit is None else limit) as scope:
        try:
            value = operation()
            if inspect.isawaitable(value):
                value = await value
            return Bounded("returned", 0.0, value)
        except BaseException as exc:
            if isinstance(exc, _NOT_OURS) or _holds(exc, trio.Cancelled):
                raise
            return Bounded("failed", 0.0, error=exc)
    assert scope.cancelled_caught
    return Bounded("late", 0.0)


def _holds(exc: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(kind) is not None
    return isinstance(exc, kind)
