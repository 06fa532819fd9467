"""asyncio and uvloop loops: which ones there are, when they close, and how to step them.

A runner cancels in silence whatever is left when it closes its loop, so the last look at a
loop's resources happens just before: in `asyncio.runners._cancel_all_tasks` (every runner of
the standard library goes through it: pytest-asyncio, anyio, `asyncio.run`,
`IsolatedAsyncioTestCase`), for hand-made loops in ``loop.close``, and where a framework's
test case cancels by itself (tornado), there.
"""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .. import origin
from ..ledger import LEDGER
from ..ownership import current

if TYPE_CHECKING:
    from ..births import Patcher

__all__ = [
    "CHILDREN",
    "Loops",
    "context_of",
    "current_task",
    "default_executor",
    "is_quiet",
    "is_uvloop",
    "next_due",
    "of_uvloop",
    "pending_tasks",
    "ready",
    "selector_entries",
    "task_at_work",
    "turn",
]


#: asyncio's subprocess transports, open or not: a loop keeps no list of them.
CHILDREN: Any = weakref.WeakSet()


class Loops:
    """Every event loop made while we watch, by weak reference."""

    def __init__(self) -> None:
        self.born: dict[int, weakref.ref[Any]] = {}
        """Those that may still be open: empty after a test with a loop of its own."""

    def install(self, patch: Patcher, closing: Callable[[Any], None]) -> None:
        """Watch loops from birth to close; ``closing(loop)`` is called once before each close."""

        refs = self.born

        def look(loop: Any) -> bool:
            """Take the last look; return True if there was nothing at all to see."""
            # Twice for one owner would be once too often: runners cancel, then close.
            owner = current()
            if owner is None or getattr(loop, "_tightship_looked", None) is owner:
                return False
            if not patch.active or loop.is_closed() or loop.is_running():
                return False
            try:
                loop._tightship_looked = owner
            except AttributeError:
                pass
            try:
                if is_quiet(loop):
                    return True
                closing(loop)
            except Exception as exc:
                patch.fault(exc, "the last look at a loop")
            return False

        def wrap_init(cls: Any) -> None:
            init = cls.__init__

            @functools.wraps(init)
            def __init__(self: Any, /, *args: Any, **kwargs: Any) -> None:
                me = get_ident()
                if LEDGER.muted == me:  # the base class's, within a derived one's
                    init(self, *args, **kwargs)
                    return
                # A loop's own selector and pipe are the loop's: they are no births.
                LEDGER.muted = me
                try:
                    init(self, *args, **kwargs)
                finally:
                    LEDGER.muted = 0
                if patch.active:
                    try:
                        ref = None if origin.by_runner() else LEDGER.note(self)
                        refs[id(self)] = ref or weakref.ref(self)
                    except Exception as exc:
                        patch.fault(exc, "births of loops")

            patch.set(cls, "__init__", __init__)

        def wrap_close(cls: Any) -> None:
            close = cls.close

            @functools.wraps(close)
            def looked_at(self: Any) -> Any:
                look(self)
                close(self)
                refs.pop(id(self), None)

            patch.set(cls, "close", looked_at)

        def on_asyncio(_: Any) -> None:
            from asyncio import base_events, runners, selector_events

            wrap_init(base_events.BaseEventLoop)
            wrap_init(selector_events.BaseSelectorEventLoop)
            cancel_all = runners._cancel_all_tasks  # type: ignore[attr-defined]

            @functools.wraps(cancel_all)
            def _cancel_all_tasks(loop: Any) -> Any:
                if look(loop):
                    return None  # it has no task: the original would list all and do nothing
                # Tasks that settling let start may have ended; the original copes with both.
                return cancel_all(loop)

            patch.set(runners, "_cancel_all_tasks", _cancel_all_tasks)
            # Concrete loops override close(): wrap the outermost one of each.
            if sys.platform != "win32":
                from asyncio import unix_events

                wrap_close(unix_events._UnixSelectorEventLoop)
            else:  # untried: no Windows machine was at hand
                wrap_close(selector_events.BaseSelectorEventLoop)

        def on_uvloop(module: Any) -> None:
            wrap_init(module.Loop)
            wrap_close(module.Loop)

        def on_tornado(module: Any) -> None:
            # Its test case cancels what is left by itself, before it closes the loop.
            def ending(case: Any) -> None:
                loop = getattr(getattr(case, "io_loop", None), "asyncio_loop", None)
                if loop is not None:
                    look(loop)

            patch.before_method(module.AsyncTestCase, "tearDown", ending)

        patch.when_imported("asyncio", on_asyncio)
        patch.when_imported("uvloop", on_uvloop)
        patch.when_imported("tornado.testing", on_tornado)

    def open(self) -> list[Any]:
        """Return loops that aren't closed."""
        if not self.born:
            return []
        loops = []
        for key, ref in list(self.born.items()):
            loop = ref()
            if loop is None or loop.is_closed():
                self.born.pop(key, None)
            else:
                loops.append(loop)
        return loops

    def meet(self, loop: Any) -> None:
        """Get to know a loop that was made before we watched."""
        self.born.setdefault(id(loop), weakref.ref(loop))


def is_uvloop(loop: Any) -> bool:
    """Tell whether a loop is uvloop's, whose handles are not visible as attributes."""
    return not hasattr(loop, "_ready")


def of_uvloop(obj: Any, loop: Any) -> bool:
    """Tell whether one of uvloop's objects belongs to this loop: the collector can see it."""
    return any(held is loop for held in gc.get_referents(obj))


def context_of(obj: Any) -> Context | None:
    """Return the context that a handle or transport runs its callbacks in."""
    context = getattr(obj, "_context", None)
    if context is None and obj is not None:
        # uvloop's keep it out of Python's sight, but not of the collector's.
        context = next((h for h in gc.get_referents(obj) if isinstance(h, Context)), None)
    return context


def current_task() -> Any:
    """Return the asyncio task that is running here, if there is one."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio.current_task() if asyncio is not None else None
    except RuntimeError:
        return None


def task_at_work(loop: Any) -> Any:
    """Return the task that a loop of any thread runs at this moment, if that can be seen."""
    tasks = sys.modules.get("asyncio.tasks")
    table = getattr(tasks, "_current_tasks", None)  # gone in 3.14: untried
    return None if table is None else table.get(loop)


def pending_tasks(loop: Any) -> list[weakref.ref[Any]]:
    """Return weak references to the loop's tasks that aren't done.

    Reads the interpreter's registries directly: 40 times cheaper than `asyncio.all_tasks`,
    atomic, and without a strong reference that would spoil the proof that a task is lost.
    """
    tasks = sys.modules.get("asyncio.tasks")
    if tasks is None:
        return []
    if sys.version_info >= (3, 14):  # untried: no such interpreter was at hand
        return [weakref.ref(t) for t in tasks.all_tasks(loop)]
    registry = getattr(tasks, "_scheduled_tasks", None)
    if registry is None:
        registry = tasks._all_tasks
    refs = list(registry.data)
    if eager := getattr(tasks, "_eager_tasks", None):
        refs += [weakref.ref(t) for t in list(eager)]
    pending = []
    for ref in refs:
        task = ref()
        if task is not None and not task.done() and task.get_loop() is loop:
            pending.append(weakref.ref(task))
    return pending


def selector_entries(loop: Any) -> list[tuple[int, Any, Any]]:
    """Return (fd, reader handle or None, writer handle or None) without the loop's own pipe."""
    selector = getattr(loop, "_selector", None)
    if selector is None:
        return []
    own = getattr(loop, "_ssock", None)
    own_fd = own.fileno() if own is not None else -1
    table = getattr(selector, "_fd_to_key", None)
    keys = list(table.values()) if table is not None else list(selector.get_map().values())
    entries = []
    for key in keys:
        if key.fd == own_fd:
            continue
        reader, writer = key.data if isinstance(key.data, tuple) else (None, None)
        entries.append((key.fd, reader, writer))
    return entries


def is_quiet(loop: Any) -> bool:
    """Tell in a microsecond that a loop holds nothing at all: no need to look closer."""
    if CHILDREN.data and any(t._loop is loop for t in list(CHILDREN)):
        return False
    try:
        if loop._scheduled or loop._asyncgens.data or len(loop._selector._fd_to_key) > 1:
            return False
    except AttributeError:
        return False
    tasks = sys.modules.get("asyncio.tasks")
    if tasks is not None and not getattr(tasks, "_eager_tasks", None):
        registry = getattr(tasks, "_scheduled_tasks", None)
        if registry is not None and not registry.data:
            return True
    return not pending_tasks(loop)


def ready(loop: Any) -> bool:
    """Tell whether something is at work for this loop at this moment."""
    if getattr(loop, "_ready", None):
        return True
    executor = default_executor(loop)
    return executor is not None and _busy(executor)


def default_executor(loop: Any) -> Any:
    """Return the executor that a loop made for itself or was given, or None."""
    if not is_uvloop(loop):
        return getattr(loop, "_default_executor", None)
    futures = sys.modules.get("concurrent.futures._base")
    if futures is None:
        return None
    # uvloop keeps it in a C field, but the collector may look.
    for held in gc.get_referents(loop):
        if isinstance(held, futures.Executor):
            return held
    return None


def _busy(executor: Any) -> bool:
    try:
        if executor._work_queue.qsize():
            return True
        idle = executor._idle_semaphore._value
        return bool(len(executor._threads) > idle)
    except AttributeError:
        return False


def next_due(loop: Any) -> float | None:
    """Return seconds until the loop's next timer, or None."""
    scheduled = getattr(loop, "_scheduled", None)
    if not scheduled:
        return None
    try:
        when = min(h._when for h in scheduled if not h._cancelled)
    except (ValueError, AttributeError):
        return None
    return max(0.0, float(when) - float(loop.time()))


def turn(loop: Any, seconds: float = 0.0) -> None:
    """Let an open loop that isn't running make one turn, or run for some seconds."""
    if seconds <= 0:
        loop.call_soon(loop.stop)
    else:
        loop.call_later(seconds, loop.stop)
    loop.run_forever()
