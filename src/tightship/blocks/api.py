"""The public `no_leaks`: its arguments, and the ways to put it around code."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from .. import origin
from ..probes import KINDS
from ..rules import (
    AllowRule,
    ConfigError,
    Threshold,
    kind_value,
    make_rule,
    number_value,
    threshold_value,
)
from ..runtimes.sleep import sleep
from ..watch import Watch
from .block import Block

__all__ = ["no_leaks"]

P = ParamSpec("P")
R = TypeVar("R")


class no_leaks:  # a verb in lower case: it is used like a function
    """Require that nothing made within a block is there at its end.

    Works as ``with no_leaks():``, as ``async with no_leaks():`` and as a decorator of
    functions, methods and coroutine functions; with or without pytest. In a running event
    loop use ``async with``: it gives what is on its way out the loop's turns that it needs.
    On trio the kinds of asyncio's loops (tasks, timers, transports...) do not exist, and all
    others are watched.

    A survivor belongs to a block if code that ran within it made it, in threads, tasks and
    executor jobs started there as well. Blocks may nest and may be open in several threads
    and tasks at once. What has no known maker (descriptors and threads of C code, memory
    maps, async generators) is charged to the innermost block, and to nobody if blocks that
    do not enclose each other were open at the same time.

    An exception of the body is never hidden: what was left is added to it as a note.

    Args:
        kinds: what to watch (``"task"``, ``"socket"``, ...); everything if none is given.
        allow: what may be left: ``"kind:label"`` or a list of such; the label may hold ``*``.
        reason: why; must be there if ``allow`` is.
        threshold: the least certainty that counts: proven, strong or possible.
        grace: seconds that survivors are given at most to go away, as long as they move.

    Raises:
        LeakError: (an AssertionError) at the end of the block.
        ConfigError: (a ValueError) at once, if an argument is wrong.
    """

    def __init__(
        self,
        *kinds: str,
        allow: str | Sequence[str] | None = None,
        reason: str | None = None,
        threshold: Threshold = "strong",
        grace: float = 1.0,
    ) -> None:
        if kinds and callable(kinds[0]):
            raise TypeError(
                "no_leaks takes kinds, got a function: write @no_leaks() with parentheses"
            )
        valid = tuple(dict.fromkeys((*KINDS, *_foreign_kinds())))
        for kind in kinds:
            if not isinstance(kind, str):
                raise TypeError(f"no_leaks: a kind is a string, got {kind!r}")
            kind_value(kind, valid, "no_leaks()")
        self._kinds = frozenset(kinds)
        self._rules = _rules(allow, reason, valid)
        self._threshold = threshold_value(threshold, "no_leaks() threshold")
        self._grace = number_value(grace, "no_leaks() grace")
        self._name = ""
        self._block: Block | None = None

    # -- with and async with ---------------------------------------------------------------

    def __enter__(self) -> None:
        self._open(self._name or _place())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        block = self._taken()
        with closing(block):
            for pause in block.pauses(exc, turning=False):
                block.turn(pause)
        block.tell(exc)

    async def __aenter__(self) -> None:
        self._open(self._name or _place())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        block = self._taken()
        with closing(block):
            for pause in block.pauses(exc, turning=True):
                try:
                    await sleep(pause)
                except asyncio.CancelledError:
                    # Cancelled while waiting. The body's own exception goes first.
                    if exc is None:
                        raise
                    block.hurry = True
        block.tell(exc)

    def _open(self, name: str) -> None:
        if self._block is not None:
            raise RuntimeError("this no_leaks() block is open already; make a new one for each")
        block = Block(self._kinds, self._rules, self._threshold, self._grace, name)
        block.open()
        self._block = block

    def _taken(self) -> Block:
        """Return the block that is to end, and be ready for another."""
        block, self._block = self._block, None
        if block is None:
            raise RuntimeError("this no_leaks() block was never opened")
        return block

    # -- decorator -------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return ``function`` with a block of its own around each call.

        Raises:
            TypeError: for classes, generators and async generators, whose body does not run
                in one piece.
        """
        _refuse(function)
        name = getattr(function, "__qualname__", None) or repr(function)
        name = name.rpartition("<locals>.")[2]

        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object may have an async one
        ):

            @functools.wraps(function)
            async def watched(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self._named(name):
                    return await cast("Any", function)(*args, **kwargs)

            return cast("Callable[P, R]", watched)

        @functools.wraps(function)
        def watched_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._named(name):
                return function(*args, **kwargs)

        return watched_sync

    def _named(self, name: str) -> no_leaks:
        """Return a block like this one, of this name, that is not open."""
        twin = no_leaks.__new__(no_leaks)
        twin._kinds, twin._rules = self._kinds, self._rules
        twin._threshold, twin._grace = self._threshold, self._grace
        twin._name, twin._block = name, None
        return twin


def _refuse(function: Any) -> None:
    if isinstance(function, (staticmethod, classmethod)):
        word = type(function).__name__
        raise TypeError(f"no_leaks: write @no_leaks() below @{word}, next to the function")
    if isinstance(function, type):
        raise TypeError(
            f"no_leaks cannot decorate the class {function.__qualname__}: decorate its methods"
        )
    if not callable(function):
        raise TypeError(f"no_leaks decorates functions, got {function!r}")
    name = getattr(function, "__qualname__", repr(function))
    if inspect.isasyncgenfunction(function):
        raise TypeError(
            f"no_leaks cannot decorate the async generator {name}: its body runs in pieces. "
            "Write 'async with no_leaks():' around the loop that consumes it"
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(
            f"no_leaks cannot decorate the generator {name}: its body runs in pieces. "
            "Write 'with no_leaks():' around the loop that consumes it"
        )


def _rules(allow: object, reason: str | None, kinds: Sequence[str]) -> tuple[AllowRule, ...]:
    if allow is None:
        if reason is not None:
            raise ConfigError("no_leaks(): reason without allow says nothing")
        return ()
    import datetime

    listed = list(allow) if isinstance(allow, (list, tuple)) else [allow]
    if not listed:
        raise ConfigError("no_leaks(): allow is empty; leave it out")
    values = {} if reason is None else {"reason": reason}
    today = datetime.date.today()
    return tuple(
        make_rule(what, values, kinds=kinds, where="no_leaks() allow", today=today)
        for what in listed
    )


def _foreign_kinds() -> Iterator[str]:
    for watch in Watch.active:
        for probe in (*watch.roster.process, *watch.roster.loop):
            yield probe.kind


def _place() -> str:
    """Return the line that opens a block, in words."""
    frame = sys._getframe(2)
    first = frame
    while frame.f_back is not None and origin.layer(frame.f_code.co_filename) == 2:
        frame = frame.f_back
    if origin.layer(frame.f_code.co_filename) == 2:
        frame = first
    return f"block at {origin.shorten(frame.f_code.co_filename)}:{frame.f_lineno}"
