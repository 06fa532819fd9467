"""The main deed: before, settle, judge, explain.

A `Watch` holds the probes and the ledger's patches. Somebody tells it when owners begin and
end; it answers with findings. It knows nothing of pytest.
"""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from . import forks, origin, probes
from .births import Patcher
from .ledger import LEDGER
from .model import Certainty, Evidence, Finding, Key, Owner, Scene, Site, Verdict
from .ownership import CURRENT, current
from .probes import fdtable
from .probes.base import BaseProbe
from .probes.coroutines import WATCHED
from .probes.unclosed import UNCLOSED, described, pid_of
from .runtimes import anyio_runner, loops, threads, trio_fixtures
from .settle import Settle
from .window import Garbage, Window, resolve

__all__ = ["Survivor", "Watch"]

clock = time.monotonic

#: A survivor gone within this many seconds was only on its way out.
SLOW_AFTER = 0.02


class Survivor:
    """Something that is still there although its owner has ended, or is ending."""

    __slots__ = (
        "certainty",
        "handle",
        "key",
        "known_owner",
        "owner",
        "probe",
        "reason",
        "subject",
    )

    def __init__(
        self, probe: Any, key: Key, handle: Any, owner: Owner, known_owner: bool = True
    ) -> None:
        self.probe = probe
        self.key = key
        self.handle = handle
        self.owner = owner
        self.known_owner = known_owner
        self.certainty = Certainty.STRONG
        self.reason = ""
        self.subject = ""


class Watch:
    """Watches owners come and go.

    Args:
        grace: seconds after which waiting for something that still moves ends.
        on_fault: called with (part, exception) when a part of Tightship fails.
        off: tells of a kind whether it isn't to be watched at all.
    """

    active: ClassVar[list[Watch]] = []
    """Those that are installed in this process, the oldest first."""

    # A plain class: a dataclass of this size would cost each session two milliseconds.
    def __init__(
        self,
        grace: float = 1.0,
        on_fault: Callable[[str, BaseException], None] = lambda part, exc: None,
        off: Callable[[str], bool] = lambda kind: False,
    ) -> None:
        self.grace = grace
        self.on_fault = on_fault
        self.off = off
        self.patch: Patcher
        self.loops = loops.Loops()
        self.window = Window(self._types_now)
        self.installed = False
        self.on_closing: Callable[[Any, list[Survivor]], list[Survivor]] | None = None
        """Blocks: takes what is theirs of a closing loop's survivors, returns the rest."""
        self._loop_probes: list[Any] = []
        self._probes: list[Any] = []
        self._ticks: list[Any] = []
        self._last: Any = None
        self._known: set[Key] = set()
        self._known_loop: dict[Key, Any] = {}
        self._deferred: dict[Key, Survivor] = {}
        self._holdings: dict[Owner, list[Survivor]] = {}
        self._early: list[Finding] = []
        self._covered: set[Key] = set()
        self._values: dict[int, Owner] = {}
        self._segments: dict[Key, tuple[Any, Owner]] = {}
        self._types: dict[str, type] = {}
        self._wanted: frozenset[type] = frozenset()
        self._modules = -1
        self._fds: Any = None
        self._ended_wide: list[Owner] = []
        self._reported: list[tuple[Finding, Survivor]] = []
        self._adopted: dict[int, tuple[Any, Owner, str]] = {}
        self._forks = -1
        self._outside: Owner | None = None  # in whose context it was installed
        self._told = False

    # -- life of the watch ---------------------------------------------------------------

    def install(self) -> None:
        """Load the probes and enter all patches."""
        self.patch = Patcher(self._fault)
        self._forks = forks.depth()
        self._outside = CURRENT.get()
        if self._alone():
            fdtable.TABLE.open()
        threads.install(self.patch)
        anyio_runner.install(self.patch)
        trio_fixtures.install(self.patch)
        self.loops.install(self.patch, self._loop_closing)
        self.window.install(self.patch)
        for kind in probes.PROCESS:
            self._load(kind, self._probes)
        self._ticks = self._tickers()

        def on_asyncio(_: Any) -> None:
            for kind in probes.LOOP:
                self._load(kind, self._loop_probes)

        self.patch.when_imported("asyncio", on_asyncio)
        self.installed = True
        Watch.active.append(self)

    @classmethod
    def _alone(cls) -> bool:
        """Tell whether no other watch is installed: a pytest run may be inside a test."""
        return not any(w.here for w in cls.active)

    @property
    def here(self) -> bool:
        """True in the process that it was installed in, False in a forked child."""
        return self._forks == forks.depth()

    def _tickers(self) -> list[Any]:
        # Kinds that share a reading share its price; that of events is no call at all.
        ticks = [
            p.tick
            for p in self._probes
            if getattr(p.tick, "__func__", None) is not BaseProbe.tick and p.tick != LEDGER.happened
        ]
        return list(dict.fromkeys(ticks))

    def _load(self, kind: str, into: list[Any]) -> None:
        if self.off(kind):
            return
        try:
            probe = probes.load(kind)
            self.patch.where = kind
            probe.install(self.patch)
        except Exception as exc:
            self._fault(kind, exc)
        else:
            into.append(probe)

    def add_probe(self, probe: Any) -> None:
        """Add a probe of another package. Raises TypeError if it isn't one."""
        missing = [
            n for n in ("kind", "scope", "snapshot", "label", "explain") if not hasattr(probe, n)
        ]
        if missing:
            raise TypeError(f"probe {probe!r} has no {', '.join(missing)}")
        try:
            probe.install(self.patch)
        except Exception as exc:
            self._fault(probe.kind, exc)
            return
        (self._loop_probes if probe.scope == "loop" else self._probes).append(probe)
        self._ticks = self._tickers()

    def uninstall(self) -> None:
        """Undo every patch and let go of everything."""
        if not self.installed:
            return
        self.installed = False
        Watch.active[:] = [w for w in Watch.active if w is not self]
        self.window.close()
        self.patch.undo()
        for probe in (*self._probes, *self._loop_probes):
            close = getattr(probe, "close", None)
            if close is not None:
                self._guard(probe, close, None)
        if self._alone():  # a pytest run inside a test leaves these to the one outside
            fdtable.TABLE.close()
            LEDGER.clear()
        # Whoever did not come to its end, ends here: for a watch outside it is over.
        for owner in self._holdings:
            owner.ended = True
        CURRENT.set(self._outside)
        self._holdings.clear()
        self._known.clear()
        self._known_loop.clear()
        self._deferred.clear()
        self._segments.clear()
        self._values.clear()
        self._adopted.clear()
        self._reported.clear()
        self._types.clear()
        self._wanted = frozenset()

    def _fault(self, part: str, exc: BaseException) -> None:
        """Contain a fault: the part is switched off for good and named once."""
        for group in (self._probes, self._loop_probes):
            for probe in [p for p in group if p.kind == part]:
                group.remove(probe)
        if self._ticks:
            self._ticks = self._tickers()
        self._last = None
        self.on_fault(part, exc)

    def _guard(self, probe: Any, call: Callable[[], Any], default: Any) -> Any:
        try:
            return call()
        except Exception as exc:
            self._fault(probe.kind, exc)
            return default

    # -- owners --------------------------------------------------------------------------

    def begin(self, owner: Owner) -> None:
        """Say that a test (or block) begins; its window opens."""
        if self._forks != forks.depth():
            return
        # Whatever happened between two tests is nobody's leak. Births noted there have no
        # owner; descriptors are the one kind that may come without a birth.
        if fdtable.TABLE.tick() != self._fds or self._last is None:
            self._account()
        CURRENT.set(owner)
        WATCHED.begin(owner)
        self.window.open()

    def mark(self, owner: Owner | None) -> None:
        """Say that what exists now, and has no better owner, belongs to ``owner``.

        Called around the set-up of fixtures that may outlive the test.
        """
        try:
            objects = self._census()
            for found in objects.values():
                for obj in found:
                    key = id(obj)
                    if key not in self._segments:
                        self._segments[key] = (_weak(obj), owner)  # type: ignore[assignment]
            ticks = self._read_ticks()
            if ticks == self._last:
                return
            self._last = None
            for probe in list(self._probes):
                for key in self._guard(probe, partial(probe.snapshot, Scene()), {}):
                    if key not in self._known and key not in self._segments:
                        self._segments[key] = (None, owner)  # type: ignore[assignment]
        except Exception as exc:
            self._fault("ownership", exc)

    def value(self, owner: Owner, value: object) -> None:
        """Say that a fixture that may outlive the test returned this value."""
        if gc.is_tracked(value):
            self._values[id(value)] = owner

    def adopt(self, obj: object, owner: Owner, reason: str) -> None:
        """Give something to another owner, which will be judged for it."""
        self._adopted[id(obj)] = (_weak(obj), owner, reason)

    def meet(self, loop: Any) -> None:
        """Get to know a loop that was made before the watch was installed."""
        self.loops.meet(loop)

    def peek(self, owner: Owner) -> list[Finding]:
        """Return what would be found if this owner ended now. Judges and changes nothing."""
        survivors: list[Survivor] = []
        me = _current_task()
        ended, owner.ended = owner.ended, True
        try:
            for loop in self.loops.open():
                survivors += [
                    s
                    for s in self._loop_survivors(loop, closing=False, test=owner, defer=False)
                    if me is None or not _waits_for(_object(s), me)
                ]
            survivors += [
                s
                for s in self._process_survivors(self._census(), owner, defer=False)
                # While a test runs, pytest's capturing stands in for these.
                if not (isinstance(s.key, tuple) and s.key[0] == "fd" and s.key[1] in (0, 1, 2))
            ]
            chosen, parts = self._fold(survivors, final=False)
            findings = []
            for s in chosen:
                finding = self._finding(s)
                finding.parts = [self._subject(p) for p in parts.get(id(s), ())]
                findings.append(finding)
            return findings
        finally:
            owner.ended = ended

    def wide_ended(self, owner: Owner) -> None:
        """Say that a fixture wider than a test has been torn down."""
        owner.ended = True
        self._ended_wide.append(owner)
        for key in [k for k, o in self._values.items() if o is owner]:
            del self._values[key]

    def end(self, owner: Owner) -> list[Finding]:
        """Say that a test's teardown is over; return what it and ended fixtures left behind."""
        if self._forks != forks.depth():  # a forked child runs on with our hooks
            return []
        owner.ended = True
        window = self.window
        collecting = gc.isenabled()
        gc.disable()
        window.looking = True
        try:
            # This part runs for every test, among code that pushed ours out of the
            # processor's caches: each call that it doesn't make is worth a microsecond.
            survivors = self._on_loops(owner) if self.loops.some else []
            if (
                not survivors
                and not self._early
                and not self._ended_wide
                and not self._reported
                and self._read_ticks() == self._last
                and window.dull()
            ):
                return []
            return self._end(owner, survivors)
        except Exception as exc:
            self._fault("watch", exc)
            self._covered.clear()
            self._ended_wide.clear()
            return []
        finally:
            window.looking = False
            if collecting:
                gc.enable()
            window.close()
            CURRENT.set(self._outside)

    def _on_loops(self, owner: Owner) -> list[Survivor]:
        """Return what is left on loops that are still open."""
        survivors: list[Survivor] = []
        for loop in self.loops.open():
            if loops.is_quiet(loop):
                continue
            found = self._loop_survivors(loop, closing=False, test=owner)
            if loop.is_running():
                # It runs in another thread: its tasks can be listed, all else is in motion.
                found = [s for s in found if s.probe.kind == "task" and s.known_owner]
            survivors += found
        return survivors

    def _end(self, owner: Owner, survivors: list[Survivor]) -> list[Finding]:
        findings, self._early = self._early, []
        self._told = bool(findings)
        garbage = self.window.collect(LEDGER.of_dying)
        objects = self._census()
        hits = self._hits(objects)
        if (
            not hits
            and not garbage
            and not survivors
            and not self._ended_wide
            and self._read_ticks() == self._last
        ):
            self._outlive(owner)
            self._covered.clear()
            return findings
        survivors += self._process_survivors(objects, owner)
        survivors = [s for s in survivors if not self._told_already(s, findings)]
        for ended in self._ended_wide:
            survivors += self._release(ended)
        findings += self._from_garbage(garbage, owner)
        if any(f.kind == "process" and f.certainty is Certainty.PROVEN for f in findings):
            # asyncio watches a child through a descriptor that goes with its object.
            survivors = [s for s in survivors if not self._is_pidfd(s)]
        survivors, slow = self._settle(survivors)
        findings += slow
        self._outlive(owner)
        findings += self._judge(survivors)
        self._account()
        self._covered.clear()
        self._ended_wide.clear()
        return findings

    def _told_already(self, s: Survivor, findings: list[Finding]) -> bool:
        """Tell whether this task's death is that of one told of when its loop closed."""
        if s.probe.kind != "task" or s.probe.scope != "process":
            return False
        label = s.probe.label(s.handle)
        if not any(
            f.kind == "task" and f.label == label and f.owner == str(s.owner) for f in findings
        ):
            return False
        s.probe.forget(s.key)
        return True

    def _is_pidfd(self, s: Survivor) -> bool:
        label: str = self._guard(s.probe, partial(s.probe.label, s.handle), "")
        return s.probe.kind == "fd" and label == "pidfd"

    # -- looking -------------------------------------------------------------------------

    def _looking(self) -> _Looking:
        return _Looking(self.window)

    def _read_ticks(self) -> Any:
        try:
            return [LEDGER.events, *[tick() for tick in self._ticks]]
        except Exception:
            # Find out which one it was; the others go on.
            for probe in list(self._probes):
                self._guard(probe, probe.tick, None)
            return None

    def _census(self) -> Mapping[type, list[Any]]:
        return self.window.objects()

    def _types_now(self) -> frozenset[type]:
        """Return the types that probes want listed and whose modules are imported by now."""
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            names = [n for p in (*self._probes, *self._loop_probes) for n in p.types]
            before = len(self._types)
            resolve(names, self._types)
            if len(self._types) != before:
                self._wanted = frozenset(self._types.values())
        return self._wanted

    def _hits(self, objects: Mapping[type, list[Any]]) -> bool:
        if not objects:
            return False
        for probe in self._probes:
            opened = getattr(probe, "opened", None)
            if opened is None:
                continue
            for obj in self._pick(probe, objects):
                if self._guard(probe, partial(opened, obj), False):
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

    def _account(self) -> None:
        """Take everything that exists now as known."""
        known: set[Key] = set()
        LEDGER.settled()
        with fdtable.TABLE.listed():
            for probe in list(self._probes):
                known.update(self._guard(probe, partial(probe.snapshot, Scene()), {}))
        self._known = known
        self._last = self._read_ticks()
        self._fds = fdtable.TABLE.tick()
        for key, (ref, _) in list(self._segments.items()):
            if (ref is not None and ref() is None) or (ref is None and key not in known):
                del self._segments[key]

    def _loop_closing(self, loop: Any) -> None:
        """Take the last look at a loop that is about to close."""
        owner = current()
        if owner is None or self._forks != forks.depth():
            return
        leaving = sys.exc_info()[1]
        if leaving is not None and not isinstance(leaving, (Exception, GeneratorExit)):
            # Ctrl-C, sys.exit or a group of them ended the loop's run: nobody could tidy up.
            return
        with self._looking():
            survivors = self._loop_survivors(loop, closing=True, test=owner)
            if survivors and self.on_closing is not None:
                survivors = self.on_closing(loop, survivors)
            if survivors:
                survivors, slow = self._settle(survivors, loop)
                self._early += slow
                self._early += self._judge(survivors, closing=True)

    def _loop_survivors(
        self, loop: Any, *, closing: bool, test: Owner, defer: bool = True
    ) -> list[Survivor]:
        objects: Mapping[type, list[Any]] = {}
        if loops.is_uvloop(loop):
            objects = self._census()
        found: list[Survivor] = []
        seen: set[Key] = set()
        for probe in list(self._loop_probes):
            scene = self._scene(probe, objects, loop)
            snapshot = self._guard(probe, partial(probe.snapshot, scene), {})
            for key, handle in snapshot.items():
                if key in seen or (
                    key in self._known_loop and _same(self._known_loop[key], handle)
                ):
                    continue
                deferred = self._deferred.get(key)
                if deferred is not None and not _same(deferred.handle, handle):
                    deferred = None
                if deferred is not None and not closing:
                    continue
                seen.add(key)
                survivor = self._survivor(probe, key, handle, test)
                if deferred is not None:
                    survivor.owner = deferred.owner
                # What was adopted by somebody who is still there may die with its loop.
                adopted = self._adopted and self._adopter(handle) is not None
                if (closing and not adopted) or _ended(survivor.owner):
                    found.append(survivor)
                elif defer and survivor.owner is not test:
                    self._defer(survivor)
        return found

    def _survivor(self, probe: Any, key: Key, handle: Any, test: Owner) -> Survivor:
        owner = self._guard(probe, lambda: probe.owner(handle), None)
        if owner is not None and owner.kind == "block" and owner.ended and owner.parent is not None:
            owner = _around(owner)
        if self._adopted:
            owner = self._adopter(handle) or owner
        known = owner is not None
        if owner is None:
            owner = self._segment(key, handle) or test
        return Survivor(probe, key, handle, owner, known)

    def _adopter(self, handle: Any) -> Owner | None:
        obj = _handled(handle)
        entry = self._adopted.get(id(obj)) if obj is not None else None
        if entry is None or (entry[0] is not None and entry[0]() is not obj):
            return None
        return entry[1]

    def _segment(self, key: Key, handle: Any) -> Owner | None:
        entry = self._segments.get(key)
        if entry is None:
            obj = _handled(handle)
            entry = self._segments.get(id(obj)) if obj is not None else None
            if entry is not None and entry[0] is not None and entry[0]() is not obj:
                entry = None
        return None if entry is None else entry[1]

    def _process_survivors(
        self, objects: Mapping[type, list[Any]], test: Owner, *, defer: bool = True
    ) -> list[Survivor]:
        found: list[Survivor] = []
        for probe, key, handle in self._listed(objects):
            survivor = self._survivor(probe, key, handle, test)
            if _ended(survivor.owner):
                found.append(survivor)
            elif defer:
                self._defer(survivor)
        return found

    def _listed(self, objects: Mapping[type, list[Any]]) -> list[tuple[Any, Key, Any]]:
        """Return what is there now and was not when it was last taken as known."""
        fresh: list[tuple[Any, Key, Any]] = []
        seen: set[Key] = set()
        with fdtable.TABLE.listed():
            for probe in list(self._probes):
                scene = self._scene(probe, objects)
                snapshot = self._guard(probe, partial(probe.snapshot, scene), {})
                for key, handle in snapshot.items():
                    if key not in seen and key not in self._known:
                        seen.add(key)
                        fresh.append((probe, key, handle))
        return fresh

    def _defer(self, survivor: Survivor) -> None:
        """Leave a survivor to its owner, which is still there."""
        self._holdings.setdefault(survivor.owner, []).append(survivor)
        if survivor.probe.scope == "loop":
            self._deferred[survivor.key] = survivor

    def _release(self, owner: Owner) -> list[Survivor]:
        """Return what an owner that just ended had been left, if it is still there."""
        left = []
        for s in self._holdings.pop(owner, ()):
            self._deferred.pop(s.key, None)
            told = s.key in self._known_loop and _same(self._known_loop[s.key], s.handle)
            if not told and self._guard(s.probe, partial(s.probe.alive, s.handle), False):
                left.append(s)
        return left

    # -- settling ------------------------------------------------------------------------

    def _settle(
        self, survivors: list[Survivor], closing: Any = None
    ) -> tuple[list[Survivor], list[Finding]]:
        """Give survivors the time that progress earns them; return the rest and slow closers."""
        if not survivors:
            return [], []
        started = clock()
        settle = Settle(self.grace, started)
        subjects: dict[int, Finding] = {}
        left = survivors
        while True:
            idle = (
                [closing]
                if closing is not None
                else [loop for loop in self.loops.open() if not loop.is_running()]
            )
            busy = any(s.probe.kind in _MOVING for s in left) or any(map(loops.ready, idle))
            busy = busy or (closing is None and any(_runs(s) for s in left))
            dues = [d for d in map(loops.next_due, idle) if d is not None]
            pause = settle.again(len(left), clock(), ready=busy, due=min(dues, default=None))
            if pause is None:
                break
            if settle.turns == 9 and not subjects:
                # From here on time passes: whoever goes now is a slow closer, and has to
                # be described while it is there.
                for s in left:
                    subjects[id(s)] = self._finding(s)
            self._turn(idle, pause)
            left = [
                s for s in left if self._guard(s.probe, partial(s.probe.alive, s.handle), False)
            ]
        took = clock() - started
        slow: list[Finding] = []
        if took >= SLOW_AFTER and subjects:
            gone = {id(s) for s in survivors} - {id(s) for s in left}
            for key, finding in subjects.items():
                # Python ends its threads a little before the system does.
                if key in gone and finding.kind != "native-thread":
                    slow.append(finding.with_(verdict=Verdict.SLOW, seconds=took))
        return left, slow

    def _turn(self, idle: Sequence[Any], pause: float) -> None:
        if not idle:
            time.sleep(pause)
            return
        for loop in idle:
            if not loop.is_closed() and not loop.is_running():
                loops.turn(loop, pause)

    # -- judging -------------------------------------------------------------------------

    def _judge(self, survivors: list[Survivor], *, closing: bool = False) -> list[Finding]:
        if not survivors:
            return []
        for s in survivors:
            self._grade(s)
        if any(s.probe.kind == "native-thread" for s in survivors):
            for s in survivors:
                if isinstance(s.probe, fdtable.FdKindProbe) and s.probe.unseen(s.handle):
                    s.certainty = Certainty.POSSIBLE
                    s.reason = "made by C code, together with a thread of its own"
        # Whoever holds something of a loop that closes, holds something that is dead.
        if not closing and any(self._needs_root(s) for s in survivors):
            survivors = self._grade_by_holder(survivors)
        chosen, parts = self._fold(survivors)
        findings = []
        for s in chosen:
            finding = self._finding(s)
            finding.parts = [self._subject(p) for p in parts.get(id(s), ())]
            findings.append(finding)
            forget = getattr(s.probe, "forget", None)
            if forget is not None:
                forget(s.key)
            reported = getattr(s.probe, "reported", None)
            if reported is not None:
                reported(s.handle)
            if s.probe.scope == "loop":
                self._known_loop[s.key] = _remembered(s.handle)
            event = forget is not None and type(s.probe).forget is not BaseProbe.forget
            if not event and _light(s.handle):
                self._reported.append((finding, s))
        return findings

    def _grade(self, s: Survivor) -> None:
        if (getattr(s.probe, "proves", None) is not None and s.probe.proves(s.handle)) or (
            s.probe.kind == "task" and self._lost(s)
        ):
            s.certainty = Certainty.PROVEN
        else:
            doubt = getattr(s.probe, "doubt", None)
            s.reason = self._guard(s.probe, partial(doubt, s.handle), "") if doubt else ""
            if s.reason:
                s.certainty = Certainty.POSSIBLE

    def _lost(self, s: Survivor) -> bool:
        """Tell whether nothing can ever wake a task."""
        from .explain.holders import isolated

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

    def _needs_root(self, s: Survivor) -> bool:
        """Tell whether it matters who holds this: alive by itself, it would not."""
        if s.certainty != Certainty.STRONG or _object(s) is None:
            return False
        if s.probe.kind == "task":  # a client that began to read when it was used first
            return bool(self._values)
        return s.probe.kind not in _EVENTS

    def _grade_by_holder(self, survivors: list[Survivor]) -> list[Survivor]:
        from .explain.roots import root_of

        kept = []
        # Seconds of CPU for all together, then little for each. With wide fixtures around, too
        # short a search would blame a test for what their values began.
        spare = 2.0 if self._values else 0.25
        reopened = self.window.is_open
        if reopened:
            self.window.show_all()
        for s in survivors:
            obj = _object(s)
            if obj is None or not self._needs_root(s):
                kept.append(s)
                continue
            loop = getattr(obj, "_loop", None)
            dead = loop is not None and loop.is_closed() if hasattr(loop, "is_closed") else False
            # What a task waits for holds it, but doesn't own it.
            apart = [getattr(obj, "_fut_waiter", None)] if s.probe.kind == "task" else []
            began = time.thread_time()
            root = root_of([obj], self._values, apart=apart, budget=max(0.05, min(0.5, spare)))
            spare -= time.thread_time() - began
            apart.clear()
            del obj, loop
            if root.kind == "owner" and root.owner is not None and not _ended(root.owner):
                s.owner = root.owner
                self._defer(s)
                continue
            if root.kind == "global" and not dead and s.probe.scope == "process":
                s.certainty = Certainty.POSSIBLE
                s.reason = f"kept on purpose or lazily made: {root.text} holds it"
            kept.append(s)
        return kept

    def _fold(
        self, survivors: list[Survivor], *, final: bool = True
    ) -> tuple[list[Survivor], dict[int, list[Survivor]]]:
        """Put what ends together into one: a transport with its socket is one leak."""
        covers: dict[Key, Survivor] = {}
        for s in survivors:
            for key in self._guard(s.probe, partial(_listed, s.probe.covers, s.handle), []):
                if key != s.key:
                    covers.setdefault(key, s)
        own = self._loop_parts()
        parts: dict[int, list[Survivor]] = {}
        chosen = []
        for s in survivors:
            names = [s.key]
            obj = _object(s)
            if obj is not None:
                names.append(("object", id(obj)))
            obj = None
            whole = next((covers[n] for n in names if n in covers and covers[n] is not s), None)
            if whole is not None and not _circular(whole, s, covers):
                parts.setdefault(id(whole), []).append(s)
            elif any(n in self._covered or n in own for n in names):
                continue
            else:
                chosen.append(s)
        if final:
            self._covered.update(covers)
        return chosen, parts

    def _loop_parts(self) -> set[Key]:
        """Return keys of what belongs to loops that are still in use."""
        from .probes.executors import ExecutorProbe
        from .probes.loops import LoopProbe

        own: set[Key] = set()
        for loop in self.loops.open():
            own.update(LoopProbe().covers(loop))
            executor = loops.default_executor(loop)
            if executor is not None:
                own.update(ExecutorProbe().covers(executor))
                own.add(("object", id(executor)))
        return own

    def _from_garbage(self, garbage: list[Garbage], test: Owner) -> list[Finding]:
        findings = []
        children: set[Key] = set()
        if any(pid_of(g.text) is not None for g in garbage):
            for probe in [p for p in self._probes if p.kind == "process"]:
                children.update(self._guard(probe, partial(probe.snapshot, Scene()), {}))
        for g in garbage:
            if any(u.told(g.text) for u in UNCLOSED):
                continue
            if g.text == "loop is closed" and self._told:
                # A stream writer whose transport was told of when the loop closed.
                continue
            if ("object", g.source) in self._known_loop or ("object", g.source) in self._covered:
                continue  # told of when its loop closed, by itself or with what it was part of
            pid = pid_of(g.text)
            if pid is not None and ("pid", pid) in children:
                continue  # the child is still there, and is told of itself
            if "SubprocessTransport" in g.type_name and any(
                o is not g and pid_of(o.text) == pid for o in garbage
            ):
                continue  # told of by the process object that it is made of
            birth = g.birth
            owner = birth.owner if birth is not None and birth.owner is not None else test
            made = origin.project_site(birth.made) if birth is not None else None
            kind = _GARBAGE.get(g.type_name, "unclosed")
            label, subject = described(kind, g.type_name, g.text.removeprefix("unclosed "))
            if pid is not None and g.program:
                # Whether the collector's kill or our look came first: the same words.
                label, subject = g.program, f"process {g.program!r}"
            findings.append(
                self._finish(
                    Finding(
                        kind=kind,
                        label=label,
                        subject=subject,
                        owner=str(owner),
                        owner_kind=owner.kind,
                        owner_scope=owner.scope,
                        nodeid=owner.nodeid,
                        certainty=Certainty.PROVEN,
                        made=made,
                        facts=[
                            (
                                "state",
                                "unreachable and never closed: only the garbage collector did",
                            )
                        ],
                        fix=_remedy(kind),
                        tail="was left open by",
                    )
                )
            )
        return findings

    # -- telling -------------------------------------------------------------------------

    def _subject(self, s: Survivor) -> str:
        return s.subject or str(
            self._guard(s.probe, lambda: s.probe.explain(s.handle), Evidence(s.probe.kind)).subject
        )

    def _finding(self, s: Survivor) -> Finding:
        probe, handle = s.probe, s.handle
        evidence = self._guard(probe, lambda: probe.explain(handle), Evidence(probe.kind))
        label = self._guard(probe, lambda: probe.label(handle), "?")
        raw = self._guard(probe, lambda: probe.made(handle), None)
        made: Site | None = evidence.made or origin.project_site(raw)
        s.subject = evidence.subject
        facts = list(evidence.facts)
        stack = [f"{x.file}:{x.line}" for x in origin.stack_sites(raw or (), trim=False)]
        if probe.kind not in _EVENTS:
            held = self._held(s)
            if held:
                facts.append(("held by", held))
        return self._finish(
            Finding(
                kind=probe.kind,
                label=label,
                subject=evidence.subject,
                owner=str(s.owner),
                owner_kind=s.owner.kind,
                owner_scope=s.owner.scope,
                nodeid=s.owner.nodeid,
                certainty=s.certainty,
                made=made,
                facts=facts,
                fix=evidence.fix or _remedy(probe.kind),
                reason=s.reason,
                tail=_TAILS.get(probe.kind, "outlived"),
                extra={"stack": stack} if stack else {},
            )
        )

    def _finish(self, finding: Finding) -> Finding:
        from .fingerprint import fingerprint

        finding.fingerprint = fingerprint(finding)
        return finding

    def _held(self, s: Survivor) -> str:
        from .explain.holders import holder_path

        obj = _object(s)
        if obj is None:
            return ""
        try:
            path = holder_path(obj, ignore=_untouchable(), budget=0.05) or ""
            return "" if path.startswith(_REGISTRIES) or ".funcargs" in path else path
        except Exception as exc:
            self.on_fault("holders", exc)
            return ""
        finally:
            obj = None

    def _outlive(self, test: Owner) -> None:
        """Count, for each reported survivor that is still there, the test it outlived."""
        if not self._reported:
            return
        still = []
        for finding, s in self._reported:
            if self._guard(s.probe, partial(s.probe.alive, s.handle), False):
                if test.kind == "test":
                    finding.extra["outlived"] = finding.extra.get("outlived", 0) + 1
                    finding.extra["outlived_last"] = test.name
                still.append((finding, s))
        self._reported = still if len(still) < 1000 else still[-1000:]

    @property
    def still_there(self) -> Iterable[Finding]:
        """Return reported findings whose survivor still exists."""
        return [f for f, _ in self._reported]


#: Holders that hold everything of their kind: naming them explains nothing.
_REGISTRIES = (
    "event loop",
    "module _pytest",
    "module pytest",
    "module pluggy",
    "module threading",
    "module subprocess",
    "module tightship",
    "module asyncio",
    "module concurrent",
)
_MOVING = {"thread", "native-thread", "process", "executor"}
_EVENTS = {"exception", "coroutine", "task", "native-thread", "tempfile", "unclosed"}
_TAILS = {
    "coroutine": "was never awaited in",
    "exception": "was never seen in",
    "unclosed": "was left open by",
}
_GARBAGE = {
    "socket": "socket",
    "SSLSocket": "socket",
    "TextIOWrapper": "file",
    "BufferedReader": "file",
    "BufferedWriter": "file",
    "BufferedRandom": "file",
    "FileIO": "file",
    "Connection": "sqlite3",
    "Popen": "process",
    "TemporaryDirectory": "tempfile",
    "_TemporaryFileCloser": "file",
    "_UnixSelectorEventLoop": "loop",
    "_SelectorSocketTransport": "transport",
    "_SelectorDatagramTransport": "transport",
    "_UnixReadPipeTransport": "transport",
    "_UnixWritePipeTransport": "transport",
    "Loop": "loop",
}


class _Looking:
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


def _untouchable() -> list[Any]:
    """Return what must not be asked for its referents.

    On 3.12 asyncio's C module shows the collector its list of free iterators; whoever takes
    one from there frees it twice, and the next pass over the heap never ends.
    """
    return [m for m in (sys.modules.get("_asyncio"),) if m is not None]


def _remedy(kind: str) -> str:
    from .explain.remedies import remedy

    return remedy(kind)


def _ended(owner: Owner) -> bool:
    return owner.ended or (owner.parent is not None and owner.parent.ended)


def _around(owner: Owner) -> Owner:
    """Return who is still there to answer for a block that is over."""
    while owner.kind == "block" and owner.ended and owner.parent is not None:
        owner = owner.parent
    return owner


def _object(s: Survivor) -> Any:
    """Return the Python object behind a survivor, if it has one."""
    return _handled(s.handle)


def _listed(covers: Callable[[Any], Iterable[Key]], handle: Any) -> list[Key]:
    # A generator runs only when it is listed: that has to happen where faults are contained.
    return list(covers(handle))


def _handled(handle: Any) -> Any:
    if isinstance(handle, weakref.ref):
        return handle()
    holder = getattr(handle, "holder", None)
    if isinstance(holder, weakref.ref):
        return holder()
    if isinstance(handle, tuple) and handle and isinstance(handle[0], weakref.ref):
        return handle[0]()
    if isinstance(handle, (tuple, str, int)) or not gc.is_tracked(handle):
        return None
    # A type without weak references: the handle is the object itself.
    return None if type(handle).__module__.startswith("tightship") else handle


def _same(then: Any, now: Any) -> bool:
    """Tell whether two handles under one key are the same thing: an address is used again."""
    obj = _handled(now)
    return obj is None or _handled(then) is obj


def _light(handle: Any) -> bool:
    """Tell whether a handle can be kept without keeping anything else alive."""
    if isinstance(handle, tuple):
        return all(map(_light, handle))
    return isinstance(handle, weakref.ref) or not gc.is_tracked(handle)


def _remembered(handle: Any) -> Any:
    """Return what is enough to know a handle again, and keeps nothing alive."""
    if _light(handle):
        return handle
    obj = _handled(handle)
    return None if obj is None else _weak(obj)


def _waits_for(task: Any, me: Any) -> bool:
    """Tell whether a task is this one, or awaits it, at whatever remove."""
    for _ in range(100):
        if task is me:
            return True
        task = getattr(task, "_fut_waiter", None)
        if task is None:
            return False
    return False


def _runs(s: Survivor) -> bool:
    """Tell whether a task's loop is running, in another thread."""
    task = _object(s) if s.probe.kind == "task" else None
    loop = getattr(task, "get_loop", lambda: None)()
    return loop is not None and loop.is_running()


def _current_task() -> Any:
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio.current_task() if asyncio is not None else None
    except RuntimeError:
        return None


def _circular(whole: Survivor, part: Survivor, covers: Mapping[Key, Survivor]) -> bool:
    """Tell whether two survivors name each other as a part: the first one found keeps it."""
    return covers.get(whole.key) is part


def _weak(obj: Any) -> Any:
    try:
        return weakref.ref(obj)
    except TypeError:
        return None


def _shortened(text: str, limit: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
