"""After the last test: who keeps Python from ending.

When everything has run, Python still waits for threads that aren't daemons, for the workers of
executors, and for whatever was registered with `atexit`; any of these may never come back. The
clock starts when Python begins to end, not before: what a program does after a run of pytest
inside it is its own affair.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Any, NamedTuple

from ..ledger import LEDGER
from ..model import Site
from ..origin import project_site
from ..runtimes.sentry import SENTRY, Alarm

__all__ = ["watch_exit"]

#: Seconds after which we say what Python waits for; ending it may come much later.
_SAY = 3.0

_before_threads: Any = getattr(threading, "_register_atexit", None)


class _Born(NamedTuple):
    thread: weakref.ref[threading.Thread]
    who: str
    made: Site | None


class _Exit:
    """The end of this process, as the last run of pytest in it wants it to be."""

    def __init__(self) -> None:
        self.limit = 0.0
        self.status = 0
        self.born: list[_Born] = []
        self.registered = False
        self._began = 0.0
        self._said = False
        self._alarm = Alarm("the end of the process", self._ring)

    def begin(self) -> None:
        """Start the clock: Python has begun to end."""
        self._began = SENTRY.now()
        SENTRY.add(self._alarm)
        SENTRY.arm(self._alarm, self._began + min(_SAY, self.limit))

    def _ring(self) -> float | None:
        waited = SENTRY.now() - self._began
        if not self._said:
            self._said = True
            _write(self._who_is_left())
        if waited < self.limit:
            return self._began + self.limit
        status = self.status
        children = _children()
        others = f", and its child processes ({len(children)}) with it" if children else ""
        _write(
            [
                f"tightship: Python did not end within {self.limit:g} s after the last test, so "
                f"the process was ended, with status {status}{others} "
                "(the setting is timeouts.exit; --tightship-timeout=exit=off waits for ever)"
            ]
        )
        for child in children:  # they were waited for: nobody wants them to outlive us
            try:
                child.kill()
            except (OSError, ValueError, AttributeError):
                pass
        os._exit(status)

    def _who_is_left(self) -> list[str]:
        from ..explain.stacks import format_stack, thread_stack

        main = threading.main_thread()
        lines = ["", "tightship: the tests are over, but Python does not end. It waits for"]
        found = 0
        for thread in threading.enumerate():
            if thread is main or thread.daemon or not thread.is_alive():
                continue
            found += 1
            lines.append(f"  thread '{thread.name}'{self._of(thread)}")
            stack = thread_stack(thread.ident or 0)
            if stack:
                lines.append(f"    at       {format_stack(stack)}")
        for child in _children():
            found += 1
            lines.append(f"  child process {child.pid} '{child.name}' of multiprocessing")
        stack = thread_stack(main.ident or 0)
        if stack:
            lines.append(f"  and the main thread is at {format_stack(stack)}")
        elif not found:
            lines.append("  code written in C, perhaps in a function registered with atexit")
        return lines

    def _of(self, thread: threading.Thread) -> str:
        for born in self.born:
            if born.thread() is thread:
                made = f", made {born.made}" if born.made is not None else ""
                return f", started by {born.who}{made}"
        return ""


_EXIT = _Exit()


def watch_exit(seconds: float | None, status: int) -> None:
    """Limit the time that this process may take to end, once it begins to.

    Call it late: whoever registers last with Python is called first.

    Args:
        seconds: the limit; None for no limit.
        status: the exit status to end with then.
    """
    if seconds is None or _before_threads is None:
        _EXIT.limit = 0.0
        SENTRY.drop(_EXIT._alarm)
        return
    if sys.version_info[:2] == (3, 12):
        # No thread can be started there once Python has begun to end.
        SENTRY.add(_EXIT._alarm)
    _EXIT.limit = seconds
    _EXIT.status = status
    _EXIT.born = [*_noted(), *(b for b in _EXIT.born if b.thread() is not None)]
    if not _EXIT.registered:
        try:
            _before_threads(_begin)
        except RuntimeError:  # it is ending already
            return
        _EXIT.registered = True


def _begin() -> None:
    if _EXIT.limit:
        _EXIT.begin()


def _noted() -> list[_Born]:
    """Return who started the threads that still run: the ledger won't know it for long."""
    found = []
    for thread in threading.enumerate():
        birth = LEDGER.of(thread)
        if birth is not None and birth.owner is not None and not thread.daemon:
            who = birth.owner.nodeid or str(birth.owner)
            found.append(_Born(weakref.ref(thread), who, project_site(birth.made)))
    return found


def _children() -> list[Any]:
    """Return the child processes that Python waits for."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is None:
        return []
    return [
        child
        for child in list(getattr(multiprocessing, "_children", ()))
        if child.exitcode is None and not child.daemon
    ]


def _write(lines: list[str]) -> None:
    try:
        os.write(2, ("\n".join(lines) + "\n").encode(errors="replace"))
    except OSError:
        pass
