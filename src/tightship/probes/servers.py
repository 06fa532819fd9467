"""Servers that still listen: `asyncio.start_server`, `loop.create_server` and uvloop's."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from contextvars import Context
from typing import Any, ClassVar, Literal

from ..explain import fds
from ..ledger import LEDGER, Birth
from ..model import Evidence, Key, Owner, Scene
from ..ownership import of_context
from ..runtimes.chains import after_await, note, tells
from ..runtimes.loops import is_uvloop, of_uvloop, selector_entries
from .base import BaseProbe, fd_key, target, weak

__all__ = ["ServerProbe", "birth_of"]


class ServerProbe(BaseProbe):
    """A server with open listening sockets."""

    kind: ClassVar[str] = "server"
    scope: ClassVar[Literal["loop", "process"]] = "loop"
    types: ClassVar[tuple[str, ...]] = ("uvloop.loop:Server",)

    def install(self, patch: Any) -> None:
        """Note who makes servers, and for whom."""

        def born(server: Any) -> None:
            note(server, skip=2)

        patch.when_imported(
            "asyncio.base_events", lambda m: patch.after_method(m.Server, "__init__", born)
        )

        def on_uvloop(module: Any) -> None:
            for name in ("create_server", "create_unix_server"):
                after_await(patch, module.Loop, name, LEDGER.add)

        patch.when_imported("uvloop", on_uvloop)

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

    def birth(self, handle: Any) -> Birth | None:
        """Return the server's own entry, or that of its first listening socket."""
        return birth_of(target(handle[0]))

    def owner(self, handle: Any) -> Owner | None:
        """Read the owner from the context that listening started in."""
        reader = handle[1]
        if reader is not None:
            return of_context(getattr(reader, "_context", None))
        context, _ = _listening(target(handle[0]))
        return of_context(context) or super().owner(handle)

    def label(self, handle: Any) -> str:
        """Return the name of what handles its connections."""
        server = target(handle[0])
        factory = getattr(server, "_protocol_factory", None)
        if factory is None:
            _, factory = _listening(server)
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


def birth_of(server: Any) -> Birth | None:
    """Return the birth of a server: its own or, if that says less, its listening socket's."""
    own = None if server is None else LEDGER.of(server)
    if tells(own):
        return own
    for sock in _sockets(server):
        birth = LEDGER.of(getattr(sock, "_sock", sock))
        if birth is not None and (own is None or tells(birth)):
            return birth
    return own


def _listening(server: Any) -> tuple[Context | None, Any]:
    """Return (context, protocol factory) of one of uvloop's servers.

    They are out of Python's sight, in C fields of its streams, but not of the collector's.
    """
    for held in gc.get_referents(server) if server is not None else ():
        for stream in held if isinstance(held, list) else ():
            parts = gc.get_referents(stream)
            context = next((p for p in parts if isinstance(p, Context)), None)
            # The factory is what the stream holds last; nothing else there can be called.
            factory = next((p for p in reversed(parts) if callable(p)), None)
            if factory is not None:
                return context, factory
    return None, None


def _sockets(server: Any) -> list[Any]:
    try:
        # None for each of uvloop's whose loop is closed.
        return [sock for sock in server.sockets or () if sock is not None]
    except Exception:
        return []
