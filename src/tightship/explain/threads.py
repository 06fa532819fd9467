"""Every thread of the process: where it stands and what it is blocked in.

Takes no lock, so it may be asked from a signal handler or while another thread is stuck.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from ..model import Site
from ..origin import layer
from .calls import callee
from .frames import get, local_values, outwards, readable, tops
from .jobs import running_job
from .stacks import frame_stack

__all__ = ["Thread", "asks", "blocked_in", "stuck", "threads"]

Locals = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread, or several that do the same."""

    name: str
    """``db-pool-*`` if there are several."""
    ident: int
    """Of the first one."""
    daemon: bool
    doing: str
    """What it is blocked in, in words; empty if that is not known."""
    stack: tuple[Site, ...]
    """Innermost first."""
    count: int = 1
    runs_loop: bool = False
    """It only waits for the events of an event loop."""
    runtime_only: bool = False
    """No line of the project's or of a library's is on its stack."""


def threads(
    without: Collection[int] = (), loops: Collection[int] = (), first: int | None = None
) -> list[Thread]:
    """Return all Python threads, equal ones merged, the one of ident ``first`` at the front.

    Args:
        without: idents of threads to leave out.
        loops: idents of threads whose event loop waits for events.
        first: the ident of the thread that matters most.
    """
    known = threading._active.copy()  # type: ignore[attr-defined] # enumerate() takes a lock
    main = threading.main_thread().ident
    found: dict[Any, list[Thread]] = {}
    for ident, frame in tops().items():
        stack = tuple(frame_stack(frame))
        if ident in without or not stack:
            continue
        thread = known.get(ident)
        name = readable(get(thread, "name", "")) or f"thread {ident}"
        doing = "" if asks(ident, frame) else blocked_in(frame)
        daemon = bool(get(thread, "daemon", True))
        bare = all(layer(f.f_code.co_filename) == 2 for f in outwards(frame))
        one = Thread(name, ident, daemon, doing, stack, 1, ident in loops, bare)
        alone = ident in (first, main) or ident in loops
        key = ident if alone else (_pattern(name), doing, stack, one.daemon)
        found.setdefault(key, []).append(one)
    merged = [_merged(same) for same in found.values()]
    return sorted(merged, key=lambda t: (t.ident != first, t.ident != main, _idle(t), t.name))


def _merged(same: list[Thread]) -> Thread:
    one = same[0]
    if len(same) == 1:
        return one
    return replace(one, name=_pattern(one.name), count=len(same))


def _idle(thread: Thread) -> bool:
    return thread.doing == _IDLE


def _pattern(name: str) -> str:
    return re.sub(r"\d+(?=\W*$)", "*", name)


def asks(ident: int, top: FrameType) -> bool:
    """Tell whether a thread stands where it does only because it called us.

    A signal handler of ours interrupts what its thread was doing: that did not call.
    """
    if ident != threading.get_ident():
        return False
    at: FrameType | None = sys._getframe(1)
    while at is not None and at.f_back is not top:
        at = at.f_back
    return at is None or not any(value is top for _, value in local_values(at))


def blocked_in(top: FrameType) -> str:
    """Return in words what a thread with this innermost frame is blocked in.

    ``time.sleep()`` is a call that it is in, ``job f (module)`` what a worker runs; empty if
    it seems to be computing. Of nested waits the outermost in a library counts:
    `Queue.get`, not the lock that it is made of.
    """
    inside: list[FrameType] = []
    for frame in outwards(top):
        if layer(frame.f_code.co_filename) < 2:
            break
        inside.append(frame)
    for frame in reversed(inside):
        module = frame.f_globals.get("__name__")
        words = _TABLE.get((module, frame.f_code.co_qualname)) if type(module) is str else None
        if words is None:
            continue
        try:
            text = words if isinstance(words, str) else words(dict(local_values(frame)))
        except Exception:  # another version of the library
            continue
        if text and (text != _IDLE or _rests(frame)):
            return text
    for frame in inside:  # a worker's job in C: nothing of it is on the stack
        if job := running_job(frame):
            return job
    called = callee(top)
    if called.startswith("with "):
        return f"the lock in '{called}'"
    return f"{called}()" if called else ""


#: Functions in C that are known to wait; of others that are seen on the stack nobody can tell.
_WAITS = re.compile(
    r"(^|[._])(sleep|acquire|(recv|send|read|write)\w*|accept|connect|select|e?poll|wait\w*|join"
    r"|get|put|flush|fsync|system|getaddrinfo|gethostby\w+|input|flock|lockf|sigwait|pause)\(\)$"
)


def stuck(words: str) -> str:
    """Return what `blocked_in` said as a whole: ``blocked in time.sleep()``, ``busy``."""
    if not words:
        return "busy"
    if words.endswith("()"):
        return f"{'blocked' if _WAITS.search(words) else 'busy'} in {words}"
    return f"blocked, waiting for {words}"


def _rests(worker: FrameType) -> bool:
    """Tell whether a worker waits for a job, by the call that it is in."""
    return callee(worker).endswith((".get", ".acquire"))


def _join(names: Locals) -> str:
    return f"the end of thread '{readable(get(names.get('self'), 'name'))}'"


def _queue(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        queue = names.get("self")
        held = len(get(queue, "queue", ()))
        items = "1 item" if held == 1 else f"{held} items"
        return f"{verb}() of a queue.{type(queue).__name__} ({items})"

    return words


def _process(names: Locals) -> str:
    me = names.get("self")
    pid = get(me, "pid")
    return f"the end of process {pid}" if isinstance(pid, int) else "the end of a process"


def _import(names: Locals) -> str:
    return f"the import lock of {readable(get(names.get('self'), 'name'))}"


_IDLE = "idle"
_CHILD = "recv() of a pipe to a process"
_RESULT = "the result of a concurrent future"
_FUTURES = "wait() for concurrent futures"
_EVENTS = "select() for events"

#: (module, qualified name) -> words, or what makes them of the locals.
_TABLE: dict[tuple[str, str], str | Callable[[Locals], str]] = {
    ("threading", "Thread.join"): _join,
    ("threading", "Event.wait"): "a threading.Event",
    ("threading", "Condition.wait"): "a threading.Condition",
    ("threading", "Semaphore.acquire"): "a threading.Semaphore",
    ("threading", "Barrier.wait"): "a threading.Barrier",
    ("threading", "_shutdown"): "the end of all threads that are no daemons",
    ("queue", "Queue.get"): _queue("get"),
    ("queue", "Queue.put"): _queue("put"),
    ("queue", "Queue.join"): _queue("join"),
    ("subprocess", "Popen.wait"): _process,
    ("subprocess", "Popen.communicate"): _process,
    ("multiprocessing.process", "BaseProcess.join"): _process,
    ("multiprocessing.connection", "_ConnectionBase.recv"): _CHILD,
    ("multiprocessing.connection", "_ConnectionBase.recv_bytes"): _CHILD,
    ("multiprocessing.connection", "wait"): "wait() for other processes",
    ("concurrent.futures.thread", "ThreadPoolExecutor.shutdown"): "the workers of an executor",
    ("concurrent.futures.thread", "_worker"): _IDLE,
    ("anyio._backends._asyncio", "WorkerThread.run"): _IDLE,
    ("trio._core._thread_cache", "WorkerThread._work"): _IDLE,
    ("concurrent.futures._base", "Future.result"): _RESULT,
    ("concurrent.futures._base", "Future.exception"): _RESULT,
    ("concurrent.futures._base", "wait"): _FUTURES,
    ("concurrent.futures._base", "as_completed"): _FUTURES,
    ("selectors", "SelectSelector.select"): _EVENTS,
    ("selectors", "PollSelector.select"): _EVENTS,
    ("selectors", "EpollSelector.select"): _EVENTS,
    ("selectors", "KqueueSelector.select"): _EVENTS,
    ("socket", "SocketIO.readinto"): "recv() on a socket",
    ("socket", "socket.accept"): "accept() on a socket",
    ("socket", "create_connection"): "connect() of a socket",
    ("ssl", "SSLSocket.recv"): "recv() on a TLS socket",
    ("ssl", "SSLSocket.read"): "recv() on a TLS socket",
    ("ssl", "SSLSocket.do_handshake"): "the handshake of a TLS socket",
    ("importlib._bootstrap", "_ModuleLock.acquire"): _import,
    ("logging", "Handler.acquire"): "the lock of a logging handler",
}
