"""`timeout`: a limit of time for a function or a block of code, sync or async."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

from ..budget import Budget
from ..runtimes import hard_timer
from ..runtimes.interrupt import Interrupt, InterruptTask
from ..runtimes.loops import current_task
from ..runtimes.running import Running
from ..runtimes.sentry import SENTRY
from .current import BUDGETS, USES
from .deadline import Deadline
from .error import TightshipTimeout
from .ladder import Ladder

__all__ = ["timeout"]

F = TypeVar("F", bound=Callable[..., Any])


class timeout:
    """Limit the time of a block of code, or of a function.

    As ``with`` or ``async with`` around code, or as a decorator for functions, coroutine
    functions, generators and async generators (for those two each step from one ``yield`` to
    the next has the whole limit: a fixture's set-up, and its teardown again). Each use of one
    object counts from its own beginning.

    In a task of asyncio the task is cancelled and the cancellation turned into
    `TightshipTimeout`, as `asyncio.timeout` does; a synchronous call that holds the loop is
    interrupted, if it runs in the main thread. Under trio a cancel scope ends the block. In
    other code an exception is raised in the thread: at once in the main thread, also in a
    lock or a sleep; in other threads at their next line of Python.

    Args:
        limit: seconds, or the name of a budget.
        name: what to call the operation; a function's own name, or "a block", if not given.

    Raises:
        ConfigError: (a ValueError) if the limit is no such thing.
        TightshipTimeout: (a TimeoutError) in or at the end of the block, when time was up.
    """

    def __init__(self, limit: float | str, *, name: str = "") -> None:
        budget = BUDGETS[0].resolve(limit, "timeout()")
        if budget is None:
            raise ValueError("timeout('off') limits nothing: leave it out")
        self.budget: Budget = budget
        self.name = name
        self._uses: list[_Use] = []

    def __enter__(self) -> timeout:
        use = _Use(self.name or "a block", self.budget)
        use.enter()
        self._uses.append(use)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        return self._uses.pop().exit(kind, exc, tb)

    async def __aenter__(self) -> timeout:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        return self.__exit__(kind, exc, tb)

    def __call__(self, func: F) -> F:
        """Limit each call of a function."""
        wrapped: Any
        if isinstance(func, (staticmethod, classmethod)):
            return cast("F", type(func)(self(func.__func__)))
        if (
            not callable(func)
            or isinstance(func, type)
            or not hasattr(func, "__name__")
            or type(func).__module__.startswith("_pytest.")
            or hasattr(func, "_pytestfixturefunction")  # pytest 8.2 and 8.3
        ):
            raise TypeError(
                f"timeout() decorates functions, got {func!r}. "
                "On a fixture it goes below @pytest.fixture"
            )
        name = self.name or getattr(func, "__qualname__", func.__name__)
        new = functools.partial(timeout, self.budget, name=name)  # type: ignore[arg-type]
        if inspect.isasyncgenfunction(func):
            wrapped = _async_generator(func, new)
        elif inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                with new():
                    return await func(*args, **kwargs)

        elif inspect.isgeneratorfunction(func):
            wrapped = _generator(func, new)
        else:

            @functools.wraps(func)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with new():
                    return func(*args, **kwargs)

        return cast("F", wrapped)


def _generator(func: Any, new: Callable[[], timeout]) -> Any:
    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        steps = func(*args, **kwargs)
        send, given = steps.send, None
        while True:
            try:
                with new():
                    value = send(given)
            except StopIteration as end:
                return end.value
            try:
                send, given = steps.send, (yield value)
            except GeneratorExit:
                with new():
                    steps.close()
                raise
            except BaseException as exc:
                send, given = steps.throw, exc

    return wrapped


def _async_generator(func: Any, new: Callable[[], timeout]) -> Any:
    @functools.wraps(func)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        steps = func(*args, **kwargs)
        send, given = steps.asend, None
        while True:
            try:
                with new():
                    value = await send(given)
            except StopAsyncIteration:
                return
            try:
                send, given = steps.asend, (yield value)
            except GeneratorExit:
                with new():
                    await steps.aclose()
                raise
            except BaseException as exc:
                send, given = steps.athrow, exc

    return wrapped


class _Use:
    """One way through a block."""

    def __init__(self, what: str, budget: Budget) -> None:
        self._deadline = Deadline(what, budget)
        self._task: Any = None
        self._cancelling = 0
        self._scope: Any = None

    def enter(self) -> None:
        deadline = self._deadline
        task = current_task()
        if task is not None:
            # Weakly: a task that nothing can wake must be able to go.
            self._task, loop = weakref.ref(task), weakref.ref(task.get_loop())
            self._cancelling = task.cancelling()
            deadline.find = functools.partial(_found, self._task, loop)
            deadline.loops = lambda: filter(None, (loop(),))
            deadline.whole = False
        elif (trio := _trio()) is not None:
            self._scope = scope = trio.CancelScope()
            token = trio.lowlevel.current_trio_token()
            deadline.cancel = lambda: token.run_sync_soon(scope.cancel)
            deadline.whole = False
            scope.__enter__()
        else:
            hard_timer.take()
        deadline.start()

    def exit(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        deadline = self._deadline
        ladder = deadline.finish()
        deadline.close()
        taken = (ladder.end if ladder is not None else SENTRY.now()) - deadline.started
        uses = USES[0]
        if uses is not None:
            uses.append((deadline.budget.name, deadline.budget.seconds, taken, deadline.what))
        caught = False
        if self._scope is not None:
            caught = bool(self._scope.__exit__(kind, exc, tb))
        elif self._task is None:
            hard_timer.release()
        if ladder is not None and exc is None and self._task is not None:
            ladder.ask_where()
        ours = ladder is not None and self._is_ours(ladder, exc, caught)
        self._task = self._scope = None
        deadline.find = deadline.cancel = None
        if not ours:
            return caught
        assert ladder is not None
        from .verdict import timeout_error

        raise timeout_error(ladder, returned=exc is None and not caught) from exc

    def _is_ours(self, ladder: Ladder, exc: BaseException | None, caught: bool) -> bool:
        """Tell whether the block ended, or ends now, because its time was up."""
        others = False
        task = self._task() if self._task is not None else None
        if task is not None and ladder.cancels:
            for _ in range(ladder.cancels):
                task.uncancel()
            others = task.cancelling() > self._cancelling
        if exc is None:
            return not others
        if isinstance(exc, (Interrupt, InterruptTask)):
            return True
        if self._scope is not None:
            return caught
        if isinstance(exc, asyncio.CancelledError):
            return bool(ladder.cancels) and not others
        if isinstance(exc, TightshipTimeout) or not isinstance(exc, Exception):
            return False  # an inner limit that was passed first; somebody wants the end
        # Its own error, perhaps out of what it did when it was cancelled.
        return ladder.acted


def _found(task: weakref.ref[Any], loop: weakref.ref[Any]) -> Running | None:
    held = task()
    return None if held is None else Running("asyncio", loop(), held)


def _trio() -> Any:
    """Return trio if it runs here."""
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return None
    return trio
