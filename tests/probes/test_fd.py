"""Descriptors that are neither file, socket nor pipe."""

from __future__ import annotations

from typing import Any

KIND = "fd"

SUITE = """
import ctypes
import os
import select

import pytest

LIBC = ctypes.CDLL(None)


@pytest.fixture
def epoll():
    return select.epoll()


def test_epoll(epoll):
    pass


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
        "born": False,
        "facts": {"points to": "eventpoll", "origin": "not known"},
    },
    "test_dup_of_an_epoll": {"label": "epoll"},
    "test_eventfd": {"label": "eventfd", "fix": "os.close"},
    "test_exchanged": {"label": "eventfd"},
    "test_memfd": {"kind": "file", "label": "memfd:buffer (deleted)"},
    "test_inotify": {"label": "inotify", "born": False},
    "test_timerfd": {"label": "timerfd", "born": False},
    "test_pidfd": {"label": "pidfd"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
