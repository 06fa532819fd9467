"""Who swallowed a cancellation: the line of the `except`, `finally` or `with` that caught it.

Before the cancel we note how the task is suspended; afterwards, which of its coroutines are
still there and where. A coroutine that let the exception through is gone, so the one that
caught it is among those that are gone or is the innermost that is left; the exception tables
of their code name the line.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import BuiltinMethodType, CodeType, FrameType, MethodType
from typing import Any

from ..model import Site
from ..origin import layer, site_at
from .await_chain import Walk, coroutine_of, descend
from .bytecode import Catches, Flow, Handler
from .frames import local_values
from .waits import done, get, is_task

__all__ = ["Mark", "mark", "swallower"]

#: Tasks noted below one another, and in all.
_DEEP, _MANY = 6, 1000


@dataclass(frozen=True, slots=True)
class _Level:
    """One suspended coroutine, as far as it can be known again later."""

    ref: Callable[[], Any]
    code: CodeType
    lasti: int
    module: str
    exits: tuple[Catches, ...]
    """What the context managers that it is in do with a cancellation, outermost first."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How a task was suspended. Keeps neither tasks nor frames alive."""

    levels: tuple[_Level, ...]
    """Its await chain, outermost first."""
    passed_on: tuple[tuple[weakref.ref[Any], Mark], ...]
    """The tasks that a cancel of this one goes to instead, as they were suspended."""


def mark(task: object) -> Mark:
    """Note how a task is suspended, to be asked after a cancel. Never raises."""
    try:
        return _mark(task, set(), 0)
    except Exception:
        return Mark((), ())


def _mark(task: object, seen: set[int], depth: int) -> Mark:
    seen.add(id(task))
    walk = descend(coroutine_of(task))
    levels = tuple(
        _level(obj, frame) for obj, (_, frame) in zip(walk.levels, walk.frames, strict=True)
    )
    others = _passed_on(task, walk) if depth < _DEEP else []
    passed_on = tuple(
        (weakref.ref(other), _mark(other, seen, depth + 1))
        for other in others
        if id(other) not in seen and len(seen) < _MANY
    )
    return Mark(levels, passed_on)


def _level(obj: object, frame: FrameType) -> _Level:
    try:
        ref: Callable[[], Any] = weakref.ref(obj)
    except TypeError:
        ref = _nothing
    module = frame.f_globals.get("__name__")
    name = module if isinstance(module, str) else ""
    return _Level(ref, frame.f_code, frame.f_lasti, name, tuple(_exits(obj)))


def _nothing() -> None:
    return None


def _exits(obj: object) -> Iterator[Catches]:
    """Yield what each open `with` of a coroutine does: its exit method lies on the stack."""
    for held in gc.get_referents(obj):
        if not isinstance(held, (MethodType, BuiltinMethodType)):
            continue
        if held.__name__ not in ("__exit__", "__aexit__"):
            continue
        me = held.__self__
        if type(me) is contextlib.suppress:
            caught = get(me, "_exceptions", ())
            classes = caught if isinstance(caught, tuple) else (caught,)
            hit = any(c in asyncio.CancelledError.__mro__ for c in classes)
            yield Catches.ENDS if hit else Catches.PASSES
        elif _known(type(me)):
            yield Catches.PASSES
        else:
            yield Catches.MAYBE


def _known(cls: type) -> bool:
    """Tell whether this is a context manager that swallows no cancellation but its own."""
    base = cls.__module__.partition(".")[0]
    if cls.__module__ == "contextlib":  # stacks and generators may do anything
        return cls.__name__ in ("closing", "aclosing", "nullcontext")
    return base in ("anyio", "aiohttp", "httpx") or base in sys.stdlib_module_names


def _passed_on(task: object, walk: Walk) -> list[object]:
    waiter = get(task, "_fut_waiter")
    if is_task(waiter):
        return [waiter]
    children = get(waiter, "_children")
    if isinstance(children, (list, tuple)):  # gather
        return [c for c in children if is_task(c) and not done(c)]
    for _, frame in reversed(walk.frames):
        if layer(frame.f_code.co_filename) < 2:
            break
        name = frame.f_code.co_name
        if name == "wait_for":  # 3.11 runs a coroutine in a task of its own
            inner = dict(local_values(frame)).get("fut")
            if is_task(inner):
                return [inner]
        elif name in ("__aexit__", "_aexit"):
            tasks = get(dict(local_values(frame)).get("self"), "_tasks")
            if isinstance(tasks, (set, list)):  # a task group
                return [t for t in list(tasks) if is_task(t) and not done(t)]
    return []


def swallower(before: Mark, task: object) -> Site | None:
    """Return the line that swallowed a cancel, or None if that is not known. Never raises.

    Args:
        before: the task's `mark` from before it was cancelled.
        task: the task, pending or done, after the cancel had its turn in the loop. A
            `finally`, or an `except` that will raise again, that has not come to its end
            counts as well: that is where the cancellation is held up.
    """
    try:
        return _swallower(before, task)
    except Exception:
        return None


def _swallower(before: Mark, task: object) -> Site | None:
    ended = task is None or done(task)
    if task is not None and ended and task.cancelled():  # type: ignore[attr-defined]
        return None
    walk = Walk([], []) if ended else descend(coroutine_of(task))
    stayed = 0
    while (
        stayed < min(len(before.levels), len(walk.levels))
        and before.levels[stayed].ref() is walk.levels[stayed]
    ):
        stayed += 1
    now = walk.frames[stayed - 1][1].f_lasti if stayed else -1
    last = before.levels[stayed - 1] if stayed else None
    still = (
        last is not None
        and last.lasti == now
        and stayed == len(before.levels)
        and walk.state == "suspended"
    )
    own = _Search(before, stayed, now)
    held = own.held_up()
    runtime = last is not None and layer(last.code.co_filename) == 2
    if before.passed_on and (still or runtime):
        # As long as the tasks that got the cancel go on, nothing came back to this one.
        return _others(before) or held or own.caught(sure=True)
    if before.passed_on:
        return held or own.caught(sure=True) or _others(before) or own.caught()
    return held or own.caught(sure=still)


def _others(before: Mark) -> Site | None:
    sites = (_swallower(noted, ref()) for ref, noted in before.passed_on)
    return next((s for s in sites if s is not None), None)


class _Search:
    """The handlers that may have got the exception, on its way from the inside outwards."""

    def __init__(self, before: Mark, stayed: int, now: int) -> None:
        self.last = before.levels[stayed - 1] if stayed else None
        """The innermost level that is still there: nothing outside of it can have caught it."""
        self.now = now
        self.levels = before.levels[max(0, stayed - 1) :][::-1]

    def held_up(self) -> Site | None:
        """Return the handler whose body is not through yet."""
        if self.last is None or self.now < 0:
            return None
        flow = Flow(self.last.code)
        for handler, _ in _graded(flow, self.last):
            inside = flow.reach(handler.start, inside=True)
            if self.now in inside and self.now != self.last.lasti:
                return _site(self.last.code, handler)
        return None

    def caught(self, *, sure: bool = False) -> Site | None:
        """Return the likeliest handler that the exception ended in.

        The first one that surely catches it and lies in somebody's own code; failing that
        what may; the runtime's own handlers know what they do and come last.
        """
        best: tuple[tuple[bool, bool], Site] | None = None
        for level in self.levels:
            flow = Flow(level.code)
            machinery = layer(level.code.co_filename) == 2
            for handler, catches in _graded(flow, level):
                if catches is Catches.PASSES or (sure and catches is Catches.MAYBE):
                    continue
                if level is self.last and self.now not in flow.reach(handler.start, inside=False):
                    continue
                rank = machinery, catches is Catches.MAYBE
                if best is None or rank < best[0]:
                    best = rank, _site(level.code, handler)
        return best[1] if best is not None else None


def _graded(flow: Flow, level: _Level) -> Iterator[tuple[Handler, Catches]]:
    """Yield the handlers that a `CancelledError` at this level comes to, innermost first."""
    handlers = list(flow.handlers(level.lasti))
    depth = sum(h.kind == "with" for h in handlers)
    met = -1
    for handler in handlers:
        if handler.block == met:  # a clause above it in the same `try` has caught it
            continue
        if handler.kind == "with":
            depth -= 1
            # While one is being entered, its exit method is there and its block is not.
            known = depth < len(level.exits)
            yield handler, level.exits[depth] if known else Catches.MAYBE
        elif not handler.names:
            yield handler, handler.catches
        else:
            found = [_matches(name, level.module) for name in handler.names]
            if any(f is True for f in found):
                met = handler.block
                yield handler, handler.catches
            elif any(f is None for f in found):
                yield handler, min(handler.catches, Catches.MAYBE)


def _matches(name: str, module: str) -> bool | None:
    """Tell whether ``except name`` catches a `CancelledError`; None if that can't be known."""
    first, *rest = name.split(".")
    names = get(sys.modules.get(module), "__dict__") or {}
    value: Any = names.get(first, getattr(builtins, first, None))
    for part in rest:
        # Modules and classes alone: what a look-up runs in other objects is not ours to run.
        value = vars(value).get(part) if isinstance(value, (type, type(sys))) else None
    ours = asyncio.CancelledError.__mro__
    if isinstance(value, tuple):
        return any(v in ours for v in value)
    if isinstance(value, type):
        return value in ours
    if name.rpartition(".")[2] in ("CancelledError", "get_cancelled_exc_class"):
        return True
    return None


def _site(code: CodeType, handler: Handler) -> Site:
    return site_at(code.co_filename, handler.line, code.co_qualname)
