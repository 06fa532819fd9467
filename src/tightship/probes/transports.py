"""Open transports: the connections and streams of an event loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from ..explain import fds
from ..ledger import LEDGER, Birth
from ..model import Evidence, Key, Owner, Scene
from ..ownership import of_context
from ..runtimes.loops import context_of, is_uvloop, of_uvloop, selector_entries
from .base import BaseProbe, fd_key, target, weak

__all__ = ["TransportProbe"]


class TransportProbe(BaseProbe):
    """A transport that isn't closed: TCP, TLS, Unix, UDP, pipe or subprocess."""

    kind: ClassVar[str] = "transport"
    scope: ClassVar[Literal["loop", "process"]] = "loop"
    types: ClassVar[tuple[str, ...]] = (
        "uvloop.loop:TCPTransport",
        "uvloop.loop:UnixTransport",
        "uvloop.loop:UDPTransport",
        "uvloop.loop:ReadUnixTransport",
        "uvloop.loop:WriteUnixTransport",
    )

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return transports found in the loop; uvloop's come from the window."""
        loop = scene.loop
        found: dict[Key, Any] = {}
        if is_uvloop(loop):
            for transports in scene.objects.values():
                for transport in transports:
                    if not transport.is_closing() and of_uvloop(transport, loop):
                        found[("object", id(transport))] = (weak(transport), None)
            return found
        entries = {fd: reader or writer for fd, reader, writer in selector_entries(loop)}
        seen = dict(getattr(loop, "_transports", {}).items())
        for fd, handle in entries.items():
            if fd not in seen:
                owner = getattr(getattr(handle, "_callback", None), "__self__", None)
                if hasattr(owner, "get_extra_info") and hasattr(owner, "is_closing"):
                    seen[fd] = owner
        for fd, transport in seen.items():
            if _open(transport):
                found[("object", id(transport))] = (weak(transport), entries.get(fd))
        return found

    def alive(self, handle: Any) -> bool:
        """Tell whether its descriptor is still open."""
        transport = target(handle[0])
        return transport is not None and _open(transport)

    def birth(self, handle: Any) -> Birth | None:
        """A transport is born with its socket, or with its pipe."""
        transport = target(handle[0])
        sock = _sock(transport)
        birth = None if sock is None else LEDGER.of(sock)
        pipe = getattr(transport, "_pipe", None)
        if birth is None and pipe is not None:
            fileno = getattr(transport, "_fileno", -1)
            key = fd_key(fileno) if isinstance(fileno, int) else None
            birth = LEDGER.of_fd(fileno, key[2:4]) if key is not None else None
            birth = birth or LEDGER.of(getattr(pipe, "raw", pipe))
        return birth

    def owner(self, handle: Any) -> Owner | None:
        """Read the owner from the context that reads for it."""
        reader = handle[1] if handle[1] is not None else target(handle[0])
        return of_context(context_of(reader)) or super().owner(handle)

    def label(self, handle: Any) -> str:
        """Return the protocol's type, which tells whose connection this is."""
        protocol = _protocol(target(handle[0]))
        return "Transport" if protocol is None else type(protocol).__name__

    def covers(self, handle: Any) -> Iterable[Key]:
        """A transport takes its socket, its descriptor and its protocol along."""
        transport = target(handle[0])
        fileno = getattr(transport, "_fileno", None)
        sock = _sock(transport)
        if fileno is None and sock is not None:
            fileno = sock.fileno()
        if isinstance(fileno, int):
            key = fd_key(fileno)
            if key is not None:
                yield key
        if sock is not None:
            yield ("object", id(sock))

    def explain(self, handle: Any) -> Evidence:
        """Say what it connects, whether it is closing, and what it still has to send."""
        transport = target(handle[0])
        if transport is None:
            return Evidence("a transport that is gone")
        sock = _sock(transport)
        where = ""
        if sock is not None:
            where = fds.describe_socket(sock.fileno())
        protocol = _protocol(transport)
        what = "stream" if type(protocol).__name__ == "StreamReaderProtocol" else "transport"
        evidence = Evidence(f"{what} {where or type(transport).__name__}")
        if what == "transport" and protocol is not None:
            evidence.facts.append(("protocol", type(protocol).__qualname__))
        try:
            if transport.is_closing():
                evidence.facts.append(
                    ("closing", f"{transport.get_write_buffer_size()} bytes are not sent yet")
                )
        except Exception:
            pass
        if what == "stream":
            evidence.fix = "writer.close() and await writer.wait_closed()"
        return evidence


def _open(transport: Any) -> bool:
    if getattr(transport, "_closed", None) is True:  # subprocess and TLS transports
        return False
    sock = getattr(transport, "_sock", None)
    if sock is not None:
        return bool(sock.fileno() != -1)
    pipe = getattr(transport, "_pipe", None)
    if pipe is not None:
        return not pipe.closed if hasattr(pipe, "closed") else pipe.fileno() != -1
    if hasattr(transport, "_sock") or hasattr(transport, "_pipe"):
        return False
    return not transport.is_closing()


def _sock(transport: Any) -> Any:
    sock = getattr(transport, "_sock", None)
    if sock is None and transport is not None:
        try:
            sock = transport.get_extra_info("socket")
        except Exception:
            sock = None
        sock = getattr(sock, "_sock", sock)
    return sock


def _protocol(transport: Any) -> Any:
    try:
        return transport.get_protocol()
    except Exception:
        return getattr(transport, "_protocol", None)
