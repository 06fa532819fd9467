"""Threads that still run."""

from __future__ import annotations

from typing import Any

KIND = "thread"

SUITE = """
import _thread
import threading
import time

import pytest

OVER = threading.Event()


@pytest.fixture(scope="session", autouse=True)
def over():
    yield
    OVER.set()


def work():
    OVER.wait()


def test_daemon():
    threading.Thread(target=work, daemon=True).start()  # born


def test_not_a_daemon():
    threading.Thread(target=work).start()  # born


def test_named():
    threading.Thread(target=work, name="poller-7").start()  # born


class Poller(threading.Thread):
    def run(self):
        OVER.wait()


def test_subclass():
    Poller().start()  # born


@pytest.fixture
def timer():
    timer = threading.Timer(100, print)
    timer.daemon = True
    timer.start()  # born
    return timer


def test_timer(timer):
    pass


def test_started_by_hand():
    _thread.start_new_thread(work, ())


def test_clean_joined():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def test_clean_on_its_way_out():
    threading.Thread(target=time.sleep, args=(0.001,)).start()


def test_clean_timer():
    timer = threading.Timer(100, print)
    timer.start()
    timer.cancel()
    timer.join()
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_daemon": {
        "label": "work",
        "subject": "thread 'work'",
        "facts": {"running": "OVER.wait", "name": "daemon"},
        "fix": "join",
    },
    "test_not_a_daemon": {"label": "work", "facts": {"beware": "cannot exit"}},
    "test_named": {"label": "poller-*"},
    "test_subclass": {"label": "Poller"},
    "test_timer": {"label": "Timer", "owner": "fixture 'timer' (function)"},
    "test_started_by_hand": {
        "kind": "native-thread",
        "label": "python",
        "certainty": "possible",
        "born": False,
    },
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
