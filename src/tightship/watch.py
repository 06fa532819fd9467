"""The conductor: before, settle, judge, tell. It knows the order, and its parts the rest.

Somebody tells a `Watch` when owners begin and end; it answers with findings. It knows nothing
of pytest. What there is, is for `looking` to say; whose it is, for `attribution`; whether it
may still go away, for `waiting`; how certain it is, for `judging`; and its words are found in
`telling`. The last two, and `collected`, are loaded when there is something to judge.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from .attribution import Attribution
from .births import Patcher
from .forks import DEPTH
from .ledger import LEDGER
from .looking import Looking, Stillness
from .model import Certainty, Finding, Key, Owner
from .ownership import CURRENT, current
from .probes import MOMENTS, fdtable
from .probes.coroutines import WATCHED
from .reported import Reported, told_by
from .roster import Roster
from .runtimes import anyio_runner, cancels, loops, threads, trio_fixtures
from .survivors import Survivor, waits_for
from .waiting import Waiting

if TYPE_CHECKING:
    from .collected import Collected
    from .judging import Judging
    from .telling import Telling

__all__ = ["Watch"]


class Watch:
    """Watches owners come and go.

    Args:
        grace: seconds after which waiting for something that still moves ends.
        on_fault: called with (part, exception) when a part of Tightship fails.
    """

    active: ClassVar[list[Watch]] = []
    """Those that are installed in this process, the oldest first."""

    # A plain class: a dataclass of this size would cost each session two milliseconds.
    def __init__(
        self,
        grace: float = 1.0,
        on_fault: Callable[[str, BaseException], None] = lambda part, exc: None,
    ) -> None:
        self.grace = grace
        self.on_fault = on_fault
        self.patch: Patcher
        self.loops = loops.Loops()
        self.roster = Roster(self._faulted)
        self.looking = Looking(self.roster)
        self.window = self.looking.window
        self.reported = Reported()
        self.attribution = Attribution(self.looking, self.reported)
        self.installed = False
        self.on_closing: Callable[[Any, list[Survivor]], list[Survivor]] | None = None
        """Blocks: takes what is theirs of a closing loop's survivors, returns the rest."""
        # Found before the end of the test that runs: findings, or what returns one.
        self._early: list[Any] = []
        self._ended_wide: list[Owner] = []
        self._forks = -1
        self._outside: Owner | None = None  # in whose context it was installed
        # What was read when everything was last taken as known.
        self._last: Any = None
        self._fds: Any = None
        # Held here as well, because `end` asks for them after every test.
        self._read_ticks = self.roster.read_ticks
        self._living = self.reported.living

    @cached_property
    def judging(self) -> Judging:
        """Grades and folds survivors."""
        from .judging import Judging

        return Judging(self.attribution, self.loops.open, self.on_fault)

    @cached_property
    def telling(self) -> Telling:
        """Makes findings."""
        from .telling import Telling

        return Telling(self.roster, self.on_fault, self.attribution.adopted_because)

    @cached_property
    def waiting(self) -> Waiting:
        """Gives survivors time."""
        return Waiting(self.roster, self.telling.finding, self.loops.open)

    @cached_property
    def collected(self) -> Collected:
        """Makes findings of what only the collector closed."""
        from .collected import Collected

        return Collected(self.looking, self.reported)

    # -- life of the watch ---------------------------------------------------------------

    def install(self) -> None:
        """Load the probes and enter all patches."""
        self.patch = Patcher(self.roster.fault)
        self._forks = DEPTH[0]
        self._outside = CURRENT.get()
        if self._alone():
            fdtable.TABLE.open()
        threads.install(self.patch)
        anyio_runner.install(self.patch)
        trio_fixtures.install(self.patch)
        # Beneath the last look at a loop, which calls it only if there is anything to cancel.
        cancels.install(self.patch)
        self.loops.install(self.patch, self._loop_closing)
        self.window.install(self.patch)
        self.roster.install(self.patch)
        self.installed = True
        Watch.active.append(self)

    @classmethod
    def _alone(cls) -> bool:
        """Tell whether no other watch is installed: a pytest run may be inside a test."""
        return not any(w.here for w in cls.active)

    @property
    def here(self) -> bool:
        """True in the process that it was installed in, False in a forked child."""
        return self._forks == DEPTH[0]

    def add_probe(self, probe: Any) -> None:
        """Add a probe of another package. Raises TypeError if it isn't one."""
        self.roster.add(probe, self.patch)

    def uninstall(self) -> None:
        """Undo every patch and let go of everything."""
        if not self.installed:
            return
        self.installed = False
        Watch.active[:] = [w for w in Watch.active if w is not self]
        self.window.close()
        self.patch.undo()
        self.roster.close()
        if self._alone():  # a pytest run inside a test leaves these to the one outside
            fdtable.TABLE.close()
            LEDGER.clear()
        CURRENT.set(self._outside)
        self.attribution.close()
        self.looking.close()
        self.reported.clear()

    def _faulted(self, part: str, exc: BaseException) -> None:
        self._last = None
        self.on_fault(part, exc)

    def stillness(self) -> Stillness:
        """Return a context in which nothing changes while Tightship looks."""
        return Stillness(self.window)

    # -- what is there -------------------------------------------------------------------

    def _account(self) -> None:
        """Take everything that exists now as known."""
        LEDGER.settled()
        self.looking.known = self.looking.keys()
        self._last = self._read_ticks()
        self._fds = fdtable.TABLE.tick()
        self.attribution.prune()

    def there(self, *, account: bool) -> tuple[Any, set[Key]]:
        """Return ticks to compare with later, and the keys of what is there now.

        Args:
            account: take all that as known, if anything changed.
        """
        ticks = self._read_ticks()
        if ticks is None or ticks != self._last:
            if not account:
                return ticks, self.looking.keys()
            self._account()
            ticks = self._last
        return ticks, self.looking.known

    # -- owners --------------------------------------------------------------------------

    def begin(self, owner: Owner) -> None:
        """Say that a test (or block) begins; its window opens."""
        if self._forks != DEPTH[0]:
            return
        # Whatever happened between two tests is nobody's leak. Births noted there have no
        # owner; descriptors are the one kind that may come without a birth.
        if fdtable.TABLE.tick() != self._fds or self._last is None:
            self._account()
        CURRENT.set(owner)
        self.window.open()
        WATCHED.owner, WATCHED.impl = owner, self.window.warned

    def mark(self, owner: Owner | None) -> None:
        """Say that what exists now, and has no better owner, belongs to ``owner``.

        Called around the set-up of fixtures that may outlive the test.
        """
        try:
            self.attribution.mark_objects(self.looking.census(), owner)
            if self._read_ticks() != self._last:
                self._last = None
                self.attribution.mark_keys(self.looking.keys(), owner)
        except Exception as exc:
            self.roster.fault("ownership", exc)

    def value(self, owner: Owner, value: object) -> None:
        """Say that a fixture that may outlive the test returned this value."""
        self.attribution.value(owner, value)

    def adopt(self, obj: object, owner: Owner, reason: str) -> None:
        """Give something to another owner, which will be judged for it."""
        self.attribution.adopt(obj, owner, reason)

    def note(self, findings: Iterable[Finding | Callable[[], Finding]]) -> None:
        """Keep findings, or what will return one, for the end of the test that is running."""
        # In place: other threads note as well, and must not bring back what was taken.
        self._early.extend(findings)

    def wide_ended(self, owner: Owner) -> None:
        """Say that a fixture wider than a test has been torn down."""
        owner.ended = True
        self._ended_wide.append(owner)
        self.attribution.wide_ended(owner)

    def end(self, owner: Owner) -> list[Finding]:
        """Say that a test's teardown is over; return what it and ended fixtures left behind."""
        if self._forks != DEPTH[0]:  # a forked child runs on with our hooks
            return []
        owner.ended = True
        try:
            # This part runs for every test, among code that pushed ours out of the
            # processor's caches: each call that it doesn't make is worth a microsecond.
            if (
                not self.loops.born
                and not self._early
                and not self._ended_wide
                and not self._living
                and self._read_ticks() == self._last
                and self.window.dull()
            ):
                return []
            with self.stillness():
                return self._end(owner)
        except Exception as exc:
            self.roster.fault("watch", exc)
            self.reported.covered.clear()
            self._ended_wide.clear()
            return []
        finally:
            self.window.close()
            CURRENT.set(self._outside)

    def _on_loops(self, owner: Owner) -> list[Survivor]:
        """Return what is left on loops that are still open."""
        survivors: list[Survivor] = []
        for loop in self.loops.open():
            if loops.is_quiet(loop):
                continue
            found = self.attribution.left_on(loop, owner)
            if loop.is_running():
                # It runs in another thread: its tasks can be listed, all else is in motion.
                found = [s for s in found if s.probe.kind == "task" and s.known_owner]
            survivors += found
        return survivors

    def _end(self, owner: Owner) -> list[Finding]:
        self.reported.prune()
        survivors = self._on_loops(owner)
        early, self._early = self._early, []
        findings = [found() if callable(found) else found for found in early]
        streams_told = any(f.kind not in MOMENTS for f in findings)
        garbage = self.window.collect()
        objects = self.looking.census()
        if (
            not self.looking.hits(objects)
            and not garbage
            and not survivors
            and not self._ended_wide
            and self._read_ticks() == self._last
        ):
            if self._living:
                self.reported.outlive(owner, self.roster)
            self.reported.covered.clear()
            return findings
        survivors += self.attribution.left_in_process(objects, owner)
        survivors = [s for s in survivors if not told_by(findings, s)]
        for ended in self._ended_wide:
            survivors += self.attribution.release(ended)
        if garbage:
            findings += self.collected.findings(garbage, owner, streams_told=streams_told)
        if any(f.kind == "process" and f.certainty is Certainty.PROVEN for f in findings):
            survivors = self.judging.without_pidfds(survivors)
        if survivors:
            survivors, slow = self.waiting.settle(survivors, self.grace)
            findings += slow
        if self._living:
            self.reported.outlive(owner, self.roster)
        findings += self._judge(survivors)
        self._account()
        self.reported.covered.clear()
        self._ended_wide.clear()
        return findings

    def _loop_closing(self, loop: Any) -> None:
        """Take the last look at a loop that is about to close."""
        owner = current()
        if owner is None or self._forks != DEPTH[0]:
            return
        leaving = sys.exc_info()[1]
        if leaving is not None and not isinstance(leaving, (Exception, GeneratorExit)):
            # Ctrl-C, sys.exit or a group of them ended the loop's run: nobody could tidy up.
            return
        with self.stillness():
            survivors = self.attribution.left_on(loop, owner, closing=True)
            if survivors and self.on_closing is not None:
                survivors = self.on_closing(loop, survivors)
            if survivors:
                survivors, slow = self.waiting.settle(survivors, self.grace, loop)
                self._early += slow
                self._early += self._judge(survivors, closing=True)

    def _judge(self, survivors: list[Survivor], *, closing: bool = False) -> list[Finding]:
        if not survivors:
            return []
        judging = self.judging
        judging.grade(survivors)
        judging.doubt_unseen(survivors)
        # Whoever holds something of a loop that closes, holds something that is dead.
        if not closing and judging.needs_holder(survivors):
            survivors = judging.grade_by_holder(survivors)
        chosen = judging.fold(survivors)
        findings = self.telling.findings(chosen)
        for finding, (s, _) in zip(findings, chosen, strict=True):
            self.reported.add(finding, s)
        return findings

    # -- questions -----------------------------------------------------------------------

    def peek(self, owner: Owner) -> list[Finding]:
        """Return what would be found if this owner ended now. Judges and changes nothing."""
        survivors: list[Survivor] = []
        me = loops.current_task()
        ended, owner.ended = owner.ended, True
        try:
            for loop in self.loops.open():
                survivors += [
                    s
                    for s in self.attribution.left_on(loop, owner, defer=False)
                    if me is None or not waits_for(s.object, me)
                ]
            objects = self.looking.census()
            survivors += self.attribution.left_in_process(objects, owner, defer=False)
            return self.telling.findings(self.judging.fold(survivors, final=False))
        finally:
            owner.ended = ended

    @property
    def still_there(self) -> Iterable[Finding]:
        """Return reported findings whose survivor still exists."""
        return [finding for finding, _ in self._living]
