"""Shared memory that is open or still has its name."""

from __future__ import annotations

from typing import Any

KIND = "shared-memory"

SUITE = """
from multiprocessing.shared_memory import SharedMemory

import pytest


@pytest.fixture
def block():
    return SharedMemory(create=True, size=64)  # born


def test_block(block):
    pass


def test_clean_unlinked():
    block = SharedMemory(create=True, size=64)
    block.close()
    block.unlink()
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_block": {
        "label": "SharedMemory",
        "owner": "fixture 'block' (function)",
        "facts": {"block": r"\d+ bytes", "name": "still exists"},
        "fix": "unlink",
    },
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
