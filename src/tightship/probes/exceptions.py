"""Errors that nobody saw: in tasks never awaited, in callbacks of the loop."""

from __future__ import annotations

import itertools
import re
import traceback
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from ..ledger import LEDGER
from ..model import Evidence, Key, Owner, Scene, Site
from ..origin import layer, site_at
from ..ownership import current, of_context
from .base import BaseProbe
from .complaints import listen
from .tasks import _context

__all__ = ["ExceptionProbe"]


class _Error(NamedTuple):
    """One call of the loop's exception handler, as strings."""

    subject: str
    label: str
    text: str
    owner: Owner | None
    made: Site | None
    facts: tuple[tuple[str, str], ...] = ()
    fix: str = ""
    task: bool = False
    reported: bool = False
    """Not asyncio itself, but a library told the loop of it."""


class ExceptionProbe(BaseProbe):
    """A task's exception that was never retrieved, or an exception in a callback."""

    kind: ClassVar[str] = "exception"

    def __init__(self) -> None:
        self.tick = LEDGER.happened  # type: ignore[method-assign]
        self._errors: dict[Key, _Error] = {}
        self._numbers = itertools.count()

    def install(self, patch: Any) -> None:
        """Hear what every loop tells its exception handler."""
        listen(patch, self._note)

    def _note(self, loop: Any, context: dict[str, Any]) -> None:
        exception = context.get("exception")
        if exception is None:  # a task or an object that died: kinds of their own
            return
        if not isinstance(exception, Exception):
            # KeyboardInterrupt, SystemExit and groups of them end the loop's run: they are
            # seen by whoever ran it.
            return
        future = context.get("task") or context.get("future")
        handle = context.get("handle")
        owner = None
        if handle is not None:
            owner = of_context(getattr(handle, "_context", None))
        if future is not None:
            owner = of_context(_context(future)) or owner
        owner = owner or current()
        if owner is None:
            return
        task = hasattr(future, "get_coro")
        name = _name(future, handle)
        what = f"{type(exception).__name__} in {'task' if task else 'callback'} {_short(name)!r}"
        text = "".join(traceback.format_exception_only(exception)).strip().splitlines()[-1]
        LEDGER.events += 1
        self._errors["error", next(self._numbers)] = _Error(
            subject=what,
            label=name,
            text=text[:300],
            owner=owner,
            made=_raised(exception),
            facts=(("error", text[:300]),),
            fix=(
                "await the task (or its TaskGroup) so that its exception is seen"
                if task
                else "handle the exception inside the callback"
            ),
            task=task,
            reported=handle is None and future is None,
        )

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return all that haven't been judged."""
        return dict(self._errors)

    def forget(self, key: Key) -> None:
        """Drop one that has been judged."""
        self._errors.pop(key, None)

    def owner(self, handle: _Error) -> Owner | None:
        """Return whose task or callback it was."""
        return handle.owner

    def made(self, handle: _Error) -> None:
        """The evidence knows better."""
        return

    def doubt(self, handle: _Error) -> str:
        """Doubt errors that somebody reported on purpose, or waits to read in the log."""
        if handle.reported:
            return "a library reported it to the loop's exception handler by itself"
        owner = handle.owner
        if owner is not None and (owner.reads_log or (owner.parent and owner.parent.reads_log)):
            return "the test captures the log, where this error can be read"
        return ""

    def label(self, handle: _Error) -> str:
        """Return the task's or callback's name."""
        return handle.label

    def explain(self, handle: _Error) -> Evidence:
        """Say what was raised where."""
        return Evidence(handle.subject, list(handle.facts), handle.fix, handle.made)


def _name(future: Any, handle: Any) -> str:
    from .timers import callback_name

    if hasattr(future, "get_coro"):
        # Not get_coro(): 3.12.1 crashes if asked for the coroutine of an eager task that ended at
        # once. There is none any more; the traceback begins in what it ran.
        coro = getattr(future, "_coro", None)
        if coro is None:
            tb = getattr(getattr(future, "_exception", None), "__traceback__", None)
            return "task" if tb is None else str(tb.tb_frame.f_code.co_qualname)
        return str(getattr(coro, "__qualname__", None) or type(coro).__name__)
    if handle is not None:
        callback = getattr(handle, "_callback", None)
        # uvloop's handles show their callback in their text only.
        seen = re.match(r"<(?:Timer)?Handle (\S+)", repr(handle)) if callback is None else None
        return seen[1].rstrip(">") if seen is not None else callback_name(callback)
    return type(future).__name__ if future is not None else "callback"


def _short(name: str) -> str:
    return name.rpartition(".<locals>.")[2]


def _raised(exception: BaseException) -> Site | None:
    """Return the innermost line of the project in the traceback."""
    best = None
    tb = exception.__traceback__
    while tb is not None:
        code = tb.tb_frame.f_code
        if layer(code.co_filename) == 0 or best is None:
            best = (code.co_filename, tb.tb_lineno, code.co_qualname)
        tb = tb.tb_next
    return None if best is None else site_at(*best)
