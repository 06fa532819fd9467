"""Blocks of code that have to leave nothing behind: `no_leaks`, inside tests and outside.

The first open block installs a `Watch` (or borrows the one that the pytest plugin installed)
and the last one undoes it; what a block made is told apart by its owner, which the running
code carries in its context, and what has no owner by a comparison with what was there before.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Token
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType, ModuleType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from . import origin
from .ledger import LEDGER
from .model import Finding, Key, Owner, Scene, Verdict
from .ownership import CURRENT
from .probes import KINDS
from .probes.lost_tasks import LostTaskProbe
from .reporters import terminal
from .rules import (
    AllowRule,
    ConfigError,
    Threshold,
    kind_value,
    make_rule,
    number_value,
    threshold_value,
)
from .runtimes import loops as asyncio_loops
from .settle import Settle
from .watch import _MOVING, Survivor, Watch, _handled
from .window import Garbage

__all__ = ["LeakError", "no_leaks"]

P = ParamSpec("P")
R = TypeVar("R")

clock = time.monotonic

#: Kinds that carry their maker's context: without an owner they were made elsewhere.
_WITH_CONTEXT = {"task", "timer", "transport", "server", "reader"}

#: More frozen objects than Python's own mean that the program froze its heap.
_FROZEN_BY_PYTHON = 2000

#: Exceptions that end the program, or leave no time to look.
_URGENT = (KeyboardInterrupt, SystemExit, GeneratorExit)


class LeakError(AssertionError):
    """Something made within a block is still there at its end.

    Args:
        findings: what was left, at least one.
    """

    findings: tuple[Finding, ...]
    """What was left."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__(_message(self.findings))

    def __reduce__(self) -> Any:
        """Travel between processes by its findings."""
        return type(self), (self.findings,)


# As everybody imports it: shorter in a traceback's last line.
LeakError.__module__ = "tightship"


def _message(findings: Sequence[Finding]) -> str:
    text = terminal.report(findings)
    return text if len(findings) < 2 else f"{terminal.one_line(findings)}\n\n{text}"


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
        self._block: _Block | None = None

    # -- with and async with ---------------------------------------------------------------

    def __enter__(self) -> None:
        self._open(_place())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        block = self._shut()
        loop = asyncio._get_running_loop()
        try:
            if not isinstance(exc, _URGENT):
                steps = block.steps(loop, turning=False)
                for pause in steps:
                    block.turn(pause, blocked=loop is not None)
        finally:
            block.leave()
        block.tell(exc)

    async def __aenter__(self) -> None:
        self._open(_place())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        block = self._shut()
        try:
            if not isinstance(exc, _URGENT):
                for pause in block.steps(asyncio._get_running_loop(), turning=True):
                    try:
                        await _sleep(pause)
                    except asyncio.CancelledError:
                        # Cancelled while waiting. The body's own exception goes first.
                        if exc is None:
                            raise
                        block.hurry = True
        finally:
            block.leave()
        block.tell(exc)

    def _open(self, name: str) -> None:
        if self._block is not None:
            raise RuntimeError("this no_leaks() block is open already; make a new one for each")
        block = _Block(self._kinds, self._rules, self._threshold, self._grace, name)
        block.enter()
        self._block = block

    def _shut(self) -> _Block:
        block = self._block
        if block is None:
            raise RuntimeError("this no_leaks() block was never opened")
        self._block = None
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
                block = self._fresh()
                block._open(name)
                return await _within(block, function, args, kwargs)

            return cast("Callable[P, R]", watched)

        @functools.wraps(function)
        def watched_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            with _Named(self._fresh(), name):
                return function(*args, **kwargs)

        return watched_sync

    def _fresh(self) -> no_leaks:
        """Return a block like this one that is not open."""
        twin = no_leaks.__new__(no_leaks)
        twin._kinds, twin._rules = self._kinds, self._rules
        twin._threshold, twin._grace = self._threshold, self._grace
        twin._block = None
        return twin


async def _within(block: no_leaks, function: Any, args: Any, kwargs: Any) -> Any:
    __tracebackhide__ = True
    try:
        result = await function(*args, **kwargs)
    except BaseException as exc:
        await block.__aexit__(type(exc), exc, exc.__traceback__)
        raise
    await block.__aexit__(None, None, None)
    return result


class _Named:
    """A block that is named after a function."""

    def __init__(self, block: no_leaks, name: str) -> None:
        self.block = block
        self.name = name

    def __enter__(self) -> None:
        self.block._open(self.name)

    def __exit__(self, *exc: Any) -> None:
        __tracebackhide__ = True
        self.block.__exit__(*exc)


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
        for probe in (*watch._probes, *watch._loop_probes):
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


async def _sleep(seconds: float) -> None:
    """Wait in whatever library runs here."""
    trio: Any = sys.modules.get("trio")
    if trio is not None and _in_trio(trio):
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
    elif asyncio._get_running_loop() is not None:
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)  # noqa: ASYNC251 - a loop of an unknown kind: nothing to await


def _in_trio(trio: Any) -> bool:
    if _current_task() is not None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def _current_task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


# -- the station: one watch for all open blocks --------------------------------------------


class _Station:
    """Holds the watch while at least one block is open."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.blocks: list[_Block] = []
        self.watch: Watch | None = None
        self.own = False
        self.faults: dict[str, str] = {}
        self._opened = False
        self._depths = threading.local()

    def join(self, block: _Block) -> Watch:
        """Add a block; the first one installs or borrows a watch."""
        if self.pid != os.getpid():  # a forked child: its parent's blocks are not here
            self.pid = os.getpid()
            self.blocks.clear()
            self.watch = None
        depth = sys.get_coroutine_origin_tracking_depth()
        count = getattr(self._depths, "count", 0)
        if not count:
            self._depths.before = depth
        # Per thread: set here rather than by the probe, which is undone in the last thread.
        if depth == 0:
            sys.set_coroutine_origin_tracking_depth(1)
        self._depths.count = count + 1
        if self.watch is None:
            here = [w for w in Watch.active if w.here]
            if here:
                self.watch, self.own = here[-1], False
            else:
                self.watch, self.own = Watch(on_fault=self.fault), True
                # 3.12 begins with some hundred frozen objects: that is nobody's wish.
                self.watch.window._keep_frozen = gc.get_freeze_count() > _FROZEN_BY_PYTHON
                self.watch.install()
            self.watch.on_closing = self.closing
        for other in self.blocks:
            if not block.within(other):
                other.company = block.company = True
        self.blocks.append(block)
        return self.watch

    def open_window(self) -> bool:
        """Open the window if nobody has; tell whether it is fresh."""
        watch = self.watch
        assert watch is not None
        if watch.window.is_open:
            return False
        watch.window.open()
        self._opened = watch.window.is_open
        return self._opened

    def leave(self, block: _Block) -> None:
        """Remove a block; the last one undoes everything."""
        if block in self.blocks:
            self.blocks.remove(block)
            count = self._depths.count = getattr(self._depths, "count", 1) - 1
            if count == 0:
                sys.set_coroutine_origin_tracking_depth(self._depths.before)
        watch = self.watch
        if self.blocks or watch is None:
            return
        self.watch = None
        if watch.on_closing == self.closing:
            watch.on_closing = None
        if self.own:
            watch.uninstall()
        elif self._opened:
            # Unless a test of the plugin's began since: then the window is the test's.
            owner = CURRENT.get()
            if owner is None or owner is block.before or owner.ended:
                watch.window.close()
        self._opened = False

    def fault(self, part: str, exc: BaseException) -> None:
        """Remember a fault of ours."""
        self.faults.setdefault(part, f"{type(exc).__name__}: {exc}")

    def closing(self, loop: Any, survivors: list[Survivor]) -> list[Survivor]:
        """Give each open block what is its own of a closing loop; return what is nobody's."""
        for block in reversed(list(self.blocks)):
            if not survivors:
                break
            mine = [s for s in survivors if block.has_on(loop, s)]
            if mine:
                survivors = [s for s in survivors if s not in mine]
                block.closing(loop, mine)
        return [] if self.own else survivors


_STATION = _Station()


@contextmanager
def _looking(watch: Watch) -> Iterator[None]:
    """One look at a time, and no collection in the middle of it."""
    with _STATION.lock, watch._looking():
        yield


# -- one block -----------------------------------------------------------------------------


class _Block:
    """One open block: what was there when it began, and what is left when it ends."""

    def __init__(
        self,
        kinds: frozenset[str],
        rules: tuple[AllowRule, ...],
        threshold: Threshold,
        grace: float,
        name: str,
    ) -> None:
        self.kinds = kinds
        self.rules = rules
        self.threshold = threshold
        self.grace = grace
        self.before = CURRENT.get()
        nodeid = self.before.nodeid if self.before is not None else ""
        self.owner = Owner(name, "block", "block", nodeid, self.before)
        self.company = False
        """True once a block was open that neither encloses this one nor lies in it."""
        self.hurry = False
        self.failing: list[Finding] = []
        self.garbage: list[Garbage] = []
        self._watch: Watch | None = None
        self._token: Token[Owner | None] | None = None
        self._known: set[Key] = set()
        self._known_loop: dict[Key, Any] = {}
        self._objects: dict[int, Any] = {}
        self._ticks: Any = None
        self._early: list[Finding] = []
        self._told: list[tuple[str, Owner]] = []
        """Tasks that were pending when their loop closed: their death is no news."""
        self._loops: list[Any] = []

    @property
    def watch(self) -> Watch:
        """The watch that this block looks through."""
        assert self._watch is not None
        return self._watch

    # -- beginning and end ------------------------------------------------------------------

    def enter(self) -> None:
        """Begin: remember what is there, become the owner of what comes."""
        try:
            with _STATION.lock:
                self._watch = _STATION.join(self)
                with _looking(self._watch):
                    self._remember()
        except Exception as exc:
            _STATION.fault("blocks", exc)
            with _STATION.lock:
                _STATION.leave(self)
            self._watch = None
        self._token = CURRENT.set(self.owner)

    def _remember(self) -> None:
        watch = self.watch
        loop = asyncio._get_running_loop()
        if loop is not None:
            watch.meet(loop)
            for probe in watch._loop_probes:
                if probe.kind not in _WITH_CONTEXT and self._wants(probe):
                    scene = watch._scene(probe, {}, loop)
                    found = watch._guard(probe, partial(probe.snapshot, scene), {})
                    self._known_loop.update(found)
        if not _STATION.open_window() and watch.window.is_open:
            self._sort(watch.window.collect(LEDGER.of_dying), inside=False)
            for objects in watch._census().values():
                for obj in objects:
                    self._objects[id(obj)] = _weak(obj)
        self._ticks = watch._read_ticks()
        if self._ticks is None or self._ticks != watch._last:
            if _STATION.own:
                watch._account()
                self._ticks = watch._last
            else:
                for probe in list(watch._probes):
                    self._known.update(watch._guard(probe, partial(probe.snapshot, Scene()), {}))
                return
        self._known = watch._known

    def leave(self) -> None:
        """End: whatever happened, undo what `enter` did."""
        self._step_aside()
        self.owner.ended = True
        if self._watch is not None:
            with _STATION.lock:
                _STATION.leave(self)
            self._watch = None
        self._loops.clear()
        self._objects.clear()
        self._known_loop.clear()

    def _step_aside(self) -> None:
        """Make the owner before us the current one again."""
        token, self._token = self._token, None
        if token is None:
            return
        if CURRENT.get() is not self.owner:  # another context, or somebody came after us
            return
        try:
            CURRENT.reset(token)
        except ValueError:  # a copy of the context that we entered in
            CURRENT.set(self.before)

    def tell(self, exc: BaseException | None) -> None:
        """Raise what was found, or add it to the exception that is under way."""
        __tracebackhide__ = True
        for part, text in list(_STATION.faults.items()):
            del _STATION.faults[part]
            _warn(f"Tightship's own part {part!r} failed and was switched off: {text}")
        failing, self.failing = self.failing, []
        if not failing:
            return
        if exc is None:
            raise LeakError(failing)
        if isinstance(exc, LeakError):
            told = {f.fingerprint for f in exc.findings}
            failing = [f for f in failing if f.fingerprint not in told]
        if failing:
            exc.add_note(
                "tightship: left behind as well, perhaps because of this exception:\n\n"
                + _message(failing)
            )

    # -- whose is it -------------------------------------------------------------------------

    def within(self, other: _Block) -> bool:
        """Tell whether another block encloses this one."""
        return other.owns(self.owner)

    def owns(self, owner: Owner | None) -> bool:
        """Tell whether an owner is this block or something within it."""
        while owner is not None:
            if owner is self.owner:
                return True
            owner = owner.parent
        return False

    def _wants(self, probe: Any) -> bool:
        return not self.kinds or probe.kind in self.kinds

    def _born_here(self, obj: Any) -> bool:
        birth = LEDGER.of(obj)
        return birth is not None and self.owns(birth.owner)

    def has_on(self, loop: Any, s: Survivor) -> bool:
        """Tell whether something left on a closing loop is this block's."""
        if s.known_owner:
            return self.owns(s.owner)
        return s.owner is self.owner and self._born_here(loop)

    def _mine(self, probe: Any, key: Key, handle: Any, loop: Any = None) -> Survivor | None:
        """Return a survivor if this resource was made within this block."""
        watch = self.watch
        owner = watch._guard(probe, lambda: probe.owner(handle), None)
        if watch._adopted:
            owner = watch._adopter(handle) or owner
        if owner is not None:
            return Survivor(probe, key, handle, owner) if self.owns(owner) else None
        if loop is not None and not asyncio_loops.is_uvloop(loop) and probe.kind in _WITH_CONTEXT:
            return None
        birth = getattr(probe, "birth", None)
        if birth is not None and watch._guard(probe, lambda: birth(handle), None) is not None:
            return None
        if self.company or key in self._known or self._older(key, handle):
            return None
        return Survivor(probe, key, handle, self.owner, False)

    def _older(self, key: Key, handle: Any) -> bool:
        """Tell whether an object was there when the block began."""
        obj = _handled(handle)
        if obj is None:
            return False
        for entry in (self._objects.get(id(obj)), self._known_loop.get(key)):
            if entry is not None and (_handled(entry) if entry is not True else obj) is obj:
                return True
        return False

    # -- looking -----------------------------------------------------------------------------

    def steps(self, loop: Any, *, turning: bool) -> Generator[float, None, None]:
        """Look, settle, judge. Yields seconds to wait, while there is something to wait for.

        Args:
            loop: the loop that is running here.
            turning: the caller lets it turn whenever it is given seconds.
        """
        self._step_aside()
        self.owner.ended = True
        if self._watch is None:
            return
        try:
            with _looking(self.watch):
                survivors = self._look(loop)
            settle = Settle(self.grace, clock())
            while survivors and not self.hurry:
                pause = self._pause(settle, survivors)
                if pause is None:
                    break
                yield pause
                survivors = self._alive(survivors)
            if survivors or self.garbage or self._early:
                with _looking(self.watch):
                    survivors = self._again(loop, survivors)
                    findings = self._early + self._garbage_findings()
                    findings += self._assess(survivors, stuck=loop is not None and not turning)
                    self.failing = self._judge(findings)
        except Exception as exc:
            _STATION.fault("blocks", exc)

    def turn(self, seconds: float, *, blocked: bool) -> None:
        """Let time pass: in the block's idle loops if there are any."""
        idle = (
            []
            if blocked
            else [loop for loop in self._loops if not loop.is_closed() and not loop.is_running()]
        )
        self.watch._turn(idle, seconds)

    def _look(self, loop: Any) -> list[Survivor]:
        watch = self.watch
        if watch.window.is_open:
            self._sort(watch.window.collect(LEDGER.of_dying), inside=True)
        objects = watch._census()
        survivors = self._on_loops(loop, objects)
        ticks = watch._read_ticks()
        if ticks is not None and ticks == self._ticks and not watch._hits(objects):
            return survivors
        seen: set[Key] = set()
        for probe in list(watch._probes):
            if not self._wants(probe):
                continue
            scene = watch._scene(probe, objects)
            found = watch._guard(probe, partial(probe.snapshot, scene), {})
            for key, handle in found.items():
                if key not in seen:
                    seen.add(key)
                    survivor = self._mine(probe, key, handle)
                    if survivor is not None and not self._old_news(survivor):
                        survivors.append(survivor)
        if any(not s.known_owner for s in survivors):
            survivors = self._without_strangers(loop, survivors)
        return survivors

    def _old_news(self, s: Survivor) -> bool:
        """Tell whether this is the death of a task that was told of before."""
        if isinstance(s.probe, LostTaskProbe):
            entry = (s.probe.label(s.handle), s.owner)
            if entry in self._told:
                self._told.remove(entry)
                s.probe.forget(s.key)
                return True
        return False

    def _on_loops(self, running: Any, objects: Any) -> list[Survivor]:
        """Look at the running loop, and at the idle ones that are this block's."""
        watch = self.watch
        found: list[Survivor] = []
        current = _current_task() if running is not None else None
        for loop in watch.loops.open():
            if loop is not running and loop.is_running():
                continue
            seen: set[Key] = set()
            here = len(found)
            for probe in list(watch._loop_probes):
                if not self._wants(probe):
                    continue
                scene = watch._scene(probe, objects, loop)
                snapshot = watch._guard(probe, partial(probe.snapshot, scene), {})
                for key, handle in snapshot.items():
                    if key in seen or key in watch._known_loop:
                        continue
                    seen.add(key)
                    if current is not None and _handled(handle) is current:
                        continue
                    survivor = self._mine(probe, key, handle, loop)
                    if survivor is not None:
                        found.append(survivor)
            if loop is running or len(found) > here or self._born_here(loop):
                self._loops.append(loop)
        if running is not None and any(not s.known_owner for s in found):
            found = self._without_strangers(running, found)
        return found

    def _without_strangers(self, loop: Any, survivors: list[Survivor]) -> list[Survivor]:
        """Leave out what has no owner and is held by a task made outside of the block.

        Also coroutines that a task is about to begin.
        """
        if loop is None:
            return survivors
        held: set[int] = set()
        for ref in asyncio_loops.pending_tasks(loop):
            task = ref()
            if task is None:
                continue
            held.add(id(task.get_coro()))
            probe = next((p for p in self.watch._loop_probes if p.kind == "task"), None)
            if probe is not None and self.owns(probe.owner(ref)):
                continue
            if task is not _current_task():
                held |= _reach(task.get_coro())
        task = None
        return [
            s
            for s in survivors
            if s.known_owner or (obj := _handled(s.handle)) is None or id(obj) not in held
        ]

    def _sort(self, garbage: list[Garbage], *, inside: bool) -> None:
        """Give what only the collector closed to whoever made it."""
        for g in garbage:
            owner = g.birth.owner if g.birth is not None else None
            if g.birth is None and inside and not self.company:
                self.garbage.append(g)
                continue
            for block in reversed(_STATION.blocks):
                if block.owns(owner):
                    block.garbage.append(g)
                    break
            else:
                test = owner or self.before
                if not _STATION.own and test is not None:
                    self.watch._early += self.watch._from_garbage([g], test)

    # -- settling ------------------------------------------------------------------------------

    def _alive(self, survivors: list[Survivor]) -> list[Survivor]:
        guard = self.watch._guard
        return [s for s in survivors if guard(s.probe, partial(s.probe.alive, s.handle), False)]

    def _pause(self, settle: Settle, left: list[Survivor]) -> float | None:
        loops = [loop for loop in self._loops if not loop.is_closed()]
        busy = any(s.probe.kind in _MOVING for s in left) or any(
            asyncio_loops.ready(loop) for loop in loops
        )
        dues = [d for d in map(asyncio_loops.next_due, loops) if d is not None]
        return settle.again(len(left), clock(), ready=busy, due=min(dues, default=None))

    def _again(self, loop: Any, survivors: list[Survivor]) -> list[Survivor]:
        """Let go of what became unreachable while we waited."""
        if survivors and self.watch.window.is_open:
            self._sort(self.watch.window.collect(LEDGER.of_dying), inside=True)
        return self._alive(survivors)

    def closing(self, loop: Any, survivors: list[Survivor]) -> None:
        """Judge what is left on a loop that is about to close."""
        survivors = [s for s in survivors if self._wants(s.probe)]
        settle = Settle(self.grace, clock())
        self._loops.append(loop)
        while survivors and (pause := self._pause(settle, survivors)) is not None:
            asyncio_loops.turn(loop, pause)
            survivors = self._alive(survivors)
        with _looking(self.watch):
            self._told += [
                (s.probe.label(s.handle), s.owner) for s in survivors if s.probe.kind == "task"
            ]
            self._early += self._assess(survivors, stuck=False, dead=True)
        self._loops.remove(loop)

    # -- judging -------------------------------------------------------------------------------

    def _assess(
        self, survivors: list[Survivor], *, stuck: bool, dead: bool = False
    ) -> list[Finding]:
        """Grade and describe survivors, leaving the watch as it was.

        Args:
            survivors: what is left.
            stuck: the loop could not turn: what was told to end counts as ended.
            dead: they are a closing loop's: whoever holds them holds something that is dead.
        """
        if not survivors:
            return []
        watch = self.watch
        for s in survivors:
            watch._grade(s)
        shown = False
        try:
            if not dead and any(watch._needs_root(s) for s in survivors):
                # The whole heap is needed, and the window is not ours to end.
                if watch.window.is_open:
                    watch._census()
                    watch.window.pause()
                    shown = True
                survivors = watch._grade_by_holder(survivors)
            chosen, parts = watch._fold(survivors, final=False)
            findings = []
            for s in chosen:
                if stuck and _leaving(s):
                    continue
                finding = watch._finding(s)
                finding.parts = [watch._subject(p) for p in parts.get(id(s), ())]
                findings.append(finding)
        finally:
            if shown:
                watch.window.resume("")
        for s in survivors:
            # Events are told once; things that are still there stay what they are.
            if hasattr(s.probe, "forget"):
                s.probe.forget(s.key)
        return findings

    def _garbage_findings(self) -> list[Finding]:
        found = self.watch._from_garbage(self.garbage, self.owner)
        self.garbage.clear()
        return [f for f in found if not self.kinds or f.kind in self.kinds]

    def _judge(self, findings: list[Finding]) -> list[Finding]:
        from .config import Config
        from .policy import Policy, group

        policy = Policy(Config(threshold=self.threshold, allow=self.rules))
        judged = policy.judge(
            group(findings), nodeid=self.owner.nodeid, markers=(), own_failure=False
        )
        return [f for f in judged if f.verdict is Verdict.FAIL]


#: What is looked into when it is asked what a task holds.
_OPEN = (list, tuple, dict, set, deque, CoroutineType, AsyncGeneratorType, GeneratorType)


def _reach(obj: Any, limit: int = 5000) -> set[int]:
    """Return ids of what a suspended coroutine holds through plain containers and instances."""
    seen: set[int] = set()
    fresh = [obj]
    while fresh and len(seen) < limit:
        above, fresh = fresh, []
        for holder in above:
            for held in gc.get_referents(holder):
                if id(held) in seen:
                    continue
                seen.add(id(held))
                if isinstance(held, dict) and "__builtins__" in held:
                    continue  # a module's namespace
                if isinstance(held, _OPEN):
                    fresh.append(held)
                elif not callable(held) and not isinstance(held, ModuleType):
                    inside = getattr(held, "__dict__", None)
                    if isinstance(inside, dict):
                        fresh.append(inside)
        above = []
    return seen


def _leaving(s: Survivor) -> bool:
    """Tell whether something was told to end, and only needs its loop to turn."""
    obj = _handled(s.handle)
    if s.probe.kind == "task":
        return obj is not None and getattr(obj, "cancelling", int)() > 0
    if s.probe.kind == "transport":
        return obj is not None and bool(obj.is_closing())
    return False


def _weak(obj: Any) -> Any:
    """Return a weak reference; True for types that allow none."""
    try:
        return weakref.ref(obj)
    except TypeError:
        return True


def _warn(text: str) -> None:
    """Say that a part of ours failed; that is nobody's error but ours, so never raise."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=4)
    except RuntimeWarning:
        print(text, file=sys.stderr)
