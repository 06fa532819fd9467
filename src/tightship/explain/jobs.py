"""What executors are running, and what they have queued.

Read from the stacks of the workers and from the queues that they wait on: neither a lock nor a
call of theirs is needed, so it may be asked while any of them is stuck.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, FunctionType
from typing import Any, Literal

from .calls import callee
from .frames import enclosed, get, local_values, outwards, place, readable, tops

__all__ = ["Job", "function_name", "job_of", "jobs", "jobs_known", "running_job"]


@dataclass(frozen=True, slots=True)
class Job:
    """A function that was given to an executor or a worker thread."""

    name: str
    state: Literal["running", "queued"]
    thread: str = ""
    """The name of the thread that runs it."""


def jobs() -> list[Job]:
    """Return the jobs that are running and those that wait for a worker."""
    return [job for job, _ in _jobs()]


def job_of(future: object) -> Job | None:
    """Return the job that a concurrent future is the result of."""
    known = _KNOWN.get(threading.get_ident())
    if known is not None:
        return known.get(id(future))
    return next((job for job, owned in _jobs() if owned is future), None)


#: Thread -> id of a future -> its job, while `jobs_known` is in force there.
_KNOWN: dict[int, dict[int, Job]] = {}


@contextmanager
def jobs_known() -> Iterator[None]:
    """Look for jobs once, for all questions in this block: many tasks may wait for one each."""
    me = threading.get_ident()
    pairs = list(_jobs())
    _KNOWN[me] = {id(future): job for job, future in pairs}
    try:
        yield
    finally:
        _KNOWN.pop(me, None)


def _jobs() -> Iterator[tuple[Job, object]]:
    """Yield jobs with their futures, as far as those are known."""
    for ident, top in tops().items():
        for frame in outwards(top):
            found = _running(frame)
            if found is not None:
                func, future = found
                yield Job(function_name(func), "running", _thread_name(ident)), future
                break
    for item in _queued():
        func = get(item, "fn")
        future = get(item, "future")
        if callable(func):  # what a process pool runs stays in its list
            running = get(future, "_state") == "RUNNING"
            yield Job(function_name(func), "running" if running else "queued"), future


def running_job(frame: FrameType) -> str:
    """Return the job that this frame of a worker's is running, or nothing."""
    found = _running(frame)
    return "" if found is None else f"job {function_name(found[0])}"


def _running(frame: FrameType) -> tuple[object, object] | None:
    """Return the (function, future) that a worker's frame is running."""
    where = place(frame.f_code)
    if where == ("futures/thread.py", "_WorkItem.run"):
        item = dict(local_values(frame)).get("self")
        func = get(item, "fn")
        return None if func is None else (func, get(item, "future"))
    if where == ("_backends/_asyncio.py", "WorkerThread.run"):  # anyio's; idle in queue.get()
        if not callee(frame).endswith("context.run"):
            return None
        names = dict(local_values(frame))
        return names.get("func"), names.get("future")
    if where == ("_core/_thread_cache.py", "WorkerThread._handle_job"):  # trio's
        func = dict(local_values(frame)).get("fn")
        inner = dict(zip(_free(func), enclosed(func), strict=False))
        func = inner.get("sync_fn", func)  # it wraps what it was given
        return None if func is None else (func, None)
    return None


def _free(func: object) -> tuple[str, ...]:
    names = get(get(func, "__code__"), "co_freevars")
    return names if isinstance(names, tuple) else ()


def _queued() -> Iterator[object]:
    """Yield the work items that no worker has taken yet."""
    threads = sys.modules.get("concurrent.futures.thread")
    seen: set[int] = set()
    for queue in list(get(get(threads, "_threads_queues"), "data", {}).values()):
        if id(queue) not in seen:
            seen.add(id(queue))
            yield from _items(queue)
    processes = sys.modules.get("concurrent.futures.process")
    for ref in list(get(get(processes, "_threads_wakeups"), "data", {})):
        yield from list(get(ref(), "pending_work_items", {}).values())


def _items(queue: object) -> list[Any]:
    """Return what is in a queue: C's can only be looked into by way of the collector."""
    held = gc.get_referents(queue)
    # Up to 3.12 they are in a list; those taken out have left a None behind.
    inner = next((h for h in held if type(h) is list), held)
    return [h for h in inner if get(h, "fn") is not None]


def _thread_name(ident: int) -> str:
    # Not threading.enumerate(): that takes a lock.
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    return readable(get(thread, "name", ""))


def function_name(func: object) -> str:
    """Return ``name (module)`` of a job's function, unwrapped."""
    # asyncio.to_thread submits partial(context.run, func, ...)
    for _ in range(5):
        inner, args = get(func, "func"), get(func, "args")
        if not callable(inner) or not isinstance(args, tuple):
            break
        func = args[0] if get(inner, "__name__") == "run" and args else inner
    name = get(func, "__qualname__") or get(func, "__name__") or type(func).__qualname__
    module = func.__module__ if isinstance(func, FunctionType) else get(func, "__module__")
    text = readable(name)
    return f"{text} ({readable(module)})" if isinstance(module, str) and module else text
