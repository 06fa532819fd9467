"""What has been told of: nothing is told twice, and what is still there later is counted."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from .model import Finding, Key, Owner
from .probes.base import BaseProbe
from .roster import Roster
from .survivors import Survivor, light, remembered, same

__all__ = ["Reported", "told_by"]

#: Of so many at most it is asked whether they are still there.
_MOST = 1000


class Reported:
    """Findings that were made, by what they were made of."""

    def __init__(self) -> None:
        self.living: list[tuple[Finding, Survivor]] = []
        """Those whose survivor can still be asked; always the same list."""
        self.covered: dict[Key, weakref.ref[Any] | None] = {}
        """Parts of what was told of since the test began; objects by weak reference, since
        their addresses are used again at once."""
        self._on_loops: dict[Key, Any] = {}
        self._old: set[Key] = set()

    def has(self, key: Key, handle: Any) -> bool:
        """Tell whether this was told of when its loop closed, or once before on its loop."""
        return key in self._on_loops and same(self._on_loops[key], handle)

    def is_part(self, key: Key, obj: Any) -> bool:
        """Tell whether a survivor was told of as a part of something else.

        Args:
            key: one of its names.
            obj: the object behind it, or None.
        """
        if key not in self.covered:
            return False
        ref = self.covered[key]
        return ref is None or obj is None or ref() is obj

    def had(self, source: int) -> bool:
        """Tell whether a dead object was told of, by itself or with what it was part of."""
        key = ("object", source)
        return key in self._on_loops or key in self.covered

    def prune(self) -> None:
        """Forget what earlier tests were told of and is no more: others may lie there now."""
        for key in self._old:
            ref = self._on_loops.get(key)
            if isinstance(ref, weakref.ref) and ref() is None:
                del self._on_loops[key]
        self._old = set(self._on_loops)

    def add(self, finding: Finding, s: Survivor) -> None:
        """Take up that a survivor was told of; its probe learns it too."""
        forget = getattr(s.probe, "forget", None)
        if forget is not None:
            forget(s.key)
        reported = getattr(s.probe, "reported", None)
        if reported is not None:
            reported(s.handle)
        if s.probe.scope == "loop":
            self._on_loops[s.key] = remembered(s.handle)
        event = forget is not None and type(s.probe).forget is not BaseProbe.forget
        if not event and light(s.handle):
            self.living.append((finding, s))

    def outlive(self, test: Owner, roster: Roster) -> None:
        """Count, for each survivor that is still there, the test it outlived."""
        there = set(map(id, roster.alive([s for _, s in self.living])))
        still = [entry for entry in self.living if id(entry[1]) in there]
        if test.kind == "test":
            for finding, _ in still:
                finding.extra["outlived"] = finding.extra.get("outlived", 0) + 1
                finding.extra["outlived_last"] = test.name
        self.living[:] = still[-_MOST:]

    def clear(self) -> None:
        """Forget everything."""
        self.living.clear()
        self.covered.clear()
        self._on_loops.clear()
        self._old.clear()


def told_by(findings: Iterable[Finding], s: Survivor) -> bool:
    """Tell whether this task's death is that of one told of when its loop closed; forget it."""
    if s.probe.kind != "task" or s.probe.scope != "process":
        return False
    label, owner = s.probe.label(s.handle), str(s.owner)
    if not any(f.kind == "task" and f.label == label and f.owner == owner for f in findings):
        return False
    s.probe.forget(s.key)
    return True
