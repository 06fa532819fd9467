"""The window: what was made since a moment, listed by the garbage collector for nothing.

`gc.freeze` at the beginning sets everything older aside; at the end a collection visits only
what is younger, and `gc.get_objects` lists exactly the tracked objects that were born since
and are still alive. Opening costs a fraction of a microsecond and closing about ten, whatever
the size of the heap.

Two things can break a window, and both are noticed: code under test that freezes or unfreezes
by itself, and another window inside this one (a pytest run inside a test). A canary tells: a
piece of garbage set aside with the rest, which only a collection of the whole heap can find.
"""

from __future__ import annotations

import gc
import sys
import types
import warnings
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["AVAILABLE", "Garbage", "Window"]

#: No freezing on PyPy; on free-threaded builds it would stop the world for the whole heap.
AVAILABLE = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()


class Garbage(NamedTuple):
    """Something that only the collector closed."""

    type_name: str
    module: str
    text: str
    source: int
    """``id`` the object had, for the ledger's graveyard."""
    birth: Any


class _Canary:
    __slots__ = ("__weakref__", "me")


class Window:
    """Opens before a test, closes after it. One at a time in a process."""

    current: Window | None = None

    def __init__(self) -> None:
        self.is_open = False
        self._canary: weakref.ref[_Canary] | None = None
        self._keep_frozen: bool | None = None

    def open(self) -> None:
        """Set everything older aside."""
        if not AVAILABLE:
            return
        if self._keep_frozen is None:
            # A suite that froze its imports once (a common conftest trick) stays frozen.
            self._keep_frozen = gc.get_freeze_count() > 0
        if self._canary is None or self._canary() is None:
            canary = _Canary()
            canary.me = canary  # type: ignore[misc]
            self._canary = weakref.ref(canary)
            del canary
        gc.freeze()
        self.is_open = True
        Window.current = self

    def collect(self, birth_of: Any) -> list[Garbage]:
        """Collect what the window holds; return what died unclosed by the collector alone."""
        garbage: list[Garbage] = []
        log: list[Any] = []
        # What `warnings.catch_warnings(record=True)` does, without its price: it would make
        # every module forget which warnings it showed already.
        hook, filters = sys.unraisablehook, warnings.filters
        show, show_impl = warnings.showwarning, warnings._showwarnmsg_impl  # type: ignore[attr-defined]
        warnings.showwarning = warnings._showwarning_orig  # type: ignore[attr-defined]
        warnings._showwarnmsg_impl = log.append  # type: ignore[attr-defined]
        warnings.filters = [_ALWAYS, *filters]  # type: ignore[attr-defined]
        sys.unraisablehook = _quiet
        _quiet.hook = hook  # type: ignore[attr-defined]
        try:
            gc.collect()
        finally:
            sys.unraisablehook = hook
            warnings.filters = filters  # type: ignore[attr-defined]
            warnings._showwarnmsg_impl = show_impl  # type: ignore[attr-defined]
            warnings.showwarning = show
        if log:
            others = []
            for message in log:
                if issubclass(message.category, ResourceWarning):
                    source = message.source
                    garbage.append(
                        Garbage(
                            type(source).__name__ if source is not None else "",
                            type(source).__module__ if source is not None else "",
                            str(message.message),
                            id(source),
                            birth_of(source) if source is not None else None,
                        )
                    )
                    source = None
                else:
                    others.append(message)
            log.clear()
            for message in others:
                warnings._showwarnmsg(message)  # type: ignore[attr-defined]
        return garbage

    @property
    def broken(self) -> bool:
        """True if somebody unfroze the heap meanwhile. Ask after `collect`."""
        return self._canary is None or self._canary() is None

    def objects(self, wanted: frozenset[type]) -> Mapping[type, list[Any]]:
        """Return the living objects of the wanted types (or derived ones) by wanted type."""
        if not self.is_open or self.broken:
            return {}
        objects = gc.get_objects()
        isdisjoint = wanted.isdisjoint
        try:
            hit = {t for t in set(map(type, objects)) if not isdisjoint(t.__mro__)}
            if not hit:
                return {}
            found: dict[type, list[Any]] = {}
            for obj in objects:
                kind = type(obj)
                if kind in hit:
                    for base in kind.__mro__:
                        if base in wanted:
                            found.setdefault(base, []).append(obj)
                            break
            return found
        finally:
            del objects

    def close(self) -> None:
        """Put everything back together."""
        if self.is_open:
            self.is_open = False
            if Window.current is self:
                Window.current = None
            if not self._keep_frozen:
                gc.unfreeze()


_ALWAYS = ("always", None, ResourceWarning, None, 0)


def _quiet(unraisable: Any) -> None:
    """Let warnings-turned-errors of our own collection pass unheard: they become findings."""
    if not isinstance(unraisable.exc_value, Warning):
        _quiet.hook(unraisable)  # type: ignore[attr-defined]


def resolve(names: Iterable[str], cache: dict[str, type]) -> None:
    """Look up ``module:Class`` names whose modules are imported by now."""
    for name in names:
        if name in cache:
            continue
        module, _, attribute = name.partition(":")
        found = types if module == "types" else sys.modules.get(module)
        kind = getattr(found, attribute, None) if found is not None else None
        if isinstance(kind, type):
            cache[name] = kind
