"""Limits of time for tests and fixtures: which holds, and what is said when it is passed."""

from __future__ import annotations

import faulthandler
import signal
import sys
from _thread import get_ident
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
from .cut_short import put_back, remember, seen_by_pytest
from .status import STATUS

if TYPE_CHECKING:
    from ..deadlines.error import TightshipTimeout
    from ..deadlines.ladder import Ladder
    from .session import TightshipSession

__all__ = ["ENDS_RUN", "Deadlines", "limits_of"]

#: Seconds after a deadline, all rungs of the ladder and more, before the system ends the process.
_SLACK = 15.0

_PROOF = (
    "no callback was ready, no timer set, no descriptor watched, no signal handled, and no other "
    "thread could act"
)

#: What pytest ends the run for.
ENDS_RUN = (KeyboardInterrupt, pytest.exit.Exception)

_NONE = Budget(float("inf"))
#: What a marker can limit.
_PHASES = ("test", "setup", "call", "teardown", "fixture")
_NO_LIMITS: dict[str, Budget | None] = dict.fromkeys(_PHASES)


class Deadlines:
    """The deadline of whatever test runs, and those of its fixtures.

    Args:
        session: whose tests.
    """

    def __init__(self, session: TightshipSession) -> None:
        self.session = session
        self.loops = session.watch.loops.open
        timeouts = session.settings.timeouts
        self._defaults = {k: timeouts.get(k) for k in _PHASES}
        self._plain = not any(self._defaults[k] for k in ("setup", "call", "teardown"))
        self._session = timeouts.get("session")
        self._session_due: float | None = None
        self.uses: list[tuple[str, float, float, str]] = []
        self.deadline = Deadline(
            "",
            _NONE,
            loops=self.loops,
            on_expired=self._expired,
            on_last=self.end_process,
            on_debugger=self.disarm_hard,
        )
        self._limits = self._defaults
        self._test_due: float | None = None
        self._began = 0.0
        self._used: dict[tuple[str, float], int] = {}
        """The test's entry in `uses` for each named budget."""
        self._phase = ""
        self._item: pytest.Item | None = None
        self._words = ""
        self._of_fixtures: list[TightshipTimeout] = []
        """Of fixtures whose teardown took too long: told when all of them are torn down."""
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
        self._began = now = SENTRY.now()
        self._test_due = None if budget is None else now + budget.seconds
        self._used = {}
        self.phase("setup")

    def phase(self, phase: str) -> None:
        """Say that a part of the test begins."""
        deadline = self.deadline
        limits = self._limits
        if phase == "call" and self._plain and limits is self._defaults and deadline.due:
            self._phase = phase
            deadline.running = True  # the same limit goes on
            return
        if deadline.due is not None:
            self._part_used()
            deadline.finish()
        self._phase = phase
        began = now = SENTRY.now()
        budget = limits["test"]
        if phase == "teardown":
            due = None if budget is None else now + budget.seconds
        else:
            began, due = self._began, self._test_due
        own = limits[phase]
        if own is not None and (due is None or now + own.seconds < due):
            budget, began, due = own, now, now + own.seconds
        if self._session_due is not None and (due is None or self._session_due < due):
            assert self._session is not None
            budget, due = self._session, self._session_due
            began = due - budget.seconds
        if budget is None or due is None:
            self.disarm_hard()
            if self.session.forecast is None:
                return
            # Without a limit, but it may turn out that it can never end.
            budget, due = _NONE, inf
        elif due > self._hard_due - _SLACK:
            self._arm_hard(now, due)
        deadline.budget = budget
        deadline.start(due - now)
        deadline.started = began

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

    def foretell(self, loop: Any) -> None:
        """Let time be up at once: nothing can wake this loop any more. Called in its thread."""
        deadline = self.deadline
        if deadline.running and deadline.thread == get_ident():
            deadline.fail_now(deadline.run, _PROOF)

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
        self._part_used()
        ladder = deadline.finish()
        if ladder is not None:  # it was only in our own lines
            ladder.uncancel()

    def _part_used(self) -> None:
        """Note how much of a named budget was used.

        A test is one use of its budget: set-up and call together, or its teardown, which has
        the same again, if that took longer.
        """
        budget = self.deadline.budget
        if not budget.name or budget is self._session:
            return
        taken = SENTRY.now() - self.deadline.started
        use = budget.name, budget.seconds, taken, self._name()
        number = self._used.setdefault(use[:2], len(self.uses))
        if number == len(self.uses):
            self.uses.append(use)
        elif taken > self.uses[number][2]:
            self.uses[number] = use

    def time_up(self, exc: BaseException | None) -> TightshipTimeout | None:
        """Return what to raise after a set-up or a call, if time was up in it."""
        error = self._verdict(exc)
        if error is not None and exc is not None:
            remember(exc, error)
        return error

    def _verdict(self, exc: BaseException | None) -> TightshipTimeout | None:
        deadline = self.deadline
        if not deadline.expired or deadline.due is None:
            return None
        self._part_used()
        ladder = deadline.finish()
        if ladder is None:
            return None
        exc = exc or self._unittest_error()
        if exc is None:
            ladder.ask_where()  # a task that runs all tests is still there
        ladder.uncancel()
        if exc is not None and (not ladder.acted or _wants_the_end(exc, ladder)):
            return None  # nothing had been done to it yet: its own outcome counts
        return self._error(ladder, returned=exc is None)

    def go_on(self, exc: BaseException | None, state: Any, nextitem: Any) -> BaseException | None:
        """Return what to raise after a teardown, and see to it that all of it has run.

        What time was up for is ended by exceptions that pytest stops at: we go on then, with
        the whole limit again.

        Args:
            exc: what the teardown raised.
            state: pytest's ``SetupState``.
            nextitem: the test that is next.
        """
        errors: list[BaseException] = []
        while True:
            timeouts = self._teardown_timeouts(exc)
            errors += timeouts
            if exc is None or not timeouts:
                break
            if seen_by_pytest(exc):
                exc = None
                break
            errors += put_back(exc, state)
            exc = None
            self.phase("teardown")
            try:
                with self._captured():
                    state.teardown_exact(nextitem)
            except BaseException as another:
                exc = another
            self.deadline.running = False
        if not errors or (exc is not None and not seen_by_pytest(exc)):
            return exc
        if exc is not None:
            errors.append(exc)
        if len(errors) == 1:
            return errors[0]
        return BaseExceptionGroup("errors during test teardown", errors)

    def _captured(self) -> AbstractContextManager[None]:
        """Capture what is written, as it is during the teardown that pytest began."""
        capture: Any = self.session.config.pluginmanager.get_plugin("capturemanager")
        item = self._item
        return (
            nullcontext()
            if capture is None or item is None
            else capture.item_capture("teardown", item)
        )

    def _teardown_timeouts(self, exc: BaseException | None) -> list[TightshipTimeout]:
        error = self._verdict(exc)
        found = [*self._of_fixtures, *([error] if error is not None else ())]
        self._of_fixtures.clear()
        return found

    def leftover(self) -> None:
        """Begin the teardown of what is still set up when the run ends early."""
        self._item, self._limits, self._test_due = None, self._defaults, None
        self._words = ""
        self._session_due = None  # it is over
        self.phase("teardown")

    def _what(self) -> str:
        return f"{self._test_name()} ({self._words or self._phase})"

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

        hard_timer.take_back()
        session = self.session
        item = self._item
        if ladder.budget is self._session and item is not None:
            item.session.shouldstop = f"tightship: the run took longer than {self._session}"
            self._session_due = None  # what is torn down now has its own limits
        error = timeout_error(
            ladder,
            what=self._what(),
            owner=item.name if item is not None else "",
            nodeid=self._name(),
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

    @property
    def fixture(self) -> Budget | None:
        """The limit of each fixture of the test that runs."""
        return self._limits["fixture"]

    def torn_down(self, ending: Deadline) -> None:
        """Say that a fixture's own teardown is over."""
        # Raised later: whatever else was raised is just being collected.
        error = self.fixture_over(ending, None)
        if error is not None:
            self._of_fixtures.append(error)

    def fixture_over(
        self, deadline: Deadline, exc: BaseException | None
    ) -> TightshipTimeout | None:
        """Say that a fixture's set-up or teardown is over; return what to raise, if anything."""
        if deadline.due is None:
            return None
        ladder = deadline.finish()
        deadline.close()
        what = f"{self._test_name()} ({deadline.what})"
        if deadline.budget.name:
            taken = SENTRY.now() - deadline.started
            self.uses.append((deadline.budget.name, deadline.budget.seconds, taken, what))
        if ladder is None:
            return None
        ladder.uncancel()
        if exc is not None and (not ladder.acted or _wants_the_end(exc, ladder)):
            return None
        from ..deadlines.verdict import timeout_error

        item = self._item
        error = timeout_error(
            ladder,
            what=what,
            owner=item.name if item is not None else "",
            nodeid=self._name(),
            returned=exc is None,
        )
        self.session.timed_out(error)
        return error

    def _test_name(self) -> str:
        return self._item.name if self._item is not None else "the session"

    # -- in the sentry's thread -------------------------------------------------------------------

    def _expired(self, ladder: Ladder) -> None:
        self._words = fixture_words(ladder.deadline.thread)

    def end_process(self, ladder: Ladder) -> None:
        """End the process: nothing else can."""
        from . import last

        item = self._item
        last.end_process(
            self.session,
            ladder,
            what=self._what(),
            item=item,
        )


def _wants_the_end(exc: BaseException, ladder: Ladder) -> bool:
    """Tell whether somebody wants to end the run: it isn't our time that is up then."""
    # trio is asked to raise what Ctrl-C raises; our own Interrupt is a subclass.
    return type(exc) in ENDS_RUN and not (ladder.runtime == "trio" and ladder.raised)


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
        found = {"test": budgets.override}
    # Where Tightship is off, only what a marker asks for holds.
    others = session.settings.timeouts if session.attempt is not None else {}
    return {k: found.get(k, others.get(k)) for k in _PHASES}


def _of_pytest_timeout(mark: pytest.Mark) -> tuple[object, bool]:
    """Return the seconds that pytest-timeout's marker gives, and whether for the call alone."""
    value = mark.args[0] if mark.args else mark.kwargs.get("timeout", "off")
    if value in (0, None):
        value = "off"
    return value, bool(mark.kwargs.get("func_only", False))
