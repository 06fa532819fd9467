"""`add_reader` and `add_writer` registrations that nobody removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ..explain import fds
from ..model import Evidence, Key, Owner, Scene
from ..ownership import of_context
from ..runtimes.loops import selector_entries
from .base import BaseProbe, fd_key
from .timers import callback_name

__all__ = ["ReaderProbe"]


class ReaderProbe(BaseProbe):
    """A file descriptor that the loop still watches for somebody's callback."""

    kind: ClassVar[str] = "reader"
    scope: ClassVar[Literal["loop", "process"]] = "loop"

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the selector's entries that belong to no transport and no server."""
        loop = scene.loop
        transports = getattr(loop, "_transports", {})
        found: dict[Key, Any] = {}
        for fd, reader, writer in selector_entries(loop):
            if fd in transports:
                continue
            handle = reader or writer
            if handle is None or handle._cancelled or _machinery(handle):
                continue
            found[("reader", id(loop), fd_key(fd) or fd)] = (loop, fd, reader, writer)
        return found

    def alive(self, handle: Any) -> bool:
        """Tell whether the same registration is still there."""
        loop, fd, reader, writer = handle
        return any(e == (fd, reader, writer) for e in selector_entries(loop))

    def owner(self, handle: Any) -> Owner | None:
        """Read the owner from the callback's context."""
        return of_context(getattr(handle[2] or handle[3], "_context", None))

    def made(self, handle: Any) -> None:
        """Unknown: registrations have no birth entry."""
        return

    def label(self, handle: Any) -> str:
        """Return the callback's qualified name."""
        return callback_name((handle[2] or handle[3])._callback)

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


def _machinery(handle: Any) -> bool:
    """Tell whether asyncio itself registered this: servers, transports, sock_recv and so on."""
    name = callback_name(handle._callback)
    return name.startswith(
        (
            "BaseSelectorEventLoop.",
            "_Selector",
            "_UnixReadPipe",
            "_UnixWritePipe",
            "PidfdChildWatcher",
        )
    )
