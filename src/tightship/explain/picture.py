"""The picture at expiry: all that can be known of a process that does not go on.

Taken from any thread while another one is stuck, from a signal handler, or from inside a loop:
nothing is run, stepped or locked. What is returned is made of strings and numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..model import Site
from .frames import tops
from .jobs import Job, jobs, jobs_known
from .loop_state import LoopState, activity, kind, ready, thread_of, timers
from .picture_text import render
from .task_tree import forest
from .threads import Thread, threads
from .trio_tree import runs

__all__ = ["Picture", "render", "take"]

#: Seconds that looking at tasks may take, all loops together: of this thread's own time, since
#: time-outs like to come when the machine is busy, and by the clock.
_PATIENCE, _PATIENCE_AT_MOST = 0.4, 2.0


@dataclass(frozen=True, slots=True)
class Picture:
    """What was found. Keeps nothing alive."""

    loops: tuple[LoopState, ...]
    threads: tuple[Thread, ...]
    jobs: tuple[Job, ...]
    resources: tuple[str, ...]
    """The lines of the caller."""
    faults: tuple[str, ...] = ()
    """Parts that could not be looked at, and why."""
    seconds: float = 0.0
    """How long it took."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as lists, dicts, strings and numbers, for the journal."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def take(
    loops: Iterable[Any],
    *,
    thread: int | None = None,
    resources: Iterable[str] = (),
    own_threads: Collection[int] = (),
    cancelled_by: Callable[[Any], Site | None] | None = None,
) -> Picture:
    """Return what tasks, threads, timers and jobs are doing at this moment. Never raises.

    Takes below a second whatever there is, on a busy machine some more. trio's runs are found
    without being named.

    Args:
        loops: asyncio event loops, running here, in another thread, or not at all.
        thread: ident of the thread that the test runs in.
        resources: lines about what is open, shown as they are.
        own_threads: idents of threads to leave out.
        cancelled_by: tells who cancelled a task; asked for those that were.
    """
    began = time.perf_counter()
    spent = time.thread_time()
    faults: list[str] = []

    def over(more: float) -> bool:
        return (
            time.thread_time() - spent > _PATIENCE + more
            or time.perf_counter() - began > _PATIENCE_AT_MOST + more
        )

    def part(name: str, look: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return look()
        except Exception as exc:
            faults.append(f"{name}: {type(exc).__name__}")
            return otherwise

    stacks = part("stacks", tops, {})
    states: list[LoopState] = []
    for loop in part("loops", lambda: list(loops), []):

        def state(loop: Any = loop) -> LoopState:
            ident = thread_of(loop, stacks, thread)
            doing, where = activity(loop, ident, None if ident is None else stacks.get(ident))
            with jobs_known():
                tasks = forest(loop, over=over, cancelled_by=cancelled_by)
            return LoopState(kind(loop), doing, where, ident, tasks, timers(loop), ready(loop))

        found = part("a loop", state, None)
        if found is not None:
            states.append(found)
    states += part("trio", lambda: list(runs(stacks, over=over)), [])
    idle = {s.thread for s in states if s.thread is not None and s.state == "waiting for events"}
    stacks.clear()  # frames hold what their functions do
    return Picture(
        tuple(states),
        tuple(part("threads", lambda: threads(own_threads, idle, thread), [])),
        tuple(part("jobs", jobs, [])),
        tuple(part("resources", lambda: [str(line) for line in resources], [])),
        tuple(faults),
        round(time.perf_counter() - began, 4),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Site):  # a tuple, but its names are worth keeping
        return value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
