"""A limit of time for one operation after the other: starting and ending cost next to nothing.

Everything dear happens in the `ladder`, which is built when time is up.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..budget import Budget
from ..runtimes.debuggers import debugging
from ..runtimes.running import Running
from ..runtimes.sentry import SENTRY, Alarm

if TYPE_CHECKING:
    from .ladder import Ladder

__all__ = ["Deadline"]


class Deadline(Alarm):
    """The limit of an operation; may be used for one operation after the other.

    Args:
        what: the operation, for the report: ``test_restock``.
        budget: its limit.
        loops: returns loops that may run although no frame of Python shows it.
        find: returns what is to be cancelled, if the caller knows better than the thread's
            stack; called in the sentry's thread.
        cancel: ends the operation, from any thread, in place of cancelling a task.
        whole: whether the operation is all that its thread does: then the thread may be
            interrupted whatever it is doing, else only while it runs the operation's task.
        on_expired: called in the sentry's thread when time is up, before anything is done.
        on_last: called in the sentry's thread when nothing helped.
        on_debugger: called in the sentry's thread when the clock stops for a person.
    """

    __slots__ = (
        "budget",
        "cancel",
        "end",
        "find",
        "forecast",
        "ladder",
        "loops",
        "on_debugger",
        "on_expired",
        "on_last",
        "run",
        "running",
        "started",
        "thread",
        "what",
        "whole",
    )

    def __init__(
        self,
        what: str,
        budget: Budget,
        *,
        loops: Callable[[], Iterable[Any]] = tuple,
        find: Callable[[], Running | None] | None = None,
        cancel: Callable[[], None] | None = None,
        whole: bool = True,
        on_expired: Callable[[Ladder], None] | None = None,
        on_last: Callable[[Ladder], None] | None = None,
        on_debugger: Callable[[], None] | None = None,
    ) -> None:
        super().__init__("deadlines", self._ring)
        self.what = what
        self.budget = budget
        self.loops = loops
        self.find = find
        self.cancel = cancel
        self.whole = whole
        self.on_expired = on_expired
        self.on_last = on_last
        self.on_debugger = on_debugger
        self.thread = 0
        self.started = 0.0
        self.end = 0.0
        self.run = 0
        """Counts operations: what belongs to an earlier one must not act on a later one."""
        self.running = False
        """False between the parts of an operation, where nothing may be interrupted."""
        self.ladder: Ladder | None = None
        self.forecast = ""
        """Why the operation can't end, if somebody proved that before its time was up."""

    # -- called by whoever runs the operation ---------------------------------------------

    def start(self, seconds: float | None = None) -> None:
        """Begin to count, in the thread that runs the operation.

        Args:
            seconds: until when, if not for the whole budget.
        """
        self.run += 1
        self.ladder = None
        self.forecast = ""
        self.thread = get_ident()
        self.running = True
        self.started = now = SENTRY.now()
        SENTRY.add(self)
        SENTRY.arm(self, now + (self.budget.seconds if seconds is None else seconds))

    def finish(self) -> Ladder | None:
        """Say that the operation is over; return what was done about it, if time was up."""
        self.running = False
        ladder, run = self.ladder, self.run
        self.run += 1
        self.due = None
        if ladder is None or ladder.run != run:
            return None
        self.end = ladder.end = SENTRY.now()
        ladder.give_up()
        return ladder

    def close(self) -> None:
        """Forget everything: there will be no other operation."""
        SENTRY.drop(self)

    @property
    def expired(self) -> bool:
        """True if time is up, and the operation isn't over."""
        ladder = self.ladder
        return ladder is not None and ladder.run == self.run

    def fail_now(self, run: int, forecast: str) -> None:
        """Let time be up at once: somebody proved that this operation can't end.

        Args:
            run: the operation it was proved for.
            forecast: the proof, in words.
        """
        if self.run == run and self.due is not None:
            self.forecast = forecast
            SENTRY.arm(self, SENTRY.now())

    # -- the sentry's thread ----------------------------------------------------------------

    def _ring(self) -> float | None:
        run, ladder = self.run, self.ladder
        if self.due is None:
            return None
        if ladder is None or ladder.run != run:
            if not self.forecast and debugging(self.thread):
                if self.on_debugger is not None:
                    self.on_debugger()
                # The clock begins anew when the debugger is gone.
                return SENTRY.now() + max(self.budget.seconds, 1.0)
            from .ladder import Ladder

            self.ladder = ladder = Ladder(self, run)
            return ladder.begin()
        return ladder.climb()
