"""What tasks made outside of a block hold: it is no block's, even if nobody knows whose it is."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType, GeneratorType, ModuleType
from typing import Any

from ..runtimes.loops import current_task, pending_tasks
from ..survivors import Survivor

__all__ = ["without_strangers"]

#: What is looked into when it is asked what a task holds.
_OPEN = (list, tuple, dict, set, deque, CoroutineType, AsyncGeneratorType, GeneratorType)


def without_strangers(
    survivors: list[Survivor], loop: Any, ours: Callable[[Any], bool]
) -> list[Survivor]:
    """Leave out what has no owner and is held by a task made outside of the block.

    Also coroutines that a task is about to begin.

    Args:
        survivors: what is left.
        loop: the one that runs here, or None.
        ours: tells whether a task, by weak reference, was made within the block.
    """
    if loop is None or all(s.known_owner for s in survivors):
        return survivors
    held: set[int] = set()
    for ref in pending_tasks(loop):
        task = ref()
        if task is None:
            continue
        held.add(id(task.get_coro()))
        if not ours(ref) and task is not current_task():
            held |= _reach(task.get_coro())
    task = None
    return [
        s for s in survivors if s.known_owner or (obj := s.object) is None or id(obj) not in held
    ]


def _reach(obj: Any, limit: int = 5000) -> set[int]:
    """Return ids of what a suspended coroutine holds through plain containers and instances."""
    seen: set[int] = set()
    fresh = [obj]
    while fresh and len(seen) < limit:
        above, fresh = fresh, []
        for holder in above:
            for held in gc.get_referents(holder):
                if id(held) in seen:
                    continue
                seen.add(id(held))
                if isinstance(held, dict) and "__builtins__" in held:
                    continue  # a module's namespace
                if isinstance(held, _OPEN):
                    fresh.append(held)
                elif not callable(held) and not isinstance(held, ModuleType):
                    inside = getattr(held, "__dict__", None)
                    if isinstance(inside, dict):
                        fresh.append(inside)
        above = []
    return seen
