"""Who cancelled a task: noted when it happens, turned into words only if shown.

``asyncio.Task.cancel`` is a method of a type that nobody may change, so a direct call cannot be
seen without a price. What can be seen for nothing are the cancellers that are written in Python:
timeouts, task groups, `gather`, the runner at the end of a run, anyio's scopes, and our own
functions. `trace_cancels` adds the direct calls, from Python 3.12 on, where the interpreter tells
of calls by itself.

A note is an attribute of the task: it goes when the task goes, and keeps nothing alive.
"""

from __future__ import annotations

import functools
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..model import Site
from ..origin import Raw, capture, layer, project_site
from .loops import pending_tasks

if TYPE_CHECKING:
    from ..births import Patcher

__all__ = ["By", "describe", "install", "note", "stack", "trace_cancels", "who"]

#: Notes kept for each task: the first, and the latest.
KEPT = 6

#: Where the frames of an event loop are: what stands below cancelled nothing.
_LOOPS = tuple(
    os.path.join("asyncio", name) for name in ("events.py", "base_events.py", "runners.py")
)

#: The calls that cancelled anyio's scopes: they are asked for when a task of theirs is shown.
_SCOPES: Any = weakref.WeakKeyDictionary()


class By(NamedTuple):
    """Who cancels: in words, as far as the line does not say so, and the calling stack."""

    words: str = ""
    raw: Raw = ()


class Note(NamedTuple):
    """One request to end a task."""

    level: int
    """How many requests were outstanding before it."""
    words: str
    """What cancelled it, if it was not a plain call."""
    raw: Raw
    by: weakref.ref[Any] | None
    """The timeout or task group that asked, and that takes its request back by itself."""
    what: str = ""
    """What that is to the task: it tells whether the request still stands."""


def note(task: Any, words: str = "", raw: Raw = (), by: Any = None, what: str = "") -> None:
    """Remember that a task is about to be cancelled. Never raises.

    Args:
        task: the task or future.
        words: what cancels it, as far as the line does not say so.
        raw: the stack of whoever cancels it.
        by: an object that takes back its request, kept weakly.
        what: with ``by``: ``"timeout"``; or ``"child"``, ``"parent"`` or, in its exit already,
            ``"exiting"`` of a task group.
    """
    try:
        ref = None if by is None else weakref.ref(by)
        level = task.cancelling() if hasattr(task, "cancelling") else 0
        made = Note(level, words, raw, ref, what)
        notes = getattr(task, "_tightship_cancels", None)
        if notes is None:
            task._tightship_cancels = [made]
            return
        if len(notes) >= KEPT:
            del notes[1]
        notes.append(made)
    except Exception:  # a task of another kind: without a note
        pass


def stack(skip: int) -> Raw:
    """Return the calling stack, without ``skip`` frames, up to where the event loop called it."""
    raw = capture(skip + 1)
    for number, (code, _) in enumerate(raw):
        if code.co_filename.endswith(_LOOPS):
            return raw[:number]
    return raw


def _standing(task: Any) -> list[Note]:
    """Return the notes of requests that have not been taken back, the oldest first."""
    notes = getattr(task, "_tightship_cancels", None)
    if not notes:
        return []
    count = task.cancelling() if hasattr(task, "cancelling") else len(notes)
    latest: dict[int, Note] = {}
    for made in list(notes):
        # A request at a lower level than another came after that one was taken back.
        latest = {k: v for k, v in latest.items() if k < made.level}
        latest[made.level] = made
    return [n for level, n in sorted(latest.items()) if level < count and _stands(n)]


def _stands(made: Note) -> bool:
    if made.by is None:
        return True
    by = made.by()
    if made.what == "child":  # a task group never takes that back
        return True
    if by is None:
        return False
    if made.what == "timeout":
        return getattr(getattr(by, "_state", None), "value", "") == "expiring"
    # A group takes its request to its parent back when its exit begins, or when that ends.
    return made.what == "exiting" or not getattr(by, "_exiting", True)


def _site(task: Any, made: Note) -> Site | None:
    by = made.by() if made.by is not None else None
    if by is not None:
        from ..explain.with_block import with_site

        host = getattr(by, "_parent_task", None) if made.what == "child" else task
        found = with_site(host, by)
        if found is not None:
            return found
    return project_site(made.raw)


def _told(task: Any) -> list[tuple[str, Site | None]]:
    found = [(n.words, _site(task, n)) for n in _standing(task)]
    scope = _scope_of(task)
    if scope is not None:
        from ..explain.with_block import with_site

        raw = _SCOPES.get(scope, ())
        host = getattr(scope, "_host_task", None)
        site = project_site(raw) if any(layer(c.co_filename) < 2 for c, _ in raw) else None
        words = "" if site is not None else "anyio's cancel scope"
        if "deadline exceeded" in str(getattr(scope, "_cancel_reason", "")):
            words = "the deadline of anyio's cancel scope"
        found.append((words, site or (None if host is None else with_site(host, scope))))
    return found


def _scope_of(task: Any) -> Any:
    """Return anyio's scope that has cancelled a task, or None."""
    backend = sys.modules.get("anyio._backends._asyncio")
    states = getattr(backend, "_task_states", None)
    if states is None:
        return None
    scope = getattr(states.get(task), "cancel_scope", None)
    for _ in range(100):
        if scope is None or scope._cancel_called:
            return scope
        if scope._shield:
            return None
        scope = scope._parent_scope
    return None


def who(task: object) -> Site | None:
    """Return the line that cancelled a task, or None if that is not known. Never raises.

    Of several requests that still stand, the latest whose line is known.
    """
    try:
        return next((site for _, site in reversed(_told(task)) if site is not None), None)
    except Exception:
        return None


def describe(task: object) -> str:
    """Return who cancelled a task, in words; empty if that is not known. Never raises.

    ``shop/poller.py:31   task.cancel()``, or ``asyncio.timeout() at shop/poller.py:12   async
    with asyncio.timeout(1):``; several requests that still stand are joined by ``; then``.
    """
    try:
        parts: list[str] = []
        for words, site in _told(task):
            text = f"{words} at {site}" if words and site else words or str(site or "")
            if text and text not in parts:
                parts.append(text)
        return "; then ".join(parts)
    except Exception:
        return ""


# -- cancellers written in Python ----------------------------------------------------------


def install(patch: Patcher) -> None:
    """Note what the standard library's and anyio's cancellers do. Costs nothing until they do."""
    patch.when_imported("asyncio", lambda _: _on_asyncio(patch))
    patch.when_imported("anyio._backends._asyncio", lambda module: _on_anyio(patch, module))


def _on_asyncio(patch: Patcher) -> None:
    from asyncio import runners, taskgroups, tasks, timeouts

    def expired(timeout: Any) -> None:
        note(timeout._task, "asyncio.timeout()", by=timeout, what="timeout")

    patch.before_method(timeouts.Timeout, "_on_timeout", expired)

    def aborting(group: Any) -> None:
        # A child failed: its parent is cancelled next. Otherwise the body ended with an error.
        failed = sys._getframe(2).f_code.co_name == "_on_task_done"
        why = "asyncio.TaskGroup" + _why(group)
        for task in list(group._tasks):
            if not task.done():
                note(task, why, by=group, what="child")
        if failed:
            what = "exiting" if group._exiting else "parent"
            note(group._parent_task, why, by=group, what=what)

    patch.before_method(taskgroups.TaskGroup, "_abort", aborting)

    def gather_cancelled(outer: Any) -> None:
        # Whoever cancelled the task that awaits it stands on the stack.
        raw = stack(2)
        for child in outer._children:
            if not child.done():
                note(child, "asyncio.gather()", raw)

    gathering = getattr(tasks, "_GatheringFuture", None)
    if gathering is not None:
        patch.before_method(gathering, "cancel", gather_cancelled)

    if sys.version_info < (3, 12):
        # Later versions use a timeout.
        cancel_and_wait: Any = tasks._cancel_and_wait  # type: ignore[attr-defined]

        @functools.wraps(cancel_and_wait)
        async def _cancel_and_wait(fut: Any, *args: Any, **kwargs: Any) -> Any:
            if patch.active:
                note(fut, "asyncio.wait_for()", stack(1))
            return await cancel_and_wait(fut, *args, **kwargs)

        patch.set(tasks, "_cancel_and_wait", _cancel_and_wait)

    cancel_all: Any = runners._cancel_all_tasks  # type: ignore[attr-defined]

    @functools.wraps(cancel_all)
    def _cancel_all_tasks(loop: Any) -> Any:
        if patch.active:
            for ref in pending_tasks(loop):
                note(ref(), "the runner, which closes the loop")
        return cancel_all(loop)

    patch.set(runners, "_cancel_all_tasks", _cancel_all_tasks)


def _why(group: Any) -> str:
    """Return which error made a task group end its tasks."""
    errors = getattr(group, "_errors", None)
    error = errors[0] if errors else sys.exception()
    return "" if error is None else f" after {type(error).__qualname__}"


def _on_anyio(patch: Patcher, module: Any) -> None:
    scopes = getattr(module, "CancelScope", None)
    if scopes is None:
        return

    def cancelling(scope: Any) -> None:
        if not scope._cancel_called:
            _SCOPES[scope] = stack(2)

    patch.before_method(scopes, "cancel", cancelling)


# -- direct calls, on demand ---------------------------------------------------------------

_TRACING = {"depth": 0, "tool": -1}


@contextmanager
def trace_cancels() -> Iterator[None]:
    """Note the line of each call of ``task.cancel()`` made in this block, by any code.

    For finding out who cancelled a task that resists. Uses `sys.monitoring`: no type, no loop
    and no task is changed. Each function pays about a microsecond when it first runs within the
    block, and the few that call something named ``cancel`` a little for each such call. May be
    nested; holds for all threads. Not seen are calls that C code makes by itself, such as
    ``loop.call_later(1, task.cancel)``.

    Raises:
        RuntimeError: on Python 3.11, which cannot tell, or if all tool ids of `sys.monitoring`
            are taken.
    """
    if sys.version_info < (3, 12):
        raise RuntimeError(
            "trace_cancels() needs Python 3.12 or later: 3.11 cannot tell of calls. Timeouts, "
            "task groups, gather, runners and cancel_and_wait() are noted without it"
        )
    if not _TRACING["depth"]:
        _start_tracing()
    _TRACING["depth"] += 1
    try:
        yield
    finally:
        _TRACING["depth"] -= 1
        if not _TRACING["depth"]:
            _stop_tracing()


if sys.version_info >= (3, 12):
    _watched: list[CodeType] = []

    def _start_tracing() -> None:
        monitoring = sys.monitoring
        # 0, 1, 2 and 5 are for debuggers, coverage, profilers and optimizers.
        tool = next((n for n in (4, 3) if monitoring.get_tool(n) is None), None)
        if tool is None:
            raise RuntimeError(
                "trace_cancels() found no free tool id of sys.monitoring: other tools use "
                f"{monitoring.get_tool(3)!r} and {monitoring.get_tool(4)!r}"
            )
        monitoring.use_tool_id(tool, "tightship")
        events = monitoring.events
        monitoring.register_callback(tool, events.PY_START, _runs)
        monitoring.register_callback(tool, events.PY_RESUME, _runs)
        monitoring.register_callback(tool, events.CALL, _calls)
        # Places that were switched off in an earlier block are to be asked again.
        monitoring.set_events(tool, events.PY_START | events.PY_RESUME)
        monitoring.restart_events()
        _TRACING["tool"] = tool
        # Functions that run at this moment have started already.
        for frame in sys._current_frames().values():
            at: FrameType | None = frame
            while at is not None:
                _runs(at.f_code, 0)
                at = at.f_back

    def _stop_tracing() -> None:
        monitoring = sys.monitoring
        tool = _TRACING["tool"]
        monitoring.set_events(tool, 0)
        for code in _watched:
            monitoring.set_local_events(tool, code, 0)
        _watched.clear()
        for event in (
            monitoring.events.PY_START,
            monitoring.events.PY_RESUME,
            monitoring.events.CALL,
        ):
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)

    def _runs(code: CodeType, offset: int) -> Any:
        """Choose the functions that call something named ``cancel``; asked once for each."""
        try:
            if "cancel" in code.co_names and layer(code.co_filename) < 2:
                monitoring = sys.monitoring
                tool = _TRACING["tool"]
                if not monitoring.get_local_events(tool, code):
                    monitoring.set_local_events(tool, code, monitoring.events.CALL)
                    _watched.append(code)
        except Exception:
            pass
        return sys.monitoring.DISABLE

    def _calls(code: CodeType, offset: int, function: Any, first: Any) -> Any:
        try:
            if getattr(function, "__name__", "") != "cancel":
                return sys.monitoring.DISABLE
            task = first if hasattr(first, "cancelling") else getattr(function, "__self__", None)
            if task is not None and hasattr(task, "cancelling") and not task.done():
                note(task, raw=stack(1))
        except Exception:
            pass
        return None

else:

    def _start_tracing() -> None:
        raise AssertionError

    def _stop_tracing() -> None:
        raise AssertionError
