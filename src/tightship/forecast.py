"""A hang foretold: nothing is left in the process that could wake the loop.

While a loop stands in its selector nothing of the program runs in its thread. If no callback is
ready, no timer set, no descriptor watched, no signal handled, and no other thread can act, then
nothing will ever run in it again, and whatever its tasks wait for does not come. That is a proof,
not a time limit: it holds after a tenth of a second as well as after an hour.

Each question that cannot be answered for certain is a reason not to say anything.
"""

from __future__ import annotations

import functools
import gc
import os
import selectors
import signal
import sys
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Container
from types import FrameType
from typing import Any

from .model import Owner
from .probes import watchdog
from .runtimes import hard_timer, idle
from .runtimes.loops import pending_tasks
from .runtimes.sentry import SENTRY

__all__ = ["Forecast", "stuck"]

#: Seconds that a loop has to stand still before it is examined.
STILL = 0.06

#: The longest pause between examinations that came to nothing.
RARELY = 1.0


def stuck(loop: Any, carriers: Container[int] = ()) -> str:
    """Return an empty text if nothing can ever wake this loop, else what still may.

    Called in the loop's own thread, from one of its callbacks; it may take some milliseconds, and
    collects garbage if everything else is certain. ``carriers`` are the threads of the test run
    (`runtimes.idle.carriers`).
    """
    why = _unknown() or standing(loop) or _signals(loop)
    if why:
        return why
    me = get_ident()
    why = idle.sleepers(me, carriers)[1] or idle.unaccounted(len(watchdog.TIDS))
    if why:
        return why
    if gc.isenabled():
        # Garbage may have finalizers that wake somebody.
        gc.collect()
    tids, why = idle.sleepers(me, carriers)
    if why:
        return why
    if tids:
        before = idle.look(tids)
        _let_others_run()
        if not idle.still_asleep(before):
            return "a thread woke up"
        if idle.sleepers(me, carriers) != (tids, ""):
            return "a thread came or went"
    # From here on nothing of the program can run, unless one of these says so.
    return idle.unaccounted(len(watchdog.TIDS)) or _signals(loop) or standing(loop)


def standing(loop: Any) -> str:
    """Return an empty text if nothing in the loop itself will run, else what does.

    Cheap, and may be called in another thread for a first impression.
    """
    why = _strange(loop)
    if why:
        return why
    if loop._thread_id != threading.main_thread().ident:
        return "the loop does not run in the main thread, which may wake it"
    if loop._stopping:
        return "the loop is being stopped"
    if loop._ready:
        return "a callback is ready"
    if any(not handle._cancelled for handle in list(loop._scheduled)):
        return "a timer is set"
    watched = [fd for fd in list(loop._selector._fd_to_key) if fd != loop._ssock.fileno()]
    if watched:
        return f"file descriptor {watched[0]} is watched"
    if loop._signal_handlers:
        return "a signal is handled"
    if not pending_tasks(loop):
        return "no task waits"
    return ""


# -- what this can be known of -----------------------------------------------------------------


def _unknown() -> str:
    if not sys.platform.startswith("linux"):
        return "threads of C code cannot be counted on this system"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "without the interpreter's lock nothing stands still"
    if getattr(sys.modules.get("gevent.monkey"), "saved", None) or getattr(
        sys.modules.get("eventlet.patcher"), "already_patched", None
    ):
        return "greenlets run while the loop waits"
    return ""


#: What a loop does by itself; whoever replaces any of it may do anything.
_METHODS = (
    "_add_callback",
    "_process_events",
    "_process_self_data",
    "_read_from_self",
    "_run_once",
    "_write_to_self",
    "call_soon",
    "call_soon_threadsafe",
    "is_running",
    "run_forever",
    "run_until_complete",
    "stop",
)


def _strange(loop: Any) -> str:
    """Return a reason if this is not asyncio's own loop, as it comes."""
    cls = type(loop)
    if cls is not _stock_loop():
        return f"{cls.__module__}.{cls.__qualname__} does not show what it waits for"
    own = vars(loop)
    for name in _METHODS:
        if name in own or not _in_file(getattr(cls, name), _asyncio()):
            return f"the loop's {name} was replaced"
    if type(loop._ready) is not deque or type(loop._scheduled) is not list:
        return "the loop's queues were replaced"
    selector = loop._selector
    kind = type(selector)
    if (
        kind.__module__ != "selectors"
        or getattr(selectors, kind.__name__, None) is not kind
        or "select" in vars(selector)
        or not _in_file(kind.select, selectors.__file__)
    ):
        return "the loop's selector was replaced"
    return ""


@functools.cache
def _stock_loop() -> type:
    from asyncio import unix_events

    return unix_events._UnixSelectorEventLoop


@functools.cache
def _asyncio() -> str:
    return os.path.join(os.path.dirname(sys.modules["asyncio"].__file__ or "?"), "")


def _in_file(function: Any, place: str) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(place)


# -- signals -----------------------------------------------------------------------------------

#: Signals that end the process, and on which `faulthandler` says where it stood.
_FATAL = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL")
    if hasattr(signal, name)
)

#: The C library's own, and that of a terminal whose size changes, which readline handles.
_OF_C = frozenset({32, 33, int(getattr(signal, "SIGWINCH", 0))})

#: Whose handlers end the test or the process: they wake nobody.
_ENDING = ("pytest_timeout", "coverage.control")


def _signals(loop: Any) -> str:
    """Return a reason if a signal would run code of the program."""
    handled = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if not callable(handler) or isinstance(handler, signal.Handlers):
            continue
        handled.add(int(number))
        if not _harmless(number, handler):
            return f"{signal.Signals(number).name if number in _NAMED else number} is handled"
    caught = _caught()
    if caught is None:
        return "signals handled by C code cannot be seen on this system"
    if caught - handled - _FATAL - _OF_C:
        return "a signal is handled by C code"
    return ""


_NAMED = {int(s) for s in signal.Signals}


def _harmless(number: int, handler: Any) -> bool:
    if number == signal.SIGINT:  # only a person sends it
        if handler is signal.default_int_handler:
            return True
        called = getattr(handler, "func", None) if isinstance(handler, functools.partial) else None
        runner: Any = sys.modules["asyncio"].Runner
        return getattr(called, "__func__", None) is runner._on_sigint
    if number == hard_timer.SIGNAL and hard_timer.listening():
        return True
    return getattr(handler, "__module__", None) in _ENDING


def _caught() -> set[int] | None:
    """Return the numbers of all signals that are handled, by whatever language."""
    try:
        with open("/proc/self/status", "rb") as file:
            mask = next(int(line.split()[1], 16) for line in file if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return {n + 1 for n in range(64) if mask >> n & 1}


def _let_others_run() -> None:
    """Leave the interpreter to others, for longer than any of them waits before it asks for it."""
    end = SENTRY.now() + max(0.02, 4 * sys.getswitchinterval())
    while (left := end - SENTRY.now()) > 0:
        SENTRY.sleep(left)


# -- when to look ------------------------------------------------------------------------------


class _Pause:
    """A loop that stands still."""

    __slots__ = ("asked", "every", "next")

    def __init__(self, now: float) -> None:
        self.next = now + STILL
        self.every = STILL
        self.asked = False


class Forecast:
    """Examines loops that stand still, and says so when one of them always will.

    Args:
        on_fault: called with (part, exception) if an examination fails.
    """

    def __init__(self, on_fault: Callable[[str, BaseException], None]) -> None:
        self.on_stuck: Callable[[Any], None] | None = None
        """Called with the loop, in its thread, when nothing can ever wake it; again later, if it
        was woken and came to stand still for ever again."""
        self.reason = ""
        """Why nothing could be said the last time."""
        self.carriers: Container[int] = ()
        """Identifiers of threads that belong to the test run."""
        self._on_fault = on_fault
        self._pauses: dict[int, _Pause] = {}

    # -- in the sentry's thread ------------------------------------------------------------

    def works(self, owner: Owner, loop: Any, frame: FrameType | None, thread: int) -> None:
        """Take note that a loop is not standing still."""
        self._pauses.pop(id(loop), None)

    def others(self, running: set[int]) -> None:
        """Forget loops that do not run any more."""
        for key in [k for k in self._pauses if k not in running]:
            del self._pauses[key]

    def waits(self, owner: Owner, loop: Any) -> None:
        """Examine a loop that has been standing still for a while."""
        if self.on_stuck is None:
            return
        now = SENTRY.now()
        pause = self._pauses.get(id(loop))
        if pause is None:
            pause = self._pauses[id(loop)] = _Pause(now)
        if now < pause.next or pause.asked:
            return
        self.reason = self._glance(loop)
        if self.reason:
            pause.next = now + STILL
            return
        pause.asked = True
        # One turn later than it wakes up, when the byte that woke it has been read.
        loop.call_soon_threadsafe(loop.call_soon, self._examine, loop, pause)

    def _glance(self, loop: Any) -> str:
        """Return what can be seen from outside, without waking the loop."""
        try:
            why = _unknown() or standing(loop)
            return why or idle.sleepers(loop._thread_id, self.carriers, rough=True)[1]
        except (AttributeError, RuntimeError):
            return "it changed while it was looked at"

    def forget(self) -> None:
        """Let go of what belongs to a test that is over."""
        self._pauses.clear()

    def close(self) -> None:
        """Examine no more."""
        self.on_stuck = None
        self.forget()

    # -- in the loop's thread --------------------------------------------------------------

    def _examine(self, loop: Any, pause: _Pause) -> None:
        try:
            if self.on_stuck is None or get_ident() != loop._thread_id:
                return
            self.reason = stuck(loop, self.carriers)
            if not self.reason:
                self.on_stuck(loop)
        except Exception as exc:
            self._on_fault("forecast", exc)
        finally:
            pause.every = min(2 * pause.every, RARELY)
            pause.next = SENTRY.now() + pause.every
            pause.asked = False
