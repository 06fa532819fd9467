"""Event loops that nobody closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, ClassVar

from .. import explain
from ..ledger import LEDGER
from ..model import Evidence, Key
from ..runtimes.loops import is_uvloop
from .base import ObjectProbe, fd_key, target
from .fdtable import TABLE

__all__ = ["LoopProbe"]

_EVENTS = os.path.join(os.path.dirname(os.__file__), "asyncio", "events.py")


class LoopProbe(ObjectProbe):
    """An open event loop that isn't running."""

    kind: ClassVar[str] = "loop"
    types: ClassVar[tuple[str, ...]] = ("asyncio.base_events:BaseEventLoop", "uvloop:Loop")

    def opened(self, obj: Any) -> bool:
        """Tell whether it was not closed."""
        return not obj.is_closed() and not obj.is_running()

    def covers(self, handle: Any) -> Iterable[Key]:
        """A loop takes its selector and its own pipe along."""
        loop = target(handle)
        for part in ("_ssock", "_csock", "_selector"):
            try:
                key = fd_key(getattr(loop, part).fileno())
            except (AttributeError, OSError, ValueError):
                continue
            if key is not None:
                yield key
        if loop is not None and is_uvloop(loop):
            yield from _of_libuv()
        executor = getattr(loop, "_default_executor", None)
        if executor is not None:
            yield ("object", id(executor))

    def doubt(self, handle: Any) -> str:
        """Doubt the loop that `asyncio.get_event_loop` made because there was none.

        Whoever asked first is not its owner: as long as it is the thread's current loop,
        everybody after him is given the same.
        """
        made = self.made(handle) or ()
        if any(c.co_name == "get_event_loop" and c.co_filename == _EVENTS for c, _ in made):
            policy = getattr(sys.modules["asyncio.events"], "_event_loop_policy", None)
            current = getattr(getattr(policy, "_local", None), "_loop", None)
            if current is not None and current is target(handle):
                return "lazily made: asyncio.get_event_loop() gives it to everybody in this thread"
        return ""

    def label(self, handle: Any) -> str:
        """Return a type name that every platform and Python shares."""
        module = type(target(handle)).__module__
        return "uvloop" if module.startswith("uvloop") else "asyncio"

    def explain(self, handle: Any) -> Evidence:
        """Say whether something is left on it."""
        loop = target(handle)
        if loop is None:
            return Evidence("an event loop that is gone")
        evidence = Evidence(f"event loop ({type(loop).__name__.lstrip('_')})")
        from ..runtimes.loops import pending_tasks

        left = len(pending_tasks(loop))
        if left:
            evidence.facts.append(("tasks", f"{left} pending on it"))
        return evidence


def _of_libuv() -> Iterable[Key]:
    """Name descriptors that C code made of the sorts that libuv makes for a loop."""
    for key, fd, _ in TABLE.entries():
        if LEDGER.of_fd(fd, (key[2], key[3])) is None:
            info = explain.fds.classify(fd)
            if info is not None and info.kind in ("pipe", "epoll", "eventfd", "io_uring"):
                yield key
