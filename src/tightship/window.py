"""The window: what was made since a moment, listed by the garbage collector for nothing.

`gc.freeze` at the beginning sets everything older aside; at the end a collection visits only
what is younger, and `gc.get_objects` lists exactly the tracked objects that were born since
and are still alive. Opening costs a fraction of a microsecond and closing about ten, whatever
the size of the heap.

What is set aside is hidden from `gc.collect`, `gc.get_referrers` and their like, so these are
guarded: when code under test calls one of them, everything is put back together for the length
of the call, and what the window held until then is remembered by weak reference.

Two things can still break a window, and both are noticed: a guarded function that was imported
by name before we came, and another window inside this one (a pytest run inside a test). A
canary tells: an object that was set aside with the rest must not be among the young.
"""

from __future__ import annotations

import functools
import gc
import io
import os
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from .garbage import Garbage, Hearing, sort_out
from .survivors import weak

__all__ = ["AVAILABLE", "Garbage", "Window", "blind_spots"]

# The originals: the guards below are for others.
_collect, _freeze, _unfreeze, _get_objects = gc.collect, gc.freeze, gc.unfreeze, gc.get_objects
_freeze_count = gc.get_freeze_count

_get_count = gc.get_count

#: 3.14 has another kind of generations (untried there: no such interpreter was at hand).
_GENERATIONS = sys.version_info < (3, 14)

#: So few objects are not worth a collection of their own if none of them matters: those that
#: are garbage wait for the next look at the whole heap.
_FEW = 128

#: Windows, and objects that outlived them, after which we look whether the heap has grown.
_ROUNDS, _SURVIVED = 64, 20_000

#: Functions of `gc` that would see less than they should while a window is open.
GUARDED = ("collect", "freeze", "unfreeze", "get_objects", "get_referrers", "get_freeze_count")

#: No freezing on PyPy; on free-threaded builds it would stop the world for the whole heap.
AVAILABLE = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()


class _Canary:
    __slots__ = ("me",)

    def __init__(self) -> None:
        # Only what can hold something is tracked by the collector.
        self.me = [self]


class _Running:
    """Which window is open in this process."""

    window: Window | None = None


# An instance: to store something on a class makes the interpreter forget all that it learned
# about the class's attributes, and after a thousand times it learns no more.
_RUNNING = _Running()


class Window:
    """Opens before a test, closes after it. One at a time in a process.

    Args:
        types: tells which types are to be listed; the same object until that changes.
    """

    def __init__(self, types: Callable[[], frozenset[type]] = frozenset) -> None:
        self._types = types
        self.is_open = False
        self._canary = _Canary()
        self._rounds = 0
        self._blocks = 0
        self.keep_frozen: bool | None = None
        """Whether the program itself wants its heap frozen; None until that was looked at."""
        self._wanted: frozenset[type] = frozenset()
        self._modules = -1
        self._dull: set[type] = set()
        self._garbage: list[Garbage] = []
        self._earlier: list[tuple[type, weakref.ref[Any] | None, int]] = []
        self._outer: Window | None = None
        self._hearing: Hearing | None = None
        self.warned: Any = None
        self._aged = False
        """True once a full collection has made old what was born in the window."""
        self._survived = 0
        """Objects that outlived their windows since the heap was last looked at, about."""
        self._listener = self._collector_runs
        self.looking = False
        """True while Tightship itself looks around: the guards step aside."""
        self.paused = False
        """True while everything is together for somebody's call of a guarded function."""

    def install(self, patch: Any) -> None:
        """Guard the collector's functions against what a window hides."""
        outer = _RUNNING.window
        if outer is not None and outer.is_open:
            # Whoever runs inside a test will collect, too: what is garbage now is the test's.
            outer._garbage += outer.collect()
        for name in GUARDED:
            patch.set(gc, name, _Guard(getattr(gc, name)))
        gc.callbacks.append(self._listener)
        patch.on_undo(self._unlisten)

    def _unlisten(self) -> None:
        if self._listener in gc.callbacks:
            gc.callbacks.remove(self._listener)

    def pause(self) -> None:
        """Put everything together for a moment; remember what was born so far."""
        # What an earlier pause noted stays noted, once.
        noted, self._earlier = self._earlier, []
        born = self.objects()
        self._earlier = noted
        for kind, objects in born.items():
            for obj in objects:
                self._earlier.append((kind, weak(obj), id(obj)))
        self.paused = True
        _unfreeze()

    def resume(self, called: str) -> None:
        """Set everything aside again."""
        if called == "freeze":
            self.keep_frozen = True
        elif called == "unfreeze":
            self.keep_frozen = False
        _freeze()
        self.paused = False

    def open(self) -> None:
        """Set everything older aside."""
        if not AVAILABLE:
            return
        if self.keep_frozen is None:
            # A suite that froze its imports once (a common conftest trick) stays frozen.
            # Python 3.12 has set a few hundred of its own objects aside by itself.
            self.keep_frozen = _freeze_count() > 5000
        outer = _RUNNING.window
        if outer is not None and outer is not self and outer.is_open:
            # A pytest run inside a test: what the outer window holds is noted there.
            outer.pause()
            self._outer = outer
        if self._earlier:
            self._earlier.clear()
        self.warned = warnings._showwarnmsg_impl  # type: ignore[attr-defined]
        self._aged = False
        _freeze()
        self.is_open = True
        _RUNNING.window = self

    def dull(self) -> bool:
        """Tell whether nothing in the window could tell us anything.

        Neither a wanted type, nor one that says something when it dies. So it is for most
        tests, and spares them the two closer looks, `collect` and `objects`.
        """
        if not self.is_open:
            return True
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            wanted = self._types()
            if wanted is not self._wanted:
                self._wanted = wanted
                self._dull.clear()
        if self._earlier or self._garbage:
            return False
        objects = _get_objects()
        count = len(objects)
        self._survived += count
        if not self._dull.issuperset(map(type, objects)):
            kinds = set(map(type, objects)) - self._dull
            del objects
            if not self._all_dull(kinds):
                return False
        objects = []
        if count > _FEW:
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Collect what was born in the window.

        It lies in the two young generations unless the collector ran by itself and promoted
        some: freezing has set its counts to zero. A full collection would also empty the
        interpreter's free lists.
        """
        callbacks = gc.callbacks
        # Ours is for what others collect.
        ours = bool(callbacks) and callbacks[-1] is self._listener
        if ours:
            callbacks.pop()
        try:
            if any(ref is None or ref() is not None for _, ref, _ in self._earlier):
                # Set aside in the middle of the test, and garbage by now, perhaps.
                _unfreeze()
                _collect()
                _freeze()
            elif _GENERATIONS and not self._aged and not _get_count()[2]:
                _collect(1)
            else:
                _collect()
        finally:
            if ours:
                callbacks.append(self._listener)

    def _all_dull(self, kinds: set[type]) -> bool:
        for kind in kinds:
            if (
                kind is _Canary
                or not self._wanted.isdisjoint(kind.__mro__)
                or (hasattr(kind, "__del__") and kind not in _HARMLESS)
                or not (kind.__flags__ & _HEAP_TYPE or kind.__module__ in sys.stdlib_module_names)
            ):
                return False
            if not kind.__flags__ & _HEAP_TYPE or _of_module(kind):
                self._dull.add(kind)
        return True

    def collect(self) -> list[Garbage]:
        """Collect what the window holds; return what died unclosed by the collector alone."""
        if not self.is_open:
            return []
        garbage, self._garbage = self._garbage, []
        looking, self.looking = self.looking, True
        hearing = Hearing()
        try:
            self._sweep()
        finally:
            log = hearing.end()
            self.looking = looking
        if log:
            heard, others = sort_out(log)
            garbage += heard
            for message in others:
                warnings._showwarnmsg(message)  # type: ignore[attr-defined]
        return garbage

    def _collector_runs(self, phase: str, info: Mapping[str, int]) -> None:
        """Hear what dies when the interpreter collects by itself, in the middle of a test.

        Else it would depend on how much a test allocates whether its garbage is found. What
        the code under test collects on purpose is its own affair.
        """
        if phase == "start":
            if (
                self.is_open
                and not self.looking
                and not self.paused
                and _RUNNING.window is self
                # Elsewhere by now means that the test wants to read them.
                and self.warned is warnings._showwarnmsg_impl  # type: ignore[attr-defined]
            ):
                self._hearing = Hearing()
            return
        self._aged = self._aged or info["generation"] >= 2
        hearing, self._hearing = self._hearing, None
        if hearing is None:
            return
        log = hearing.end()
        self._garbage += sort_out(log)[0]
        # To everybody else they are what they would be without us.
        for message in log:
            warnings.warn_explicit(
                message.message,
                message.category,
                message.filename,
                message.lineno,
                source=message.source,
            )

    @property
    def broken(self) -> bool:
        """True if somebody unfroze the heap meanwhile."""
        return any(type(obj) is _Canary for obj in _get_objects())

    def objects(self) -> Mapping[type, list[Any]]:
        """Return the living objects of the wanted types (or derived ones) by wanted type."""
        if not self.is_open:
            return {}
        wanted = self._types()
        isdisjoint = wanted.isdisjoint
        objects = _get_objects()
        self._survived += len(objects)
        try:
            kinds = set(map(type, objects))
            if _Canary in kinds:
                return {}
            hit = {kind for kind in kinds if not isdisjoint(kind.__mro__)}
            found: dict[type, list[Any]] = {}
            if self._earlier:
                self._recall(found)
            if not hit:
                return found
            for obj in objects:
                kind = type(obj)
                if kind in hit:
                    for base in kind.__mro__:
                        if base in wanted:
                            found.setdefault(base, []).append(obj)
                            break
            return found
        finally:
            del objects

    def references(self, addresses: Set[int]) -> dict[int, weakref.ref[Any]]:
        """Return weak references to those of the window's objects that lie at these addresses."""
        found: dict[int, weakref.ref[Any]] = {}
        if not self.is_open:
            return found
        objects = _get_objects()
        for obj in objects:
            if id(obj) in addresses and (ref := weak(obj)) is not None:
                found[id(obj)] = ref
        del objects
        return found

    def show_all(self) -> None:
        """Make the whole heap visible to our own search for holders."""
        if self.is_open:
            _unfreeze()

    def _recall(self, found: dict[type, list[Any]]) -> None:
        """Add what was born before a pause and still lives."""
        lost = {address for _, ref, address in self._earlier if ref is None}
        for kind, ref, _ in self._earlier:
            obj = ref() if ref is not None else None
            if obj is not None:
                found.setdefault(kind, []).append(obj)
        if lost:
            # Types without weak references have to be looked up in the whole heap.
            _unfreeze()
            kinds = {kind for kind, ref, _ in self._earlier if ref is None}
            for obj in _get_objects():
                if id(obj) in lost and type(obj) in kinds:
                    found.setdefault(type(obj), []).append(obj)
            _freeze()

    def close(self) -> None:
        """Put everything back together."""
        if self.is_open:
            self.is_open = False
            if self._earlier or self._garbage:
                self._earlier.clear()
                self._garbage.clear()
            if _RUNNING.window is self:
                _RUNNING.window = None
            if self._outer is not None and self._give_back():
                return
            if not self.keep_frozen:
                _unfreeze()
                self._rounds += 1
                if self._rounds >= _ROUNDS or self._survived >= _SURVIVED:
                    self._rounds = self._survived = 0
                    self._collect_old()

    def _give_back(self) -> bool:
        """Go on with the window around this one; return False if it was closed meanwhile."""
        outer, self._outer = self._outer, None
        if outer is None or not outer.is_open:
            return False
        _RUNNING.window = outer
        outer.pause()
        outer.resume("close")
        return True

    def _collect_old(self) -> None:
        """Do what the interpreter would do by itself: collect everything once it has grown.

        It counts what survives its own young collections, and freezing sets that count to
        zero each time.
        """
        blocks = sys.getallocatedblocks()
        if gc.isenabled() and blocks > self._blocks + self._blocks // 4:
            if self._blocks:
                _collect()
                blocks = sys.getallocatedblocks()
            self._blocks = blocks


class _Guard:
    """A function of `gc` that sees the heap as it would be without us.

    An object, not a function: calling a Python function would make the caller's own frame
    visible to the collector, and `gc.get_referrers` would then tell of the caller's locals.
    """

    def __init__(self, original: Any) -> None:
        functools.update_wrapper(self, original)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        original = self.__wrapped__  # type: ignore[attr-defined]
        window = _RUNNING.window
        if window is None or not window.is_open or window.looking:
            return original(*args, **kwargs)
        if original.__name__ == "get_referrers":
            # The youngest tuple with just these elements was made for this very call.
            ours = [args]
            ours += [t for t in _get_objects(0) if type(t) is tuple and _same(t, args)][-2:]
        window.pause()
        try:
            result = original(*args, **kwargs)
        finally:
            window.resume(original.__name__)
        if original.__name__ == "get_referrers":
            return [r for r in result if r is not ours and all(r is not t for t in ours)]
        return result


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def resolve(names: Iterable[str], cache: dict[str, type]) -> None:
    """Look up ``module:Class`` names whose modules are imported by now."""
    for name in names:
        if name in cache:
            continue
        module, _, attribute = name.partition(":")
        found = types if module == "types" else sys.modules.get(module)
        kind = getattr(found, attribute, None) if found is not None else None
        if isinstance(kind, type):
            cache[name] = kind


#: Types whose end concerns nobody although they have a finalizer.
_HARMLESS = {types.GeneratorType, io.StringIO, io.BytesIO}

#: ``Py_TPFLAGS_HEAPTYPE``: other types of extension modules may do anything when they die.
_HEAP_TYPE = 1 << 9


def _of_module(kind: type) -> bool:
    """Tell whether a class can be found in its module: it lives as long, we may remember it."""
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    return found is kind


def blind_spots() -> list[str]:
    """Return what cannot be watched on this machine, in words."""
    spots = []
    if not AVAILABLE:
        spots.append("objects that only the collector lists (no gc.freeze on this interpreter)")
    if not os.path.isdir("/proc/self/task"):
        spots.append("native threads (no /proc)")
    if sys.version_info >= (3, 14):
        spots.append("nothing known, but Python 3.14 is untried")
    return spots
