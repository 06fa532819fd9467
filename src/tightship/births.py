"""Wrapping the places where resources are born, and unwrapping them again.

Everything that Tightship replaces is replaced here, so that "every patch is undone" has one
place to be true in. Wrappers call the original first, then note the birth; a fault while
noting is contained and reported once, the caller never sees it.
"""

from __future__ import annotations

import functools
import sys
from _thread import get_ident
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from .ledger import LEDGER

__all__ = ["Patcher"]


class _Stand:
    """A stand-in for a builtin function.

    Builtins do not bind when stored on a class, as a Python function would; they can be
    members of sets such as `os.supports_dir_fd`. A stand-in keeps both properties.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "__wrapped__",
        "_tightship_after",
        "_tightship_guard",
        "_tightship_where",
    )

    def __init__(self, original: Callable[..., Any], after: Callable[..., Any], guard: Patcher):
        self.__wrapped__ = original
        self._tightship_after = after
        self._tightship_guard = guard
        self._tightship_where = guard.where
        for name in (
            "__name__",
            "__qualname__",
            "__doc__",
            "__module__",
            "__text_signature__",
            "__self__",
        ):
            try:
                self.__dict__[name] = getattr(original, name)
            except AttributeError:
                pass

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        result = self.__wrapped__(*args, **kwargs)
        guard = self._tightship_guard
        if guard.active:
            try:
                self._tightship_after(result)
            except Exception as exc:
                guard.fault(exc, self._tightship_where)
        return result

    def __eq__(self, other: object) -> bool:
        return other is self or other == self.__wrapped__

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> Any:
        # Pickled by name, as the builtin is.
        return self.__dict__["__qualname__"]


class Patcher:
    """Enters patches and takes them all back, in reverse order."""

    def __init__(self, on_fault: Callable[[str, BaseException], None]):
        self.active = True
        self._stack = ExitStack()
        self._on_fault = on_fault
        self.where = "births"
        """The kind whose patches are being entered: a fault in one of them is that kind's."""

    def fault(self, exc: BaseException, where: str | None = None) -> None:
        """Report a fault of ours; never raises."""
        self._on_fault(where or self.where, exc)

    def set(self, target: Any, name: str, value: Any) -> None:
        """Replace an attribute; on undo it comes back unless somebody replaced it since."""
        missing = object()
        own = vars(target).get(name, missing) if hasattr(target, "__dict__") else missing
        setattr(target, name, value)

        def undo() -> None:
            now = vars(target).get(name, missing)
            # A user's monkeypatch on top of ours stays; ours beneath it is inert by then.
            if now is not value:
                return
            if own is missing:
                delattr(target, name)
            else:
                setattr(target, name, own)

        self._stack.callback(undo)

    def on_undo(self, callback: Callable[[], object]) -> None:
        """Call something when everything is taken back."""
        self._stack.callback(callback)

    def births(self, cls: type, name: str = "__init__") -> None:
        """Note each object in the ledger once the method ``cls.name`` has returned.

        What `after_method` with `Ledger.note` does, with one call less: sockets and loops are
        born in almost every test.
        """
        original = getattr(cls, name)
        guard, where, ledger = self, self.where, LEDGER

        @functools.wraps(original)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if guard.active and not (ledger.muted and ledger.muted == get_ident()):
                try:
                    ledger.note(self)
                except Exception as exc:
                    guard.fault(exc, where)
            return result

        self.set(cls, name, method)

    def after_method(self, cls: type, name: str, after: Callable[[Any], object]) -> None:
        """Call ``after(self)`` whenever the method ``cls.name`` has returned."""
        original = getattr(cls, name)
        guard, where = self, self.where

        @functools.wraps(original)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if guard.active:
                try:
                    after(self)
                except Exception as exc:
                    guard.fault(exc, where)
            return result

        self.set(cls, name, method)

    def before_method(self, cls: type, name: str, before: Callable[[Any], object]) -> None:
        """Call ``before(self)`` whenever the method ``cls.name`` is about to run."""
        original = getattr(cls, name)
        guard, where = self, self.where

        @functools.wraps(original)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            if guard.active:
                try:
                    before(self)
                except Exception as exc:
                    guard.fault(exc, where)
            return original(self, *args, **kwargs)

        self.set(cls, name, method)

    def after_result(self, cls: type, name: str, after: Callable[[Any], object]) -> None:
        """Call ``after(result)`` whenever the method ``cls.name`` has returned something."""
        original = getattr(cls, name)
        guard, where = self, self.where

        @functools.wraps(original)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if guard.active:
                try:
                    after(result)
                except Exception as exc:
                    guard.fault(exc, where)
            return result

        self.set(cls, name, method)

    def after_builtin(self, module: Any, name: str, after: Callable[[Any], object]) -> None:
        """Call ``after(result)`` whenever the builtin ``module.name`` has returned."""
        original = getattr(module, name, None)
        if original is None:  # not on this platform or Python
            return
        self.set(module, name, _Stand(original, after, self))

    def when_imported(self, module: str, callback: Callable[[Any], None]) -> None:
        """Call ``callback(module)`` now if it is imported, else right after it is."""
        found = sys.modules.get(module)
        if found is not None and not _importing(found):
            self._run(callback, found)
            return
        where = self.where

        def later(loaded: Any) -> None:
            if self.active:
                before, self.where = self.where, where
                try:
                    self._run(callback, loaded)
                finally:
                    self.where = before

        _FINDER.add(module, later)
        self._stack.callback(_FINDER.drop, module, later)

    def _run(self, callback: Callable[[Any], None], module: Any) -> None:
        try:
            callback(module)
        except Exception as exc:
            self.fault(exc)

    def undo(self) -> None:
        """Take everything back."""
        self.active = False
        self._stack.close()


def _importing(module: Any) -> bool:
    spec = getattr(module, "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


class _Finder:
    """A meta path finder that only adds a callback to somebody else's loader."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callable[[Any], None]]] = {}

    def add(self, name: str, callback: Callable[[Any], None]) -> None:
        if not self._callbacks:
            sys.meta_path.insert(0, self)
        self._callbacks.setdefault(name, []).append(callback)

    def drop(self, name: str, callback: Callable[[Any], None]) -> None:
        # Others, a pytest run around this one, may wait for the same module.
        left = [c for c in self._callbacks.get(name, ()) if c is not callback]
        if left:
            self._callbacks[name] = left
        else:
            self._callbacks.pop(name, None)
        if not self._callbacks and self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self._callbacks:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        loader = spec.loader
        if loader is None or isinstance(loader, type) or not hasattr(loader, "exec_module"):
            # Builtin modules share their loader, a class: it is not ours to change.
            return spec
        run = loader.exec_module

        def exec_module(module: Any) -> None:
            # The loader may be shared or reused: give it its own method back first.
            try:
                del loader.exec_module
            except AttributeError:
                pass
            run(module)
            for callback in self._callbacks.get(name, ()):
                callback(module)

        try:
            loader.exec_module = exec_module  # type: ignore[method-assign]
        except AttributeError:  # a loader with slots: seen in sys.modules later instead
            pass
        return spec


_FINDER = _Finder()
