"""What a file descriptor is."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tightship.explain.fds import classify, describe_socket, identity


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A tcp socket that listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        yield sock


def kind(fd: int) -> str:
    """Return the kind of an open descriptor."""
    info = classify(fd)
    assert info is not None
    return info.kind


def test_a_listening_socket_has_an_address(listener: socket.socket) -> None:
    """Family, type and state are told as well."""
    info = classify(listener.fileno())
    assert info is not None
    port = listener.getsockname()[1]
    assert (info.kind, info.family, info.type) == ("socket", "AF_INET", "SOCK_STREAM")
    assert (info.local, info.peer, info.listening) == (f"127.0.0.1:{port}", "", True)
    assert describe_socket(listener) == f"tcp listening on 127.0.0.1:{port}"


def test_a_connection_has_two_addresses(listener: socket.socket) -> None:
    """Ours first."""
    with closing(socket.create_connection(listener.getsockname())) as sock:
        own, port = sock.getsockname()[1], listener.getsockname()[1]
        assert describe_socket(sock) == f"tcp 127.0.0.1:{own} -> 127.0.0.1:{port}"
        assert describe_socket(sock.fileno()) == describe_socket(sock)


def test_a_connection_whose_peer_has_closed_says_so(listener: socket.socket) -> None:
    """A frequent reason for a leak: nobody reads the end of the stream."""
    with closing(socket.create_connection(listener.getsockname())) as sock:
        listener.accept()[0].close()
        sock.settimeout(30)
        assert sock.recv(1) == b""
        assert describe_socket(sock).endswith(", closed by its peer")


def test_an_unconnected_tcp_socket_says_so() -> None:
    """Bound or not."""
    with closing(socket.socket()) as sock:
        assert describe_socket(sock) == "tcp, not connected"
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert describe_socket(sock) == f"tcp bound to 127.0.0.1:{port}, not connected"


def test_udp_sockets_have_their_address() -> None:
    """Once they are bound, and that of the peer if there is one."""
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as sock:
        assert describe_socket(sock) == "udp, not bound"
        sock.bind(("127.0.0.1", 0))
        own = f"udp 127.0.0.1:{sock.getsockname()[1]}"
        assert describe_socket(sock) == own
        sock.connect(("127.0.0.1", 9))
        assert describe_socket(sock) == f"{own} -> 127.0.0.1:9"


def test_ipv6_addresses_are_in_brackets() -> None:
    """So that the port can be told."""
    try:
        sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with sock:
        assert describe_socket(sock) == f"tcp listening on [::1]:{sock.getsockname()[1]}"


def test_unix_sockets_have_their_path(tmp_path: Path) -> None:
    """The listener, its client and the accepted end."""
    path = str(tmp_path / "s")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(path)
        server.listen()
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(path)
            with closing(server.accept()[0]) as accepted:
                assert describe_socket(server) == f"unix listening on {path}"
                assert describe_socket(client) == f"unix -> {path}"
                assert describe_socket(accepted) == f"unix {path} (accepted)"


def test_a_socketpair_is_named_as_one() -> None:
    """It has no addresses."""
    a, b = socket.socketpair()
    with a, b:
        assert describe_socket(a) == "unix socketpair"


def test_a_closed_socket_is_called_closed() -> None:
    """Neither an error nor somebody else's socket."""
    sock = socket.socket()
    sock.close()
    assert describe_socket(sock) == "closed socket"


def test_an_object_that_only_claims_to_be_a_socket_is_called_closed() -> None:
    """Whatever its fileno() does."""

    class Hostile:
        def fileno(self) -> int:
            raise RuntimeError

    assert describe_socket(Hostile()) == "closed socket"
    assert describe_socket(object()) == "closed socket"


def test_looking_at_a_socket_does_not_close_it(listener: socket.socket) -> None:
    """Nor does it leave a descriptor open."""
    before = os.listdir("/dev/fd")
    classify(listener.fileno())
    describe_socket(listener)
    assert os.listdir("/dev/fd") == before
    assert listener.getsockname()[1]


def test_looking_at_a_socket_does_not_change_its_mode(listener: socket.socket) -> None:
    """Not even with a default timeout, which makes new socket objects non-blocking."""
    socket.setdefaulttimeout(5)
    try:
        describe_socket(listener)
    finally:
        socket.setdefaulttimeout(None)
    assert not fcntl.fcntl(listener, fcntl.F_GETFL) & os.O_NONBLOCK


def test_looking_at_a_socket_makes_no_python_socket(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patched socket.socket sees no birth."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket.socket, "__init__", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    assert describe_socket(listener.fileno()).startswith("tcp listening on ")


def test_a_file_has_its_path_and_mode(tmp_path: Path) -> None:
    """As it was opened."""
    path = tmp_path / "f"
    with path.open("w") as file:
        info = classify(file.fileno())
    assert info is not None
    assert (info.kind, info.mode) == ("file", "w")
    if sys.platform == "linux":
        assert info.target == str(path)


def test_the_ends_of_a_pipe_differ_by_their_mode() -> None:
    """One reads, one writes."""
    r, w = os.pipe()
    infos = classify(r), classify(w)
    os.close(r)
    os.close(w)
    assert [(i.kind, i.mode) for i in infos if i is not None] == [("pipe", "r"), ("pipe", "w")]


def test_directories_ttys_and_devices_are_told_apart(tmp_path: Path) -> None:
    """By their file type."""
    fds = [
        os.open(tmp_path, os.O_RDONLY),
        os.open(os.devnull, os.O_RDONLY),
        *pty.openpty(),
    ]
    kinds = [kind(fd) for fd in fds]
    for fd in fds:
        os.close(fd)
    assert kinds[:2] == ["dir", "device"]
    assert kinds[-1] == "tty"


@pytest.mark.skipif(sys.platform != "linux", reason="anonymous inodes are Linux's")
def test_anonymous_inodes_are_told_apart() -> None:
    """All have file type 0 and the same inode: the link tells."""
    poll = select.epoll()
    fds = {
        "epoll": os.dup(poll.fileno()),
        "eventfd": os.eventfd(0),
        "pidfd": os.pidfd_open(os.getpid()),
        "memfd": os.memfd_create("x"),
    }
    poll.close()
    if hasattr(os, "timerfd_create"):
        fds["timerfd"] = os.timerfd_create(0)
    kinds = [kind(fd) for fd in fds.values()]
    for fd in fds.values():
        os.close(fd)
    assert kinds == list(fds)


def test_a_closed_descriptor_is_nothing() -> None:
    """No identity, no description."""
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    assert identity(r) is None
    assert classify(r) is None
    assert classify(-1) is None


def test_the_identity_tells_two_pipes_apart() -> None:
    """Even under the same number."""
    r, w = os.pipe()
    first = identity(r)
    other_r, other_w = os.pipe()
    os.dup2(other_r, r)
    second = identity(r)
    for fd in (r, w, other_r, other_w):
        os.close(fd)
    assert first != second
