"""One thread that waits for everything that falls due: deadlines, looks at loops, the way out.

Arming an alarm is one attribute written and one number compared: the thread is woken only if
it would sleep too long. It is not a `threading.Thread`, so that suites which count those count
what they always did; it takes no signals, which belong to the program; and it is gone while the
process forks, because Python warns of forks in programs with threads.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Callable
from math import inf

from . import hard_timer

__all__ = ["SENTRY", "TIDS", "Alarm", "Sentry", "wait"]

#: The thread's number while it runs: whoever counts threads must not count this one.
TIDS: set[int] = set()

#: In place of the thread's identifier while it is being started.
_STARTING = -1

#: Seconds after which a thread with nothing to wait for ends.
_IDLE = 10.0

#: Seconds after which the thread is started again when the process forked.
_AFTER_FORK = 0.02


class Alarm:
    """Something that falls due.

    Args:
        name: what it is for, as it would be named to a person if it failed.
        ring: called in the sentry's thread when it is due; returns the time (on the sentry's
            clock) at which to be called again, or None. It must not wait for anything that the
            program may hold.
    """

    __slots__ = ("due", "name", "ring")

    def __init__(self, name: str, ring: Callable[[], float | None]) -> None:
        self.name = name
        self.ring = ring
        self.due: float | None = None
        """When, on the sentry's clock; None while off. To switch it off, write None."""


class Sentry:
    """The thread, and the alarms it waits for."""

    # In a class: libraries that freeze time replace such functions in every module they find.
    now = staticmethod(time.perf_counter)
    """Seconds that always go on, whatever a test does to `time`."""
    # Not by waiting for a lock: there are libraries that refuse that inside a running loop.
    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.wakes = inf
        """When the thread looks again by itself."""
        self.on_fault: Callable[[str, BaseException], None] = lambda part, exc: None
        self._alarms: dict[Alarm, None] = {}  # in the order they came
        # Kept apart from the alarms, which only their owners write to: what was rung for, and
        # when to ring for it again.
        self._rung: dict[Alarm, tuple[float, float | None]] = {}
        self._bell = _thread.allocate_lock()
        self._bell.acquire()
        self._ident = 0
        self._stop = False
        self._forked = False

    # -- alarms ---------------------------------------------------------------------------

    def add(self, alarm: Alarm) -> None:
        """Wait for an alarm from now on; the thread is started with the first one."""
        self._alarms[alarm] = None
        if not self._ident:
            self.start()

    def drop(self, alarm: Alarm) -> None:
        """Forget an alarm. A thread without any ends by itself after a while."""
        alarm.due = None
        self._alarms.pop(alarm, None)
        self._rung.pop(alarm, None)

    def arm(self, alarm: Alarm, due: float) -> None:
        """Let an alarm ring at a time of the sentry's clock."""
        alarm.due = due
        if due < self.wakes:
            self.nudge()

    def nudge(self) -> None:
        """Let the thread look at its alarms now."""
        try:
            self._bell.release()
        except RuntimeError:  # it has been told
            pass

    # -- the thread -----------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._ident != 0

    @property
    def ident(self) -> int:
        """The thread's identifier, 0 if there is none."""
        return self._ident

    def start(self) -> None:
        """Start the thread, unless it runs or there is nothing to wait for."""
        if not self._alarms:
            return
        # Also for one that was told to stop and did not come to it: it just goes on.
        self._stop = False
        if self._ident:
            return
        self._ident = _STARTING
        try:
            # Not a daemon by declaration: threads made here never keep Python from ending.
            _thread.start_new_thread(self._run, ())
        except RuntimeError as exc:  # the interpreter is ending, or there are too many threads
            self._ident = 0
            self.on_fault("deadlines", exc)
            return
        end = self.now() + 0.5
        while self._ident == _STARTING and self.now() < end:
            wait(0.00005)

    def stop(self) -> None:
        """End the thread, and wait until the system doesn't count it any more."""
        if not self._ident or self._ident == _thread.get_ident():
            return
        self._stop = True
        self.nudge()
        tid = next(iter(TIDS), 0)
        end = self.now() + 0.5
        while (self._ident or _exists(tid)) and self.now() < end:
            wait(0.0001)
        TIDS.clear()

    def rest(self) -> None:
        """End the thread if it has nothing to wait for: a run leaves nothing behind."""
        if not self._alarms:
            self.stop()

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        TIDS.add(_thread.get_native_id())
        self._ident = _thread.get_ident()
        ring = self._bell.acquire  # as it is now: there are libraries that replace it
        try:
            while not self._stop:
                # Whoever arms while we look sees that, and rings.
                self.wakes = inf
                soonest = self._look()
                self.wakes = soonest
                pause = min(soonest - self.now(), _IDLE)
                rung = ring(True, max(0.0, pause))
                if not rung and not self._alarms:
                    break
        finally:
            self.wakes = inf
            TIDS.clear()
            self._ident = 0
            if self._alarms and not self._stop:  # one came while we were leaving
                self.start()

    def _look(self) -> float:
        """Ring what is due; return when the next one is."""
        soonest = inf
        for alarm in list(self._alarms):
            due = alarm.due
            if due is None:
                continue
            when: float | None = due
            rung = self._rung.get(alarm)
            if rung is not None and rung[0] is due:
                when = rung[1]
            if when is not None and when <= self.now():
                try:
                    when = alarm.ring()
                except Exception as exc:
                    when = None
                    self.on_fault(alarm.name, exc)
                self._rung[alarm] = due, when
            if when is not None and when < soonest:
                soonest = when
        return soonest

    # -- forks ----------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._forked = self.alive and self._ident != _thread.get_ident()
        if self._forked:
            self.stop()

    def _in_parent(self) -> None:
        if not self._forked:
            return
        self._forked = False
        # Python 3.13 counts threads only after this.
        if sys.version_info < (3, 13) or not hard_timer.call_later(_AFTER_FORK, self.start):
            self.start()

    def _in_child(self) -> None:
        # Hooks and patches go on in the child, where nobody waits for them.
        TIDS.clear()
        self._alarms.clear()
        self._rung.clear()
        self._ident = 0
        self._forked = False
        self.wakes = inf


def wait(seconds: float) -> None:
    """Let some time pass and others run, whatever a test did to `time` and to locks."""
    Sentry.sleep(seconds)


_stat = os.stat


def _exists(tid: int) -> bool:
    try:
        _stat(f"/proc/self/task/{tid}")
    except OSError:
        return False
    return True


SENTRY = Sentry()
"""The one of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=SENTRY._before_fork,
        after_in_parent=SENTRY._in_parent,
        after_in_child=SENTRY._in_child,
    )
