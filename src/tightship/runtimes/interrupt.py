"""Raising an exception in code that does not come back by itself.

The main thread is sent our signal: that ends a wait in the system too (a lock, a sleep, a
socket), since Python runs the signal's handler before it waits on. Other threads can only be
given an exception for the next line of Python they run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from enum import Enum
from types import FrameType
from typing import Any

from . import hard_timer
from .loops import current_task

__all__ = ["Interrupt", "InterruptTask", "Sent", "give_up", "raise_in"]


class Sent(Enum):
    """How an exception was sent to a thread."""

    SIGNAL = "the signal is on its way, and asks first"
    ASYNC = "it will be raised at the next line of Python"
    NOT = "that is impossible"


class Interrupt(KeyboardInterrupt):
    """Ends code whose time is up. Loops let this out of a callback, and no other exception."""


class InterruptTask(Exception):
    """Ends a step of a task whose time is up. The task fails with it, and its loop goes on."""


#: Exceptions raised in tasks before we try the kind that ends their loop, too.
_GENTLE = 3


_OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep


class _Want:
    def __init__(self, as_if_typed: bool) -> None:
        self.as_if_typed = as_if_typed
        self.gentle = 0
        self.sent = Sent.SIGNAL


#: Asked in the main thread when our signal arrives: those that still want to interrupt.
_WANTING: dict[Callable[[], bool], _Want] = {}


def _arrived(frame: FrameType | None) -> None:
    if frame is not None and frame.f_code.co_filename.startswith(_OWN):
        return  # it is just being ended; if not, the next signal comes soon
    for wants, how in tuple(_WANTING.items()):
        if not wants():
            continue
        if how.as_if_typed:
            # trio knows at which frames an exception does no harm, and keeps it until there.
            typed = signal.getsignal(signal.SIGINT)
            if callable(typed) and typed is not signal.default_int_handler:
                typed(signal.SIGINT, frame)
                return
        if how.gentle < _GENTLE and current_task() is not None:
            how.gentle += 1
            raise InterruptTask("its time is up")
        raise Interrupt("its time is up")


hard_timer.on_signal(_arrived)


def give_up(wants: Callable[[], bool], ident: int) -> None:
    """Interrupt this thread no more, not even by an exception that hasn't been raised yet.

    That one is let arrive here. To take it back would leave a mark in the interpreter, up to
    3.12 for good: it slows down whatever runs, and 3.11 spins for ever where it traces.
    """
    how = _WANTING.pop(wants, None)
    if ident == threading.get_ident() and (how is None or how.sent is Sent.ASYNC):
        try:
            for _ in range(100):
                pass
        except Interrupt:
            pass


def raise_in(ident: int, wants: Callable[[], bool], *, as_if_typed: bool = False) -> Sent:
    """Raise `Interrupt` in a thread, and say how that is done.

    Args:
        ident: the thread.
        wants: asked in that thread, if it is the main one, whether this is still wanted.
        as_if_typed: let a library's own handler of Ctrl-C decide where to raise
            `KeyboardInterrupt`.
    """
    if ident == threading.main_thread().ident:
        how = _WANTING.setdefault(wants, _Want(as_if_typed))
        if hasattr(signal, "pthread_kill") and hard_timer.listening():
            try:
                signal.pthread_kill(ident, hard_timer.SIGNAL)
            except OSError:
                return Sent.NOT
            return Sent.SIGNAL
        # A test has taken our signal for itself.
        how.sent = Sent.ASYNC
    if as_if_typed or not _set_async(ident, Interrupt):
        return Sent.NOT
    return Sent.ASYNC


def _set_async(ident: int, exc: Any) -> bool:
    import ctypes

    done: int = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(exc)
    )
    return done == 1
