"""Timers that are still due: `call_later` and `call_at`."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from ..ledger import LEDGER
from ..model import Evidence, Key, Owner, Scene
from ..origin import layer
from ..ownership import of_context
from ..runtimes.loops import context_of, is_uvloop, of_uvloop
from .base import BaseProbe, target, weak

__all__ = ["TimerProbe", "callback_name"]


class TimerProbe(BaseProbe):
    """A timer handle that is neither cancelled nor due."""

    kind: ClassVar[str] = "timer"
    scope: ClassVar[Literal["loop", "process"]] = "loop"
    types: ClassVar[tuple[str, ...]] = ("uvloop.loop:TimerHandle",)

    def install(self, patch: Any) -> None:
        """Note who sets timers. `call_later` of asyncio goes through `call_at`."""

        def born(handle: Any) -> None:
            LEDGER.note(handle, skip=2)

        patch.when_imported(
            "asyncio.base_events", lambda m: patch.after_result(m.BaseEventLoop, "call_at", born)
        )

        def on_uvloop(module: Any) -> None:
            patch.after_result(module.Loop, "call_at", born)
            patch.after_result(module.Loop, "call_later", born)

        patch.when_imported("uvloop", on_uvloop)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the loop's live timers; uvloop's come from the window."""
        if is_uvloop(scene.loop):
            handles = [
                h
                for hs in scene.objects.values()
                for h in hs
                if not h.cancelled() and of_uvloop(h, scene.loop)
            ]
        else:
            handles = [h for h in scene.loop._scheduled if not h._cancelled]
        return {("object", id(h)): weak(h) for h in handles if not _of_waiter(h)}

    def alive(self, handle: Any) -> bool:
        """Tell whether it is still due."""
        timer = target(handle)
        if timer is None or timer.cancelled():
            return False
        return getattr(timer, "_scheduled", True)

    def owner(self, handle: Any) -> Owner | None:
        """Read the owner from the handle's own context."""
        timer = target(handle)
        if timer is None:
            return None
        return of_context(context_of(timer)) or super().owner(handle)

    def doubt(self, handle: Any) -> str:
        """Doubt timers that a library set for itself: they die with their loop.

        Who has to be told is whoever left the library's object open, and he is.
        """
        timer = target(handle)
        code = getattr(_unwrapped(_callback(timer)), "__code__", None)
        if code is not None and layer(code.co_filename) == 0:
            return ""  # by way of a library, perhaps, but for the project
        birth = None if timer is None else LEDGER.of(timer)
        for code, _ in birth.made if birth is not None else ():
            rank = layer(code.co_filename)
            if rank < 2:
                return "" if rank == 0 else "a library set it for itself"
        return ""

    def label(self, handle: Any) -> str:
        """Return the callback's qualified name."""
        return callback_name(_callback(target(handle)))

    def covers(self, handle: Any) -> Iterable[Key]:
        """Nothing but itself."""
        return ()

    def explain(self, handle: Any) -> Evidence:
        """Say what it will call and when."""
        timer = target(handle)
        if timer is None:
            return Evidence("a timer that is gone")
        evidence = Evidence(f"timer for {callback_name(_callback(timer))}")
        try:
            loop = timer._loop
            evidence.facts.append(("due", f"in {max(0.0, timer.when() - loop.time()):.1f} s"))
        except Exception:
            pass
        return evidence


def _callback(timer: Any) -> Any:
    if timer is None:
        return None
    callback, args = getattr(timer, "_callback", None), getattr(timer, "_args", None)
    if callback is None:
        # uvloop's: the first thing it holds is what it will call.
        held = gc.get_referents(timer)
        callback = next((h for h in held if callable(h)), None)
        args = next((h for h in held if isinstance(h, tuple)), None)
    if args and getattr(callback, "__qualname__", "") == "IOLoop._run_callback":
        return args[0]  # tornado's, which hides what it was asked to call
    return callback


def _of_waiter(timer: Any) -> bool:
    """Tell whether a timer only serves a waiting task, or a connection that shakes hands.

    A sleep, a time-out's end: the task or the transport is the finding; a timer that outlives
    what it serves does nothing at all.
    """
    callback = _unwrapped(_callback(timer))
    name = callback_name(callback)
    if getattr(callback, "__module__", "") == "tornado.gen":
        return name.startswith(("sleep.", "with_timeout."))
    return name.startswith("SSLProtocol.") or name in {
        "_set_result_unless_cancelled",
        "_release_waiter",
        "Timeout._on_timeout",
        "CancelScope._timeout",
        "_SelectorTransport._call_connection_lost",
    }


def _unwrapped(callback: Any) -> Any:
    """Return the function within partials."""
    for _ in range(4):
        inner = getattr(callback, "func", None)
        if inner is None:
            break
        callback = inner
    return callback


def callback_name(callback: Any) -> str:
    """Return a name for a callback that is stable between runs."""
    callback = _unwrapped(callback)
    name = getattr(callback, "__qualname__", None) or getattr(callback, "__name__", None)
    if name is None:
        return "a callback" if callback is None else type(callback).__qualname__
    return str(name)
