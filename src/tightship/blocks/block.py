"""One open block: what was there when it began, and what is left when it ends."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from contextvars import Token
from typing import Any

from ..garbage import Garbage
from ..ledger import LEDGER
from ..model import Finding, Key, Owner, Verdict
from ..ownership import CURRENT
from ..probes.lost_tasks import LostTaskProbe
from ..rules import AllowRule, Threshold
from ..runtimes import loops
from ..settle import Settle
from ..survivors import Survivor, leaving, object_of
from ..waiting import clock, pause, turn
from ..watch import Watch
from .error import LeakError, message
from .past import WITH_CONTEXT, Past
from .station import STATION
from .strangers import without_strangers

__all__ = ["Block"]

#: Exceptions that end the program, or leave no time to look.
_URGENT = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Block:
    """One open block.

    Args:
        kinds: what to watch; everything if empty.
        rules: what may be left.
        threshold: the least certainty that counts.
        grace: seconds that survivors are given at most.
        name: what to call it.
    """

    def __init__(
        self,
        kinds: frozenset[str],
        rules: tuple[AllowRule, ...],
        threshold: Threshold,
        grace: float,
        name: str,
    ) -> None:
        self.kinds = kinds
        self.rules = rules
        self.threshold = threshold
        self.grace = grace
        self.before = CURRENT.get()
        nodeid = self.before.nodeid if self.before is not None else ""
        self.owner = Owner(name, "block", "block", nodeid, self.before)
        self.company = False
        """True once a block was open that neither encloses this one nor lies in it."""
        self.hurry = False
        """True once waiting has been cancelled."""
        self.garbage: list[Garbage] = []
        """What only the collector closed, of this block's."""
        self._failing: list[Finding] = []
        self._watch: Watch | None = None
        self._token: Token[Owner | None] | None = None
        self._past: Past | None = None
        self._early: list[Finding] = []
        self._told: list[tuple[str, Owner]] = []  # pending when their loop closed
        self._loops: list[Any] = []
        self._blocked = False

    @property
    def watch(self) -> Watch:
        """The watch that this block looks through."""
        assert self._watch is not None
        return self._watch

    # -- beginning and end ------------------------------------------------------------------

    def open(self) -> None:
        """Begin: remember what is there, become the owner of what comes."""
        try:
            with STATION.lock:
                self._watch = STATION.join(self)
                with STATION.still(self._watch):
                    self._past = self._remembered(self._watch)
        except Exception as exc:
            STATION.fault("blocks", exc)
            with STATION.lock:
                STATION.leave(self)
            self._watch = None
        self._token = CURRENT.set(self.owner)

    def _remembered(self, watch: Watch) -> Past:
        loop = asyncio._get_running_loop()
        past = Past(watch, loop, self._wants)
        if not STATION.open_window(watch) and watch.window.is_open:
            self._sort_garbage(inside=False)
            past.add_objects()
        past.add_process(account=STATION.own)
        return past

    def close(self) -> None:
        """End: whatever happened, undo what `open` did."""
        self._step_aside()
        if self._watch is not None:
            with STATION.lock:
                STATION.leave(self)
            self._watch = None
        self._past = None
        self._loops.clear()

    def _step_aside(self) -> None:
        """Be over, and make the owner before us the current one again."""
        self.owner.ended = True
        token, self._token = self._token, None
        if token is None:
            return
        if CURRENT.get() is not self.owner:  # another context, or somebody came after us
            return
        try:
            CURRENT.reset(token)
        except ValueError:  # a copy of the context that we entered in
            CURRENT.set(self.before)

    def tell(self, exc: BaseException | None) -> None:
        """Raise what was found, or add it to the exception that is under way."""
        __tracebackhide__ = True
        for part, text in list(STATION.faults.items()):
            del STATION.faults[part]
            _warn(f"Tightship's own part {part!r} failed and was switched off: {text}")
        failing, self._failing = self._failing, []
        if not failing:
            return
        if exc is None:
            raise LeakError(failing)
        if isinstance(exc, LeakError):
            told = {f.fingerprint for f in exc.findings}
            failing = [f for f in failing if f.fingerprint not in told]
        if failing:
            exc.add_note(
                "tightship: left behind as well, perhaps because of this exception:\n\n"
                + message(failing)
            )

    # -- whose is it -------------------------------------------------------------------------

    def within(self, other: Block) -> bool:
        """Tell whether another block encloses this one."""
        return other.owns(self.owner)

    def owns(self, owner: Owner | None) -> bool:
        """Tell whether an owner is this block or something within it."""
        while owner is not None:
            if owner is self.owner:
                return True
            owner = owner.parent
        return False

    def has_on(self, loop: Any, s: Survivor) -> bool:
        """Tell whether something left on a closing loop is this block's."""
        if s.known_owner:
            return self.owns(s.owner)
        return s.owner is self.owner and self._born_here(loop)

    def _wants(self, probe: Any) -> bool:
        return not self.kinds or probe.kind in self.kinds

    def _born_here(self, obj: Any) -> bool:
        birth = LEDGER.of(obj)
        return birth is not None and self.owns(birth.owner)

    def _mine(self, probe: Any, key: Key, handle: Any, loop: Any = None) -> Survivor | None:
        """Return a survivor if this resource was made within this block."""
        watch = self.watch
        owner = watch.attribution.owner(probe, handle)
        if owner is not None:
            return Survivor(probe, key, handle, owner) if self.owns(owner) else None
        if loop is not None and not loops.is_uvloop(loop) and probe.kind in WITH_CONTEXT:
            return None
        birth = getattr(probe, "birth", None)
        if birth is not None and watch.roster.ask(probe, lambda: birth(handle), None) is not None:
            return None
        if self.company or self._past is None or self._past.has(key, handle):
            return None
        return Survivor(probe, key, handle, self.owner, False)

    def _task_of_mine(self, task: Any) -> bool:
        probe = next((p for p in self.watch.roster.loop if p.kind == "task"), None)
        return probe is not None and self.owns(probe.owner(task))

    # -- looking -----------------------------------------------------------------------------

    def pauses(self, exc: BaseException | None, *, turning: bool) -> Iterator[float]:
        """Look, settle, judge. Yields seconds to wait, while there is something to wait for.

        Args:
            exc: ends the block; if it ends the program as well, there is no look.
            turning: the caller lets the loop that runs here turn when it is given seconds.
        """
        if isinstance(exc, _URGENT):
            return
        self._step_aside()
        if self._watch is None:
            return
        loop = asyncio._get_running_loop()
        self._blocked = loop is not None and not turning
        try:
            with STATION.still(self.watch):
                survivors = self._look(loop)
            yield from self._settle(survivors)
            if survivors or self.garbage or self._early:
                with STATION.still(self.watch):
                    if survivors and self.watch.window.is_open:
                        # Let go of what became unreachable while we waited.
                        self._sort_garbage(inside=True)
                    survivors = self.watch.roster.alive(survivors)
                    findings = self._early + self._of_garbage()
                    findings += self._assess(survivors)
                    self._failing = self._judge(findings)
        except Exception as exc:
            STATION.fault("blocks", exc)

    def turn(self, seconds: float) -> None:
        """Let time pass: in the block's idle loops if there are any."""
        idle = [loop for loop in self._loops if not loop.is_closed() and not loop.is_running()]
        turn([] if self._blocked else idle, seconds)

    def _look(self, loop: Any) -> list[Survivor]:
        watch = self.watch
        if watch.window.is_open:
            self._sort_garbage(inside=True)
        objects = watch.looking.census()
        survivors = self._on_loops(loop, objects)
        if self._past is not None and self._past.lasts() and not watch.looking.hits(objects):
            return survivors
        for probe, key, handle in watch.looking.in_process(objects, self._wants):
            survivor = self._mine(probe, key, handle)
            if survivor is not None and not self._old_news(survivor):
                survivors.append(survivor)
        return without_strangers(survivors, loop, self._task_of_mine)

    def _sort_garbage(self, *, inside: bool) -> None:
        STATION.sort(self.watch.window.collect(), self, inside=inside)

    def _old_news(self, s: Survivor) -> bool:
        """Tell whether this is the death of a task that was told of before."""
        if isinstance(s.probe, LostTaskProbe):
            entry = (s.probe.label(s.handle), s.owner)
            if entry in self._told:
                self._told.remove(entry)
                s.probe.forget(s.key)
                return True
        return False

    def _on_loops(self, running: Any, objects: Mapping[type, list[Any]]) -> list[Survivor]:
        """Look at the running loop, and at the idle ones that are this block's."""
        watch = self.watch
        found: list[Survivor] = []
        current = loops.current_task() if running is not None else None
        for loop in watch.loops.open():
            if loop is not running and loop.is_running():
                continue
            here = len(found)
            for probe, key, handle in watch.looking.on_loop(loop, objects, self._wants):
                if watch.reported.has(key, handle):
                    continue
                if current is not None and object_of(handle) is current:
                    continue
                survivor = self._mine(probe, key, handle, loop)
                if survivor is not None:
                    found.append(survivor)
            if loop is running or len(found) > here or self._born_here(loop):
                self._loops.append(loop)
        return without_strangers(found, running, self._task_of_mine)

    # -- settling and judging ----------------------------------------------------------------

    def _settle(self, survivors: list[Survivor]) -> Iterator[float]:
        """Yield seconds to wait. The list keeps only what is still there."""
        settle = Settle(self.grace, clock())
        while survivors and not self.hurry:
            around = [loop for loop in self._loops if not loop.is_closed()]
            seconds = pause(settle, survivors, around)
            if seconds is None:
                break
            yield seconds
            survivors[:] = self.watch.roster.alive(survivors)

    def closing(self, loop: Any, survivors: list[Survivor]) -> None:
        """Judge what is left on a loop that is about to close."""
        survivors = [s for s in survivors if self._wants(s.probe)]
        self._loops.append(loop)
        for seconds in self._settle(survivors):
            loops.turn(loop, seconds)
        with STATION.still(self.watch):
            self._told += [
                (s.probe.label(s.handle), s.owner) for s in survivors if s.probe.kind == "task"
            ]
            self._early += self._assess(survivors, dead=True)
        self._loops.remove(loop)

    def _assess(self, survivors: list[Survivor], *, dead: bool = False) -> list[Finding]:
        """Grade and describe survivors, leaving the watch as it was.

        Args:
            survivors: what is left.
            dead: they are a closing loop's: whoever holds them holds something that is dead.
        """
        if not survivors:
            return []
        watch, judging = self.watch, self.watch.judging
        judging.grade(survivors)
        with ExitStack() as search:
            if not dead and judging.needs_holder(survivors):
                # The window is not ours to end.
                search.enter_context(watch.looking.whole_heap())
                survivors = judging.grade_by_holder(survivors)
            chosen = judging.fold(survivors, final=False)
            if self._blocked and not dead:
                # The loop could not turn: what was told to end counts as ended.
                chosen = [(s, parts) for s, parts in chosen if not leaving(s)]
            findings = watch.telling.findings(chosen)
        for s in survivors:
            # Events are told once; things that are still there stay what they are.
            if hasattr(s.probe, "forget"):
                s.probe.forget(s.key)
        return findings

    def _of_garbage(self) -> list[Finding]:
        garbage, self.garbage = self.garbage, []
        if not garbage:
            return []
        told = bool(self._early)
        found = self.watch.collected.findings(garbage, self.owner, streams_told=told)
        return [f for f in found if not self.kinds or f.kind in self.kinds]

    def _judge(self, findings: list[Finding]) -> list[Finding]:
        from ..config import Config
        from ..policy import Policy, group

        policy = Policy(Config(threshold=self.threshold, allow=self.rules))
        judged = policy.judge(
            group(findings), nodeid=self.owner.nodeid, markers=(), own_failure=False
        )
        return [f for f in judged if f.verdict is Verdict.FAIL]


def _warn(text: str) -> None:
    """Say that a part of ours failed; that is nobody's error but ours, so never raise."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=4)
    except RuntimeWarning:
        print(text, file=sys.stderr)
