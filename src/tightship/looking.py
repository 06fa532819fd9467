"""Looking: what there is, and what of it is new. Whose it is, others have to say."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import partial
from typing import Any

from .model import Key, Scene
from .probes import fdtable
from .roster import Roster
from .window import Window, resolve

__all__ = ["Looking", "Seen", "Stillness", "every"]

#: What a look at a probe yields: the probe, the key it gave, and the handle.
Seen = tuple[Any, Key, Any]


def every(probe: Any) -> bool:
    """Want all probes."""
    return True


class Stillness:
    """While Tightship looks: no collection that takes survivors away, no guards for itself."""

    __slots__ = ("_on", "_window")

    def __init__(self, window: Window) -> None:
        self._window = window

    def __enter__(self) -> None:
        self._window.looking = True
        self._on = gc.isenabled()
        if self._on:
            gc.disable()

    def __exit__(self, *exc: object) -> None:
        self._window.looking = False
        if self._on:
            gc.enable()


class Looking:
    """Looks through the probes at the window's objects, at loops and at the process.

    Args:
        roster: the probes.
    """

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.window = Window(self._types_now)
        self.known: set[Key] = set()
        """Keys of the process's kinds that were there when all was last taken as known."""
        self._types: dict[str, type] = {}
        self._wanted: frozenset[type] = frozenset()
        self._modules = -1

    def close(self) -> None:
        """Forget what was seen."""
        self.known.clear()
        self._types.clear()
        self._wanted = frozenset()

    # -- the window's objects --------------------------------------------------------------

    def _types_now(self) -> frozenset[type]:
        """Return the types that probes want listed and whose modules are imported by now.

        Runs for every test.
        """
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            names = [n for p in (*self.roster.process, *self.roster.loop) for n in p.types]
            before = len(self._types)
            resolve(names, self._types)
            if len(self._types) != before:
                self._wanted = frozenset(self._types.values())
        return self._wanted

    def census(self) -> Mapping[type, list[Any]]:
        """Return the living objects that were born in the window, by wanted type."""
        return self.window.objects()

    @contextmanager
    def whole_heap(self) -> Iterator[None]:
        """Make everything visible to a search for holders, and go on as before."""
        if not self.window.is_open:
            yield
            return
        self.window.pause()
        try:
            yield
        finally:
            self.window.resume("")

    def hits(self, objects: Mapping[type, list[Any]]) -> bool:
        """Tell whether any of these is open, so that no tick has to tell."""
        if not objects:
            return False
        for probe in self.roster.process:
            opened = getattr(probe, "opened", None)
            if opened is None:
                continue
            for obj in self._pick(probe, objects):
                if self.roster.ask(probe, partial(opened, obj), False):
                    return True
        return False

    def _pick(self, probe: Any, objects: Mapping[type, list[Any]]) -> list[Any]:
        return [
            obj
            for name in probe.types
            if (kind := self._types.get(name)) is not None
            for obj in objects.get(kind, ())
        ]

    def _scene(self, probe: Any, objects: Mapping[type, list[Any]], loop: Any = None) -> Scene:
        wanted = [self._types[n] for n in probe.types if n in self._types]
        return Scene({t: objects[t] for t in wanted if t in objects}, loop)

    # -- what the probes list --------------------------------------------------------------

    def on_loop(
        self,
        loop: Any,
        objects: Mapping[type, list[Any]],
        wants: Callable[[Any], bool] = every,
    ) -> Iterator[Seen]:
        """Yield what there is on a loop, each key once."""
        return self._seen(self.roster.loop, objects, loop, wants, frozenset())

    def in_process(
        self,
        objects: Mapping[type, list[Any]],
        wants: Callable[[Any], bool] = every,
        known: Set[Key] = frozenset(),
    ) -> list[Seen]:
        """Return what there is in the process and is not known, each key once."""
        with fdtable.TABLE.listed():
            return list(self._seen(self.roster.process, objects, None, wants, known))

    def _seen(
        self,
        probes: Iterable[Any],
        objects: Mapping[type, list[Any]],
        loop: Any,
        wants: Callable[[Any], bool],
        known: Set[Key],
    ) -> Iterator[Seen]:
        # The first kind that names something keeps it. One that fails leaves the list.
        seen: set[Key] = set()
        for probe in list(probes):
            if not wants(probe):
                continue
            found = self.roster.snapshot(probe, self._scene(probe, objects, loop))
            for key, handle in found.items():
                if key not in seen and key not in known:
                    seen.add(key)
                    yield probe, key, handle

    def keys(self, wants: Callable[[Any], bool] = every) -> set[Key]:
        """Return the keys of everything in the process, without the window's help."""
        keys: set[Key] = set()
        with fdtable.TABLE.listed():
            for probe in list(self.roster.process):
                if wants(probe):
                    keys.update(self.roster.snapshot(probe, Scene()))
        return keys
