"""Looks at running loops from outside, a few dozen times a second, while a test goes on.

For a test there is nothing to do: who runs is read where it is known already, and a test that is
over before the second look was never disturbed. What is looked for is for others to say:
`blocking` asks loops that are at work, `forecast` examines those that wait.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Protocol

from .explain.frames import OWN
from .model import Owner
from .runtimes.loops import task_at_work
from .runtimes.sentry import SENTRY, Alarm

__all__ = ["LoopWatch", "OfLoops", "thread_of", "waiting"]

#: Seconds between two looks, at most and at least.
PERIOD, FASTEST = 0.025, 0.005


class OfLoops(Protocol):
    """What looks at loops, in the sentry's thread."""

    def works(self, owner: Owner, loop: Any, frame: FrameType | None, thread: int) -> None:
        """Look at a loop that runs something; ``frame`` is its thread's innermost, if known."""

    def waits(self, owner: Owner, loop: Any) -> None:
        """Look at a loop that stands in its selector."""

    def others(self, running: set[int]) -> None:
        """Learn the ids of all loops that run."""

    def forget(self) -> None:
        """Let go of what belongs to a test that is over."""

    def close(self) -> None:
        """Look no more."""


class LoopWatch:
    """One alarm, for all that looks at loops.

    Args:
        running: returns who runs just now, or None; called in another thread, as the next one.
        loops: returns the loops that are open.
        on_fault: called with (part, exception) if a look fails; there is no other then.
    """

    def __init__(
        self,
        running: Callable[[], Owner | None],
        loops: Callable[[], Iterable[Any]],
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        self._running = running
        self._loops = loops
        self._on_fault = on_fault
        self._alarm = Alarm("loop monitor", self._ring)
        self._owner: Owner | None = None
        self._threads: dict[int, int] = {}
        self.parts: list[Any] = []
        """Those who look."""
        self.period = PERIOD
        """Seconds between two looks."""
        self._late = 0.0
        self._due = 0.0

    def start(self) -> None:
        """Begin to look."""
        self._due = SENTRY.now() + self.period
        self._alarm.due = self._due
        SENTRY.add(self._alarm)

    def hasten(self, limit: float) -> None:
        """Look often enough to find calls that take so many seconds."""
        self.period = max(FASTEST, min(self.period, limit / 4))

    def lateness(self) -> float:
        """Return the seconds, in all, that looks came too late."""
        return self._late + max(0.0, SENTRY.now() - self._due)

    def close(self) -> None:
        """Look no more."""
        SENTRY.drop(self._alarm)
        self._owner = None
        for part in self.parts:
            part.close()
        self.parts.clear()

    # -- in the sentry's thread ------------------------------------------------------------

    def _ring(self) -> float | None:
        now = SENTRY.now()
        self._late += max(0.0, now - self._due)
        self._due = now
        try:
            owner = self._running()
            if owner is None or owner.ended:
                owner = None
            if owner is not self._owner:
                # Seen for the first time: most tests are over before they are seen again.
                self._owner = owner
                self._threads.clear()
                for part in self.parts:
                    part.forget()
            elif owner is not None:
                self._look(owner)
        except RuntimeError:  # the table of loops grew while it was read: there is a next time
            pass
        except Exception as exc:
            self._on_fault("loop monitor", exc)
            return None
        self._due = SENTRY.now() + self.period
        return self._due

    def _look(self, owner: Owner) -> None:
        running = [loop for loop in self._loops() if loop.is_running()]
        ids = set(map(id, running))
        for part in self.parts:
            part.others(ids)
        for loop in running:
            thread = thread_of(loop) or self._thread_of_stranger(loop)
            frame = sys._current_frames().get(thread)
            if waiting(frame):
                frame = None  # whoever holds a frame holds what its function lets go of
                for part in self.parts:
                    part.waits(owner, loop)
            elif frame is None or not frame.f_code.co_filename.startswith(OWN):
                for part in self.parts:
                    part.works(owner, loop, frame, thread)

    def _thread_of_stranger(self, loop: Any) -> int:
        """Return the thread of a loop that does not say it: uvloop's."""
        known = self._threads.get(id(loop))
        if known is not None:
            return known
        found = 0
        task = task_at_work(loop)
        top = getattr(task.get_coro(), "cr_frame", None) if task is not None else None
        if top is not None:
            found = next((i for i, f in sys._current_frames().items() if _below(f, top)), 0)
        if found:
            self._threads[id(loop)] = found
            return found
        return threading.main_thread().ident or 0


def thread_of(loop: Any) -> int:
    """Return the identifier of the thread that runs a loop, 0 if the loop does not say."""
    return getattr(loop, "_thread_id", None) or 0


def waiting(frame: FrameType | None) -> bool:
    """Tell whether a thread's innermost frame is of a loop that waits, and of no call it makes.

    A call that blocks in a selector of its own, as `subprocess` does, is none. Of uvloop, which
    has no frames, only that is known which lies around it.
    """
    at = frame
    while at is not None:
        code = at.f_code
        if code.co_name == "_run" and code.co_filename.endswith("asyncio/events.py"):
            return False
        if code.co_name == "_run_once" and code.co_filename.endswith("asyncio/base_events.py"):
            return True
        if code.co_name == "run" and code.co_filename.endswith("asyncio/runners.py"):
            return at is frame
        at = at.f_back
    return False


def _below(frame: FrameType | None, top: FrameType) -> bool:
    while frame is not None:
        if frame is top:
            return True
        frame = frame.f_back
    return False
