"""Many operations at once: a limit, deadlines, and all that became known when time ran out.

A suite that runs fifty checks one after the other, or all in one `asyncio.gather` under one
deadline, knows little when the deadline strikes. Here each operation has its own end, and the
outcome tells of every one of them.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast, overload

from .bounded import Bounded, bounded
from .cancellation import ResistedError
from .deadlines.reading import optional_seconds
from .runtimes.async_library import running_library
from .runtimes.cancels import By, stack

__all__ = ["Operation", "Outcome", "Progress", "run_concurrently"]

T = TypeVar("T")
A = TypeVar("A")

State = Literal["done", "failed", "timed out", "unfinished", "not started"]


@dataclass(slots=True)
class Operation(Generic[T]):
    """One operation, and what became of it."""

    index: int
    """Its place among all of them."""
    name: str
    state: State = "not started"
    """``done``, ``failed`` (it raised), ``timed out`` (its own deadline), ``unfinished`` (stopped
    by the deadline for all) or ``not started``."""
    result: T | None = None
    error: BaseException | None = None
    """What it raised. Of one that was stopped, what it raised on its way out, if it did."""
    seconds: float = 0.0
    """How long it ran."""
    waiting: str = ""
    """Where it stood when it was stopped (asyncio)."""
    resisted: str = ""
    """How it stands, if it goes on although it was cancelled (asyncio)."""

    def __str__(self) -> str:
        text = f"{self.name}: {self.state}"
        if self.state == "failed":
            text = f"{self.name}: {_described(self.error)}"
        elif self.state in ("timed out", "unfinished"):
            text += f" after {self.seconds:.2f} s"
            if self.waiting:
                text += f", at {self.waiting}"
        return text


class Progress:
    """How far it is. Given to ``on_progress`` each time an operation ends."""

    __slots__ = ("done", "failed", "latest", "running", "seconds", "total")

    def __init__(
        self,
        total: int,
        done: int,
        failed: int,
        running: int,
        seconds: float,
        latest: Operation[Any],
    ) -> None:
        self.total = total
        """How many operations there are."""
        self.done = done
        """How many have ended, in whatever way."""
        self.failed = failed
        """How many of these have no result."""
        self.running = running
        """How many run at this moment."""
        self.seconds = seconds
        """Since the beginning."""
        self.latest = latest
        """The one that has just ended."""

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total}{failed} ({self.seconds:.1f} s): {self.latest}"


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What became of all operations."""

    operations: tuple[Operation[T], ...]
    """Every one, in the order in which they were given."""
    seconds: float
    """How long it took."""

    @property
    def results(self) -> list[T | None]:
        """The results in order, one place for each operation; None where there is none."""
        return [op.result for op in self.operations]

    @property
    def done(self) -> list[Operation[T]]:
        """Those that have a result, in order."""
        return self._in("done")

    @property
    def failed(self) -> list[Operation[T]]:
        """Those that raised, in order."""
        return self._in("failed")

    @property
    def timed_out(self) -> list[Operation[T]]:
        """Those stopped by their own deadline, in order."""
        return self._in("timed out")

    @property
    def unfinished(self) -> list[Operation[T]]:
        """Those that the deadline for all stopped or kept from starting, in order."""
        return self._in("unfinished", "not started")

    @property
    def resisted(self) -> list[Operation[T]]:
        """Those that were stopped and go on even so, in order: they are still running."""
        return [op for op in self.operations if op.resisted]

    @property
    def failures(self) -> dict[str, list[Operation[T]]]:
        """Those that raised, by the name of the exception's type, the most frequent first."""
        kinds: dict[str, list[Operation[T]]] = {}
        for op in self.failed:
            kinds.setdefault(type(op.error).__qualname__, []).append(op)
        return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))

    @property
    def counts(self) -> dict[str, int]:
        """How many failures there are of each type, the most frequent first."""
        return {kind: len(those) for kind, those in self.failures.items()}

    @property
    def complete(self) -> bool:
        """True if every operation has a result."""
        return all(op.state == "done" for op in self.operations)

    def _in(self, *states: State) -> list[Operation[T]]:
        return [op for op in self.operations if op.state in states]

    @property
    def summary(self) -> str:
        """The counts, as one line."""
        counted = Counter(op.state for op in self.operations)
        total = len(self.operations)
        words = ["failed", "timed out", "unfinished", "not started"]
        parts = [f"{counted[cast('State', w)]} {w}" for w in words if counted[cast("State", w)]]
        if self.resisted:
            parts.append(f"{len(self.resisted)} still running")
        more = "".join(f", {part}" for part in parts)
        return f"{counted['done']} of {total} done{more} ({self.seconds:.2f} s)"

    def __str__(self) -> str:
        lines = [self.summary]
        for kind, those in self.failures.items():
            lines += _group(kind, [f"{op.name}: {_message(op.error)}" for op in those])
        if self.timed_out:
            lines += _group("timed out", [_stopped(op) for op in self.timed_out])
        stopped = self._in("unfinished")
        if stopped:
            lines += _group("unfinished", [_stopped(op) for op in stopped])
        if left := self._in("not started"):
            lines += _group("not started", [op.name for op in left])
        for op in self.resisted:
            text = f"still running: {op.name}\n{op.resisted}"
            lines += ["  " + line for line in text.splitlines()]
        return "\n".join(lines)

    def raise_if_failed(self) -> None:
        """Raise what failed, and a `TimeoutError` for each operation that was stopped.

        Raises:
            ExceptionGroup: with all of them, whatever their number.
        """
        errors: list[Exception] = []
        for op in self.operations:
            if op.resisted:
                errors.append(
                    ResistedError(f"{op} and goes on although it was cancelled\n{op.resisted}")
                )
            elif op.state == "failed":
                errors.append(_raisable(op))
            elif op.state != "done":
                errors.append(TimeoutError(str(op)))
        if errors:
            raise ExceptionGroup(self.summary, errors)


#: Lines of one group that are shown.
_SHOWN = 5


def _group(title: str, lines: list[str]) -> list[str]:
    shown = [f"    {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"    ... and {len(lines) - _SHOWN} more")
    return [f"  {len(lines)} x {title}", *shown]


def _stopped(op: Operation[Any]) -> str:
    at = f", at {op.waiting}" if op.waiting else ""
    return f"{op.name} after {op.seconds:.2f} s{at}"


def _described(error: BaseException | None) -> str:
    text = _message(error)
    kind = type(error).__qualname__
    return kind if text == kind else f"{kind}: {text}"


def _message(error: BaseException | None) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__qualname__


def _raisable(op: Operation[Any]) -> Exception:
    error = op.error
    if isinstance(error, Exception):
        return error
    # A cancellation, or pytest's own outcomes: raised again, they would end more than this.
    other = RuntimeError(f"{op.name}: {_described(error)}")
    other.__cause__ = error
    return other


# -- running ---------------------------------------------------------------------------------


@overload
async def run_concurrently(
    operations: Callable[[A], Awaitable[T]],
    arguments: Iterable[A],
    /,
    *,
    limit: int | None = 10,
    each: float | None = None,
    total: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Outcome[T]: ...


@overload
async def run_concurrently(
    operations: (
        Iterable[Callable[[], Awaitable[T]] | Awaitable[T]]
        | Mapping[str, Callable[[], Awaitable[T]] | Awaitable[T]]
    ),
    /,
    *,
    limit: int | None = 10,
    each: float | None = None,
    total: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Outcome[T]: ...


async def run_concurrently(
    operations: Any,
    arguments: Iterable[Any] | None = None,
    /,
    *,
    limit: int | None = 10,
    each: float | None = None,
    total: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Outcome[Any]:
    """Run many operations at once, and tell what became of each.

    An operation's error ends nothing but that operation. When this returns, everything that it
    started has ended, but for operations that ignore their cancellation: on asyncio these are
    named in the outcome and left behind, on trio they are waited for. If the caller is cancelled,
    all are ended first. Coroutines that were given and never started are closed.

    Args:
        operations: an async function that is called with each of ``arguments``; or coroutines
            and functions without arguments that return one; or a mapping of such, by name.
        arguments: what to call the function with, one at a time.
        limit: how many run at once; None for all of them.
        each: seconds for each operation, from its own start; None for no limit.
        total: seconds for all of them together; None for no limit.
        on_progress: called with a `Progress` each time an operation ends. May be async; what it
            raises ends everything, and is raised here.

    Raises:
        ImportError: if anyio is not installed.
        TypeError, ValueError: if an argument is wrong. Nothing has been started then.
    """
    by = By("run_concurrently()", stack(1))
    those: list[Operation[Any]] = []
    calls: list[Any] = []
    try:
        for name, call in _named(operations, arguments):
            calls.append(call)
            if not (callable(call) or inspect.isawaitable(call)):
                raise TypeError(
                    "run_concurrently() takes coroutines and functions that return one, "
                    f"got {call!r}"
                )
            those.append(Operation(len(those), name))
        running = _Running(
            those,
            calls,
            _limit(limit),
            optional_seconds(each, "run_concurrently() each"),
            optional_seconds(total, "run_concurrently() total"),
            on_progress,
            by,
        )
        return await running.run()
    finally:
        for call in calls:
            # Only those that nobody has started: Python would complain of them.
            if inspect.iscoroutine(call) and inspect.getcoroutinestate(call) == "CORO_CREATED":
                call.close()


def _limit(limit: object) -> int | None:
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"run_concurrently() limit: expected 1 or more, or None; got {limit!r}")
    return limit


def _named(operations: Any, arguments: Iterable[Any] | None) -> Iterator[tuple[str, Any]]:
    """Yield each operation with its name."""
    if arguments is not None:
        if not callable(operations):
            raise TypeError(
                "run_concurrently() takes arguments for one function only, got "
                f"{type(operations).__name__}"
            )
        word = _function_name(operations)
        for argument in arguments:
            yield f"{word}({_short(argument)})", functools.partial(operations, argument)
    elif callable(operations) or inspect.isawaitable(operations):
        if inspect.iscoroutine(operations):
            operations.close()
        raise TypeError(
            "run_concurrently() takes many operations: a list of them, or one function and "
            "the arguments to call it with"
        )
    elif isinstance(operations, Mapping):
        for key, call in operations.items():
            yield str(key), call
    else:
        for number, call in enumerate(operations):
            yield f"{_function_name(call)} [{number}]", call


def _function_name(call: Any) -> str:
    if isinstance(call, functools.partial):
        given = ", ".join(map(_short, call.args))
        return f"{_function_name(call.func)}({given})"
    name = getattr(call, "__qualname__", None) or type(call).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= 60 else text[:57] + "..."


def _anyio() -> Any:
    try:
        import anyio
    except ImportError:
        raise ImportError(
            "run_concurrently() is built on anyio, which is not installed: "
            "pip install tightship[anyio]"
        ) from None
    return anyio


class _Running:
    """One call of `run_concurrently`."""

    def __init__(
        self,
        operations: list[Operation[Any]],
        calls: list[Any],
        limit: int | None,
        each: float | None,
        total: float | None,
        on_progress: Callable[[Progress], object] | None,
        by: By,
    ) -> None:
        self.by = by
        self.anyio = _anyio()
        self.operations = operations
        self.calls = calls
        self.limit = limit
        self.each = each
        self.total = total
        self.on_progress = on_progress
        self.queue = iter(operations)
        self.ended = self.failed = self.active = 0
        self.error: BaseException | None = None
        self.started = 0.0

    async def run(self) -> Outcome[Any]:
        if running_library() is None:
            raise RuntimeError("run_concurrently() was called outside of a running event loop")
        anyio = self.anyio
        count = len(self.operations)
        workers = count if self.limit is None else min(self.limit, count)
        self.started = time.monotonic()
        with anyio.CancelScope() as scope:
            if self.total is not None:
                scope.deadline = anyio.current_time() + self.total
            self.scope = scope
            async with anyio.create_task_group() as group:
                for _ in range(workers):
                    group.start_soon(self.work)
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None
        return Outcome(tuple(self.operations), time.monotonic() - self.started)

    async def work(self) -> None:
        """Take one operation after the other until there are none."""
        for operation in self.queue:
            began = time.monotonic()
            operation.state = "unfinished"
            self.active += 1
            try:
                ended = await bounded(
                    self.starter(operation),
                    self.each,
                    by=self.by,
                    stopped=functools.partial(self.settle, operation, "unfinished"),
                )
            finally:
                self.active -= 1
                operation.seconds = time.monotonic() - began
            self.settle(operation, "timed out", ended)
            await self.tell(operation)

    def starter(self, operation: Operation[Any]) -> Callable[[], Any]:
        call = self.calls[operation.index]
        return call if callable(call) else lambda: call

    def settle(self, operation: Operation[Any], late: State, ended: Bounded) -> None:
        """Note how an operation ended."""
        operation.error = ended.error
        operation.waiting = ended.waiting
        if ended.state == "returned":
            operation.state, operation.result = "done", ended.value
        else:
            operation.state = "failed" if ended.state == "failed" else late
        if ended.resisted is not None:
            # Its own name is better than its task's.
            operation.resisted = str(ended.resisted).partition("\n")[2]

    async def tell(self, operation: Operation[Any]) -> None:
        self.ended += 1
        self.failed += operation.state != "done"
        if self.on_progress is None or self.error is not None:
            return
        progress = Progress(
            len(self.operations),
            self.ended,
            self.failed,
            self.active,
            time.monotonic() - self.started,
            operation,
        )
        try:
            told = self.on_progress(progress)
            if inspect.isawaitable(told):
                await told
        except Exception as exc:
            self.error = exc
            self.scope.cancel()
