"""How long to wait for what is left: as long as something moves.

Pure: `Settle` is told what is left and what time it is, and answers what to do next. The
runtimes do the waiting. A leaking test must not cost a fixed pause, a loaded machine must
not turn a slow close into a leak, and a poller that wakes up for ever must not hold the
suite: so turns are free while the set shrinks, near timers and working threads are waited
for briefly, and wall time is only a cap.
"""

from __future__ import annotations

__all__ = ["FREE_TURNS", "NEAR", "QUIET", "Settle"]

#: Seconds without any survivor going away after which waiting is given up.
QUIET = 0.1
#: A timer due within this many seconds counts as "something is moving".
NEAR = 0.1
#: Turns without progress that something at work is granted, however slow the machine is.
BUSY_TURNS = 120
#: Turns that are always granted: unwinding a cancelled task takes one per await level.
FREE_TURNS = 8


class Settle:
    """Decides after each look whether to look again.

    Args:
        cap: seconds after which it ends in any case.
        started: the clock's reading at the first look.
        quiet: seconds without progress after which it ends.
    """

    def __init__(self, cap: float, started: float, quiet: float = QUIET) -> None:
        self.cap = cap
        self.started = started
        self.quiet = quiet
        self.turns = 0
        """Looks so far."""
        self._left = -1
        self._moved = 0.0
        self._turn_moved = 0

    def again(
        self, left: int, now: float, *, ready: bool, due: float | None = None
    ) -> float | None:
        """Return seconds to wait before the next look, or None to stop.

        Args:
            left: how many survivors there still are.
            now: the clock's reading.
            ready: callbacks or threads are at work right now.
            due: seconds until the next timer that could end a survivor, if there is one.
        """
        if left == 0:
            return None
        if left != self._left:
            self._left, self._moved, self._turn_moved = left, now, self.turns
        self.turns += 1
        if self.turns <= FREE_TURNS:
            return 0.0
        if now - self.started >= self.cap:
            return None
        quiet = now - self._moved >= self.quiet
        if quiet and not (ready and self.turns - self._turn_moved < BUSY_TURNS):
            return None
        remaining = max(0.001, self.quiet - (now - self._moved))
        if ready:
            return 0.0 if self.turns <= 64 else min(0.001, remaining)
        if due is not None and due <= NEAR:
            return max(0.0, min(due, remaining))
        return None
