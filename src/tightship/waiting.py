"""Waiting for survivors that are on their way out, by the rules of `settle`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .model import Finding, Verdict
from .roster import Roster
from .runtimes import loops
from .settle import FREE_TURNS, Settle
from .survivors import MOVING, Survivor, task_runs

__all__ = ["Waiting", "clock", "pause", "turn"]

#: The real one: this module is loaded before a test can put its own in place.
clock = time.monotonic

#: A survivor gone within this many seconds was only on its way out.
SLOW_AFTER = 0.02


def pause(
    settle: Settle, left: Sequence[Survivor], around: Iterable[Any], *, busy: bool = False
) -> float | None:
    """Return seconds to wait before the next look, None to stop.

    Args:
        settle: the rules.
        left: what is still there.
        around: loops that what is left may be waiting for.
        busy: something is at work already.
    """
    around = list(around)
    busy = busy or any(s.probe.kind in MOVING for s in left) or any(map(loops.ready, around))
    dues = [d for d in map(loops.next_due, around) if d is not None]
    return settle.again(len(left), clock(), ready=busy, due=min(dues, default=None))


def turn(idle: Sequence[Any], seconds: float) -> None:
    """Let time pass: in idle loops if there are any."""
    if not idle:
        time.sleep(seconds)
        return
    for loop in idle:
        if not loop.is_closed() and not loop.is_running():
            loops.turn(loop, seconds)


class Waiting:
    """Waits for what is left of a test.

    Args:
        roster: knows what is still there.
        describe: makes a finding of a survivor.
        open_loops: returns the loops that may be turned if they don't run.
    """

    def __init__(
        self,
        roster: Roster,
        describe: Callable[[Survivor], Finding],
        open_loops: Callable[[], list[Any]],
    ) -> None:
        self.roster = roster
        self.describe = describe
        self.open_loops = open_loops

    def settle(
        self, survivors: list[Survivor], grace: float, closing: Any = None
    ) -> tuple[list[Survivor], list[Finding]]:
        """Give survivors the time that progress earns them; return the rest and slow closers.

        Args:
            survivors: what is left.
            grace: seconds after which waiting ends.
            closing: the loop that they are on, if it closes: no other one's turns would help.
        """
        started = clock()
        settle = Settle(grace, started)
        described: dict[int, Finding] = {}
        left = survivors
        while True:
            if closing is not None:
                idle, elsewhere = [closing], False
            else:
                idle = [loop for loop in self.open_loops() if not loop.is_running()]
                elsewhere = any(map(task_runs, left))
            seconds = pause(settle, left, idle, busy=elsewhere)
            if seconds is None:
                break
            if settle.turns == FREE_TURNS + 1 and not described:
                # From here on time passes: whoever goes now is a slow closer, and has to be
                # described while it is there.
                described = {id(s): self.describe(s) for s in left}
            turn(idle, seconds)
            left = self.roster.alive(left)
        took = clock() - started
        if took < SLOW_AFTER:
            return left, []
        gone = {id(s) for s in survivors} - {id(s) for s in left}
        slow = [
            finding.with_(verdict=Verdict.SLOW, seconds=took)
            for key, finding in described.items()
            # Python ends its threads a little before the system does.
            if key in gone and finding.kind != "native-thread"
        ]
        return left, slow
