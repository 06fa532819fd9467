"""Tasks that the garbage collector destroyed while they were pending."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from .. import explain
from ..ledger import LEDGER
from ..model import Evidence, Key, Owner, Scene, Site
from ..ownership import current, of_context
from .base import BaseProbe
from .complaints import listen
from .tasks import TOLD, _context, _made, _name

__all__ = ["LostTaskProbe"]


class _Lost(NamedTuple):
    """A task that is no more, as strings."""

    name: str
    waiting: str
    made: Site | None
    owner: Owner | None


class LostTaskProbe(BaseProbe):
    """The proof of a leak after the fact: nobody could wake the task, so it was collected."""

    kind: ClassVar[str] = "task"

    def __init__(self) -> None:
        self.tick = LEDGER.happened  # type: ignore[method-assign]
        self._lost: dict[Key, _Lost] = {}
        self._numbers = itertools.count()

    def install(self, patch: Any) -> None:
        """Hear of tasks that die pending."""
        listen(patch, self._hear)

    def _hear(self, loop: Any, context: dict[str, Any]) -> None:
        task = context.get("task")
        if task is None or context.get("exception") is not None:
            return
        if "destroyed" in str(context.get("message", "")):
            self.note(task)

    def note(self, task: Any) -> None:
        """Remember a task that is being destroyed, unless it was told of already."""
        if TOLD.pop(id(task), None) == _name(task):
            return
        owner = of_context(_context(task)) or current()
        if owner is None:
            return
        # The collector may have closed the coroutine before the task: then it says nothing.
        frame = getattr(task.get_coro(), "cr_frame", None)
        waiting = explain.await_chain.format_waiting(task) if frame is not None else ""
        lost = _Lost(_name(task), waiting, _made(task), owner)
        LEDGER.events += 1
        self._lost["lost", next(self._numbers)] = lost

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return all that haven't been judged."""
        return dict(self._lost)

    def forget(self, key: Key) -> None:
        """Drop one that has been judged."""
        self._lost.pop(key, None)

    def proves(self, handle: _Lost) -> bool:
        """It was destroyed while it was pending: no stronger proof is possible."""
        return True

    def owner(self, handle: _Lost) -> Owner | None:
        """Return whose task it was."""
        return handle.owner

    def made(self, handle: _Lost) -> None:
        """The evidence knows better."""
        return

    def label(self, handle: _Lost) -> str:
        """Return the coroutine's qualified name."""
        return handle.name

    def explain(self, handle: _Lost) -> Evidence:
        """Say what it waited for."""
        name = handle.name.rpartition(".<locals>.")[2]
        evidence = Evidence(f"task {name!r}", made=handle.made)
        if handle.waiting:
            evidence.facts.append(("waiting", handle.waiting))
        evidence.facts.append(("state", "destroyed by the garbage collector while it was pending"))
        return evidence
