"""Open transports: the connections and streams of an event loop."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from ..explain import fds
from ..ledger import LEDGER, Birth
from ..model import Evidence, Key, Owner, Scene
from ..ownership import of_context
from ..runtimes.chains import after_await, note, tells
from ..runtimes.loops import context_of, is_uvloop, of_uvloop, selector_entries
from . import children
from .base import BaseProbe, fd_key, target, weak
from .servers import birth_of

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
        "uvloop.loop:UVProcessTransport",
    )

    def install(self, patch: Any) -> None:
        """Note who makes connections. What a server accepts was made by nobody."""

        def born(transport: Any) -> None:
            if getattr(transport, "_server", None) is None:
                note(transport, skip=2)

        def of_uvloop(result: Any, birth: Birth) -> None:
            LEDGER.add(_carrier(result[0]), birth)

        patch.when_imported(
            "asyncio.selector_events",
            lambda m: patch.after_method(m._SelectorTransport, "__init__", born),
        )

        def on_unix(module: Any) -> None:
            patch.after_method(module._UnixReadPipeTransport, "__init__", born)
            patch.after_method(module._UnixWritePipeTransport, "__init__", born)

        def on_uvloop(module: Any) -> None:
            for name in _MAKERS:
                after_await(patch, module.Loop, name, of_uvloop)

        patch.when_imported("asyncio.unix_events", on_unix)
        patch.when_imported("uvloop", on_uvloop)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return transports found in the loop; uvloop's come from the window."""
        loop = scene.loop
        found: dict[Key, Any] = {}
        for transport in children.of_loop(scene):
            running = transport.get_returncode() is None
            # On a loop that is about to close the running child itself is the finding.
            if _open(transport) and not (running and children.closing(loop)):
                found[("object", id(transport))] = (weak(transport), None)
        if is_uvloop(loop):
            for transports in scene.objects.values():
                for transport in transports:
                    if (
                        not transport.is_closing()
                        and not _of_process(transport)
                        and of_uvloop(transport, loop)
                    ):
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
            if _open(transport) and not _of_process(transport):
                found[("object", id(transport))] = (weak(transport), entries.get(fd))
        return found

    def alive(self, handle: Any) -> bool:
        """Tell whether its descriptor is still open."""
        transport = target(handle[0])
        return transport is not None and _open(transport)

    def birth(self, handle: Any) -> Birth | None:
        """A transport is born where it was asked for, an accepted one with its server.

        Failing that, with its socket or its pipe.
        """
        transport = target(handle[0])
        server = _server(transport)
        if server is not None:
            born = birth_of(server)
            if tells(born):
                return born
        own = None if transport is None else LEDGER.of(transport)
        if tells(own):
            return own
        sock = _sock(transport)
        birth = None if sock is None else LEDGER.of(sock)
        pipe = getattr(transport, "_pipe", None)
        if birth is None and pipe is not None:
            fileno = getattr(transport, "_fileno", -1)
            key = fd_key(fileno) if isinstance(fileno, int) else None
            birth = LEDGER.of_fd(fileno, key[2:4]) if key is not None else None
            birth = birth or LEDGER.of(getattr(pipe, "raw", pipe))
        return birth or own

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
        if _is_process(transport):
            yield from children.parts(transport)
            return
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
        if _is_process(transport):
            return _of_child(transport)
        sock = _sock(transport)
        where = _where(getattr(transport, "_fileno", None) if sock is None else sock.fileno())
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


#: uvloop's coroutine methods that return (transport, protocol).
_MAKERS = (
    "create_connection",
    "create_unix_connection",
    "create_datagram_endpoint",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
)


def _of_child(transport: Any) -> Evidence:
    """Describe what is left of a child process for its loop."""
    args = getattr(getattr(transport, "_proc", None), "args", None) or ()
    program = "sh" if isinstance(args, (str, bytes)) else next(iter(args), "")
    name = repr(os.path.basename(os.fsdecode(program))) if program else transport.get_pid()
    evidence = Evidence(f"transport of process {name}")
    if transport.get_returncode() is not None:
        left = ", ".join(children.pipes(transport))
        evidence.facts.append(("state", f"the process has ended, still open: {left}"))
        evidence.fix = (
            "read to the end with process.communicate(), or transport.close(); "
            "a grandchild may hold the other end"
        )
    return evidence


def _where(fd: Any) -> str:
    """Return what a transport's descriptor connects, empty if that is not known."""
    info = fds.classify(fd) if isinstance(fd, int) else None
    if info is not None and info.kind == "socket":
        return fds.describe_socket(info.fd)
    ends = {"r": "on a pipe's read end", "w": "on a pipe's write end"}
    return ends.get(info.mode, "") if info is not None and info.kind == "pipe" else ""


def _is_process(transport: Any) -> bool:
    return hasattr(transport, "get_pipe_transport")


def _of_process(transport: Any) -> bool:
    """Tell whether a transport is a child process's, or one of its pipes."""
    return _is_process(transport) or type(_protocol(transport)).__name__ in (
        "ReadSubprocessPipeProto",
        "WriteSubprocessPipeProto",
    )


def _carrier(transport: Any) -> Any:
    """Return the transport below a TLS one of uvloop's, which is what the window lists."""
    if type(transport).__name__ != "_SSLProtocolTransport":
        return transport
    for protocol in gc.get_referents(transport):
        if type(protocol).__name__ == "SSLProtocol":
            for held in gc.get_referents(protocol):
                if type(held).__name__ in ("TCPTransport", "UnixTransport"):
                    return held
    return transport


def _server(transport: Any) -> Any:
    """Return the server that accepted a connection, None if it was none."""
    if transport is None or hasattr(transport, "_server"):
        return getattr(transport, "_server", None)
    # uvloop's: hidden in a C field.
    return next((h for h in gc.get_referents(transport) if type(h).__name__ == "Server"), None)


def _open(transport: Any) -> bool:
    if _is_process(transport):
        if transport.get_returncode() is None:
            return not transport.is_closing()
        return bool(children.pipes(transport))
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
