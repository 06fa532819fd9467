"""Threads of C code."""

from __future__ import annotations

from typing import Any

KIND = "native-thread"

SUITE = """
import ctypes

LIBC = ctypes.CDLL(None)


def start():
    thread = ctypes.c_ulong()
    LIBC.pthread_create(ctypes.byref(thread), None, LIBC.pause, None)
    return thread


def test_left():
    start()


def test_clean_joined():
    thread = start()
    LIBC.pthread_cancel(thread)
    LIBC.pthread_join(thread, None)
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_left": {
        "label": "python",
        "certainty": "possible",
        "born": False,
        "facts": {"tid": "[0-9]"},
    },
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
