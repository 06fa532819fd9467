"""What was there when a block began: for what has no owner, the only thing that tells."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ..model import Key
from ..survivors import object_of, same, weak
from ..watch import Watch

__all__ = ["WITH_CONTEXT", "Past"]

#: Kinds that carry their maker's context: without an owner they were made elsewhere.
WITH_CONTEXT = frozenset({"task", "timer", "transport", "server", "reader"})


class Past:
    """What a watch sees at this moment, by key and by object.

    Args:
        watch: sees it.
        loop: the one that runs here, or None.
        wants: tells which probes matter.
    """

    def __init__(self, watch: Watch, loop: Any, wants: Callable[[Any], bool]) -> None:
        self.watch = watch
        self._ticks: Any = None
        self._keys: set[Key] = set()
        self._on_loop: dict[Key, Any] = {}
        self._objects: dict[int, weakref.ref[Any] | None] = {}
        if loop is not None:
            watch.loops.meet(loop)
            self._on_loop = {
                key: handle
                for _, key, handle in watch.looking.on_loop(
                    loop, {}, lambda probe: probe.kind not in WITH_CONTEXT and wants(probe)
                )
            }

    def add_objects(self) -> None:
        """Take up the objects of a window that was open before."""
        for objects in self.watch.looking.census().values():
            for obj in objects:
                self._objects[id(obj)] = weak(obj)

    def add_process(self, *, account: bool) -> None:
        """Take up what is there in the process; let the watch take it as known, too."""
        self._ticks, self._keys = self.watch.there(account=account)

    def lasts(self) -> bool:
        """Tell whether nothing that is counted has changed."""
        ticks = self.watch.roster.read_ticks()
        return ticks is not None and bool(ticks == self._ticks)

    def has(self, key: Key, handle: Any) -> bool:
        """Tell whether something was there."""
        if key in self._keys:
            return True
        obj = object_of(handle)
        if obj is None:
            return False
        if id(obj) in self._objects:
            ref = self._objects[id(obj)]
            if ref is None or ref() is obj:
                return True
        return key in self._on_loop and same(self._on_loop[key], handle)
