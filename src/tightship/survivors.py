"""Something that is still there although its owner has ended, and what can be asked of it.

A probe names what it lists by a key and hands out a handle that keeps nothing alive: a weak
reference, something with one inside, or a number. The questions here are those that need no
probe to be answered.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

from .model import Certainty, Key, Owner

__all__ = [
    "EVENTS",
    "MOVING",
    "Survivor",
    "leaving",
    "light",
    "object_of",
    "remembered",
    "same",
    "task_runs",
    "waits_for",
    "weak",
]

#: Kinds that end by themselves a moment after they were told to.
MOVING = frozenset({"thread", "native-thread", "process", "executor"})

#: Kinds of which it says nothing who holds them: they happened, or hold themselves.
EVENTS = frozenset({"exception", "coroutine", "task", "native-thread", "tempfile", "unclosed"})


class Survivor:
    """Something that is still there although its owner has ended, or is ending."""

    __slots__ = (
        "certainty",
        "handle",
        "key",
        "known_owner",
        "owner",
        "probe",
        "reason",
        "subject",
    )

    def __init__(
        self, probe: Any, key: Key, handle: Any, owner: Owner, known_owner: bool = True
    ) -> None:
        self.probe = probe
        self.key = key
        self.handle = handle
        self.owner = owner
        self.known_owner = known_owner
        self.certainty = Certainty.STRONG
        self.reason = ""
        self.subject = ""

    @property
    def object(self) -> Any:
        """The Python object behind it, if there is one."""
        return object_of(self.handle)


# -- handles -------------------------------------------------------------------------------


def object_of(handle: Any) -> Any:
    """Return the Python object behind a handle, if there is one."""
    if isinstance(handle, weakref.ref):
        return handle()
    holder = getattr(handle, "holder", None)
    if isinstance(holder, weakref.ref):
        return holder()
    if isinstance(handle, tuple) and handle and isinstance(handle[0], weakref.ref):
        return handle[0]()
    if isinstance(handle, (tuple, str, int)) or not gc.is_tracked(handle):
        return None
    # A type without weak references: the handle is the object itself.
    return None if type(handle).__module__.startswith("tightship") else handle


def same(then: Any, now: Any) -> bool:
    """Tell whether two handles under one key are the same thing: an address is used again."""
    obj = object_of(now)
    return obj is None or object_of(then) is obj


def light(handle: Any) -> bool:
    """Tell whether a handle can be kept without keeping anything else alive."""
    if isinstance(handle, tuple):
        return all(map(light, handle))
    return isinstance(handle, weakref.ref) or not gc.is_tracked(handle)


def remembered(handle: Any) -> Any:
    """Return what is enough to know a handle again, and keeps nothing alive."""
    if light(handle):
        return handle
    obj = object_of(handle)
    return None if obj is None else weak(obj)


def weak(obj: Any) -> weakref.ref[Any] | None:
    """Return a weak reference, or None for types that allow none."""
    try:
        return weakref.ref(obj)
    except TypeError:
        return None


# -- tasks ---------------------------------------------------------------------------------


def waits_for(task: Any, me: Any) -> bool:
    """Tell whether a task is this one, or awaits it, at whatever remove."""
    for _ in range(100):
        if task is me:
            return True
        task = getattr(task, "_fut_waiter", None)
        if task is None:
            return False
    return False


def task_runs(s: Survivor) -> bool:
    """Tell whether it is a task whose loop is running, in another thread."""
    task = s.object if s.probe.kind == "task" else None
    loop = getattr(task, "get_loop", lambda: None)()
    return loop is not None and loop.is_running()


def leaving(s: Survivor) -> bool:
    """Tell whether something was told to end, and only needs its loop to turn."""
    obj = s.object
    if s.probe.kind == "task":
        return obj is not None and getattr(obj, "cancelling", int)() > 0
    if s.probe.kind == "transport":
        return obj is not None and bool(obj.is_closing())
    return False
