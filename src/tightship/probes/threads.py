"""Python threads that still run, daemon or not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .. import explain
from ..model import Evidence, Key, Scene
from .base import BaseProbe, digits, target, weak

__all__ = ["OWN", "ThreadProbe"]

#: Threads of Tightship's own: never shown.
OWN: set[threading.Thread] = set()


class ThreadProbe(BaseProbe):
    """A `threading.Thread` that is alive."""

    kind: ClassVar[str] = "thread"
    # The number alone could hide an exchange, and idents are reused at once: the window
    # lists the thread objects that were made.
    types: ClassVar[tuple[str, ...]] = ("threading:Thread",)

    def __init__(self) -> None:
        # The number of threads, without a frame of ours.
        self.tick = threading._active.__len__  # type: ignore[method-assign, attr-defined]

    def opened(self, obj: Any) -> bool:
        """Tell whether a thread made in the window still runs."""
        return bool(obj.is_alive()) and obj not in OWN

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return live threads. Dummies stand for C threads, which have their own kind."""
        return {
            weak(t): weak(t)
            for t in threading._active.copy().values()  # type: ignore[attr-defined]
            if not isinstance(t, threading._DummyThread)
            and t is not threading.main_thread()
            and t not in OWN
        }

    def alive(self, handle: Any) -> bool:
        """Tell whether it still runs."""
        thread = target(handle)
        return thread is not None and thread.is_alive()

    def label(self, handle: Any) -> str:
        """Return the target function's name, or the thread's name without numbers."""
        thread = target(handle)
        return "?" if thread is None else _label(thread)

    def covers(self, handle: Any) -> Iterable[Key]:
        """A thread takes its native thread along, and what its frames hold."""
        thread = target(handle)
        if thread is None:
            return
        yield ("tid", thread.native_id)
        frame = sys._current_frames().get(thread.ident)
        while frame is not None:
            for value in frame.f_locals.values():
                yield ("object", id(value))
                raw = getattr(getattr(value, "buffer", value), "raw", None)
                if raw is not None:
                    yield ("object", id(raw))
            frame = frame.f_back

    def explain(self, handle: Any) -> Evidence:
        """Say its name and where it stands."""
        thread = target(handle)
        if thread is None:
            return Evidence("a thread that is gone")
        daemon = ", daemon" if thread.daemon else ""
        evidence = Evidence(f"thread {_label(thread)!r}")
        evidence.facts.append(("name", f"{thread.name} (ident {thread.ident}{daemon})"))
        stack = explain.stacks.thread_stack(thread.ident)
        if stack:
            evidence.facts.append(("running", explain.stacks.format_stack(stack, 6)))
        if not thread.daemon:
            evidence.facts.append(("beware", "not a daemon: Python cannot exit while it runs"))
        return evidence


def _label(thread: Any) -> str:
    name = str(thread.name)
    function = getattr(thread, "_target", None)
    if name.startswith("Thread-"):
        if function is not None:
            return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
        if type(thread) is not threading.Thread:
            return type(thread).__qualname__
        inner = name.partition("(")[2].rstrip(")")
        if inner:
            return inner
    return digits(name)
