"""What an event loop is doing, read from outside of it: its thread, its timers, its backlog.

Of the loop's own methods only those are called that return a number it has at hand.
"""

from __future__ import annotations

import collections
import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..model import Site
from ..origin import layer, site_at
from ..runtimes.loops import is_uvloop
from .calls import callee
from .frames import get, local_values, outwards, readable, site, spot
from .task_tree import Forest
from .threads import asks, blocked_in, stuck

__all__ = ["LoopState", "Timer", "activity", "ready", "thread_of", "timers"]


@dataclass(frozen=True, slots=True)
class Timer:
    """A callback that is due later, or several with the same name."""

    due: float
    """Seconds from now; of the next one."""
    name: str
    site: Site | None = None
    """Where the callback is defined, unless it is the runtime's own."""
    count: int = 1


@dataclass(frozen=True, slots=True)
class LoopState:
    """One event loop."""

    kind: str
    """``asyncio``, ``uvloop``, ``trio``, or the loop's own class."""
    state: str
    """``waiting for events``, ``busy``, ``blocked in time.sleep()``, ``not running``
    or ``closed``."""
    where: tuple[Site, ...]
    """The line that it is busy with, innermost first."""
    thread: int | None
    """Ident of the thread that runs it."""
    tasks: Forest
    timers: tuple[Timer, ...] = ()
    """The next ones first."""
    ready: int | None = None
    """Callbacks that are about to run; None if that is not known."""


def kind(loop: Any) -> str:
    """Return a name for a sort of loop."""
    module = type(loop).__module__
    if module.startswith("asyncio."):
        return "asyncio"
    return "uvloop" if module.startswith("uvloop") else type(loop).__qualname__


def thread_of(loop: Any, tops: Mapping[int, FrameType], hint: int | None = None) -> int | None:
    """Return the ident of the thread that runs a loop, or None if it isn't running.

    Args:
        loop: any asyncio loop.
        tops: the threads' innermost frames.
        hint: the thread that is meant if nothing else tells.
    """
    known = get(loop, "_thread_id")
    if isinstance(known, int):
        return known
    if not is_uvloop(loop) or not get(loop, "is_running", bool)():
        return None
    # uvloop's keeps it to itself. Whoever started it has it in a variable.
    for ident, top in tops.items():
        for frame in outwards(top):
            module = frame.f_globals.get("__name__")
            if module in ("asyncio.runners", "uvloop"):
                held = dict(local_values(frame))
                if any(get(held.get("self"), n) is loop for n in ("_loop", "loop")):
                    return ident
    return hint


def activity(loop: Any, ident: int | None, top: FrameType | None) -> tuple[str, tuple[Site, ...]]:
    """Return what a loop is doing and, if it is busy, with which line.

    Args:
        loop: any asyncio loop.
        ident: the thread that runs it, or None.
        top: its innermost frame.
    """
    if get(loop, "is_closed", bool)():
        return "closed", ()
    if top is None or ident is None:
        return "not running", ()
    inside = list(_inside(loop, top))
    if not inside or _selects(inside[0]):
        return "waiting for events", ()
    if all(layer(frame.f_code.co_filename) == 2 for frame in inside):
        return "busy", ()
    words = "" if asks(ident, top) else blocked_in(top)
    where = [site(spot(frame)) for frame in inside if layer(frame.f_code.co_filename) < 2]
    return stuck(words), tuple(where[:12])


def _inside(loop: Any, top: FrameType) -> Iterator[FrameType]:
    """Yield the frames that the loop has called, innermost first."""
    uvloop = is_uvloop(loop)
    for frame in outwards(top):
        if uvloop:
            # It has no frames of its own: what it called stands above the call that started it.
            if _STARTS.intersection(frame.f_code.co_names) and _starts(frame):
                return
        elif frame.f_code.co_name == "_run_once":
            return
        yield frame


_STARTS = frozenset({"run_until_complete", "run_forever"})


def _starts(frame: FrameType) -> bool:
    return callee(frame).rpartition(".")[2] in _STARTS


def _selects(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == "selectors"


def ready(loop: Any) -> int | None:
    """Return how many callbacks are about to run."""
    queue = get(loop, "_ready")
    if queue is None and is_uvloop(loop):
        held = gc.get_referents(loop)
        queue = next((h for h in held if type(h) is collections.deque), None)
    return len(queue) if isinstance(queue, collections.deque) else None


def timers(loop: Any, limit: int = 50) -> tuple[Timer, ...]:
    """Return the timers that are due, the next ones first, those of one name as one."""
    handles = get(loop, "_scheduled")
    if handles is None and is_uvloop(loop):
        sets = [list(h) for h in gc.get_referents(loop) if type(h) is set]
        handles = [h for held in sets for h in held if type(h).__name__ == "TimerHandle"]
    try:
        now = loop.time()
    except Exception:
        return ()
    found: dict[tuple[str, Site | None], list[float]] = {}
    for handle in list(handles or ()):
        if get(handle, "cancelled", bool)():
            continue
        when = get(handle, "when", float)()
        name, site = _callback(handle)
        found.setdefault((name, site), []).append(when - now)
    told = [Timer(round(min(due), 3), name, site, len(due)) for (name, site), due in found.items()]
    return tuple(sorted(told, key=lambda t: t.due)[:limit])


#: What the runtime's own timers are for.
_PURPOSES = {
    "_set_result_unless_cancelled": "sleep",
    "_release_waiter": "a time limit of wait or wait_for",
    "Timeout._on_timeout": "asyncio.timeout",
    "CancelScope._timeout": "an anyio cancel scope's deadline",
}


def _callback(handle: Any) -> tuple[str, Site | None]:
    func, args = get(handle, "_callback"), get(handle, "_args")
    if func is None:  # uvloop's: the first thing it holds is what it will call
        held = gc.get_referents(handle)
        func = next((h for h in held if callable(h)), None)
        args = next((h for h in held if isinstance(h, tuple)), None)
    if args and get(func, "__qualname__") == "IOLoop._run_callback":  # tornado's, which hides it
        func = args[0]
    for _ in range(4):
        inner = get(func, "func")
        if inner is None:
            break
        func = inner
    named = get(func, "__qualname__") or get(func, "__name__") or type(func).__qualname__
    name = readable(named)
    if name in _PURPOSES:
        return _PURPOSES[name], None
    code = get(func, "__code__") or get(get(type(func), "__call__"), "__code__")
    file, line = get(code, "co_filename"), get(code, "co_firstlineno")
    if not isinstance(file, str) or not isinstance(line, int) or layer(file) == 2:
        return name.rpartition("<locals>.")[2], None
    return name.rpartition("<locals>.")[2], site_at(file, line, name)
