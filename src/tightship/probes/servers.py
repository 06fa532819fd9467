"""Servers that still listen: `asyncio.start_server`, `loop.create_server` and uvloop's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from ..explain import fds
from ..model import Evidence, Key, Owner, Scene
from ..ownership import of_context
from ..runtimes.loops import is_uvloop, of_uvloop, selector_entries
from .base import BaseProbe, fd_key, target, weak

__all__ = ["ServerProbe"]


class ServerProbe(BaseProbe):
    """A server with open listening sockets."""

    kind: ClassVar[str] = "server"
    scope: ClassVar[Literal["loop", "process"]] = "loop"
    types: ClassVar[tuple[str, ...]] = ("uvloop.loop:Server",)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return servers found in the selector; uvloop's come from the window."""
        found: dict[Key, Any] = {}
        if is_uvloop(scene.loop):
            for servers in scene.objects.values():
                for server in servers:
                    if server.is_serving() and of_uvloop(server, scene.loop):
                        found[("object", id(server))] = (weak(server), None)
            return found
        for _, reader, _ in selector_entries(scene.loop):
            if reader is None or reader._cancelled:
                continue
            callback = reader._callback
            if getattr(callback, "__name__", "") != "_accept_connection":
                continue
            for arg in reader._args or ():
                if hasattr(arg, "is_serving") and hasattr(arg, "sockets"):
                    found[("object", id(arg))] = (weak(arg), reader)
        return found

    def alive(self, handle: Any) -> bool:
        """Tell whether it still listens."""
        server = target(handle[0])
        return server is not None and bool(server.is_serving())

    def owner(self, handle: Any) -> Owner | None:
        """Read the owner from the context that listening started in."""
        reader = handle[1]
        if reader is not None:
            return of_context(getattr(reader, "_context", None))
        return super().owner(handle[0])

    def made(self, handle: Any) -> Any:
        """Return the birth of its first listening socket."""
        from ..ledger import LEDGER

        server = target(handle[0])
        for sock in _sockets(server):
            birth = LEDGER.of(getattr(sock, "_sock", sock))
            if birth is not None:
                return birth.made
        return None

    def label(self, handle: Any) -> str:
        """Return the name of what handles its connections."""
        server = target(handle[0])
        factory = getattr(server, "_protocol_factory", None)
        name = getattr(factory, "__qualname__", "") or type(factory).__qualname__
        if name == "start_server.<locals>.factory" or name == "start_unix_server.<locals>.factory":
            for cell in getattr(factory, "__closure__", None) or ():
                try:
                    value = cell.cell_contents
                except ValueError:
                    continue
                if callable(value) and hasattr(value, "__qualname__"):
                    return str(value.__qualname__)
        return name if factory is not None else "Server"

    def covers(self, handle: Any) -> Iterable[Key]:
        """A server takes its listening sockets along."""
        server = target(handle[0])
        for sock in _sockets(server):
            key = fd_key(sock.fileno())
            if key is not None:
                yield key

    def explain(self, handle: Any) -> Evidence:
        """Say where it listens and how many connections it has."""
        server = target(handle[0])
        if server is None:
            return Evidence("a server that is gone")
        where = ", ".join(fds.describe_socket(s.fileno()) for s in _sockets(server))
        evidence = Evidence(f"server {self.label(handle).rpartition('.<locals>.')[2]!r}")
        evidence.facts.append(("listens", where or "on a socket that cannot be read"))
        clients = getattr(server, "_active_count", None)
        if clients is None:
            clients = len(getattr(server, "_clients", ()))
        if clients:
            evidence.facts.append(("clients", f"{clients} connection(s) still open"))
        return evidence


def _sockets(server: Any) -> list[Any]:
    try:
        return list(server.sockets or ())
    except Exception:
        return []
