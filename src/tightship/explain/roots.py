"""Who keeps a survivor alive: a wider owner's value, a global, or nobody that matters.

This decides certainty, so it is structured; `holders` puts the same chain into words.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from ..model import Owner
from . import frames

__all__ = ["Root", "root_of"]


class Root(NamedTuple):
    """The end of a chain of holders."""

    kind: Literal["owner", "global", "none"]
    text: str = ""
    owner: Owner | None = None


_NONE = Root("none")

#: Globals of these modules are registries: they hold everything of their kind, whoever made it.
_REGISTRIES = (
    "threading",
    "_thread",
    "asyncio",
    "_asyncio",
    "concurrent.futures",
    "multiprocessing",
    "subprocess",
    "weakref",
    "gc",
    "sys",
    "_pytest",
    "pytest",
    "pluggy",
    "pytest_asyncio",
    "anyio.pytest_plugin",
    "tightship",
    "selectors",
    "unittest",
    "warnings",
    "uvloop",
    # Its runner holds the very tasks that run.
    "trio",
)


def root_of(
    objects: list[Any],
    values: Mapping[int, Owner],
    *,
    apart: Iterable[Any] = (),
    budget: float = 0.5,
    levels: int = 20,
    clock: Callable[[], float] = time.thread_time,
) -> Root:
    """Find what holds any of ``objects`` from outside the test that made them.

    Args:
        objects: a survivor and what belongs to it.
        values: ``id`` of each value that a living wider fixture returned -> its owner.
        apart: holders not to climb through: what a task waits for holds it, but doesn't own it.
        budget: seconds of CPU to spend (so a busy machine changes no verdict); each level
            costs one pass over the heap.
        levels: how far to climb.

    Needs an unfrozen heap: frozen holders are invisible.
    """
    for obj in objects:
        if id(obj) in values:
            return Root("owner", "", values[id(obj)])
    deadline = clock() + budget
    seen = {id(o) for o in (*objects, *apart)}
    level = list(objects)
    skip = {id(level), id(objects), id(seen)}
    found = _NONE
    try:
        for _ in range(levels):
            if not level or clock() > deadline:
                break
            referrers = frames.referrers(level)
            skip |= {id(referrers), id(level)}
            above: list[Any] = []
            skip.add(id(above))
            for holder in referrers:
                key = id(holder)
                if key in seen or key in skip:
                    continue
                seen.add(key)
                if _is_policy(holder):
                    continue
                if key in values:
                    return Root("owner", "", values[key])
                verdict = _classify(holder)
                if verdict is True:
                    above.append(holder)
                elif verdict is not None and found is _NONE:
                    # A global: remember it, but a wider owner higher up would say more.
                    found = Root("global", verdict)
            referrers.clear()
            if len(above) > 5000:
                break
            level = above
    finally:
        level = []
    return found


def _is_policy(holder: Any) -> bool:
    """Tell whether this is asyncio's event loop policy: it holds whatever loop was set last.

    pytest-asyncio has it as the value of a session fixture.
    """
    kind = type(holder)
    return hasattr(kind, "set_event_loop") and hasattr(kind, "new_event_loop")


def _classify(holder: Any) -> str | Literal[True] | None:
    """Return True to climb on, a name if this is a global, None to ignore it."""
    kind = type(holder)
    if kind is dict:
        name = holder.get("__name__")
        if isinstance(name, str) and "__spec__" in holder:
            module = sys.modules.get(name)
            if module is not None and getattr(module, "__dict__", None) is holder:
                return None if name.startswith(_REGISTRIES) else f"module {name}"
        return True
    if kind is types.FrameType or kind is types.ModuleType or kind is types.TracebackType:
        return None
    if isinstance(holder, type):
        if (holder.__module__ or "").startswith(_REGISTRIES):
            return None
        return f"class {holder.__module__}.{holder.__qualname__}"
    if (kind.__module__ or "").startswith(("_pytest.", "pluggy", "tightship", "pytest_asyncio")):
        return None
    if hasattr(kind, "call_exception_handler"):  # an event loop
        return None
    if hasattr(kind, "_bootstrap_inner"):  # a thread holds what it was given
        return None
    return True
