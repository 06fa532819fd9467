"""Ending asyncio tasks: cancel them, wait for them, and say what became of each.

The standard library has no way to do this that is right in every case (CPython issue 103486):
``await task`` after ``task.cancel()`` cannot tell the task's cancellation from the caller's own,
waits for ever for a task that swallows it, and raises what the task had raised before.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .deadlines.reading import seconds
from .explain.await_chain import format_waiting
from .explain.stacks import format_stack, thread_stack
from .model import Site
from .runtimes import cancels
from .runtimes.async_library import running_library
from .runtimes.cancels import By
from .runtimes.loops import current_task
from .survivors import waits_for

if TYPE_CHECKING:
    from .explain.swallow import Mark

__all__ = [
    "CancelReport",
    "EndedTask",
    "FailedTask",
    "ResistedError",
    "ResistedTask",
    "cancel_and_wait",
    "end_tasks",
    "name_of",
    "until_done",
]

#: Seconds that another thread's loop is given on top to answer.
_LATENCY = 0.25


class ResistedError(TimeoutError):
    """Something that was told to end has not ended within its deadline."""


# As everybody imports it: shorter in a traceback's last line.
ResistedError.__module__ = "tightship"


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that is over without an error."""

    name: str
    """``task 'poll'``: its coroutine, and its own name if somebody gave it one."""
    how: Literal["cancelled", "returned"]
    """What it ended with. A task may return although it was cancelled."""
    before: bool
    """It had ended before it was asked to."""

    def __str__(self) -> str:
        return f"{self.name}: {self.how}" + (" before it was cancelled" if self.before else "")


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A task that is over with an error."""

    name: str
    exception: BaseException
    before: bool
    """It had failed before it was cancelled."""

    def __str__(self) -> str:
        when = "before it was cancelled" if self.before else "when it was cancelled"
        return f"{self.name}: {_error(self.exception)}   ({when})"


@dataclass(frozen=True, slots=True)
class ResistedTask:
    """A task that has not ended."""

    name: str
    waiting: str
    """Where it stands, as one line: its await chain, the innermost line first."""
    swallowed: Site | None
    """The line that caught the cancellation, if it was caught and that line is known."""
    cancelled_by: str
    """Who cancelled it, in words; empty if nobody did."""
    asked: int
    """How many times it was cancelled here."""
    because: str = ""
    """What else keeps it from ending: its loop does not run, say."""

    def __str__(self) -> str:
        lines = [self.name]

        def add(name: str, text: str) -> None:
            lines.append(f"  {name:<12} {text}")

        if self.because:
            add("because", self.because)
        if self.swallowed is not None:
            add("caught by", str(self.swallowed))
        add("waiting", self.waiting)
        if self.cancelled_by:
            times = f"   ({self.asked} times)" if self.asked > 1 else ""
            add("cancelled by", self.cancelled_by + times)
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What became of tasks that were cancelled. Keeps none of them alive."""

    ended: tuple[EndedTask, ...]
    failed: tuple[FailedTask, ...]
    resisted: tuple[ResistedTask, ...]
    seconds: float
    """How long it took."""

    @property
    def ok(self) -> bool:
        """True if all ended, and none with an error."""
        return not self.failed and not self.resisted

    @property
    def summary(self) -> str:
        """The counts, as one line."""
        total = len(self.ended) + len(self.failed) + len(self.resisted)
        tasks = f"{total} task{'' if total == 1 else 's'}"
        if self.ok:
            return f"{tasks} ended in {self.seconds:.2f} s"
        parts = [f"{len(self.ended)} ended"] if self.ended else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.resisted)} resisted"] if self.resisted else []
        return f"{tasks} cancelled: {', '.join(parts)} ({self.seconds:.2f} s)"

    def __str__(self) -> str:
        lines = [self.summary]
        for word, those in (("resisted", self.resisted), ("failed", self.failed)):
            for one in those:
                lines += _indented(f"{word:<9} {one}")
        return "\n".join(lines)

    def raise_if_failed(self) -> None:
        """Raise what failed, and a `ResistedError` for each task that has not ended.

        Raises:
            ExceptionGroup: with all of them, whatever their number.
        """
        errors: list[BaseException] = [one.exception for one in self.failed]
        errors += [ResistedError(str(one)) for one in self.resisted]
        if errors:
            raise BaseExceptionGroup(self.summary, errors)


def _indented(text: str) -> list[str]:
    return ["  " + line for line in text.splitlines()]


def _error(exc: BaseException) -> str:
    text = str(exc)
    return f"{type(exc).__qualname__}: {text}" if text else type(exc).__qualname__


# -- the public function -------------------------------------------------------------------


async def cancel_and_wait(
    *tasks: asyncio.Future[Any],
    timeout: float = 2.0,  # noqa: ASYNC109 - the field's word, and it is a bound that holds
    rounds: int = 2,
    msg: str | None = None,
) -> CancelReport:
    """Cancel tasks, wait until they have ended, and tell what became of each.

    Never raises what a task raised: that is in the report. Never waits longer than ``timeout``
    (tasks of a loop in another thread a quarter of a second more). If the caller itself is
    cancelled meanwhile, the waiting is still finished, and then the caller's own
    `asyncio.CancelledError` goes on, with what resisted or failed as a note.

    A task of a loop in another thread is cancelled there. One whose loop does not run is cancelled,
    and reported as resisting, since nothing can end it before its loop runs again.

    Args:
        tasks: asyncio tasks or futures, of any loop, done or not.
        timeout: seconds for all of them together.
        rounds: how many times to cancel a task that goes on. The first is at once, each other
            one after an equal part of ``timeout``, so that an orderly end is not disturbed.
        msg: handed on to ``task.cancel()``.

    Raises:
        ValueError: if the task that calls is among them, or an argument is out of its range.
        TypeError: if something is not a task.
        RuntimeError: on trio, whose tasks are ended by their scope, and outside of a loop.
    """
    limit = seconds(timeout, "cancel_and_wait() timeout")
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise ValueError(f"cancel_and_wait() rounds: expected 1 or more, got {rounds!r}")
    _check_library()
    report, mine = await end_tasks(_checked(tasks), limit, rounds, msg, By(raw=cancels.stack(1)))
    if mine is None:
        return report
    if not report.ok:
        mine.add_note(f"while it was cancelled, cancel_and_wait() found: {report}")
    try:
        raise mine
    finally:
        del mine  # its traceback holds this frame


async def end_tasks(
    tasks: Sequence[Any],
    limit: float,
    rounds: int = 2,
    msg: str | None = None,
    by: By = By(),  # noqa: B008 - a tuple
    *,
    keep: bool = False,
) -> tuple[CancelReport, asyncio.CancelledError | None]:
    """Do what `cancel_and_wait` does; return the caller's own cancellation instead of raising it.

    Args:
        tasks: asyncio tasks and futures, not the current one.
        limit: seconds for all of them together.
        rounds: how many times to cancel a task that goes on.
        msg: handed on to ``task.cancel()``.
        by: who asks for it.
        keep: the report is kept even if the caller was cancelled, so that the errors in it count
            as seen.
    """
    loop = asyncio.get_running_loop()
    those = [_Asked(task) for task in tasks]
    started = loop.time()
    try:
        mine = await _end_everywhere(those, limit, rounds, msg, by)
        return _report(those, loop.time() - started, seen=keep or mine is None), mine
    finally:
        for one in those:
            one.let_go()


def _check_library() -> None:
    library = running_library()
    if library == "trio":
        raise RuntimeError(
            "cancel_and_wait() ends asyncio tasks. On trio cancel the scope that the task runs "
            "in, nursery.cancel_scope.cancel(), and leave its block: that waits for the end"
        )
    if library is None:
        raise RuntimeError("cancel_and_wait() was called outside of a running event loop")


def _checked(tasks: Sequence[Any]) -> list[Any]:
    me = current_task()
    found: dict[int, Any] = {}
    for task in tasks:
        if isinstance(task, (list, tuple, set, frozenset)):
            raise TypeError(
                f"cancel_and_wait() takes tasks one by one, got a {type(task).__name__}: "
                "write cancel_and_wait(*tasks)"
            )
        if not asyncio.isfuture(task):
            what = "a coroutine that no task runs" if asyncio.iscoroutine(task) else repr(task)
            raise TypeError(f"cancel_and_wait() takes tasks, got {what}")
        if task is me:
            raise ValueError(
                f"cancel_and_wait() cannot end {name_of(task)}, the task that calls it: to end "
                "the current task, return from it or raise asyncio.CancelledError"
            )
        found[id(task)] = task
    return list(found.values())


# -- one task ------------------------------------------------------------------------------


class _Asked:
    """One task that is to end, for as long as a call lasts."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.name = name_of(task)
        self.before = task.done()
        self.asked = 0
        self.because = ""
        self.waiting = ""
        self.swallowed: Site | None = None
        self._mark: Mark | None = None

    def ask(self, msg: str | None, by: By) -> None:
        """Cancel it once more. In the thread of its loop, or while that does not run."""
        self.look()
        cancels.note(self.task, by.words, by.raw)
        self._mark = _mark(self.task)
        self.asked += 1
        self.task.cancel(msg)

    def look(self) -> None:
        """See what it made of the last request."""
        if self.asked and not self.task.done():
            self.swallowed = _swallower(self._mark, self.task) or self.swallowed
            self.waiting = format_waiting(self.task)

    def let_go(self) -> None:
        self.task = self._mark = None

    def outcome(self, *, seen: bool) -> EndedTask | FailedTask | ResistedTask:
        task = self.task
        if not task.done():
            return ResistedTask(
                self.name,
                self.waiting or format_waiting(task),
                self.swallowed,
                cancels.describe(task),
                self.asked,
                self.because,
            )
        if task.cancelled():
            return EndedTask(self.name, "cancelled", self.before)
        # Asking for the exception marks it as seen: not unless the caller gets the report.
        error = task.exception() if seen else getattr(task, "_exception", None)
        if isinstance(error, asyncio.CancelledError):  # gather's future has it as its exception
            return EndedTask(self.name, "cancelled", self.before)
        if error is not None:
            return FailedTask(self.name, error, self.before)
        return EndedTask(self.name, "returned", self.before)


def _report(those: list[_Asked], took: float, *, seen: bool) -> CancelReport:
    outcomes = [one.outcome(seen=seen) for one in those]
    return CancelReport(
        tuple(o for o in outcomes if isinstance(o, EndedTask)),
        tuple(o for o in outcomes if isinstance(o, FailedTask)),
        tuple(o for o in outcomes if isinstance(o, ResistedTask)),
        took,
    )


def _mark(task: Any) -> Mark | None:
    from .explain.swallow import mark

    return mark(task) if hasattr(task, "get_coro") else None


def _swallower(before: Mark | None, task: Any) -> Site | None:
    from .explain.swallow import swallower

    return swallower(before, task) if before is not None else None


def name_of(task: Any) -> str:
    if not hasattr(task, "get_coro"):
        return f"future {type(task).__name__}"
    # 3.12.1 crashes if asked for the coroutine of an eager task that ended at once.
    coro = getattr(task, "_coro", None) if task.done() else task.get_coro()
    own = str(task.get_name())
    if coro is None:
        return "task that ended at once" if own == "None" else f"task {own!r}"
    name = getattr(coro, "__qualname__", None) or type(coro).__name__
    text = f"task {str(name).rpartition('.<locals>.')[2]!r}"
    return text if own.startswith("Task-") or own == "None" else f"{text} ({own})"


# -- waiting -------------------------------------------------------------------------------


async def _end_everywhere(
    those: list[_Asked], limit: float, rounds: int, msg: str | None, by: By
) -> asyncio.CancelledError | None:
    """End tasks where their loops run. Return the caller's own cancellation, if there was one."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    here: list[_Asked] = []
    elsewhere: dict[Any, list[_Asked]] = {}
    for one in those:
        if one.before:
            continue
        its = one.task.get_loop()
        if its is loop:
            here.append(one)
        elif its.is_closed():
            one.because = "its loop is closed: it will never run again"
        elif not its.is_running():
            one.ask(msg, by)
            one.because = "its loop is not running: it can end only when that runs again"
        else:
            elsewhere.setdefault(its, []).append(one)
    with ExitStack() as stack:
        answers = []
        for its, group in elsewhere.items():
            answer = _hand_over(its, group, limit, rounds, msg, by)
            if answer is not None:
                stack.callback(answer.cancel)
                answers.append((its, group, answer))
        mine = await _end(here, limit, rounds, msg, by)
        waited = [answer for _, _, answer in answers]
        mine = await until_done(waited, started + limit + _LATENCY, mine) if waited else mine
        for its, group, answer in answers:
            if not answer.done():
                _unanswered(its, group)
            elif not answer.cancelled():
                # What went wrong over there is seen in the tasks: they are as they are.
                answer.exception()
        return mine


def _hand_over(
    loop: Any, group: list[_Asked], limit: float, rounds: int, msg: str | None, by: By
) -> asyncio.Future[Any] | None:
    """Let a loop in another thread end its own tasks."""
    coro = _end_there(group, limit, rounds, msg, by)
    try:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coro, loop))
    except RuntimeError:  # it has just been closed
        coro.close()
        for one in group:
            one.because = "its loop is closed: it will never run again"
        return None


async def _end_there(
    group: list[_Asked], limit: float, rounds: int, msg: str | None, by: By
) -> None:
    mine = await _end(group, limit, rounds, msg, by)
    if mine is not None:
        raise mine


def _unanswered(loop: Any, group: list[_Asked]) -> None:
    ident = getattr(loop, "_thread_id", None)
    at = format_stack(thread_stack(ident)) if ident is not None else ""
    for one in group:
        if not one.task.done():
            one.because = "its loop, in another thread, does not answer" + (
                f": that is at {at}" if at else ""
            )


async def _end(
    those: list[_Asked], limit: float, rounds: int, msg: str | None, by: By
) -> asyncio.CancelledError | None:
    """End tasks of the running loop. Return the caller's own cancellation, if there was one."""
    started = asyncio.get_running_loop().time()
    mine = None
    for number in range(1, rounds + 1):
        left = [one for one in those if not one.task.done()]
        if not left:
            break
        for one in left:
            one.ask(msg, by)
        until = started + limit * number / rounds
        mine = await until_done([one.task for one in left], until, mine)
    me = current_task()
    for one in those:
        one.look()
        if not one.task.done() and waits_for(one.task, me):
            one.because = "it waits for the task that is ending it"
    return mine


async def until_done(
    futures: list[Any], until: float | None, mine: asyncio.CancelledError | None
) -> asyncio.CancelledError | None:
    """Wait for futures, also through the caller's own cancellation, which is returned.

    Args:
        futures: of the running loop.
        until: the loop's time after which to wait no longer.
        mine: the caller's cancellation, if it came before.
    """
    loop = asyncio.get_running_loop()
    me = current_task()
    with ExitStack() as shield:
        while True:
            # Whoever awaits us cannot end before we do.
            left = [f for f in futures if not f.done() and not waits_for(f, me)]
            if not left:
                return mine
            try:
                if mine is not None:
                    for scope in _shields(shield):
                        shield.enter_context(scope)
                pause = None if until is None else max(0.0, until - loop.time())
                await asyncio.wait(left, timeout=pause)
            except asyncio.CancelledError as exc:
                mine = mine or exc
            if until is not None and loop.time() >= until:
                return mine


def _shields(entered: ExitStack) -> Iterator[Any]:
    """Yield what keeps anyio from cancelling us anew in every turn of the loop."""
    backend = sys.modules.get("anyio._backends._asyncio")
    states = getattr(backend, "_task_states", None)
    me = current_task()
    # Entered once; after that the innermost scope is the shield itself.
    scope = None if states is None or me is None else getattr(states.get(me), "cancel_scope", None)
    if scope is not None and not scope.shield:
        import anyio

        yield anyio.CancelScope(shield=True)
