"""pytest-trio runs a test and all its fixtures as tasks of one run that share one context.

Whoever sets a variable there sets it for all of them. So the owner of a fixture is set each time
one of its steps begins and taken back each time it waits.
"""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from ..ownership import CURRENT, current, owned_by

if TYPE_CHECKING:
    from ..births import Patcher
    from ..model import Owner

__all__ = ["install"]


def install(patch: Patcher) -> None:
    """Let pytest-trio's fixtures run as the owner that they were set up for."""

    def on_import(module: Any) -> None:
        def born(fixture: Any) -> None:
            owner = current()
            if owner is not None and owner.kind == "fixture":
                fixture._func = _owned(fixture._func, owner)

        patch.after_method(module.TrioFixture, "__init__", born)

    patch.when_imported("pytest_trio.plugin", on_import)


def _owned(func: Callable[..., Any], owner: Owner) -> Callable[..., Any]:
    @functools.wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        with owned_by(owner):
            made = func(*args, **kwargs)
        if isinstance(made, types.AsyncGeneratorType):
            return _async_generator(made, owner)
        if isinstance(made, types.GeneratorType):
            return _steps(made, owner)
        if isinstance(made, Coroutine):
            return _coroutine(made, owner)
        return made

    return call


async def _coroutine(coro: Awaitable[Any], owner: Owner) -> Any:
    return await _steps(coro.__await__(), owner)


@types.coroutine
def _steps(steps: Any, owner: Owner) -> Generator[Any, Any, Any]:
    """Drive a generator or what ``__await__`` returned: a generator and an awaitable itself.

    The owner is current while it runs, and not while it waits.
    """
    resume: Callable[[], Any] = functools.partial(next, steps)
    while True:
        token = CURRENT.set(owner)
        try:
            waits_for = resume()
        except StopIteration as done:
            return done.value
        finally:
            CURRENT.reset(token)
        try:
            value = yield waits_for
        except BaseException as exc:
            resume = functools.partial(steps.throw, exc)
        else:
            resume = functools.partial(steps.send, value)


async def _async_generator(made: Any, owner: Owner) -> AsyncGenerator[Any, Any]:
    step = made.asend(None)
    while True:
        try:
            value = await _steps(step.__await__(), owner)
        except StopAsyncIteration:
            return
        try:
            sent = yield value
        except BaseException as exc:
            step = made.athrow(exc)
        else:
            step = made.asend(sent)
