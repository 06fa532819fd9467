"""The probes on duty: loading them, reading their ticks, and going on without one that fails.

Whatever a probe does is called through `Roster.ask`. One that raises is taken off the roster
for good and named once; no test's outcome is changed by it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import probes
from .births import Patcher
from .ledger import LEDGER
from .model import Key, Scene
from .probes.base import BaseProbe
from .survivors import Survivor

__all__ = ["Roster"]


class Roster:
    """Probes by their scope.

    Args:
        on_fault: called with (part, exception) after a part was switched off.
    """

    def __init__(self, on_fault: Callable[[str, BaseException], None]) -> None:
        self.on_fault = on_fault
        self.process: list[Any] = []
        """Those of kinds that belong to the process."""
        self.loop: list[Any] = []
        """Those of kinds that belong to an event loop; none until asyncio is imported."""
        self._ticks: list[Callable[[], Any]] = []

    def install(self, patch: Patcher) -> None:
        """Load the kinds of Tightship's own."""
        for kind in probes.PROCESS:
            self._load(kind, self.process, patch)
        self._ticks = self._tickers()

        def on_asyncio(_: Any) -> None:
            for kind in probes.LOOP:
                self._load(kind, self.loop, patch)

        patch.when_imported("asyncio", on_asyncio)

    def _load(self, kind: str, into: list[Any], patch: Patcher) -> None:
        # Also kinds whose findings the settings switch off: other kinds rely on their births
        # and on what they cover, and a marker or a block may want them all the same.
        try:
            probe = probes.load(kind)
            patch.where = kind
            probe.install(patch)
        except Exception as exc:
            self.fault(kind, exc)
        else:
            into.append(probe)

    def add(self, probe: Any, patch: Patcher) -> None:
        """Add a probe of another package. Raises TypeError if it isn't one."""
        missing = [
            n for n in ("kind", "scope", "snapshot", "label", "explain") if not hasattr(probe, n)
        ]
        if missing:
            raise TypeError(f"probe {probe!r} has no {', '.join(missing)}")
        try:
            probe.install(patch)
        except Exception as exc:
            self.fault(probe.kind, exc)
            return
        (self.loop if probe.scope == "loop" else self.process).append(probe)
        self._ticks = self._tickers()

    def close(self) -> None:
        """Let the probes go of what they hold."""
        for probe in (*self.process, *self.loop):
            close = getattr(probe, "close", None)
            if close is not None:
                self.ask(probe, close, None)

    # -- ticks ---------------------------------------------------------------------------

    def _tickers(self) -> list[Callable[[], Any]]:
        # Kinds that share a reading share its price; that of events is no call at all.
        ticks = [
            p.tick
            for p in self.process
            if getattr(p.tick, "__func__", None) is not BaseProbe.tick and p.tick != LEDGER.happened
        ]
        return list(dict.fromkeys(ticks))

    def read_ticks(self) -> Any:
        """Return what changes when something new may be there; None if a probe failed.

        Runs for every test.
        """
        try:
            return [LEDGER.events, *[tick() for tick in self._ticks]]
        except Exception:
            # Find out which one it was; the others go on.
            for probe in list(self.process):
                self.ask(probe, probe.tick, None)
            return None

    # -- faults --------------------------------------------------------------------------

    def ask(self, probe: Any, call: Callable[[], Any], default: Any) -> Any:
        """Return what a probe answers, or the default if it fails."""
        try:
            return call()
        except Exception as exc:
            self.fault(probe.kind, exc)
            return default

    def snapshot(self, probe: Any, scene: Scene) -> dict[Key, Any]:
        """Return what a probe sees, by key."""
        found: dict[Key, Any] = self.ask(probe, partial(probe.snapshot, scene), {})
        return found

    def alive(self, survivors: list[Survivor]) -> list[Survivor]:
        """Return those that are still there."""
        return [s for s in survivors if self.ask(s.probe, partial(s.probe.alive, s.handle), False)]

    def fault(self, part: str, exc: BaseException) -> None:
        """Contain a fault: the part is switched off for good and named once."""
        for group in (self.process, self.loop):
            for probe in [p for p in group if p.kind == part]:
                group.remove(probe)
        if self._ticks:
            self._ticks = self._tickers()
        self.on_fault(part, exc)
