"""Threads that can do nothing by themselves: nobody is left who could wake them.

A thread that waits without a limit for a lock of Python's own, or for work in an empty queue, is
woken by another thread of this program and by nothing else. Two things have to be seen of it: that
it stands in such a call, and that it sleeps there. A thread that got what it waited for, and only
waits for its turn in the interpreter, shows the same line; but it wakes up every few milliseconds
to ask for its turn, so that the system counts more turns of it.

Each answer here is "no" when in doubt.
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
from _queue import SimpleQueue
from collections.abc import Container
from types import FrameType
from typing import Any, NamedTuple

from ..explain.frames import OWN, local_values
from .sentry import SENTRY

__all__ = ["Sleeper", "carriers", "look", "sleepers", "still_asleep", "unaccounted"]

_TASKS = "/proc/self/task"


class Sleeper(NamedTuple):
    """A thread that waits for others, and how often it had a turn at a processor so far."""

    tid: int
    turns: bytes


def sleepers(
    but: int, carriers: Container[int] = (), *, rough: bool = False
) -> tuple[list[int], str]:
    """Return the numbers of threads that wait for others, and a reason if any other may act.

    Left out are Tightship's own, pytest-timeout's, and the one with the identifier ``but``.

    Args:
        but: the identifier of a thread to leave out.
        carriers: what `carriers` returned before the first test.
        rough: read no files: other threads would see the descriptor.
    """
    if threading._limbo:  # type: ignore[attr-defined]
        return [], "a thread is being started"
    found = []
    for ident, frame in sys._current_frames().items():
        if ident in (but, SENTRY.ident):
            continue
        thread = threading._active.get(ident)  # type: ignore[attr-defined]
        if _ends_tests(thread) or (ident in carriers and _carries(frame)):
            continue
        name = "a thread" if thread is None else f"the thread {thread.name!r}"
        tid = getattr(thread, "native_id", None)
        if tid is None or not (_waits_for_a_lock(frame, rough) or _waits_for_work(frame, rough)):
            return [], f"{name} is running"
        found.append(tid)
    return sorted(found), ""


def look(tids: list[int]) -> list[Sleeper]:
    """Look at threads, to compare them with a later look."""
    return [Sleeper(tid, _read(tid, "schedstat")) for tid in tids]


def still_asleep(before: list[Sleeper]) -> bool:
    """Tell whether none of these threads had a turn since then, nor is to have one.

    Since then there must have been more time than a thread waits for the interpreter before it
    asks again (`sys.getswitchinterval`).
    """
    return all(
        # In this order: whoever was woken before the second reading had or has a turn.
        _state(s.tid) == b"S" and s.turns == _read(s.tid, "schedstat") != b""
        for s in before
    )


def unaccounted(known: int) -> str:
    """Return a reason if there are threads that Python does not know; ``known`` of C are fine."""
    try:
        there = len(os.listdir(_TASKS))
    except OSError:
        return "threads of C code cannot be counted on this system"
    if there != len(sys._current_frames()) + known:
        return "a thread of C code is there"
    return ""


# -- what they do ------------------------------------------------------------------------------


def _waits_for_a_lock(frame: FrameType, rough: bool) -> bool:
    """Tell whether it stands in a `Condition.wait` without a limit: an Event, a Queue, a join."""
    code = threading.Condition.wait.__code__
    if frame.f_code is not code or code.co_filename != threading.__file__:
        return False
    if rough:
        return True
    if linecache.getline(code.co_filename, frame.f_lineno or 0).strip() != "waiter.acquire()":
        return False
    names = dict(local_values(frame))
    condition, waiter = names.get("self"), names.get("waiter")
    # Whoever notifies it takes it off the list.
    return type(condition) is threading.Condition and any(
        w is waiter
        for w in list(condition._waiters)  # type: ignore[attr-defined]
    )


def _waits_for_work(frame: FrameType, rough: bool) -> bool:
    """Tell whether it is a pool's worker in front of an empty queue."""
    module = sys.modules.get("concurrent.futures.thread")
    code = getattr(getattr(module, "_worker", None), "__code__", None)
    if frame.f_code is not code or frame.f_code.co_filename != getattr(module, "__file__", ""):
        return False
    if rough:
        return True
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
    if "work_queue.get(block=True)" not in line:
        return False
    names = dict(local_values(frame))
    work = names.get("work_queue")
    return type(work) is SimpleQueue and work.empty()


def _ends_tests(thread: Any) -> bool:
    """Tell whether this is pytest-timeout's: it ends the test or the process, and wakes nobody."""
    return type(thread) is threading.Timer and thread.function.__module__ == "pytest_timeout"


def carriers() -> frozenset[int]:
    """Return the identifiers of threads that carry messages of the test run itself.

    To be asked before the first test: such threads live as long as the run, and a test may use the
    same packages for purposes of its own.
    """
    return frozenset(i for i, frame in sys._current_frames().items() if _carries(frame))


def _carries(frame: FrameType) -> bool:
    return any(_runs_only(frame, _files(names)) for names in _CARRIERS)


#: Packages of such threads; nothing else is on their stacks.
_CARRIERS = (
    # The names of the next tests, which the main thread takes up when this test is over.
    ("execnet", "xdist"),
    # The numbers of reruns, which the main thread asks for between two tests.
    ("pytest_rerunfailures",),
)

#: The standard library's part in such a stack.
_BESIDES = ("threading", "socket", "selectors")


def _files(names: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for name in names:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if file:
            package = hasattr(module, "__path__")
            found.append(os.path.join(os.path.dirname(file), "") if package else file)
    return tuple(found)


def _runs_only(frame: FrameType | None, files: tuple[str, ...]) -> bool:
    """Tell whether a stack is of these files, of a few of Python's own, and of ours."""
    besides = (OWN, *_files(_BESIDES))
    theirs = False
    while frame is not None:
        file = frame.f_code.co_filename
        if files and file.startswith(files):
            theirs = True
        elif not file.startswith(besides):
            return False
        frame = frame.f_back
    return theirs


# -- what the system says of them --------------------------------------------------------------


def _state(tid: int) -> bytes:
    """Return the letter of its state: ``S`` for asleep."""
    return _read(tid, "stat").rpartition(b") ")[2][:1]


def _read(tid: int, name: str) -> bytes:
    """Return what the system says of a thread: ``schedstat`` counts its time and its turns."""
    try:
        fd = os.open(f"{_TASKS}/{tid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)
