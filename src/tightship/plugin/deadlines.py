"""Limits of time for tests and fixtures: which holds, and what is said when it is passed."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Callable, Generator
from math import inf
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from ..budget import Budget
from ..config import ConfigError
from ..deadlines.current import BUDGETS, USES
from ..deadlines.deadline import Deadline
from ..runtimes import hard_timer
from ..runtimes.sentry import SENTRY
from .status import STATUS

if TYPE_CHECKING:
    from ..deadlines.error import TightshipTimeout
    from ..deadlines.ladder import Ladder
    from .session import TightshipSession

__all__ = ["Deadlines", "limits_of"]

#: Seconds after a deadline, all rungs of the ladder and more, before the system ends the process.
_SLACK = 15.0

_NONE = Budget(float("inf"))
_NO_LIMITS: dict[str, Budget | None] = dict.fromkeys(("test", "setup", "call", "teardown"))


class Deadlines:
    """The deadline of whatever test runs, and those of its fixtures.

    Args:
        session: whose tests.
    """

    def __init__(self, session: TightshipSession) -> None:
        self.session = session
        timeouts = session.settings.timeouts
        self._defaults = {k: timeouts.get(k) for k in ("test", "setup", "call", "teardown")}
        self._plain = not any(self._defaults[k] for k in ("setup", "call", "teardown"))
        self.fixture = timeouts.get("fixture")
        self._session = timeouts.get("session")
        self._session_due: float | None = None
        self.uses: list[tuple[str, float, float, str]] = []
        self.deadline = Deadline(
            "",
            _NONE,
            loops=session.watch.loops.open,
            on_expired=self._expired,
            on_last=self._last,
            on_debugger=self.disarm_hard,
        )
        self._limits = self._defaults
        self._test_due: float | None = None
        self._phase = ""
        self._item: pytest.Item | None = None
        self._words = ""
        # For code that never lets the interpreter go: faulthandler writes where it is.
        self._hard = hard_timer.HardTimer(signal.SIGABRT)
        self._hard_due = 0.0
        self._listens = False
        self._installed = False
        self._on_fault: Callable[[str, BaseException], None] = SENTRY.on_fault

    # -- life ------------------------------------------------------------------------------

    def install(self) -> None:
        """Begin to count the session's time, and to listen to our signal."""
        if self._installed:
            return
        self._installed = True
        self._listens = hard_timer.take()
        self._on_fault, SENTRY.on_fault = SENTRY.on_fault, self.session.fault
        BUDGETS.insert(0, self.session.settings.budgets)
        USES.insert(0, self.uses)
        if self._session is not None:
            self._session_due = SENTRY.now() + self._session.seconds

    def close(self, status: int) -> None:
        """Undo that, and limit the time that Python takes to end.

        Args:
            status: the run's exit status.
        """
        if not self._installed:
            return
        from ..deadlines.leaving import watch_exit

        limit = self.session.settings.timeouts.get("exit")
        watch_exit(None if limit is None else limit.seconds, status or STATUS)
        self._installed = False
        self.deadline.close()
        self.disarm_hard()
        if self._listens:
            hard_timer.release()
        BUDGETS.pop(0)
        USES.pop(0)
        SENTRY.on_fault = self._on_fault
        SENTRY.rest()

    # -- a test's way ------------------------------------------------------------------------

    # These run for every test, and are counted in microseconds.

    def setup(self, item: pytest.Item, limits: dict[str, Budget | None] | None) -> None:
        """Begin to count a test's time, as its set-up begins."""
        self._item = item
        self._limits = limits = self._defaults if limits is None else limits
        budget = limits["test"]
        self._test_due = None if budget is None else SENTRY.now() + budget.seconds
        self.phase("setup")

    def phase(self, phase: str) -> None:
        """Say that a part of the test begins."""
        deadline = self.deadline
        self._phase = phase
        if phase == "call" and deadline.due is not None and self._plain:
            deadline.running = True  # the same limit goes on
            return
        limits = self._limits
        now = SENTRY.now()
        if phase == "teardown":
            budget = limits["test"]
            due = None if budget is None else now + budget.seconds
        else:
            budget, due = limits["test"], self._test_due
        own = limits[phase]
        if own is not None and (due is None or now + own.seconds < due):
            budget, due = own, now + own.seconds
        if self._session_due is not None and (due is None or self._session_due < due):
            budget, due = self._session, self._session_due
        if budget is None or due is None:
            self.disarm_hard()
            return
        deadline.budget = budget
        deadline.start(due - now)
        if due > self._hard_due - _SLACK:
            self._arm_hard(now, due)

    def _arm_hard(self, now: float, due: float) -> None:
        """Let the system end the process long after a deadline that even we can't watch.

        Farther away than need be, so that most tests find it so and have nothing to do.
        """
        if not faulthandler.is_enabled():
            return  # it would end without a word
        wait = due - now
        seconds = wait + _SLACK + min(wait, 30.0)
        self._hard_due = now + seconds if self._hard.arm(seconds) else inf

    def disarm_hard(self) -> None:
        """Let the system end nothing any more."""
        if self._hard_due:
            self._hard.arm(0)
            self._hard_due = 0.0

    def part_over(self) -> bool:
        """Say that a part is over, and the test goes on; True if its time is up."""
        deadline = self.deadline
        deadline.running = False
        return deadline.ladder is not None

    def nobody(self) -> None:
        """Say that a test begins which has no limit."""
        self._item, self._limits, self._test_due = None, _NO_LIMITS, None
        self.disarm_hard()

    def over(self) -> None:
        """Say that the test goes no further: its teardown is next, or is over."""
        deadline = self.deadline
        if deadline.due is None:
            return
        ladder = deadline.finish()
        if deadline.budget.name:
            taken = SENTRY.now() - deadline.started
            self.uses.append((deadline.budget.name, deadline.budget.seconds, taken, self._name()))
        if ladder is not None:  # it was only in our own lines
            ladder.uncancel()

    def verdict(self, exc: BaseException | None) -> TightshipTimeout | None:
        """Return what to raise after a part, if time was up in it."""
        deadline = self.deadline
        if not deadline.expired or deadline.due is None:
            return None
        ladder = deadline.finish()
        if ladder is None:
            return None
        ladder.uncancel()
        exc = exc or self._unittest_error()
        if exc is not None and not (ladder.cancels or ladder.interrupts):
            return None  # nothing had been done to it yet: its own outcome counts
        return self._error(ladder, returned=exc is None)

    def _what(self, item: pytest.Item) -> str:
        return f"{item.name} ({self._words or self._phase})"

    def _unittest_error(self) -> BaseException | None:
        """Return what a `unittest` test raised: pytest keeps that for its report."""
        found = getattr(self._item, "_excinfo", None)
        if not found:
            return None
        self._item._excinfo = None  # type: ignore[union-attr]
        error: BaseException = found[0].value
        return error

    def _error(self, ladder: Ladder, *, returned: bool) -> TightshipTimeout:
        from ..deadlines.verdict import timeout_error

        session = self.session
        item = self._item
        assert item is not None
        if ladder.budget is self._session:
            item.session.shouldstop = f"tightship: the run took longer than {self._session}"
        error = timeout_error(
            ladder,
            what=self._what(item),
            owner=item.name,
            nodeid=item.nodeid,
            returned=returned,
            resources=self._open(),
        )
        if session.journal is not None and error.picture is not None:
            error.finding.extra["picture"] = error.picture.to_dict()
        session.timed_out(error)
        return error

    def _open(self) -> list[str]:
        """Return what the test holds open, a line each."""
        session = self.session
        if session.attempt is None or self._phase == "teardown":
            return []
        try:
            found = session.watch.peek(session.attempt)
        except Exception as exc:
            session.fault("deadlines", exc)
            return []
        from ..known import KNOWN, matches

        # Its loop is its runner's, and tasks are in the picture.
        found = [
            f
            for f in found
            if f.kind not in ("loop", "task") and not any(True for _ in matches(f, KNOWN))
        ]
        return [f"{f.subject}   made {f.made}" if f.made else f.subject for f in found]

    def _name(self) -> str:
        return self._item.nodeid if self._item is not None else ""

    # -- fixtures ----------------------------------------------------------------------------

    def around_fixture(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Limit a fixture's set-up, and its teardown."""
        assert self.fixture is not None
        name = f"fixture '{fixturedef.argname}' ({fixturedef.scope})"
        deadline = self._for_fixture(f"the set-up of {name}")
        ending = self._for_fixture(f"the teardown of {name}")
        # Finalizers run in the reverse order: this one after the fixture's own.
        fixturedef.addfinalizer(lambda: self._fixture_over(ending, None))
        deadline.start()
        try:
            value = yield
        except BaseException as exc:
            self._fixture_over(deadline, exc)
            raise
        self._fixture_over(deadline, None)
        fixturedef.addfinalizer(ending.start)
        return value

    def _for_fixture(self, what: str) -> Deadline:
        assert self.fixture is not None
        return Deadline(
            what,
            self.fixture,
            loops=self.session.watch.loops.open,
            on_last=self._last,
        )

    def _fixture_over(self, deadline: Deadline, exc: BaseException | None) -> None:
        if deadline.due is None:
            return
        ladder = deadline.finish()
        deadline.close()
        if ladder is None:
            return
        ladder.uncancel()
        if exc is not None and not (ladder.cancels or ladder.interrupts):
            return
        from ..deadlines.verdict import timeout_error

        item = self._item
        error = timeout_error(
            ladder,
            owner=item.name if item is not None else "",
            nodeid=self._name(),
            returned=exc is None,
        )
        self.session.timed_out(error)
        raise error from exc

    # -- in the sentry's thread -------------------------------------------------------------------

    def _expired(self, ladder: Ladder) -> None:
        self._words = fixture_words(ladder.deadline.thread)

    def _last(self, ladder: Ladder) -> None:
        """End the process: nothing else can."""
        from .last import end_process

        item = self._item
        end_process(
            self.session,
            ladder,
            what=self._what(item) if item is not None else ladder.what,
            item=item,
        )


def fixture_words(ident: int) -> str:
    """Return which fixture a thread sets up or tears down, as it stands; empty if none."""
    frame: FrameType | None = sys._current_frames().get(ident)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.endswith("fixtures.py") and "_pytest" in code.co_filename:
            if code.co_name == "finish":
                return _fixture("teardown", frame.f_locals.get("self"))
            if code.co_name == "pytest_fixture_setup":
                return _fixture("set-up", frame.f_locals.get("fixturedef"))
        frame = frame.f_back
    return ""


def _fixture(part: str, fixturedef: Any) -> str:
    name = getattr(fixturedef, "argname", "?")
    return f"{part} of fixture '{name}' ({getattr(fixturedef, 'scope', '?')})"


def limits_of(item: pytest.Item, session: TightshipSession) -> dict[str, Budget | None]:
    """Return the limits of a test with markers: the closest marker that names a phase counts."""
    found: dict[str, Budget | None] = {}
    budgets = session.settings.budgets
    for marker in session.markers(item):
        for phase, budget in marker.timeouts.items():
            found.setdefault(phase, budget)
    if session.honours_timeout and "test" not in found:
        mark = item.get_closest_marker("timeout")
        if mark is not None:
            value, func_only = _of_pytest_timeout(mark)
            try:
                budget = budgets.resolve(value, f"{item.nodeid}: @pytest.mark.timeout")
            except ConfigError as exc:
                session.mistakes[str(exc)] = None
            else:
                found["call" if func_only else "test"] = budget
    if budgets.override is not None:
        found["test"] = budgets.override
    # Where Tightship is off, only what a marker asks for holds.
    others = session.settings.timeouts if session.attempt is not None else {}
    return {k: found.get(k, others.get(k)) for k in ("test", "setup", "call", "teardown")}


def _of_pytest_timeout(mark: pytest.Mark) -> tuple[object, bool]:
    """Return the seconds that pytest-timeout's marker gives, and whether for the call alone."""
    value = mark.args[0] if mark.args else mark.kwargs.get("timeout", "off")
    if value in (0, None):
        value = "off"
    return value, bool(mark.kwargs.get("func_only", False))
