"""Trio's runs: tasks beneath the tasks whose nurseries they are in.

A run is found on the stack of its thread, so that any thread may ask. One that is driven by
another loop (trio's guest mode) is only seen while it is at work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from ..origin import layer
from .await_chain import look
from .frames import get, local_values, outwards, readable, site, spot
from .loop_state import LoopState, Timer
from .task_tree import Forest, Seen, chosen_by_library, planted, with_names
from .threads import asks, blocked_in, stuck

__all__ = ["runs"]


def runs(tops: Mapping[int, FrameType], *, over: Callable[[float], bool]) -> Iterator[LoopState]:
    """Yield trio's runs that are on the stack of any thread.

    Args:
        tops: the threads' innermost frames.
        over: tells whether the time for looking, plus some seconds, is used up.
    """
    if "trio" not in sys.modules:
        return
    for ident, top in tops.items():
        inside: list[FrameType] = []
        for frame in outwards(top):
            if frame.f_globals.get("__name__") == "trio._core._run" and (
                frame.f_code.co_name in ("unrolled_run", "run")
            ):
                runner = dict(local_values(frame)).get("runner")
                if get(runner, "main_task") is not None:
                    yield _state(runner, ident, top, inside, over)
                    break
            inside.append(frame)


def _state(
    runner: Any, ident: int, top: FrameType, inside: list[FrameType], over: Callable[[float], bool]
) -> LoopState:
    where = [site(spot(f)) for f in inside if layer(f.f_code.co_filename) < 2]
    state = "busy"
    if not inside or inside[0].f_code.co_name == "get_events":
        state = "waiting for events"
    elif where:
        state = stuck("" if asks(ident, top) else blocked_in(top))
    return LoopState(
        "trio",
        state,
        tuple(where[:12]) if state != "waiting for events" else (),
        ident,
        _forest(runner, over),
        _deadlines(runner),
        len(runner.runq),
    )


def _forest(runner: Any, over: Callable[[float], bool]) -> Forest:
    """Return the main task's tree; what trio itself runs is left out."""
    found: list[Seen] = []
    todo: list[tuple[Any, Seen | None]] = [(runner.main_task, None)]
    met = {id(runner.main_task)}
    queued = {id(task) for task in list(runner.runq)}
    at, unseen = 0, 0
    while at < len(todo):
        if at % 64 == 0 and over(0.0):
            unseen = len(todo) - at
            break
        task, parent = todo[at]
        at += 1
        seen = _seen(task, main=parent is None, ready=id(task) in queued)
        if parent is not None:
            seen.parents.append(parent)
        found.append(seen)
        for nursery in list(task.child_nurseries):
            for child in list(nursery.child_tasks):
                if id(child) not in met:
                    met.add(id(child))
                    todo.append((child, seen))
    aliases = {readable(task.name): seen.name for (task, _), seen in zip(todo, found, strict=False)}
    for seen in found:
        seen.waits = with_names(seen.waits, aliases)
    return Forest(planted(found), len(todo), unseen)


def _seen(task: Any, *, main: bool, ready: bool) -> Seen:
    spots, waits, _ = look(task.coro)
    if ready and not waits.startswith(("running", "not started")):
        waits = "its next turn in the loop"
    cancelled = bool(get(get(task, "_cancel_status"), "effectively_cancelled"))
    if cancelled:
        waits += ", although cancelled"
    name = readable(task.name)
    code = get(task.coro, "cr_code")
    if code is not None and chosen_by_library(task.name, code):
        name = str(code.co_name)
    return Seen(name, waits, spots, cancelling=int(cancelled), main=main)


def _deadlines(runner: Any) -> tuple[Timer, ...]:
    try:
        now = runner.clock.current_time()
        due = [
            when - now
            for when, _, scope in list(runner.deadlines._heap)
            if scope._registered_deadline == when
        ]
    except Exception:  # another version of trio, or a clock of somebody's own
        return ()
    if not due:
        return ()
    return (Timer(round(min(due), 3), "a cancel scope's deadline", None, len(due)),)
