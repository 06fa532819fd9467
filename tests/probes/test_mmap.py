"""Memory maps that are still mapped."""

from __future__ import annotations

from typing import Any

KIND = "mmap"

SUITE = """
import mmap

import pytest


@pytest.fixture
def anonymous():
    return mmap.mmap(-1, 4096)


def test_anonymous(anonymous):
    pass


@pytest.fixture
def of_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 4096)
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def test_of_file(of_file):
    pass


def test_clean_with():
    with mmap.mmap(-1, 4096):
        pass


def test_clean_of_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 4096)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        pass
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_anonymous": {
        "label": "mmap",
        "owner": "test_anonymous",
        "born": False,
        "facts": {"size": "4096 bytes", "origin": "not known"},
    },
    "test_of_file": {
        "label": "mmap",
        "owner": "test_of_file",
        "born": False,
        "facts": {"maps": "test_of_file0/a"},
    },
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
