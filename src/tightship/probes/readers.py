"""`add_reader` and `add_writer` registrations that nobody removed."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from ..explain import fds
from ..ledger import LEDGER, Birth
from ..model import Evidence, Key, Owner, Scene
from ..origin import Raw, capture
from ..ownership import current, of_context
from ..runtimes.loops import is_uvloop, selector_entries
from .base import BaseProbe, fd_key
from .timers import callback_name

__all__ = ["ReaderProbe"]

#: Where a uvloop loop's registrations are noted, on the loop itself: they end with it.
_TABLE = "_tightship_watched"


class _Noted(NamedTuple):
    """A registration at uvloop, which shows none: strings and the birth, no callback."""

    name: str
    birth: Birth


class ReaderProbe(BaseProbe):
    """A file descriptor that the loop still watches for somebody's callback."""

    kind: ClassVar[str] = "reader"
    scope: ClassVar[Literal["loop", "process"]] = "loop"

    def install(self, patch: Any) -> None:
        """Note who registers. asyncio's own registrations do not come through these doors."""

        def on_asyncio(module: Any) -> None:
            cls = module.BaseSelectorEventLoop
            for which, what in enumerate(("reader", "writer")):
                _after(patch, cls, f"add_{what}", functools.partial(_born, which))

        def on_uvloop(module: Any) -> None:
            for what in ("reader", "writer"):
                _after(patch, module.Loop, f"add_{what}", functools.partial(_added, what))
                _after(patch, module.Loop, f"remove_{what}", functools.partial(_removed, what))
            patch.after_method(module.Loop, "close", _closed)

        patch.when_imported("asyncio.selector_events", on_asyncio)
        patch.when_imported("uvloop", on_uvloop)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the selector's entries that belong to no transport and no server."""
        loop = scene.loop
        transports = getattr(loop, "_transports", {})
        found: dict[Key, Any] = {}
        for fd, reader, writer in _entries(loop):
            if fd in transports:
                continue
            handle = reader or writer
            if handle is None or _machinery(handle):
                continue
            found[("reader", id(loop), fd_key(fd) or fd)] = (loop, fd, reader, writer)
        return found

    def alive(self, handle: Any) -> bool:
        """Tell whether the same registration is still there."""
        loop, fd, reader, writer = handle
        return any(e == (fd, reader, writer) for e in _entries(loop))

    def birth(self, handle: Any) -> Birth | None:
        """Return the entry of the reader, or of the writer if there is none."""
        entry = handle[2] or handle[3]
        return entry.birth if isinstance(entry, _Noted) else LEDGER.of(entry)

    def owner(self, handle: Any) -> Owner | None:
        """Read the owner from the callback's context."""
        entry = handle[2] or handle[3]
        return of_context(getattr(entry, "_context", None)) or super().owner(handle)

    def label(self, handle: Any) -> str:
        """Return the callback's qualified name."""
        return _name(handle[2] or handle[3])

    def explain(self, handle: Any) -> Evidence:
        """Say which descriptor is watched, and for whom."""
        _, fd, reader, _ = handle
        what = "reader" if reader is not None else "writer"
        evidence = Evidence(f"{what} {self.label(handle)} on fd {fd}")
        info = fds.classify(fd)
        if info is not None:
            evidence.facts.append(("watches", f"{info.kind} {info.target}".strip()))
        else:
            evidence.facts.append(("watches", "a descriptor that is closed already"))
        evidence.fix = f"call loop.remove_{what}(fd) before closing the descriptor"
        return evidence


def _after(patch: Any, cls: Any, name: str, after: Callable[[Any, int, Any, Raw], None]) -> None:
    """Call ``after(loop, fd, callback, site)`` whenever ``cls.name`` has returned."""
    original = getattr(cls, name)
    where = patch.where

    @functools.wraps(original)
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if patch.active:
            try:
                # By position, or by either loop's name for it.
                file, callback, *_ = *args, *kwargs.values(), None
                fd = file if isinstance(file, int) else file.fileno()
                after(self, fd, callback, capture())
            except Exception as exc:
                patch.fault(exc, where)
        return result

    patch.set(cls, name, method)


def _born(which: int, loop: Any, fd: int, callback: Any, made: Raw) -> None:
    """Note the handle that asyncio made for a callback; it lives as long as the registration."""
    handle = loop._selector.get_map()[fd].data[which]
    if handle is not None and handle._callback is callback:
        LEDGER.add(handle, Birth(current(), made))


def _added(what: str, loop: Any, fd: int, callback: Any, made: Raw) -> None:
    table = loop.__dict__.setdefault(_TABLE, {})
    table[what, fd] = _Noted(callback_name(callback), Birth(current(), made))


def _removed(what: str, loop: Any, fd: int, callback: Any, made: Raw) -> None:
    loop.__dict__.get(_TABLE, {}).pop((what, fd), None)


def _closed(loop: Any) -> None:
    loop.__dict__.pop(_TABLE, None)


def _entries(loop: Any) -> list[tuple[int, Any, Any]]:
    """Return (fd, reader or None, writer or None) of what a loop watches."""
    if not is_uvloop(loop):
        return [
            (fd, _valid(reader), _valid(writer)) for fd, reader, writer in selector_entries(loop)
        ]
    table = getattr(loop, _TABLE, None)
    if not table:
        return []
    # What the loop itself watches, in a C field: `sock_recv` on a descriptor ends the
    # registration that somebody had for it, without a word.
    watched: dict[int, Any] = next((d for d in gc.get_referents(loop) if _is_polls(d)), {})
    numbers = sorted({fd for _, fd in table if fd in watched})
    return [(fd, table.get(("reader", fd)), table.get(("writer", fd))) for fd in numbers]


def _valid(handle: Any) -> Any:
    return None if handle is None or handle._cancelled else handle


def _is_polls(held: Any) -> bool:
    return (
        isinstance(held, dict)
        and bool(held)
        and all(type(v).__name__ == "UVPoll" for v in held.values())
    )


def _name(entry: Any) -> str:
    return entry.name if isinstance(entry, _Noted) else callback_name(entry._callback)


def _machinery(entry: Any) -> bool:
    """Tell whether asyncio itself registered this: servers, transports, sock_recv and so on."""
    return _name(entry).startswith(
        (
            "BaseSelectorEventLoop.",
            "_Selector",
            "_UnixReadPipe",
            "_UnixWritePipe",
            "PidfdChildWatcher",
        )
    )
