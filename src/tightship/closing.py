"""Closing many things, each within a deadline, whatever the others do.

Teardown code that closes one thing after the other stops at the first that raises or hangs, and
the rest leaks. Here each is closed, and what went wrong is told at the end.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from .bounded import Bounded, bounded
from .cancellation import (
    ResistedError,
    ResistedTask,
    end_tasks,
    name_of,
    until_done,
)
from .deadlines.reading import seconds
from .model import Site
from .runtimes.async_library import running_library
from .runtimes.cancels import By, stack

__all__ = [
    "Cleanup",
    "CloseReport",
    "ClosedThing",
    "FailedThing",
    "ResistedThing",
    "close_all",
    "closer",
]

T = TypeVar("T")

#: The methods that close, the best first.
METHODS = (
    "aclose",
    "close",
    "stop",
    "shutdown",
    "terminate",
    "disconnect",
    "cleanup",
    "cancel",
)

#: Seconds between two looks at a child process.
_POLL = 0.01


@dataclass(frozen=True, slots=True)
class ClosedThing:
    """Something that is closed."""

    name: str
    by: str
    """What closed it: ``close(), wait_closed()``."""
    seconds: float

    def __str__(self) -> str:
        return f"{self.name}: {self.by} took {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class FailedThing:
    """Something whose closing raised."""

    name: str
    by: str
    """What raised; empty if nothing is known that closes it."""
    exception: BaseException

    def __str__(self) -> str:
        text = str(self.exception)
        if not self.by:
            return f"{self.name}: {text}"
        kind = type(self.exception).__qualname__
        return f"{self.name}: {self.by} raised {kind}" + (f": {text}" if text else "")


@dataclass(frozen=True, slots=True)
class ResistedThing:
    """Something whose closing did not end within its deadline."""

    name: str
    by: str
    seconds: float
    waiting: str = ""
    """Where the closing stood then; empty where that cannot be seen (trio)."""
    swallowed: Site | None = None
    """The line that caught the cancellation, if the closing goes on even so."""
    running: bool = False
    """The closing goes on, although it was cancelled."""

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.by} did not end within {self.seconds:.2f} s"]
        if self.waiting:
            lines.append(f"  waiting      {self.waiting}")
        if self.swallowed is not None:
            lines.append(f"  caught by    {self.swallowed}")
        if self.running:
            lines.append("  still there  it goes on although it was cancelled")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CloseReport:
    """What became of things that were to be closed."""

    closed: tuple[ClosedThing, ...]
    failed: tuple[FailedThing, ...]
    resisted: tuple[ResistedThing, ...]
    seconds: float
    """How long it took."""

    @property
    def ok(self) -> bool:
        """True if all are closed."""
        return not self.failed and not self.resisted

    @property
    def summary(self) -> str:
        """The counts, as one line."""
        total = len(self.closed) + len(self.failed) + len(self.resisted)
        things = f"{total} thing{'' if total == 1 else 's'}"
        if self.ok:
            return f"{things} closed in {self.seconds:.2f} s"
        parts = [f"{len(self.closed)} closed"] if self.closed else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.resisted)} resisted"] if self.resisted else []
        return f"{things} to close: {', '.join(parts)} ({self.seconds:.2f} s)"

    def __str__(self) -> str:
        lines = [self.summary]
        for word, those in (("resisted", self.resisted), ("failed", self.failed)):
            for one in those:
                lines += ["  " + line for line in f"{word:<9} {one}".splitlines()]
        return "\n".join(lines)

    def raise_if_failed(self) -> None:
        """Raise what failed, and a `ResistedError` for each thing that did not close in time.

        Raises:
            ExceptionGroup: with all of them, whatever their number.
        """
        errors: list[BaseException] = []
        for one in self.failed:
            if one.by:
                one.exception.add_note(f"from {one.by} of {one.name}")
            errors.append(one.exception)
        errors += [ResistedError(str(one)) for one in self.resisted]
        if errors:
            raise BaseExceptionGroup(self.summary, errors)

    def __add__(self, other: CloseReport) -> CloseReport:
        return CloseReport(
            self.closed + other.closed,
            self.failed + other.failed,
            self.resisted + other.resisted,
            self.seconds + other.seconds,
        )


NOTHING = CloseReport((), (), (), 0.0)


# -- how one thing is closed ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Closer:
    """How one thing is closed."""

    name: str
    by: str
    call: Callable[[float, By], Awaitable[Any]]
    """Closes it; told how many seconds there are, and who asks for it."""


def closer(thing: object) -> Closer:
    """Return how something is closed.

    Raises:
        TypeError: if nobody can tell.
    """
    name = _name(thing)
    if asyncio.isfuture(thing):
        return Closer(name, "cancel()", functools.partial(_end_task, thing))
    if inspect.isawaitable(thing):
        return Closer(name, "await", _calling(lambda: thing))
    if inspect.isroutine(thing) or isinstance(thing, functools.partial):
        return Closer(name, "call", _calling(thing))
    special = _special(thing, name)
    if special is not None:
        return special
    for word in METHODS:
        method = getattr(thing, word, None)
        if not callable(method):
            continue
        wait = getattr(thing, "wait_closed", None) if word == "close" else None
        if callable(wait):
            by = f"{word}(), wait_closed()"
            return Closer(name, by, functools.partial(_close_and_wait, method, wait))
        return Closer(name, f"{word}()", _calling(method))
    if callable(getattr(thing, "wait_closed", None)):
        return Closer(name, "wait_closed()", _calling(thing.wait_closed))  # type: ignore[attr-defined]
    for word in ("__aexit__", "__exit__"):
        leave = getattr(thing, word, None)
        if callable(leave):
            leaving = functools.partial(leave, None, None, None)
            return Closer(name, f"{word}()", _calling(leaving))
    if callable(thing):
        return Closer(name, "call", _calling(thing))
    raise TypeError(
        f"nothing is known that closes {name}: it has none of {', '.join(METHODS)}. "
        "Give the function that does"
    )


def _name(thing: object) -> str:
    if asyncio.isfuture(thing):
        return name_of(thing)
    if isinstance(thing, functools.partial):
        thing = thing.func
    own = thing if inspect.isroutine(thing) or inspect.iscoroutine(thing) else type(thing)
    name = getattr(own, "__qualname__", None) or type(thing).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _calling(function: Any) -> Callable[[float, By], Awaitable[Any]]:
    return lambda _, __: _called(function)


async def _called(function: Callable[[], Any]) -> None:
    value = function()
    if inspect.isawaitable(value):
        await value


async def _close_and_wait(close: Any, wait: Any, limit: float, by: By) -> None:
    await _called(close)
    try:
        await _called(wait)
    except ConnectionError:
        # The other side was gone first. It is closed all the same.
        pass


async def _end_task(task: Any, limit: float, by: By) -> None:
    # A little before the deadline, so that its own report comes first.
    report, mine = await end_tasks([task], max(0.0, limit - 0.05), by=by)
    if mine is not None:
        raise mine
    if report.resisted:
        raise _Resists(report.resisted[0])
    # Its own earlier failure is told as well: nobody else will.
    for failed in report.failed:
        raise failed.exception


class _Resists(Exception):
    """A task is still there."""

    def __init__(self, task: ResistedTask) -> None:
        super().__init__(str(task))
        self.task = task


def _special(thing: Any, name: str) -> Closer | None:
    """Return how things are closed whose own method blocks, or leaves something behind."""
    if _is(thing, "asyncio.subprocess", "Process"):
        return Closer(name, "terminate(), wait()", functools.partial(_end_async_process, thing))
    if _is(thing, "subprocess", "Popen"):
        ended = lambda: thing.poll() is not None  # noqa: E731
        return Closer(name, "terminate(), wait()", functools.partial(_end_process, thing, ended))
    if _is(thing, "multiprocessing.process", "BaseProcess"):
        ended = lambda: not thing.is_alive()  # noqa: E731
        return Closer(name, "terminate(), join()", functools.partial(_end_process, thing, ended))
    if _is(thing, "multiprocessing.pool", "Pool"):
        call = functools.partial(_in_thread, lambda: (thing.terminate(), thing.join()))
        return Closer(name, "terminate(), join()", call)
    if _is(thing, "concurrent.futures", "Executor"):
        call = functools.partial(_in_thread, lambda: thing.shutdown(cancel_futures=True))
        return Closer(name, "shutdown()", call)
    if _is(thing, "socketserver", "BaseServer"):
        call = functools.partial(_in_thread, lambda: (thing.shutdown(), thing.server_close()))
        return Closer(name, "shutdown(), server_close()", call)
    return None


def _is(thing: object, module: str, name: str) -> bool:
    cls = getattr(sys.modules.get(module), name, None)
    return isinstance(cls, type) and isinstance(thing, cls)


async def _end_async_process(process: Any, limit: float, by: By) -> None:
    if process.returncode is None:
        _signal(process.terminate)
        first = await bounded(process.wait, limit * 0.7, by=by)
        if first.state == "late":
            _signal(process.kill)
    await process.wait()


async def _end_process(process: Any, ended: Callable[[], bool], limit: float, by: By) -> None:
    if not ended():
        _signal(process.terminate)
        until = time.monotonic() + limit * 0.7
        while not ended() and time.monotonic() < until:
            await _pause()
        if not ended():
            _signal(process.kill)
        while not ended():
            await _pause()
    if _is(process, "multiprocessing.process", "BaseProcess"):
        process.join()
        process.close()
        return
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was still to be written has no reader any more
                pass


def _signal(send: Callable[[], Any]) -> None:
    try:
        send()
    except ProcessLookupError:  # it was faster
        pass


async def _pause() -> None:
    if running_library() == "trio":
        await sys.modules["trio"].sleep(_POLL)
    else:
        await asyncio.sleep(_POLL)


async def _in_thread(function: Callable[[], Any], limit: float, by: By) -> None:
    """Call something that blocks, in a thread that nobody waits for at exit."""
    errors: list[BaseException] = []
    over = threading.Event()

    def run() -> None:
        try:
            function()
        except BaseException as exc:
            errors.append(exc)
        finally:
            over.set()

    threading.Thread(target=run, name="tightship closing", daemon=True).start()
    while not over.is_set():
        await _pause()
    if errors:
        raise errors[0]


# -- closing ---------------------------------------------------------------------------------


async def close_all(
    *things: Any,
    timeout: float = 5.0,  # noqa: ASYNC109 - the field's word, and it is a bound that holds
    reverse: bool = False,
) -> CloseReport:
    """Close many things, each within a deadline, and tell what became of each.

    What one of them raises is in the report, and keeps no other from being closed. If the caller is
    cancelled meanwhile, all are closed nevertheless, each within its deadline, and then the
    cancellation goes on.

    A thing is closed by the first of these that it has: ``aclose``, ``close`` (and then
    ``wait_closed``), ``stop``, ``shutdown``, ``terminate``, ``disconnect``, ``cleanup``,
    ``cancel``, ``__aexit__``, ``__exit__``, sync or async. A function or method is called, an
    awaitable awaited, a task cancelled and waited for. Child processes are terminated, and
    killed when most of their time is over; executors and ``socketserver`` servers, whose methods
    block, are shut down in a thread. None is skipped: it stands for what set-up did not get to.

    Args:
        things: what to close; each once, however often it is given.
        timeout: seconds for each.
        reverse: close one after the other, the last one first, as an `contextlib.ExitStack`
            would. Otherwise all at once.

    Raises:
        TypeError, ValueError: if ``timeout`` is no number of seconds.
    """
    limit = seconds(timeout, "close_all() timeout")
    library = running_library()
    if library is None:
        raise RuntimeError("close_all() was called outside of a running event loop")
    those = list({id(thing): thing for thing in things if thing is not None}.values())
    if library == "trio":
        return await _close_on_trio(those, limit, reverse=reverse)
    by = By("close_all()", stack(1))
    return await _close_on_asyncio(those, limit, by, reverse=reverse)


async def _close_on_asyncio(
    those: list[Any], limit: float, by: By, *, reverse: bool
) -> CloseReport:
    started = time.monotonic()
    ended: dict[int, Any] = {}

    async def close(number: int) -> None:
        ended[number] = await _close_one(those[number], limit, by)

    async def close_each() -> None:
        if reverse:
            for number in reversed(range(len(those))):
                await close(number)
        else:
            await asyncio.gather(*map(close, range(len(those))))

    driver = asyncio.get_running_loop().create_task(close_each())
    mine = await until_done([driver], None, None)
    driver.result()
    report = _report([ended[n] for n in range(len(those))], time.monotonic() - started)
    if mine is not None:
        if not report.ok:
            mine.add_note(f"while it was cancelled, close_all() found: {report}")
        try:
            raise mine
        finally:
            del mine  # its traceback holds this frame
    return report


async def _close_on_trio(those: list[Any], limit: float, *, reverse: bool) -> CloseReport:
    trio: Any = sys.modules["trio"]
    started = time.monotonic()
    ended: dict[int, Any] = {}

    async def close(number: int) -> None:
        ended[number] = await _close_one(those[number], limit, By())

    with trio.CancelScope(shield=True):
        if reverse:
            for number in reversed(range(len(those))):
                await close(number)
        else:
            async with trio.open_nursery() as nursery:
                for number in range(len(those)):
                    nursery.start_soon(close, number)
    await trio.lowlevel.checkpoint_if_cancelled()
    return _report([ended[n] for n in range(len(those))], time.monotonic() - started)


async def _close_one(thing: Any, limit: float, by: By) -> ClosedThing | FailedThing | ResistedThing:
    try:
        how = closer(thing)
    except TypeError as exc:
        return FailedThing(_name(thing), "", exc)
    ended = await bounded(functools.partial(how.call, limit, by), limit, by=by)
    return _outcome(how, ended)


def _outcome(how: Closer, ended: Bounded) -> ClosedThing | FailedThing | ResistedThing:
    if ended.state == "late":
        resisted = ended.resisted
        return ResistedThing(
            how.name,
            how.by,
            ended.seconds,
            ended.waiting,
            None if resisted is None else resisted.swallowed,
            resisted is not None,
        )
    error = ended.error
    if isinstance(error, _Resists):
        task = error.task
        return ResistedThing(
            how.name, how.by, ended.seconds, task.waiting, task.swallowed, running=True
        )
    if error is not None:
        return FailedThing(how.name, how.by, error)
    return ClosedThing(how.name, how.by, ended.seconds)


def _report(outcomes: list[Any], took: float) -> CloseReport:
    return CloseReport(
        tuple(o for o in outcomes if isinstance(o, ClosedThing)),
        tuple(o for o in outcomes if isinstance(o, FailedThing)),
        tuple(o for o in outcomes if isinstance(o, ResistedThing)),
        took,
    )


# -- registering -----------------------------------------------------------------------------


class Cleanup:
    """Takes note of things as they are made, and closes them all at the end.

    The fixture ``cleanup`` is one; elsewhere use it as ``async with Cleanup() as cleanup:``. The
    last one registered is closed first, each is closed whatever the others do, and what went
    wrong is raised at the end, together.

    Args:
        timeout: seconds for each thing.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        self.timeout = seconds(timeout, "Cleanup() timeout")
        self._things: list[Any] = []

    def __call__(self, thing: T, /, *args: Any, **kwargs: Any) -> T:
        """Register something to be closed, and return it.

        With further arguments, ``thing`` is a function that will be called with them.

        Raises:
            TypeError: if nothing is known that closes it.
        """
        what: Any = thing
        if args or kwargs:
            if not callable(thing):
                raise TypeError(f"cleanup() takes arguments for functions only, got {thing!r}")
            what = functools.partial(thing, *args, **kwargs)
        closer(what)
        self._add(what)
        return thing

    def _add(self, thing: Any) -> None:
        self._things.append(thing)

    def __len__(self) -> int:
        return len(self._things)

    async def aclose(self) -> CloseReport:
        """Close everything that is registered, the last one first, and forget it."""
        things, self._things = self._things, []
        return await close_all(*things, timeout=self.timeout, reverse=True)

    async def __aenter__(self) -> Cleanup:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        report = await self.aclose()
        if exc is None:
            report.raise_if_failed()
        elif not report.ok:
            # The body's own error goes first.
            exc.add_note(str(report))
