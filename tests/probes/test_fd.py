"""Descriptors that are neither file, socket nor pipe."""

from __future__ import annotations

from typing import Any

KIND = "fd"

SUITE = """
import asyncio
import ctypes
import os
import select
import selectors
import threading

import pytest

LIBC = ctypes.CDLL(None)
KEPT = []


@pytest.fixture
def epoll():
    return select.epoll()  # born


def test_epoll(epoll):
    pass


@pytest.fixture
def selector():
    return selectors.DefaultSelector()  # born


def test_selector(selector):
    pass


def test_epoll_after_loops_made_at_once():
    begun, go_on = threading.Event(), threading.Event()

    class Second(asyncio.SelectorEventLoop):
        def _make_self_pipe(self):
            begun.set()
            assert go_on.wait(10)
            super()._make_self_pipe()

    other = threading.Thread(target=lambda: Second().close())

    class First(asyncio.SelectorEventLoop):
        def _make_self_pipe(self):
            other.start()
            assert begun.wait(10)
            super()._make_self_pipe()

    First().close()
    go_on.set()
    other.join()
    KEPT.append(select.epoll())  # born


def test_clean_selector():
    with selectors.DefaultSelector():
        pass


def test_clean_epoll_is_what_it_was():
    with select.epoll(sizehint=5, flags=0) as epoll:
        assert type(epoll) is select.epoll and isinstance(epoll, select.epoll)
        with select.epoll.fromfd(os.dup(epoll.fileno())) as other:
            assert type(other) is select.epoll
    with pytest.raises(TypeError):
        select.epoll("5")
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Derived", (select.epoll,), {})


def test_dup_of_an_epoll():
    with select.epoll() as epoll:
        os.dup(epoll.fileno())  # born


def test_eventfd():
    os.eventfd(0)  # born


def test_exchanged():
    fd = os.eventfd(0)
    os.close(fd)
    assert os.eventfd(0) == fd  # born


def test_memfd():
    os.memfd_create("buffer")  # born


def test_inotify():
    LIBC.inotify_init()


def test_timerfd():
    LIBC.timerfd_create(1, 0)


def test_pidfd():
    os.pidfd_open(os.getpid())  # born


def test_clean_eventfd():
    os.close(os.eventfd(0))


def test_clean_epoll():
    select.epoll().close()


def test_clean_dropped_epoll():
    select.epoll()


def test_clean_pty():
    for fd in os.openpty():
        os.close(fd)
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_epoll": {
        "label": "epoll",
        "owner": "fixture 'epoll' (function)",
        "facts": {"points to": "eventpoll"},
    },
    "test_selector": {"label": "epoll", "owner": "fixture 'selector' (function)"},
    "test_epoll_after_loops_made_at_once": {"label": "epoll"},
    "test_dup_of_an_epoll": {"label": "epoll"},
    "test_eventfd": {"label": "eventfd", "fix": "os.close"},
    "test_exchanged": {"label": "eventfd"},
    "test_memfd": {"kind": "file", "label": "memfd:buffer (deleted)"},
    "test_inotify": {"label": "inotify", "born": False, "facts": {"origin": "not known"}},
    "test_timerfd": {"label": "timerfd", "born": False},
    "test_pidfd": {"label": "pidfd"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
