"""Whose a survivor is, and who has outlived whom.

The probes know most owners: a birth was noted, or a context carries one. What has none belongs
to whoever ran when it was first seen. What belongs to an owner that is still there is left to
it, and judged when that one ends.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from .ledger import LEDGER
from .looking import Looking
from .model import Key, Owner
from .reported import Reported
from .runtimes import loops
from .survivors import Survivor, object_of, same, weak

__all__ = ["Attribution", "is_over"]


def is_over(owner: Owner) -> bool:
    """Tell whether an owner has ended, or the one that it is part of."""
    return owner.ended or (owner.parent is not None and owner.parent.ended)


def _around(owner: Owner) -> Owner:
    """Return who is still there to answer for a block that is over."""
    while owner.kind == "block" and owner.ended and owner.parent is not None:
        owner = owner.parent
    return owner


def _maker(obj: Any) -> Owner | None:
    """Return who was seen to make an object."""
    birth = LEDGER.of(obj)
    return None if birth is None else birth.owner


class Attribution:
    """Finds an owner for everything that is seen.

    Args:
        looking: sees it.
        reported: knows what was told of before.
    """

    def __init__(self, looking: Looking, reported: Reported) -> None:
        self.looking = looking
        self.roster = looking.roster
        self.reported = reported
        self.values: dict[int, Owner] = {}
        """``id`` of each value that a living wider fixture returned -> the fixture."""
        self._segments: dict[Key, tuple[weakref.ref[Any] | None, Owner | None]] = {}
        self._adopted: dict[int, tuple[weakref.ref[Any] | None, Owner, str]] = {}
        self._holdings: dict[Owner, list[Survivor]] = {}
        self._deferred: dict[Key, Survivor] = {}

    def close(self) -> None:
        """Let go of everything."""
        # Whoever did not come to its end, ends here: for a watch outside it is over.
        for owner in self._holdings:
            owner.ended = True
        self._holdings.clear()
        self._deferred.clear()
        self._segments.clear()
        self._adopted.clear()
        self.values.clear()

    # -- who said what is whose ------------------------------------------------------------

    def mark_objects(self, objects: Mapping[type, list[Any]], owner: Owner | None) -> None:
        """Give the window's objects that nobody has yet to this owner."""
        for found in objects.values():
            for obj in found:
                key = id(obj)
                # Whoever was seen to make it needs no mark; a pool of thousands is soon made.
                if key not in self._segments and _maker(obj) is None:
                    self._segments[key] = (weak(obj), owner)

    def mark_keys(self, keys: Iterable[Key], owner: Owner | None) -> None:
        """Give what is new in the process, and nobody has yet, to this owner."""
        mark = (None, owner)
        for key in keys:
            if key not in self.looking.known and key not in self._segments:
                self._segments[key] = mark

    def prune(self) -> None:
        """Forget marks of what is no more."""
        known = self.looking.known
        gone = [
            key
            for key, (ref, _) in self._segments.items()
            if (ref is not None and ref() is None) or (ref is None and key not in known)
        ]
        for key in gone:
            del self._segments[key]

    def value(self, owner: Owner, value: object) -> None:
        """Remember what a fixture that may outlive the test returned."""
        if gc.is_tracked(value):
            self.values[id(value)] = owner

    def wide_ended(self, owner: Owner) -> None:
        """Forget what a fixture returned."""
        for key in [k for k, o in self.values.items() if o is owner]:
            del self.values[key]

    def adopt(self, obj: object, owner: Owner, reason: str) -> None:
        """Give something to another owner, whoever made it."""
        self._adopted[id(obj)] = (weak(obj), owner, reason)

    # -- whose is it -----------------------------------------------------------------------

    def owner(self, probe: Any, handle: Any) -> Owner | None:
        """Return who is known to own it: whoever adopted it, else whoever made it."""
        owner: Owner | None = self.roster.ask(probe, lambda: probe.owner(handle), None)
        if self._adopted:
            owner = self._adopter(handle) or owner
        return owner

    def adopted_because(self, handle: Any) -> str:
        """Return why somebody gave it to another owner, empty if nobody did."""
        entry = self._adoption(handle)
        return "" if entry is None else entry[2]

    def _adopter(self, handle: Any) -> Owner | None:
        entry = self._adoption(handle)
        return None if entry is None else entry[1]

    def _adoption(self, handle: Any) -> tuple[weakref.ref[Any] | None, Owner, str] | None:
        obj = object_of(handle)
        entry = self._adopted.get(id(obj)) if obj is not None else None
        if entry is None or (entry[0] is not None and entry[0]() is not obj):
            return None
        return entry

    def _segment(self, key: Key, handle: Any) -> Owner | None:
        entry = self._segments.get(key)
        if entry is None:
            obj = object_of(handle)
            if obj is None:
                return None
            entry = self._segments.get(id(obj))
            if entry is None or (entry[0] is not None and entry[0]() is not obj):
                return _maker(obj)
        return entry[1]

    def _survivor(self, probe: Any, key: Key, handle: Any, test: Owner) -> Survivor:
        owner = self.owner(probe, handle)
        if owner is not None:
            return Survivor(probe, key, handle, _around(owner))
        return Survivor(probe, key, handle, self._segment(key, handle) or test, False)

    # -- who has outlived whom -------------------------------------------------------------

    def left_on(
        self, loop: Any, test: Owner, *, closing: bool = False, defer: bool = True
    ) -> list[Survivor]:
        """Return what is on a loop and has no owner any more.

        Args:
            loop: an open loop.
            test: owns what has no better owner.
            closing: nobody will own it for long: return everything that was not adopted.
            defer: leave the rest to its owners.
        """
        objects = self.looking.census() if loops.is_uvloop(loop) else {}
        found: list[Survivor] = []
        for probe, key, handle in self.looking.on_loop(loop, objects):
            if self.reported.has(key, handle):
                continue
            deferred = self._deferred.get(key)
            if deferred is not None and not same(deferred.handle, handle):
                deferred = None
            if deferred is not None and not closing:
                continue
            survivor = self._survivor(probe, key, handle, test)
            if deferred is not None:
                survivor.owner = deferred.owner
            # What was adopted by somebody who is still there may die with its loop.
            adopted = self._adopted and self._adopter(handle) is not None
            if (closing and not adopted) or is_over(survivor.owner):
                found.append(survivor)
            elif defer and survivor.owner is not test:
                self.defer(survivor)
        return found

    def left_in_process(
        self, objects: Mapping[type, list[Any]], test: Owner, *, defer: bool = True
    ) -> list[Survivor]:
        """Return what is new in the process and has no owner any more.

        Args:
            objects: the window's.
            test: owns what has no better owner.
            defer: leave the rest to its owners.
        """
        found: list[Survivor] = []
        for probe, key, handle in self.looking.in_process(objects, known=self.looking.known):
            survivor = self._survivor(probe, key, handle, test)
            if is_over(survivor.owner):
                found.append(survivor)
            elif defer:
                self.defer(survivor)
        return found

    def defer(self, survivor: Survivor) -> None:
        """Leave a survivor to its owner, which is still there."""
        self._holdings.setdefault(survivor.owner, []).append(survivor)
        if survivor.probe.scope == "loop":
            self._deferred[survivor.key] = survivor

    def release(self, owner: Owner) -> list[Survivor]:
        """Return what an owner that just ended had been left, if it is still there."""
        left = self._holdings.pop(owner, [])
        for s in left:
            self._deferred.pop(s.key, None)
        return self.roster.alive([s for s in left if not self.reported.has(s.key, s.handle)])
