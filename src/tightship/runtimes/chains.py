"""Who awaits: the line that made a server or a connection, through coroutines and tasks.

A stack ends where the event loop begins. Inside a coroutine that runs in a task of its own
(`asyncio.wait_for` on 3.11, `create_task`, a race of connection attempts) all frames may be
the standard library's; the line that made the *task's* coroutine then says who wanted it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ..ledger import LEDGER, Birth
from ..origin import DEPTH, Raw, is_machinery, layer
from ..ownership import current

if TYPE_CHECKING:
    from ..births import Patcher

__all__ = ["after_await", "awaiting", "note", "tells"]

#: What a frame of an await chain is: a coroutine, an async generator, or an ``__await__``.
_SUSPENDS = (
    inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_GENERATOR
)


def awaiting(skip: int = 1, *, awaits: bool = False) -> Raw:
    """Return the stack of whoever awaits the caller, without ``skip`` frames.

    Goes on below the running task only if nothing in it says whose it is.

    Args:
        skip: frames to leave out.
        awaits: the caller is a coroutine, so whoever called it either awaits it or drives it.
    """
    frame: FrameType | None
    try:
        frame = sys._getframe(skip + 1)
    except ValueError:
        return ()
    pairs: list[tuple[CodeType, int]] = []
    ours = False
    while frame is not None and len(pairs) < DEPTH:
        code = frame.f_code
        if code.co_flags & _SUSPENDS:
            awaits = True
        elif awaits or (code.co_name == "_run" and code.co_filename.endswith("asyncio/events.py")):
            break  # the event loop, or whoever else drives this coroutine
        pairs.append((code, frame.f_lasti))
        if not is_machinery(code.co_filename):
            ours = True
            if layer(code.co_filename) == 0:
                return tuple(pairs)
        frame = frame.f_back
    origin = _origin()
    if ours or any(not is_machinery(code.co_filename) for code, _ in origin):
        return (*pairs, *origin)
    return (*pairs, *origin, *_below(frame))


def _below(frame: FrameType | None) -> Raw:
    """Return the stack that drives a task, up to the first line of the project."""
    pairs = []
    for _ in range(DEPTH):
        if frame is None:
            break
        file = frame.f_code.co_filename
        if "/pluggy/" in file or "/_pytest/" in file:
            break
        pairs.append((frame.f_code, frame.f_lasti))
        if layer(file) == 0:
            break
        frame = frame.f_back
    return tuple(pairs)


def _origin() -> Raw:
    """Return where the running task's coroutine was made."""
    asyncio = sys.modules.get("asyncio")
    try:
        task = asyncio.current_task() if asyncio is not None else None
    except RuntimeError:
        return ()
    coro = task.get_coro() if task is not None else None
    return tuple(
        # Nobody kept the code: a stand-in whose only line is the one that is known.
        (_NOWHERE.replace(co_filename=file, co_firstlineno=line, co_qualname=function), 0)
        for file, line, function in getattr(coro, "cr_origin", None) or ()
    )


_NOWHERE = (lambda: None).__code__


def note(obj: object, skip: int = 1) -> None:
    """Note that the caller's caller, or who awaits it, just made ``obj``."""
    LEDGER.add(obj, Birth(current(), awaiting(skip + 1)))


def tells(birth: Birth | None) -> bool:
    """Tell whether a birth has a line that says more than which runtime it went through."""
    return birth is not None and any(layer(code.co_filename) < 2 for code, _ in birth.made)


def after_await(patch: Patcher, cls: Any, name: str, after: Callable[[Any, Birth], object]) -> None:
    """Call ``after(result, birth)`` whenever the coroutine method ``cls.name`` has ended.

    For loops that make their objects in C, where no constructor can be wrapped. The wrapper
    is a coroutine function itself, under the same name: one coroutine per call, and whoever
    forgets to await it is told as before.
    """
    original = getattr(cls, name, None)
    if original is None:  # another version of the loop
        return
    guard, where = patch, patch.where

    @functools.wraps(original)
    async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        birth = None
        if guard.active:
            try:
                birth = Birth(current(), awaiting(awaits=True))
            except Exception as exc:
                guard.fault(exc, where)
        result = await original(self, *args, **kwargs)
        if birth is not None and guard.active:
            try:
                after(result, birth)
            except Exception as exc:
                guard.fault(exc, where)
        return result

    patch.set(cls, name, method)
