"""Coroutines that were called and never awaited."""

from __future__ import annotations

import functools
import itertools
import warnings
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from ..ledger import LEDGER
from ..model import Evidence, Key, Owner, Scene, Site
from ..origin import layer, site_at
from ..ownership import current
from .base import BaseProbe, target, weak

__all__ = ["CoroutineProbe"]


class _Dropped(NamedTuple):
    """A coroutine that died unawaited, as strings."""

    name: str
    made: Site | None
    owner: Owner | None


class CoroutineProbe(BaseProbe):
    """A coroutine object on which nobody ever called ``await``: dead or still held."""

    kind: ClassVar[str] = "coroutine"
    types: ClassVar[tuple[str, ...]] = ("types:CoroutineType",)

    def __init__(self) -> None:
        self.tick = LEDGER.happened  # type: ignore[method-assign]
        self._dropped: dict[Key, _Dropped] = {}
        self._numbers = itertools.count()
        self._told: list[weakref.ref[Any]] = []

    def install(self, patch: Any) -> None:
        """Hear of each death before the warning machinery does."""
        original = getattr(warnings, "_warn_unawaited_coroutine", None)
        if original is None:
            return

        @functools.wraps(original)
        def _warn_unawaited_coroutine(coro: Any) -> None:
            if patch.active:
                try:
                    self._note(coro)
                except Exception as exc:
                    patch.fault(exc)
            # The warning as it would be without us: the same text, from the same line. The
            # original would add the line of birth that only our tracking made known, and a
            # call from here would make this the line that warns.
            warnings.warn(
                f"coroutine '{coro.__qualname__}' was never awaited",
                category=RuntimeWarning,
                stacklevel=2,
                source=coro,
            )

        patch.set(warnings, "_warn_unawaited_coroutine", _warn_unawaited_coroutine)

    def _note(self, coro: Any) -> None:
        owner = current()
        name = coro.__qualname__
        # A recorded warning keeps the coroutine alive as its source: it was told of already.
        self._told = [r for r in self._told if r() is not None]
        self._told.append(weakref.ref(coro))
        if owner is None or _ignored(owner, f"coroutine '{name}' was never awaited"):
            return
        LEDGER.events += 1
        self._dropped["dropped", next(self._numbers)] = _Dropped(name, _made(coro), owner)

    def opened(self, obj: Any) -> bool:
        """Tell whether a coroutine that is still held was never begun."""
        frame = obj.cr_frame
        return frame is not None and not obj.cr_running and not _begun(obj)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the dead ones, and the window's living ones that never began."""
        found: dict[Key, Any] = dict(self._dropped)
        for objects in scene.objects.values():
            for obj in objects:
                if self.opened(obj) and not any(r() is obj for r in self._told):
                    found[("object", id(obj))] = weak(obj)
        return found

    def forget(self, key: Key) -> None:
        """Drop one that has been judged."""
        self._dropped.pop(key, None)

    def alive(self, handle: Any) -> bool:
        """The dead stay dead; a living one may be awaited yet."""
        if isinstance(handle, _Dropped):
            return True
        obj = target(handle)
        return obj is not None and self.opened(obj)

    def owner(self, handle: Any) -> Owner | None:
        """Return who ran when it died."""
        return handle.owner if isinstance(handle, _Dropped) else None

    def made(self, handle: Any) -> None:
        """The evidence knows better."""
        return

    def label(self, handle: Any) -> str:
        """Return its qualified name."""
        if isinstance(handle, _Dropped):
            return handle.name
        return str(getattr(target(handle), "__qualname__", "?"))

    def explain(self, handle: Any) -> Evidence:
        """Say where it was called."""
        name = self.label(handle).rpartition(".<locals>.")[2]
        made = handle.made if isinstance(handle, _Dropped) else _made(target(handle))
        return Evidence(f"coroutine {name!r}", made=made)


def _begun(coro: Any) -> bool:
    import inspect

    return inspect.getcoroutinestate(coro) != "CORO_CREATED"


def _made(coro: Any) -> Site | None:
    for file, line, function in getattr(coro, "cr_origin", None) or ():
        if layer(file) == 0:
            return site_at(file, line, function)
    code = getattr(coro, "cr_code", None)
    if code is None:
        return None
    return site_at(code.co_filename, code.co_firstlineno, code.co_qualname)


def _ignored(owner: Owner, text: str) -> bool:
    """Tell whether the warning's reader is the test itself: a filter, or `pytest.warns`."""
    message: Any
    for action, message, category, module, _ in warnings.filters:
        if not issubclass(RuntimeWarning, category) or module is not None:
            continue
        if message is None or (
            message.match(text) if hasattr(message, "match") else text.startswith(message)
        ):
            if action == "ignore":
                return True
            break
    if WATCHED.owner is None or WATCHED.owner not in (owner, owner.parent):
        return False
    return WATCHED.impl is not getattr(warnings, "_showwarnmsg_impl", None)


class _Watched:
    """Where warnings went when an owner began: elsewhere later means that the test listens."""

    owner: Owner | None = None
    impl: Any = None


WATCHED = _Watched()
