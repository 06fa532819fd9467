"""Child processes of an event loop, told while the loop that manages them is still there.

When a loop closes it lets go of its children in silence: their transports, pipes and pidfds
turn into garbage, and whether the child is killed, a zombie or still running by the time the
test ends depends on who is faster. So a running child is told just before its loop closes, as
the process that it is, with all its parts; the kinds that would find those parts (or the
process itself) later are covered by it.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from ..ledger import LEDGER, Birth
from ..model import Key, Owner, Scene
from ..ownership import current
from ..runtimes.chains import after_await, note
from .base import fd_key, target, weak
from .processes import ProcessProbe, _Child

__all__ = ["ChildProbe", "by_pid", "closing", "of_loop", "parts", "pipes"]

#: asyncio's subprocess transports, open or not: a loop keeps no list of them.
_TRANSPORTS: weakref.WeakSet[Any] = weakref.WeakSet()


class ChildProbe(ProcessProbe):
    """A running child that asyncio or uvloop started, on a loop that is about to close."""

    scope: ClassVar[Literal["loop", "process"]] = "loop"
    types: ClassVar[tuple[str, ...]] = ("uvloop.loop:UVProcessTransport",)

    def install(self, patch: Any) -> None:
        """Note who starts children through a loop."""

        def born(transport: Any) -> None:
            note(transport, skip=2)
            _TRANSPORTS.add(transport)

        def of_uvloop(result: Any, birth: Birth) -> None:
            transport = result[0]
            LEDGER.add(transport, birth)
            # Its object may be gone long before the child is.
            LEDGER.note_pid(transport.get_pid(), skip=2)

        patch.when_imported(
            "asyncio.base_subprocess",
            lambda m: patch.after_method(m.BaseSubprocessTransport, "__init__", born),
        )

        def on_uvloop(module: Any) -> None:
            for name in ("subprocess_exec", "subprocess_shell"):
                after_await(patch, module.Loop, name, of_uvloop)

        patch.when_imported("uvloop", on_uvloop)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the closing loop's running children.

        While a loop stays open they are left to the process kind, which looks after the
        teardown; and so are those of a wider fixture, which may wait for them without a loop.
        """
        if not closing(scene.loop):
            return {}
        found: dict[Key, Any] = {}
        for transport in of_loop(scene):
            pid = transport.get_pid()
            birth = LEDGER.of(transport)
            owner = None if birth is None else birth.owner
            if pid is None or transport.get_returncode() is not None or _later(owner):
                continue
            found[("child", pid)] = _Child(pid, weak(transport))
        return found

    def covers(self, handle: _Child) -> Iterable[Key]:
        """Take the process itself along, and all that its loop has for it."""
        yield ("pid", handle.pid)
        yield from super().covers(handle)
        transport = target(handle.holder)
        if transport is not None:
            yield from parts(transport)


def closing(loop: Any) -> bool:
    """Tell whether this is the last look at a loop: it is about to close."""
    owner = current()
    return owner is not None and getattr(loop, "_tightship_looked", None) is owner


def of_loop(scene: Scene) -> list[Any]:
    """Return the subprocess transports of a loop: asyncio's, and uvloop's from the window."""
    listed = [t for found in scene.objects.values() for t in found if _is_process(t)]
    listed += list(_TRANSPORTS)
    return [t for t in listed if _loop(t) is scene.loop]


def by_pid() -> dict[int, Any]:
    """Return asyncio's subprocess transports that are still there, by their child."""
    return {t.get_pid(): t for t in list(_TRANSPORTS) if t.get_pid()}


def _is_process(transport: Any) -> bool:
    return type(transport).__name__ == "UVProcessTransport"


def _loop(transport: Any) -> Any:
    if not _is_process(transport):
        return getattr(transport, "_loop", None)
    return next((h for h in gc.get_referents(transport) if hasattr(h, "run_forever")), None)


def _later(owner: Owner | None) -> bool:
    return owner is not None and owner.wide and not owner.ended


def pipes(transport: Any) -> dict[str, Any]:
    """Return the pipe transports of a subprocess transport that are still open."""
    found = {}
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            pipe = transport.get_pipe_transport(fd)
        except AttributeError:  # not connected yet
            continue
        protocol = None if pipe is None else pipe.get_protocol()
        if protocol is None or pipe.is_closing():
            continue
        if not getattr(protocol, "disconnected", False):
            found[name] = pipe
    return found


def parts(transport: Any) -> Iterable[Key]:
    """Name what a subprocess transport takes along: pipe transports, files, descriptors."""
    for pipe in pipes(transport).values():
        yield ("object", id(pipe))
        file = getattr(pipe, "_pipe", None)
        if file is None:
            file = pipe.get_extra_info("socket")
        if file is None:
            continue
        yield ("object", id(file))
        try:
            key = fd_key(file.fileno())
        except (OSError, ValueError):  # closed meanwhile
            continue
        if key is not None:
            yield key
