"""Judging: how certain it is that a survivor was left behind, and which of them are one thing.

Survivors are graded one by one, then by who holds them, which needs the whole heap; then the
parts of a whole are folded into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from .attribution import Attribution, is_over
from .explain.holders import isolated
from .explain.roots import root_of
from .model import Certainty, Key
from .probes import fdtable
from .probes.executors import ExecutorProbe
from .probes.loops import LoopProbe
from .runtimes import loops
from .survivors import EVENTS, Survivor

__all__ = ["Judged", "Judging"]

#: Survivors to be told of, each with those that end when it does.
Judged = list[tuple[Survivor, list[Survivor]]]


class Judging:
    """Grades survivors and folds them.

    Args:
        attribution: takes back what a wider owner turns out to hold.
        open_loops: returns the loops that are in use.
        on_fault: called with (part, exception) if a proof fails.
    """

    def __init__(
        self,
        attribution: Attribution,
        open_loops: Callable[[], list[Any]],
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        self.attribution = attribution
        self.roster = attribution.roster
        self.window = attribution.looking.window
        self.reported = attribution.reported
        self.open_loops = open_loops
        self.on_fault = on_fault

    # -- certainty -----------------------------------------------------------------------

    def grade(self, survivors: Iterable[Survivor]) -> None:
        """Say of each how certain it is, and why not if it is not."""
        for s in survivors:
            if self._proven(s):
                s.certainty = Certainty.PROVEN
                continue
            doubt = getattr(s.probe, "doubt", None)
            s.reason = self.roster.ask(s.probe, partial(doubt, s.handle), "") if doubt else ""
            if s.reason:
                s.certainty = Certainty.POSSIBLE

    def _proven(self, s: Survivor) -> bool:
        proves = getattr(s.probe, "proves", None)
        if proves is not None and self.roster.ask(s.probe, partial(proves, s.handle), False):
            return True
        return s.probe.kind == "task" and self._lost(s)

    def _lost(self, s: Survivor) -> bool:
        """Tell whether nothing can ever wake a task."""
        if not self.window.is_open or self.window.broken:
            return False
        task = s.handle()
        if task is None:
            return False
        try:
            return isolated(task, 1)
        except Exception as exc:
            self.on_fault("proof", exc)
            return False

    def doubt_unseen(self, survivors: Iterable[Survivor]) -> None:
        """Doubt descriptors that came with a native thread: one library made both."""
        survivors = list(survivors)
        if not any(s.probe.kind == "native-thread" for s in survivors):
            return
        for s in survivors:
            if isinstance(s.probe, fdtable.FdKindProbe) and s.probe.unseen(s.handle):
                s.certainty = Certainty.POSSIBLE
                s.reason = "made by C code, together with a thread of its own"

    def without_pidfds(self, survivors: Iterable[Survivor]) -> list[Survivor]:
        """Leave out the descriptors through which asyncio watches a child: they go with it."""
        return [s for s in survivors if not self._is_pidfd(s)]

    def _is_pidfd(self, s: Survivor) -> bool:
        label: str = self.roster.ask(s.probe, partial(s.probe.label, s.handle), "")
        return s.probe.kind == "fd" and label == "pidfd"

    # -- who holds it ----------------------------------------------------------------------

    def needs_holder(self, survivors: Iterable[Survivor]) -> bool:
        """Tell whether it matters for any who holds it."""
        return any(map(self._needs_holder, survivors))

    def _needs_holder(self, s: Survivor) -> bool:
        """Tell whether it matters who holds this: alive by itself, it would not."""
        if s.certainty != Certainty.STRONG or s.object is None:
            return False
        if s.probe.kind == "task":  # a client that began to read when it was used first
            return bool(self.attribution.values)
        return s.probe.kind not in EVENTS

    def grade_by_holder(self, survivors: Iterable[Survivor]) -> list[Survivor]:
        """Doubt what a global holds; leave what a wider owner's value holds to that owner."""
        kept = []
        values = self.attribution.values
        # Seconds of CPU for all together, then little for each. With wide fixtures around, too
        # short a search would blame a test for what their values began.
        spare = 2.0 if values else 0.25
        self.window.show_all()
        for s in survivors:
            obj = s.object
            if obj is None or not self._needs_holder(s):
                kept.append(s)
                continue
            loop = getattr(obj, "_loop", None)
            dead = loop is not None and loop.is_closed() if hasattr(loop, "is_closed") else False
            # What a task waits for holds it, but doesn't own it.
            apart = [getattr(obj, "_fut_waiter", None)] if s.probe.kind == "task" else []
            began = time.thread_time()
            root = root_of([obj], values, apart=apart, budget=max(0.05, min(0.5, spare)))
            spare -= time.thread_time() - began
            apart.clear()
            del obj, loop
            if root.kind == "owner" and root.owner is not None and not is_over(root.owner):
                s.owner = root.owner
                self.attribution.defer(s)
                continue
            if root.kind == "global" and not dead and s.probe.scope == "process":
                s.certainty = Certainty.POSSIBLE
                s.reason = f"kept on purpose or lazily made: {root.text} holds it"
            kept.append(s)
        return kept

    # -- what is one thing -----------------------------------------------------------------

    def fold(self, survivors: Iterable[Survivor], *, final: bool = True) -> Judged:
        """Put what ends together into one: a transport with its socket is one leak.

        Args:
            survivors: all of them.
            final: they are told of now, and their parts are not told of by themselves later.
        """
        survivors = list(survivors)
        covers: dict[Key, Survivor] = {}
        for s in survivors:
            # A generator runs only when it is listed: that has to happen where faults are
            # contained.
            for key in self.roster.ask(s.probe, partial(_listed, s.probe.covers, s.handle), []):
                if key != s.key:
                    covers.setdefault(key, s)
        own = self._parts_of_loops()
        parts: dict[int, list[Survivor]] = {}
        chosen = []
        for s in survivors:
            names = [s.key]
            obj = s.object
            if obj is not None:
                names.append(("object", id(obj)))
            told = any(self.reported.is_part(n, obj) or n in own for n in names)
            obj = None
            whole = next((covers[n] for n in names if n in covers and covers[n] is not s), None)
            if whole is not None and not _circular(whole, s, covers):
                parts.setdefault(id(whole), []).append(s)
            elif not told:
                chosen.append(s)
        if final:
            addresses = {k[1] for k in covers if isinstance(k, tuple) and k[0] == "object"}
            refs = self.window.references(addresses)
            for key in covers:
                address = key[1] if isinstance(key, tuple) and key[0] == "object" else 0
                self.reported.covered[key] = refs.get(address)
        return [(s, parts.get(id(s), [])) for s in chosen]

    def _parts_of_loops(self) -> set[Key]:
        """Return keys of what belongs to loops that are still in use."""
        own: set[Key] = set()
        for loop in self.open_loops():
            own.update(LoopProbe().covers(loop))
            executor = loops.default_executor(loop)
            if executor is not None:
                own.update(ExecutorProbe().covers(executor))
                own.add(("object", id(executor)))
        return own


def _listed(covers: Callable[[Any], Iterable[Key]], handle: Any) -> list[Key]:
    return list(covers(handle))


def _circular(whole: Survivor, part: Survivor, covers: Mapping[Key, Survivor]) -> bool:
    """Tell whether two survivors name each other as a part: the first one found keeps it."""
    return covers.get(whole.key) is part
