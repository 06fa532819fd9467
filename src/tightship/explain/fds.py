"""What a file descriptor is, and what a socket is connected to.

Nothing here closes, reads or changes the descriptor it looks at.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

__all__ = ["FdInfo", "classify", "describe_socket", "identity"]

_ANON = {
    "[eventpoll]": "epoll",
    "[eventfd]": "eventfd",
    "[timerfd]": "timerfd",
    "[signalfd]": "signalfd",
    "inotify": "inotify",
    "[io_uring]": "io_uring",
    "[pidfd]": "pidfd",
}

#: ``tcpi_state``, the first byte of TCP_INFO: the other side has closed, we have not.
_CLOSE_WAIT = 8


@dataclass(frozen=True, slots=True)
class FdInfo:
    """One open file descriptor, in words and numbers."""

    fd: int
    kind: str
    """socket, file, pipe, epoll, eventfd, timerfd, signalfd, inotify, memfd, io_uring,
    pidfd, dir, tty, device or other."""
    target: str
    """What the link under /proc says; empty if that cannot be read."""
    identity: tuple[int, int, int]
    """(device, inode, file type). All anonymous inodes (file type 0) share one inode: for
    these it says only that the number is still open."""
    mode: str = ""
    """``r``, ``w`` or ``rw``."""
    family: str = ""
    """Sockets only: ``AF_INET`` ..."""
    type: str = ""
    """Sockets only: ``SOCK_STREAM`` ..."""
    local: str = ""
    peer: str = ""
    """Sockets only: addresses as text, empty if there is none."""
    listening: bool = False


def identity(fd: int) -> tuple[int, int, int] | None:
    """Return what the number points to now, or None if it is closed. See `FdInfo.identity`."""
    try:
        found = os.fstat(fd)
    except (OSError, OverflowError, TypeError, ValueError):
        return None
    return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)


def classify(fd: int) -> FdInfo | None:
    """Describe an open descriptor, or return None if it is closed. Never raises."""
    ident = identity(fd)
    if ident is None:
        return None
    target = _link(fd)
    kind = _kind(fd, ident[2], target)
    info = FdInfo(fd, kind, target, ident, _mode(fd))
    if kind != "socket":
        return info
    seen = _look(fd)
    if seen is None:
        return info
    return FdInfo(
        fd,
        kind,
        target,
        ident,
        info.mode,
        seen.family,
        seen.type,
        seen.local,
        seen.peer,
        seen.listening,
    )


def _link(fd: int) -> str:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return os.readlink(f"{folder}/{fd}")
        except OSError:
            continue
    return ""


def _kind(fd: int, form: int, target: str) -> str:
    if target.startswith("anon_inode:"):
        return _ANON.get(target.removeprefix("anon_inode:"), "other")
    if target.startswith("pidfd:"):  # pidfs, Linux 6.9
        return "pidfd"
    if form == stat.S_IFSOCK:
        return "socket"
    if form == stat.S_IFIFO:
        return "pipe"
    if form == stat.S_IFDIR:
        return "dir"
    if form == stat.S_IFREG:
        return "memfd" if target.startswith("/memfd:") else "file"
    if form == stat.S_IFCHR:
        return "tty" if os.isatty(fd) else "device"
    return "device" if form == stat.S_IFBLK else "other"


def _mode(fd: int) -> str:
    try:
        import fcntl

        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except (ImportError, OSError, AttributeError):
        return ""
    return {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}.get(access, "")


@dataclass(slots=True)
class _Socket:
    family: str
    type: str
    local: str
    peer: str
    listening: bool
    connected: bool
    """True also for a pair without names, whose addresses are empty."""
    abandoned: bool
    """The other side has closed its end."""


def _look(fd: int) -> _Socket | None:
    # The C type, so that neither our own birth notes nor a test's fake socket.socket see
    # it; on a duplicate, since closing the object must not close the descriptor.
    import _socket

    copy = -1
    try:
        copy = os.dup(fd)
        flags = _flags(copy)
        sock = _socket.socket(fileno=copy)
    except (OSError, ValueError, OverflowError, TypeError):
        if copy >= 0:
            os.close(copy)
        return None
    try:
        # With socket.setdefaulttimeout() in force a new socket object switches O_NONBLOCK
        # on, which both descriptors share.
        if flags is not None and flags != _flags(copy):
            _flags(copy, flags)
        return _read(sock)
    except (OSError, ValueError):
        return None
    finally:
        sock.close()


def _flags(fd: int, new: int | None = None) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    if new is None:
        return fcntl.fcntl(fd, fcntl.F_GETFL)
    return fcntl.fcntl(fd, fcntl.F_SETFL, new)


def _read(sock: Any) -> _Socket:
    import _socket

    def option(name: str) -> int:
        number = getattr(_socket, name, None)
        try:
            return int(sock.getsockopt(_socket.SOL_SOCKET, number)) if number is not None else 0
        except OSError:
            return 0

    try:
        peer, connected = sock.getpeername(), True
    except OSError:
        peer, connected = None, False
    abandoned = False
    if connected and hasattr(_socket, "TCP_INFO") and _tcp(sock):
        try:
            info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, 1)
            abandoned = bool(info) and info[0] == _CLOSE_WAIT
        except OSError:
            pass
    return _Socket(
        _name("AF_", sock.family),
        _name("SOCK_", sock.type),
        _address(sock.getsockname()),
        _address(peer),
        bool(option("SO_ACCEPTCONN")),
        connected,
        abandoned,
    )


def _tcp(sock: Any) -> bool:
    import _socket

    return sock.type == _socket.SOCK_STREAM and sock.family in (_socket.AF_INET, _socket.AF_INET6)


def _name(prefix: str, number: int) -> str:
    import _socket

    return next(
        (k for k, v in vars(_socket).items() if k.startswith(prefix) and v == number),
        f"{prefix}{number}",
    )


def _address(address: object) -> str:
    if isinstance(address, bytes):  # Linux's abstract unix names begin with a NUL
        return address.replace(b"\0", b"@", 1).decode("utf-8", "backslashreplace")
    if isinstance(address, str):
        return address
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if isinstance(host, str) and ":" in host else f"{host}:{port}"
    return "" if address is None else str(address)


def describe_socket(sock: Any) -> str:
    """Return what a socket (object or number) is, and between which addresses, in one line.

    ``tcp 127.0.0.1:53122 -> 127.0.0.1:5432``, ``udp 0.0.0.0:5353``, ``unix socketpair``.
    Never raises; a closed socket is called so.
    """
    try:
        fd = sock if isinstance(sock, int) else sock.fileno()
    except Exception:  # any object may claim to be a socket
        fd = -1
    if not isinstance(fd, int) or identity(fd) is None:
        return "closed socket"
    seen = _look(fd)
    return "socket" if seen is None else _words(seen)


def _words(seen: _Socket) -> str:
    if seen.family in ("AF_INET", "AF_INET6"):
        name = {"SOCK_STREAM": "tcp", "SOCK_DGRAM": "udp", "SOCK_RAW": "raw ip"}.get(
            seen.type, seen.type
        )
        bound = bool(seen.local) and not seen.local.endswith(":0")
    elif seen.family == "AF_UNIX":
        name, bound = "unix", bool(seen.local)
        if seen.connected and not seen.local and not seen.peer:
            return "unix socketpair"
    else:
        name, bound = seen.family.removeprefix("AF_").lower(), bool(seen.local)
    if seen.listening:
        return f"{name} listening on {seen.local or 'no address'}"
    if seen.connected:
        left = f"{seen.local} " if seen.local else ""
        right = f"-> {seen.peer}" if seen.peer else "(accepted)"
        return f"{name} {left}{right}" + (", closed by its peer" if seen.abandoned else "")
    if seen.type == "SOCK_STREAM":
        return f"{name} bound to {seen.local}, not connected" if bound else f"{name}, not connected"
    return f"{name} {seen.local}" if bound else f"{name}, not bound"
