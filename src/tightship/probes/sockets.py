"""Open sockets: TCP, UDP, Unix, socket pairs; Python's, uvloop's and those of C code."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from .. import explain
from ..ledger import LEDGER
from ..model import Evidence, Key, Owner
from ..ownership import of_context
from ..runtimes.loops import context_of
from .base import target
from .fdtable import FdHandle, FdKindProbe

__all__ = ["SocketProbe"]


class SocketProbe(FdKindProbe):
    """A descriptor that is a socket."""

    kind: ClassVar[str] = "socket"
    types: ClassVar[tuple[str, ...]] = (
        # No Python object has uvloop's sockets but what was made of them. The last one counts.
        "uvloop.loop:Server",
        "uvloop.loop:TCPTransport",
        "uvloop.loop:UnixTransport",
        "uvloop.loop:UDPTransport",
        "uvloop.loop:ReadUnixTransport",
        "uvloop.loop:WriteUnixTransport",
        "socket:socket",
    )
    matches: ClassVar[Callable[[int], bool]] = staticmethod(stat.S_ISSOCK)

    def install(self, patch: Any) -> None:
        """Note births of socket objects: `accept`, `dup`, `socketpair` and TLS come here too."""

        def detaching(sock: Any) -> None:
            LEDGER.hand_on(sock, sock.fileno())

        def on_import(module: Any) -> None:
            patch.births(module.socket)
            patch.before_method(module.socket, "detach", detaching)

        patch.when_imported("socket", on_import)

    def fileno(self, obj: Any) -> int:
        """Return the descriptor of a socket, or of one of uvloop's servers and transports."""
        if hasattr(obj, "fileno"):
            return int(obj.fileno())
        if hasattr(obj, "sockets"):
            sock = next(iter(obj.sockets or ()), None)
        else:
            sock = None if obj.is_closing() else obj.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def owner(self, handle: FdHandle) -> Owner | None:
        """Return who made it; for what a server of uvloop's accepted, who made the server."""
        obj = target(handle.holder) if handle.holder is not None else None
        of_uvloop = obj is not None and not hasattr(obj, "fileno")
        return super().owner(handle) or (of_context(context_of(obj)) if of_uvloop else None)

    def covers(self, handle: FdHandle) -> Iterable[Key]:
        """Take a socket object along; a transport or server takes its descriptor along."""
        obj = target(handle.holder) if handle.holder is not None else None
        return super().covers(handle) if hasattr(obj, "fileno") else ()

    def label(self, handle: FdHandle) -> str:
        """Return family and role, without addresses that change from run to run."""
        text = explain.fds.describe_socket(handle.fd)
        role = "listening" if "listening" in text else "connected" if "->" in text else ""
        if "socketpair" in text:
            role = "pair"
        family = text.split(" ", 1)[0].rstrip(",")
        return f"{family}-{role}" if role else family

    def explain(self, handle: FdHandle) -> Evidence:
        """Say both addresses."""
        evidence = Evidence(f"socket {explain.fds.describe_socket(handle.fd)}")
        obj = target(handle.holder) if handle.holder is not None else None
        evidence.facts.append(("fd", str(handle.fd)))
        if obj is None:
            evidence.facts.append(
                ("object", "none: detached from its socket object, or made by C code")
            )
            evidence.fix = "close the descriptor, or the library object that owns it"
        return evidence
