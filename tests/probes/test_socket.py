"""Sockets that are still open."""

from __future__ import annotations

from typing import Any

KIND = "socket"

SUITE = """
import _socket
import socket

import pytest


@pytest.fixture
def tcp():
    return socket.socket()  # born


def test_tcp(tcp):
    pass


@pytest.fixture
def listening():
    return socket.create_server(("127.0.0.1", 0))  # born


def test_listening(listening):
    pass


@pytest.fixture
def udp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # born
    sock.bind(("127.0.0.1", 0))
    return sock


def test_udp(udp):
    pass


@pytest.fixture
def unix(tmp_path):
    sock = socket.socket(socket.AF_UNIX)  # born
    sock.bind(str(tmp_path / "s"))
    sock.listen()
    return sock


def test_unix(unix):
    pass


@pytest.fixture
def pair():
    return socket.socketpair()  # born


def test_pair(pair):
    pass


def test_detached():
    sock = socket.socket()  # born
    sock.detach()


@pytest.fixture
def of_c_code():
    return _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)


def test_of_c_code(of_c_code):
    pass


def test_in_a_cycle():
    cycle = [socket.socket()]  # born
    cycle.append(cycle)


def test_clean_with():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            server.accept()[0].close()


def test_clean_closed():
    for sock in socket.socketpair():
        sock.close()


def test_clean_makefile():
    left, right = socket.socketpair()
    file = left.makefile("rwb")
    left.close()
    right.close()
    file.close()


def test_clean_detached_and_adopted():
    sock = socket.socket()
    socket.socket(fileno=sock.detach()).close()
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_tcp": {
        "label": "tcp",
        "subject": "socket tcp, not connected",
        "owner": "fixture 'tcp' (function)",
        "fix": "close",
    },
    "test_listening": {
        "label": "tcp-listening",
        "subject": r"listening on 127\.0\.0\.1:\d+",
        "owner": "fixture 'listening' (function)",
    },
    "test_udp": {
        "label": "udp",
        "subject": r"udp 127\.0\.0\.1:\d+",
        "owner": "fixture 'udp' (function)",
    },
    "test_unix": {"label": "unix-listening", "owner": "fixture 'unix' (function)"},
    "test_pair": {"label": "unix-pair", "count": 2, "owner": "fixture 'pair' (function)"},
    "test_detached": {"label": "tcp", "facts": {"object": "none"}},
    "test_of_c_code": {"label": "tcp", "born": False, "facts": {"object": "none"}},
    "test_in_a_cycle": {"label": "tcp", "certainty": "proven"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
