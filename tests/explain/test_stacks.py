"""Where a thread stands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tightship.explain import stacks
from tightship.explain.stacks import format_stack, thread_stack
from tightship.model import Site


def work(ready: threading.Event, go: threading.Event) -> None:
    """Block where the test can see it."""
    inner(ready, go)


def inner(ready: threading.Event, go: threading.Event) -> None:
    """Block one level deeper."""
    ready.set()
    go.wait(30)


@contextmanager
def blocked() -> Iterator[int]:
    """Give the ident of a thread that stands in `inner`."""
    ready, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, args=(ready, go))
    thread.start()
    ready.wait(30)
    try:
        assert thread.ident is not None
        yield thread.ident
    finally:
        go.set()
        thread.join()


def test_the_stack_of_a_thread_is_the_projects_own() -> None:
    """threading's frames are left out."""
    with blocked() as ident:
        names = [s.function for s in thread_stack(ident)]
    assert names == ["inner", "work"]


def test_the_stack_is_cut_at_its_limit() -> None:
    """The innermost frames stay."""
    with blocked() as ident:
        names = [s.function for s in thread_stack(ident, limit=1)]
    assert names == ["inner"]


def test_a_thread_of_the_runtime_alone_keeps_its_stack() -> None:
    """An idle worker stands in the executor's loop."""
    with ThreadPoolExecutor(1) as pool:
        ident = pool.submit(threading.get_ident).result()
        sites = thread_stack(ident)
    assert any(s.file.endswith("concurrent/futures/thread.py") for s in sites)


def test_a_thread_that_is_gone_has_no_stack() -> None:
    """Idents may be old."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert thread.ident is not None
    assert thread_stack(thread.ident) == []


def test_frames_of_tightship_are_left_out() -> None:
    """Asked about the asking thread, the answer begins at the caller."""
    sites = thread_stack(threading.get_ident())
    assert sites[0].function == "test_frames_of_tightship_are_left_out"


def test_a_thread_of_tightships_own_has_no_stack() -> None:
    """Nothing but our frames and the thread's start."""
    answers: list[list[Site]] = []
    source = "def ask(answers):\n    answers.append(thread_stack(get_ident()))\n"
    names = {"thread_stack": thread_stack, "get_ident": threading.get_ident}
    exec(compile(source, stacks.__file__, "exec"), names)
    thread = threading.Thread(target=names["ask"], args=(answers,))
    thread.start()
    thread.join()
    assert answers == [[]]


def test_a_thread_with_a_target_of_the_runtime_is_not_ours() -> None:
    """Though every thread begins in the frame of ours that notes births."""
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    assert thread.ident is not None
    sites = thread_stack(thread.ident)
    go.set()
    thread.join()
    assert [s.function for s in sites if s.function == "Event.wait"] == ["Event.wait"]


def test_a_stack_is_one_line() -> None:
    """The first site in full, the others as places."""
    sites = [Site("a.py", 1, "f", "x()"), Site("b.py", 2), Site("c.py", 3)]
    assert format_stack(sites, 6) == "a.py:1   x()   <- b.py:2 <- c.py:3"


def test_a_long_stack_says_that_there_is_more() -> None:
    """Beyond the limit."""
    sites = [Site("a.py", n) for n in range(5)]
    assert format_stack(sites, 2) == "a.py:0   <- a.py:1 <- ..."


def test_no_stack_is_no_text() -> None:
    """The empty list is the empty string."""
    assert format_stack([], 6) == ""
