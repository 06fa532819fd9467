"""Timers of the system: they need no thread, and not even the interpreter.

Code in C that never lets the interpreter go cannot be interrupted by anything written in Python.
The system can still send a signal: `SIGABRT`, on which `faulthandler` writes all stacks before
the process ends. Linux only; elsewhere `arm` and `call_later` say False.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = [
    "SIGNAL",
    "HardTimer",
    "call_later",
    "listening",
    "on_signal",
    "release",
    "take",
    "take_back",
]

_REALTIME = getattr(signal, "SIGRTMIN", None)

#: The signal that Tightship sends to this process: one that hardly anybody uses.
SIGNAL: int = int(_REALTIME) + 11 if _REALTIME is not None else int(getattr(signal, "SIGUSR2", 0))

_MONOTONIC = 1

#: Called in the main thread when the signal arrives.
_ON_SIGNAL: list[Callable[[FrameType | None], None]] = []

_before: Any = None
_users = 0


def take() -> bool:
    """Begin to listen to our signal; False where that is impossible (not the main thread)."""
    global _before, _users
    if _users == 0:
        try:
            _before = signal.signal(SIGNAL, _arrived)
        except (ValueError, OSError):
            return False
    _users += 1
    return True


def release() -> None:
    """Give the signal back."""
    global _before, _users
    if _users == 0:
        return
    _users -= 1
    if _users:
        return
    try:
        signal.signal(SIGNAL, _before if _before is not None else signal.SIG_DFL)
    except (ValueError, OSError):
        pass
    _before = None


def listening() -> bool:
    """Tell whether the signal would reach us: a test may have taken it for itself."""
    return signal.getsignal(SIGNAL) is _arrived


def take_back() -> None:
    """Listen again, if somebody took the signal and kept it. In the main thread."""
    if _users and not listening():
        try:
            signal.signal(SIGNAL, _arrived)
        except (ValueError, OSError):
            pass


def on_signal(callback: Callable[[FrameType | None], None]) -> None:
    """Call this whenever our signal arrives, in the main thread; it may raise."""
    if callback not in _ON_SIGNAL:
        _ON_SIGNAL.append(callback)


def _arrived(signum: int, frame: FrameType | None) -> None:
    while _LATER:
        _LATER.pop()()
    for callback in tuple(_ON_SIGNAL):
        callback(frame)


class HardTimer:
    """A timer of the system that sends a signal to this process.

    Args:
        signum: which one.
    """

    def __init__(self, signum: int) -> None:
        self._signum = signum
        self._pid = 0
        self._id: Any = None
        self._settime: Any = None
        self._spec: Any = None

    def _create(self) -> bool:
        if self._id is not None and self._pid == os.getpid():  # a forked child has none
            return True
        if not sys.platform.startswith("linux"):
            return False
        import ctypes

        class Event(ctypes.Structure):
            _fields_ = [
                ("value", ctypes.c_void_p),
                ("signo", ctypes.c_int),
                ("notify", ctypes.c_int),
                ("pad", ctypes.c_char * 48),
            ]

        class Time(ctypes.Structure):
            _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

        class Spec(ctypes.Structure):
            _fields_ = [("interval", Time), ("value", Time)]

        try:
            libc = ctypes.CDLL(None, use_errno=True)
            create, settime = libc.timer_create, libc.timer_settime
        except (OSError, AttributeError):
            return False
        timer = ctypes.c_void_p()
        event = Event(None, self._signum, 0)
        if create(_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
            return False
        settime.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self._id, self._settime, self._spec = timer, settime, Spec()
        self._pid = os.getpid()
        return True

    def arm(self, seconds: float) -> bool:
        """Send the signal after some seconds, 0 for never; False where there are no timers."""
        if seconds <= 0 and self._id is None:
            return True
        if not self._create():
            return False
        value = self._spec.value
        value.seconds = int(seconds)
        value.nanoseconds = int(seconds % 1 * 1e9)
        import ctypes

        return not self._settime(self._id, 0, ctypes.byref(self._spec), None)


_LATER: list[Callable[[], Any]] = []
_later = HardTimer(SIGNAL)


def call_later(seconds: float, callback: Callable[[], Any]) -> bool:
    """Call something in the main thread, whatever that is doing then, unless it is in C code.

    Returns False if that is impossible here.
    """
    if not _users or not listening():
        return False
    _LATER.append(callback)
    if _later.arm(seconds):
        return True
    _LATER.remove(callback)
    return False
