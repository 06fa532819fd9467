"""Pipes that are still open."""

from __future__ import annotations

from typing import Any

KIND = "pipe"

SUITE = """
import os
import subprocess

import pytest


def test_one_end():
    read, write = os.pipe()  # born
    os.close(read)


def test_fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)  # born


def test_clean_closed():
    for fd in os.pipe():
        os.close(fd)


def test_clean_fdopen():
    read, write = os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(write, "wb"):
        pass


def test_clean_output_of_a_process():
    assert subprocess.run(["echo", "x"], capture_output=True, check=True).stdout == b"x\\n"
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_one_end": {"label": "write-end", "subject": "write end", "facts": {"points to": "pipe:"}},
    "test_fifo": {"label": "read-end", "facts": {"points to": "fifo"}},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
