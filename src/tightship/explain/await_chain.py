"""Where a task is stuck: the chain of awaits from its coroutine down to what it waits for.

Works on any asyncio task (C, Python, eager, uvloop's) without debug mode and without
patches. Frames and objects are turned into strings at once and not kept.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Literal

from ..model import Site
from ..origin import layer
from .frames import Spot, enclosed, local_values, place, site, spot, tops, trim
from .stacks import format_stack
from .waits import (
    callbacks,
    describe_frame,
    describe_future,
    done,
    get,
    is_future,
    is_queue,
    is_task,
    names_of,
)

__all__ = [
    "Link",
    "Walk",
    "awaited_by",
    "chain",
    "coroutine_of",
    "descend",
    "format_waiting",
    "look",
    "waiters",
    "waiting",
]

Kind = Literal["coroutine", "async generator", "generator", "running"]

#: Await levels followed before we call it endless.
_DEEP = 200

#: C awaitables that hide the next level; only the garbage collector can look inside.
_OPAQUE = frozenset(
    {
        "async_generator_asend",
        "async_generator_athrow",
        "async_generator_aclose",
        "coroutine_wrapper",
        "anext_awaitable",
    }
)


@dataclass(frozen=True, slots=True)
class Link:
    """One level of an await chain."""

    kind: Kind
    site: Site
    """Where this level awaits the next."""
    function: str
    """Qualified name."""


@dataclass(slots=True)
class Walk:
    """What was met on the way down; local to one call, since it holds frames."""

    frames: list[tuple[Kind, FrameType]]
    levels: list[object]
    """What each frame belongs to: coroutines, generators, async generators."""
    last: object = None
    """The future or foreign awaitable at the end, if the chain ends in one."""
    state: Literal["suspended", "running", "created", "finished"] = "suspended"


def descend(awaitable: object) -> Walk:
    """Follow an await chain down to what it waits for. Drop the answer soon: it holds frames."""
    walk = Walk([], [])
    seen: set[int] = set()
    at: Any = awaitable
    while at is not None and id(at) not in seen and len(seen) < _DEEP:
        seen.add(id(at))
        if is_future(at):
            walk.last = at
            break
        kind, prefix = _nature(at)
        if prefix:
            assert kind is not None
            frame = get(at, f"{prefix}_frame")
            if frame is None:
                if not walk.frames:
                    walk.state = "finished"
                break
            walk.frames.append((kind, frame))
            walk.levels.append(at)
            if prefix != "ag" and get(at, f"{prefix}_running"):
                walk.state = "running"
                break
            if len(walk.frames) == 1 and _fresh(at, prefix, frame):
                walk.state = "created"
                break
            at = get(at, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")
        else:
            inner = _inside(at)
            if inner is None:
                walk.last = at
            at = inner
    if walk.last is None and walk.frames:
        # The pure Python future's __await__ is a generator that yields the future itself.
        frame = walk.frames[-1][1]
        if frame.f_code.co_name == "__await__":
            me = dict(local_values(frame)).get("self")
            if is_future(me):
                walk.last = me
    return walk


def _nature(obj: object) -> tuple[Kind | None, str]:
    """Return the kind of a level and the prefix of its attributes; ("", None) for others."""
    if isinstance(obj, GeneratorType):
        return "generator", "gi"
    if isinstance(obj, CoroutineType) or get(type(obj), "cr_await") is not None:
        return "coroutine", "cr"  # Cython's coroutines only look like ours
    if isinstance(obj, AsyncGeneratorType):
        return "async generator", "ag"
    return None, ""


def _fresh(obj: object, prefix: str, frame: FrameType) -> bool:
    if prefix == "ag":
        return False
    suspended = get(obj, f"{prefix}_suspended")
    if suspended is None:  # Cython: no such attribute
        return False
    return not suspended and not get(obj, f"{prefix}_running")


def _inside(awaitable: object) -> object:
    """Return the level that a C awaitable hides, if there is exactly one candidate."""
    name = type(awaitable).__name__
    try:
        held = gc.get_referents(awaitable)
    except Exception:
        return None
    if name == "FutureIter":
        return next((h for h in held if is_future(h)), None)
    levels = [h for h in held if _nature(h)[1]]
    if name in _OPAQUE:
        # anext(it, default) holds the asend awaitable itself.
        return next(iter(levels), None) or next(
            (h for h in held if type(h).__name__ in _OPAQUE), None
        )
    if len(levels) == 1:
        return levels[0]
    futures = [h for h in held if is_future(h)]
    return futures[0] if not levels and len(futures) == 1 else None


def _running_spots(frame: FrameType) -> list[Spot]:
    """Return the stack from where a thread is now out to ``frame``; innermost first."""
    for top in tops().values():
        spots: list[Spot] = []
        at: FrameType | None = top
        while at is not None:
            spots.append(spot(at))
            if at is frame:
                return spots
            at = at.f_back
    return [spot(frame)]


def coroutine_of(awaitable: object) -> object:
    """Return a task's coroutine; anything else as it is."""
    if not is_task(awaitable):
        return awaitable
    try:
        return awaitable.get_coro()  # type: ignore[attr-defined]
    except Exception:
        return None


def chain(awaitable: object) -> list[Link]:
    """Return the levels of an await chain, outermost first. Never raises.

    Takes a task, a coroutine, a generator, an async generator or one of their awaitables.
    The innermost level of a running task is where its thread stands now.
    """
    try:
        walk = descend(coroutine_of(awaitable))
        links = [Link(kind, site(s), _qualname(s)) for kind, s in _spots(walk)]
        if walk.state == "running" and walk.frames:
            inner = _running_spots(walk.frames[-1][1])
            links[-1:] = [Link("running", site(s), _qualname(s)) for s in reversed(inner)]
        return links
    except Exception:
        return []


def _spots(walk: Walk) -> list[tuple[Kind, Spot]]:
    return [(kind, spot(frame)) for kind, frame in walk.frames]


def _qualname(place: Spot) -> str:
    return place[0].co_qualname


def waiting(task: object) -> tuple[list[Site], str]:
    """Return where a task is stuck (innermost first, the project's own lines) and on what.

    A task that is done, running or not started yet says so in the second value. Never
    raises and keeps nothing alive.
    """
    spots, what, _ = look(task)
    return [site(s) for s in spots], what


def look(task: object) -> tuple[list[Spot], str, list[object]]:
    """Return the same with raw spots, and the tasks that were looked through on the way.

    These are no news of their own: 3.11's `wait_for` makes one of each coroutine.
    """
    through: list[object] = []
    try:
        return *_waiting(task, 0, through), through
    except Exception:
        return [], type(task).__name__, through


def _waiting(task: object, depth: int, through: list[object]) -> tuple[list[Spot], str]:
    if is_task(task) and done(task):
        return [], _outcome(task)
    if is_future(task) and not is_task(task):
        return [], describe_future(task)
    coro = coroutine_of(task)
    walk = descend(coro)
    spots = [s for _, s in reversed(_spots(walk))]
    if walk.state == "created":
        code = walk.frames[0][1].f_code
        return [(code, code.co_firstlineno)], "not started yet"
    if walk.state == "running":
        stack = _running_spots(walk.frames[-1][1]) + spots[1:]
        return trim(stack), "running now"
    if walk.state == "finished":
        return [], "finished"
    waiter = get(task, "_fut_waiter")
    inner, what = _what(walk, waiter, is_task(task))
    if inner is not None and depth < 5:
        through.append(inner)
        more, what = _waiting(inner, depth + 1, through)
        return trim([*more, *spots]), what
    return trim(spots), what + _asked(task)


def _what(walk: Walk, waiter: object, in_task: bool) -> tuple[object, str]:
    """Return (a task to look into instead, or None; what is waited for)."""
    # Only the primitive's own frames: those inside of the innermost line of the project
    # or of a library.
    first = len(walk.frames)
    while first and _plumbing(walk.frames[first - 1][1]):
        first -= 1
    for _, frame in walk.frames[first:]:
        inner = _wait_for_task(frame)
        if inner is not None:
            return inner, ""
        words = describe_frame(frame)
        if words is not None:
            return None, words
    target = waiter if waiter is not None else walk.last
    if target is None:
        own = walk.frames[first:]
        if own and place(own[-1][1].f_code)[0] == "_core/_traps.py":  # trio's; there is no future
            return None, f"{own[0][1].f_code.co_qualname}()"
        return None, "its next turn in the loop"
    if in_task and waiter is None and done(target):
        return None, "its next turn in the loop"
    return None, describe_future(target)


def _plumbing(frame: FrameType) -> bool:
    return layer(frame.f_code.co_filename) == 2


def _wait_for_task(frame: FrameType) -> object:
    """Return the task that 3.11's wait_for made of a coroutine; later versions make none."""
    code = frame.f_code
    if code.co_name != "wait_for" or not code.co_filename.endswith("tasks.py"):
        return None
    inner = dict(local_values(frame)).get("fut")
    # A task that the project made and named is what it waits for; see describe_future.
    if not is_task(inner) or done(inner):
        return None
    name = names_of([inner])[0]
    return inner if name.startswith("Task-") else None


def _asked(task: object) -> str:
    if not is_task(task):
        return ""
    try:
        number = task.cancelling()  # type: ignore[attr-defined]
    except Exception:
        return ""
    if not isinstance(number, int) or number < 1:
        return ""
    return ", although cancelled" + (f" {number} times" if number > 1 else "")


def _outcome(task: object) -> str:
    try:
        if task.cancelled():  # type: ignore[attr-defined]
            return "cancelled"
    except Exception:
        return "done"
    # Not exception(): that would mark the error as seen and silence asyncio's own warning.
    error = get(task, "_exception")
    return "done" if error is None else f"failed with {type(error).__qualname__}"


def format_waiting(task: object) -> str:
    """Return where a task is stuck as one line, at most six places long. Never raises.

    ``shop/poller.py:58   item = await queue.get()   <- shop/poller.py:41 <- ...``
    """
    sites, what = waiting(task)
    if not sites:
        return what
    line = format_stack(sites, 6)
    return f"{line}   ({what})" if what in ("not started yet", "running now") else line


def awaited_by(future: object) -> list[str]:
    """Return the names of the tasks that wait for a future or task, sorted. Never raises."""
    return names_of(waiters(future))


def waiters(future: object) -> list[object]:
    """Return the tasks that wait for a future or task, or own it as a task group's. Never raises.

    Drop the answer soon: it holds them.
    """
    try:
        return _waiters(future, set())
    except Exception:
        return []


def _waiters(future: object, seen: set[int]) -> list[object]:
    if id(future) in seen:  # shield: the inner and the outer future close over each other
        return []
    seen.add(id(future))
    found: list[object] = []
    if sys.version_info >= (3, 14):  # untried on 3.14
        found.extend(get(future, "_asyncio_awaited_by") or ())
    for callback in callbacks(future):
        owner = get(callback, "__self__")
        if is_task(owner):  # Task.__wakeup
            found.append(owner)
        elif is_task(parent := get(owner, "_parent_task")):  # TaskGroup._on_task_done
            found.append(parent)
        elif is_queue(done := get(owner, "_done")):  # as_completed, 3.13 and later
            found.extend(_getting(done, seen))
        else:  # gather, wait, wait_for, shield: closures and partials over a future
            anyio = get(callback, "__module__") == "anyio._backends._asyncio"
            for held in enclosed(callback):
                if is_future(held):
                    if held is not future:
                        found.extend(_waiters(held, seen))
                elif is_queue(held):  # as_completed
                    found.extend(_getting(held, seen))
                elif anyio and is_task(host := get(get(held, "cancel_scope"), "_host_task")):
                    found.append(host)
    return found


def _getting(queue: object, seen: set[int]) -> list[object]:
    getters = list(get(queue, "_getters") or ())
    return [task for getter in getters for task in _waiters(getter, seen)]
