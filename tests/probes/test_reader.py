"""Descriptors that a loop still watches."""

from __future__ import annotations

from typing import Any

KIND = "reader"

SUITE = """
import asyncio
import socket

import pytest


def on_ready():
    pass


@pytest.fixture
def pair():
    pair = socket.socketpair()
    yield pair
    for sock in pair:
        sock.close()


async def test_reader(pair):
    asyncio.get_running_loop().add_reader(pair[0], on_ready)  # born


async def test_writer(pair):
    asyncio.get_running_loop().add_writer(pair[0], on_ready)  # born


async def test_clean_removed(pair):
    loop = asyncio.get_running_loop()
    loop.add_reader(pair[0], on_ready)
    loop.add_writer(pair[0], on_ready)
    loop.remove_reader(pair[0])
    loop.remove_writer(pair[0])


async def test_clean_sock_recv(pair):
    for sock in pair:
        sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(pair[0], b"x")
    assert await loop.sock_recv(pair[1], 1) == b"x"
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_reader": {
        "label": "on_ready",
        "born": False,
        "facts": {"watches": "socket"},
        "fix": "remove_reader",
    },
    "test_writer": {"label": "on_ready", "born": False, "fix": "remove_writer"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
